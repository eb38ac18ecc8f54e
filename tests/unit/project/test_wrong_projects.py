"""Every mistake is told in one go, with file, line and key, in words that say what to do.

wrong_projects.txt is what users read; a reviewer reads it too. It is written anew when LAKELOOP_WRITE_EXPECTED=1.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.binding import bind
from lakeloop.lakehouse.project.parsing import parse_project
from lakeloop.tests.unit.project.projects import changed, flights
from lakeloop.tests.unit.project.wrong import WRONG

EXPECTED = Path(__file__).with_name("wrong_projects.txt")


def told(title: str) -> str:
    with pytest.raises(Invalid) as error:
        bind(parse_project(changed(flights().files, WRONG[title])))
    return str(error.value)


def expected() -> dict[str, str]:
    sections = EXPECTED.read_text(encoding="utf-8").split("\n## ")[1:]
    return {title: body.strip() for title, _, body in (section.partition("\n") for section in sections)}


@pytest.mark.parametrize("title", WRONG)
def test_a_wrong_project_is_told_what_is_wrong_and_where(title: str) -> None:
    assert told(title) == expected()[title]


def test_every_expected_message_belongs_to_a_wrong_project() -> None:
    assert list(expected()) == list(WRONG)


def test_no_message_is_long_or_shows_a_traceback() -> None:
    for title, message in expected().items():
        for line in message.split("\n"):
            assert len(line) <= 250, title
            assert "Error" not in line, title
            assert "Traceback" not in line, title


if os.environ.get("LAKELOOP_WRITE_EXPECTED"):
    EXPECTED.write_text(
        "What a user is told. Each section is one change to examples/flights (wrong.py).\n\n"
        + "".join(f"## {title}\n{told(title)}\n\n" for title in WRONG),
        encoding="utf-8",
    )
