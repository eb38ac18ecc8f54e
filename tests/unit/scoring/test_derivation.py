"""derive() over a table: called seldom, and never with another outcome than calling it for every row."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.derivation import derive_columns, typed_list
from lakeloop.lakehouse.scoring.signature import Input, Signature

START = datetime(2013, 7, 1, tzinfo=UTC)
INPUTS = (
    Input("kind", "request", "category", "category"),
    Input("when", "request", "timestamp", "timestamp", column=False),
    Input("x", "request", "float32", "number"),
    Input("n", "feature", "int64", "integer"),
    Input("made", "derived", "float64", "number"),
)
SIGNATURE = Signature("regression", INPUTS, derive=True)


def table(rows):
    return pa.table(
        {
            "kind": pa.array([row[0] for row in rows], pa.string()),
            "when": pa.array(
                [None if row[1] is None else START + timedelta(hours=row[1]) for row in rows], pa.timestamp("us", "UTC")
            ),
            "x": pa.array([row[2] for row in rows], pa.float64()),
            "n": pa.array([row[3] for row in rows], pa.int64()),
        }
    )


def by_branches(row):
    """Reads other columns depending on what it finds."""
    if row["kind"] == "a":
        return {"made": row["n"]}
    if row.get("kind") == "b" and row["when"] is not None:
        return {"made": row["when"].hour + (row["x"] or 0.0)}
    return {"made": None if "nothing" in row else 1}


def by_all(row):
    return {"made": sum(isinstance(value, str) for value in {**row}.values())}


def by_items(row):
    return {"made": len([name for name, value in row.items() if value is not None])}


def by_copy(row):
    row = dict(row) | {"more": 1}
    row["x"] = 3
    return {"made": len(row) + row["x"]}


def by_popping(row):
    return {"made": row.pop("n", None), "x": row.setdefault("x", 0)}


ROWS = st.tuples(
    st.none() | st.sampled_from(["a", "b", "c"]),
    st.none() | st.integers(0, 3),
    st.none() | st.sampled_from([0.0, 1.5]),
    st.none() | st.integers(0, 2),
)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(ROWS, max_size=25), derive=st.sampled_from([by_branches, by_all, by_items, by_copy, by_popping]))
def test_a_table_is_derived_as_if_row_by_row(rows, derive):
    given_table = table(rows)
    names = given_table.column_names
    lists = [typed_list(given_table[name], one.kind) for name, one in zip(names, INPUTS, strict=False)]
    plain = [derive(dict(zip(names, values, strict=True)))["made"] for values in zip(*lists, strict=True)]
    assert derive_columns(derive, SIGNATURE, given_table)["made"].to_pylist() == plain


def test_derive_is_called_once_for_each_combination_of_what_it_reads():
    calls = []

    def derive(row):
        calls.append(1)
        return {"made": row["when"].hour}

    rows = [("a", at % 5, float(at), at) for at in range(1000)]
    made = derive_columns(derive, SIGNATURE, table(rows))["made"].to_pylist()
    assert made == [at % 5 for at in range(1000)]
    assert len(calls) == 6  # one to find out what it reads, five for the five hours


def test_derive_may_read_as_of():
    rows = table([("a", 1, 1.0, 1)] * 3)
    moments = [START + timedelta(minutes=at) for at in range(3)]
    rows = rows.append_column("as_of", pa.array(moments, pa.timestamp("us", "UTC")))
    made = derive_columns(lambda row: {"made": row["as_of"].minute}, SIGNATURE, rows)
    assert made["made"].to_pylist() == [0, 1, 2]


def test_a_derived_column_that_is_there_is_replaced_in_place():
    rows = table([("a", 1, 1.0, 1)]).append_column("made", pa.array([9.0]))
    assert derive_columns(by_branches, SIGNATURE, rows)["made"].to_pylist() == [1.0]


def test_an_unknown_column_is_a_key_error_of_the_users_and_names_the_row():
    with pytest.raises(Invalid, match=r"row 0: derive.. raised KeyError: 'nope'"):
        derive_columns(lambda row: {"made": row["nope"]}, SIGNATURE, table([("a", 1, 1.0, 1)]))


def test_the_row_that_fails_is_named():
    rows = [("a", 1, 1.0, 1)] * 5 + [("b", None, None, None)]
    with pytest.raises(Invalid, match=r"row 5: derive.. raised TypeError"):
        derive_columns(lambda row: {"made": row["n"] + 1}, SIGNATURE, table(rows))


def test_columns_come_in_the_types_a_request_has():
    assert typed_list(pa.chunked_array([pa.array([date(2013, 7, 1)])]), "timestamp") == [START]
    assert typed_list(pa.chunked_array([pa.array([START.replace(tzinfo=None)])]), "timestamp") == [START]
    assert typed_list(pa.chunked_array([["2013-07-01", None]]), "timestamp") == [START, None]
    assert typed_list(pa.chunked_array([[1.0, None, float("nan")]]), "number") == [1.0, None, None]
    assert typed_list(pa.chunked_array([[1.0, None]]), "integer") == [1, None]
    assert typed_list(pa.chunked_array([[1, 2]]), "category") == ["1", "2"]
    assert typed_list(pa.chunked_array([[1, 0, None]]), "bool") == [True, False, None]
