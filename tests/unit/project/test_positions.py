"""The scanner finds the line of every key that tomllib finds."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from lakeloop.lakehouse.project.positions import Path, line_numbers
from lakeloop.tests.unit.project.projects import flights

HARD = (
    """\
# [not.a.table]
title = "a = b # no comment"
"quoted key" = 1   # ] }
dotted.key.'of three' = 'it"""
    + """'
[table]
list = [ 1, # one ]
  [2, 3],
  { a = "}", b = ["]", "]"] },
]
multi = \"\"\"
[fake]
key = 1 \\\"\"\"
"quoted" \"\"\"\"
literal = '''
[[fake]]
'''
when = 1979-05-27 07:32:00Z
time = 07:32:00
number = 1_000.5e-3
[[array]]
x = 1
[array.deep]
y = 2
[[array]]
[[array.inner]]
z = 3
[table.below]
after = true
"""
)


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every path of a parsed document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, element in entries:
        yield (*path, key)
        yield from paths(element, (*path, key))


HARD = HARD.replace("'it'", "'it'", 1)


@pytest.mark.parametrize("text", [HARD, *(t for p, t in flights().files.items() if p.endswith(".toml"))])
def test_every_key_that_is_parsed_has_a_line(text: str) -> None:
    assert set(paths(tomllib.loads(text))) == set(line_numbers(text))


def test_a_key_stands_on_the_line_where_it_is_written() -> None:
    lines = HARD.split("\n")
    found = line_numbers(HARD)
    for path in [("table", "list"), ("table", "when"), ("array", 0, "deep", "y"), ("array", 1, "inner", 0, "z")]:
        assert lines[found[path] - 1].startswith(str(path[-1]))
    assert lines[found["table", "list", 2, "b"] - 1].startswith("  { a")
    assert found["array", 1] == found["array", 0] + 4


def test_line_ends_of_windows_count_once() -> None:
    assert line_numbers("a = 1\r\nb = 2\r\n[c]\r\nd = 3\r\n") == {("a",): 1, ("b",): 2, ("c",): 3, ("c", "d"): 4}
