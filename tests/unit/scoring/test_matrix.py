"""The encoder: known codes, and a table and its rows give the same matrix bit for bit."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.matrix import Encoder, Matrix, category_text
from lakeloop.lakehouse.scoring.signature import Input

WORDS = ("", "a", "A", "é", "1", "1.5", "true")
INPUTS = (
    Input("c", "request", "category", "category", categories=("a", "A", "1", "true")),
    Input("x", "request", "float32", "number"),
    Input("i", "request", "int64", "integer"),
    Input("b", "request", "bool", "bool"),
    Input("t", "request", "string", "string", column=False),
)
ROWS = st.fixed_dictionaries(
    {
        "c": st.none() | st.sampled_from(WORDS),
        "x": st.none() | st.floats(width=64),
        "i": st.none() | st.integers(-(2**53), 2**53),
        "b": st.none() | st.booleans(),
        "t": st.none() | st.sampled_from(WORDS),
    }
)
TYPES = {"c": pa.string(), "x": pa.float64(), "i": pa.int64(), "b": pa.bool_(), "t": pa.string()}


def table_of(rows, chunks=1):
    table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()})
    step = max(1, len(rows) // chunks)
    return pa.concat_tables([table.slice(at, step) for at in range(0, len(rows), step)] or [table])


@settings(deadline=None, max_examples=200)
@given(rows=st.lists(ROWS, max_size=12), chunks=st.integers(1, 3))
def test_a_table_and_its_rows_give_the_same_matrix(rows, chunks):
    encoder = Encoder(INPUTS)
    by_table, by_rows = encoder.of_table(table_of(rows, chunks)), encoder.of_rows(rows)
    assert by_table.names == by_rows.names == ("c", "x", "i", "b")
    assert by_table.values.dtype == by_rows.values.dtype == np.float32
    assert by_table.values.tobytes() == by_rows.values.tobytes()


def test_a_row_is_encoded_as_written_in_the_module():
    row = {"c": "A", "x": 1.5, "i": 7, "b": True, "t": "left out"}
    assert Encoder(INPUTS).of_rows([row]).values.tolist() == [[1.0, 1.5, 7.0, 1.0]]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_finite_number_is_absent(value):
    encoder = Encoder(INPUTS)
    row = {"c": "never seen", "x": value, "i": None, "b": None, "t": None}
    assert np.isnan(encoder.of_rows([row]).values).all()
    assert np.isnan(encoder.of_table(table_of([row])).values).all()


def test_a_category_may_be_stored_in_any_type():
    encoder = Encoder((Input("c", "request", "category", "category", categories=("1", "2", "true", "1.5")),))
    for column in (
        pa.array(["2", "1"]).dictionary_encode(),
        pa.array([2, 1], pa.int8()),
        pa.array([2.0, 1.0]),
        pa.array(["2", "1"], pa.large_string()),
    ):
        assert encoder.of_table(pa.table({"c": column})).values.tolist() == [[1.0], [0.0]]
    assert encoder.of_table(pa.table({"c": [True]})).values.tolist() == [[2.0]]
    assert encoder.of_table(pa.table({"c": [1.5]})).values.tolist() == [[3.0]]


def test_the_text_of_a_category_is_the_same_from_json_sql_and_python():
    assert [category_text(value) for value in ("x", True, np.bool_(False), 3, 3.0, np.float64(3), 1.5)] == [
        "x", "true", "false", "3", "3", "3", "1.5",
    ]  # fmt: skip


def test_decimals_and_columns_of_nulls_are_numbers():
    encoder = Encoder((Input("x", "feature", "float64", "number"), Input("y", "feature", "float64", "number")))
    table = pa.table({"x": pa.array([Decimal("1.25")]), "y": pa.nulls(1)})
    assert encoder.of_table(table).values.tolist()[0][0] == 1.25


def test_a_missing_column_is_named():
    with pytest.raises(Invalid, match="no column i, x"):
        Encoder(INPUTS).of_table(table_of([]).drop_columns(["x", "i"]))


def test_a_column_of_texts_is_no_number():
    with pytest.raises(Invalid, match="x is string"):
        Encoder(INPUTS[1:2]).of_table(pa.table({"x": ["1"]}))


def test_the_frame_has_the_whole_vocabulary_whatever_came():
    frame = Encoder(INPUTS).of_rows([{"c": "a"}, {"c": None}]).frame()
    assert frame["c"].cat.categories.tolist() == ["a", "A", "1", "true"]
    assert frame["c"].cat.codes.tolist() == [0, -1]
    assert frame["x"].dtype == np.float32


def test_a_frame_of_no_rows_still_has_its_types():
    frame = Encoder(INPUTS).of_rows([]).frame()
    assert (len(frame), frame["c"].cat.categories.size, frame["x"].dtype) == (0, 4, np.float32)


def test_stacked_matrices_have_the_rows_of_all():
    encoder = Encoder(INPUTS)
    one, two = encoder.of_rows([{"x": 1}]), encoder.of_rows([{"x": 2}, {"x": 3}])
    assert Matrix.stack([one, two]).values[:, 1].tolist() == [1, 2, 3]
    assert two.take(np.array([False, True])).values[:, 1].tolist() == [3]
