"""Whatever stands as a value, a user is told, with file and line, or it is accepted: nothing else is ever raised."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.binding import bind
from lakeloop.lakehouse.project.parsing import parse_project
from lakeloop.tests.unit.project.projects import flights

ODD = [
    *(
        "1",
        "-1",
        "0",
        "1.5",
        "-0.0",
        "nan",
        "inf",
        "true",
        "false",
        '""',
        '"x"',
        '"*"',
        '"é;\'"',
        "1979-05-27",
        "12:00:00",
    ),
    *(
        "[]",
        "{}",
        "[1]",
        '["x"]',
        "[[]]",
        "[{}]",
        "{ a = 1 }",
        '{ type = "x" }',
        '{ view = "x" }',
        "{ a = { b = [] } }",
    ),
    *('[""]', "[true]", "[1979-05-27]", '{ "" = 1 }', "99999999999999999999", '"99999999999d"', '"0s"', '"a\\nb"'),
]
FILES = flights().files
VALUE = re.compile(r"(?m)^((?:-- )?[a-z_]+ *= ).*$")
PLACES = [
    (path, found.start(), found.end(), found.group(1))
    for path, text in sorted(FILES.items())
    if path.endswith(".toml") or path.startswith(("features/", "reports/"))
    for found in VALUE.finditer(text)
]


def told(path: str, start: int, end: int, key: str, odd: str) -> list[str]:
    """What is said about the example with this value at this place."""
    text = FILES[path]
    try:
        bind(parse_project({**FILES, path: text[:start] + key + odd + text[end:]}))
    except Invalid as error:
        return error.problems
    return []


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(PLACES), st.sampled_from(ODD))
def test_an_odd_value_is_accepted_or_told(place: tuple[str, int, int, str], odd: str) -> None:
    for line in told(*place, odd):
        assert re.match(r"[a-z_/]+\.(toml|sql|py)(:\d+)?: \S", line), line
        assert "\n" not in line
