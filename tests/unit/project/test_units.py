"""Durations, sizes and types, as properties."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeloop.lakehouse.project.definitions import INT_TYPES
from lakeloop.lakehouse.project.documents import did_you_mean
from lakeloop.lakehouse.project.units import format_duration, parse_duration, parse_size, parse_type

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@given(st.integers(0, 5000), st.sampled_from(sorted(UNITS)))
def test_a_duration_is_its_count_times_its_unit(count: int, unit: str) -> None:
    assert parse_duration(f"{count}{unit}").total_seconds() == pytest.approx(count * UNITS[unit])


@given(st.integers(0, 10**12))
def test_a_duration_that_was_written_is_read_as_the_same(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(max_size=8))
def test_any_other_text_is_no_duration(text: str) -> None:
    if not any(text.endswith(unit) for unit in UNITS):
        with pytest.raises(ValueError):
            parse_duration(text)


@pytest.mark.parametrize("text", ["", "7", "d7", "-1d", "1.5h", "1 d", "7D", "1d1h", "99999999w", "٣d "])
def test_these_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_sizes_are_binary() -> None:
    assert [parse_size(t) for t in ("512MiB", "1.5GiB", "10 KiB", "7B")] == [512 * 2**20, 3 * 2**29, 10240, 7]
    with pytest.raises(ValueError):
        parse_size("1GB")


@pytest.mark.parametrize(
    ("text", "stored", "nullable"),
    [
        *((name, "BIGINT", False) for name in INT_TYPES),
        ("float32?", "DOUBLE", True),
        ("decimal(10,2)", "DOUBLE", False),
        ("string?", "VARCHAR", True),
        ("json", "VARCHAR", False),
        ("bool", "BOOLEAN", False),
        ("date", "DATE", False),
        ("timestamp?", "TIMESTAMP WITH TIME ZONE", True),
        ("list<string>", "VARCHAR[]", False),
        ("list<list<int8>>", "BIGINT[][]", False),
    ],
)
def test_a_type_is_stored_as_one_of_six(text: str, stored: str, nullable: bool) -> None:
    kind, may_be_null = parse_type(text)
    assert (kind.stored, may_be_null, str(kind)) == (stored, nullable, text.removesuffix("?"))


@pytest.mark.parametrize("text", ["", "int", "int24", "string??", "decimal(2,3)", "list<>", "list<int>", "INT8"])
def test_these_are_no_types(text: str) -> None:
    with pytest.raises(ValueError):
        parse_type(text)


@given(st.lists(st.text("abcdefgh_", min_size=4, max_size=12), min_size=1, max_size=20, unique=True), st.data())
def test_a_known_word_with_one_letter_more_is_never_met_with_silence(known: list[str], data: st.DataObject) -> None:
    word = data.draw(st.sampled_from(known))
    told = did_you_mean(word + "x", known)
    assert told.startswith("; did you mean ")
    assert any(f'"{name}"' in told for name in known)
