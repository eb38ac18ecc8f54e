"""Columns are read as the same rows would be: the same values, the same matrix, the same refusals."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.columns import ColumnReader, plain
from lakeloop.lakehouse.scoring.matrix import Encoder
from lakeloop.lakehouse.scoring.rows import RowReader
from lakeloop.lakehouse.scoring.signature import Input, Signature

INPUTS = (
    Input("any", "request", "float64", "number"),
    Input("share", "request", "float32", "number", range=(0, 1), nullable=False),
    Input("half", "request", "float32", "number", values=(0.5, 1.5)),
    Input("seats", "request", "int16", "integer"),
    Input("day", "request", "int64", "integer", range=(1, 7), nullable=False),
    Input("few", "request", "uint64", "integer", values=(1, 2)),
    Input("wet", "request", "bool", "bool"),
    Input("origin", "request", "category", "category", categories=("EWR", "JFK", "7", "true")),
    Input("known", "request", "category", "category", categories=("a", "b"), unseen="error"),
    Input("named", "request", "category", "category", categories=("1", "b"), values=(1, "b", "c"), nullable=False),
    Input("note", "request", "string", "string", column=False),
    Input("word", "request", "string", "string", column=False, values=("yes", "no")),
    Input("due", "request", "timestamp", "timestamp", column=False),
    Input("temp", "feature", "float64", "number"),
)
ROWS = {one.name: RowReader(Signature("regression", (one,))) for one in INPUTS}
COLUMNS = {name: ColumnReader(Signature("regression", (one,)), ROWS[name]) for one in INPUTS for name in [one.name]}

numbers = st.sampled_from([0, 1, 2, 7, 8, 0.5, 1.5, -1, 32767, 32768, 2**53 + 2, np.nan, np.inf, 1e300, 1.7e12])
columns = st.one_of(
    st.lists(numbers, min_size=1, max_size=5).map(lambda values: np.array(values, np.float64)),
    st.lists(st.sampled_from([0.0, 1.0, 0.5, np.nan]), min_size=1, max_size=5).map(lambda v: np.array(v, np.float16)),
    st.lists(st.sampled_from([0, 1, 2, 7, 300, -(2**63), 2**63 - 1]), min_size=1).map(lambda v: np.array(v, np.int64)),
    st.lists(st.sampled_from([0, 1, 2, 7, 2**64 - 1]), min_size=1).map(lambda v: np.array(v, np.uint64)),
    st.lists(st.sampled_from([0, 1, 2, 7, 200]), min_size=1).map(lambda v: np.array(v, np.uint8)),
    st.lists(st.booleans(), min_size=1).map(lambda v: np.array(v, np.bool_)),
    st.lists(
        st.sampled_from(["EWR", b"JFK", b"a", "1", b"yes", "", None, "é".encode(), "2013-07-01T12:30Z", "0.5", "\0"]),
        min_size=1,
    ),
)


def said(read: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return read(), ""
    except Invalid as error:
        return None, str(error)


@given(name=st.sampled_from(sorted(ROWS)), column=columns)
@settings(max_examples=500, deadline=None)
def test_a_column_is_read_as_its_rows_would_be(name: str, column: Any) -> None:
    (one,) = (one for one in INPUTS if one.name == name)
    rows, refused = said(lambda: ROWS[name].check([{name: plain(value)} for value in column]))
    read, also_refused = said(lambda: COLUMNS[name].read({name: column}, len(column)))
    assert also_refused == refused
    if refused:
        return
    assert np.array_equal(read.matrix.values, Encoder((one,)).of_rows(rows).values, equal_nan=True)
    for value, row in zip(read.values[name], rows, strict=True):
        seen = plain(value)
        assert seen == row[name] or (one.kind == "number" and seen == pytest.approx(row[name]))


def test_a_default_stands_for_a_column_that_is_not_there() -> None:
    inputs = (
        Input("share", "request", "float32", "number", default=0.5),
        Input("origin", "request", "category", "category", categories=("EWR", "JFK"), default="JFK"),
        Input("seats", "request", "int16", "integer"),
    )
    signature = Signature("regression", inputs)
    read = ColumnReader(signature, RowReader(signature)).read({}, 2)
    assert np.array_equal(read.matrix.values, np.array([[0.5, 1, np.nan]] * 2), equal_nan=True)
    assert list(read.values["origin"]) == ["JFK", "JFK"]
    assert "seats" not in read.values


def test_all_that_is_wrong_is_told_by_rows_in_their_order() -> None:
    signature = Signature("regression", INPUTS[1:5])
    reader = ColumnReader(signature, RowReader(signature))
    good = {"share": np.array([0.5] * 3), "day": np.array([1, 2, 3])}
    with pytest.raises(Invalid) as error:
        reader.read({**good, "share": np.array([0.5, 2, np.nan]), "day": np.array([0, 1, 2])}, 3)
    assert str(error.value).splitlines() == [
        "row 0: day: 0 is out of range; allowed is 1 to 7",
        "row 1: share: 2 is out of range; allowed is 0 to 1",
        "row 2: share may not be null",
    ]
    with pytest.raises(Invalid, match="did you mean 'share'") as unknown:
        reader.read({"day": good["day"], "shares": good["share"]}, 3)
    assert unknown.value.problems == ["share is missing"]


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(Invalid, match="not UTF-8"):
        COLUMNS["note"].read({"note": [b"\xff"]}, 1)


def test_moments_are_read_by_the_rule_of_rows() -> None:
    due = datetime(2026, 5, 1, 12, tzinfo=UTC)
    micro = int(due.timestamp() * 1e6)
    assert COLUMNS["due"].read({"due": np.array([micro])}, 1).values["due"] == [due]
    assert COLUMNS["due"].read({"due": [b"2026-05-01T12:00Z", None]}, 2).values["due"] == [due, None]


def test_names_that_are_not_there_are_not_all_looked_up() -> None:
    strange = {f"name {number}": np.zeros(1) for number in range(1000)}
    with pytest.raises(Invalid, match="there is no input 'name 0'") as caught:
        COLUMNS["any"].read(strange, 1)
    assert len(caught.value.problems) == 20
    assert caught.value.problems[-1] == "… and 980 more"
