"""Prediction rows: fixed columns, typed inputs, and the same table at every try."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.prediction_columns import COLUMNS
from lakeloop.lakehouse.project.model_rules import RESERVED_INPUTS
from lakeloop.ray_jobs.serving.prediction_rows import prediction_schema, prediction_table, stored_type
from lakeloop.ray_jobs.serving.write_ahead import (
    Logged,
    LoggedColumns,
    Piece,
    Shape,
    WriteAhead,
    pending,
    read_piece,
    sealed_pieces,
)

AT = datetime(2026, 5, 1, 12, 0, 0, 123_456, UTC)
SHAPE = Shape(
    "flights",
    "late",
    (
        ("share", "float32"),
        ("seats", "int16"),
        ("origin", "category"),
        ("holiday", "bool"),
        ("due", "timestamp"),
        ("model", "string"),
        ("big", "uint64"),
    ),
)
INPUTS = {"share": 1, "seats": 180, "origin": "EWR", "holiday": True, "due": AT, "model": "A320", "big": 2**64 - 1}


def written(tmp_path: Path, inputs: dict[str, object], **row: object) -> Piece:
    own = {
        "id": "UA-1",
        "as_of": AT,
        "prediction": 0.25,
        "decision": "false",
        "scores": None,
        "ages": {"weather": 60.0},
        "absent": ["temp"],
        "given": ["share"],
        "inputs": inputs,
    } | row
    log = WriteAhead(tmp_path)
    log.append(SHAPE, Logged("r1", AT, "late", 3, "champion", 5, 0.4, [own, own]))
    log.close()
    return read_piece(sealed_pieces(tmp_path)[0])


def test_a_row_keeps_its_values_and_types(tmp_path: Path) -> None:
    first, second = prediction_table(written(tmp_path, INPUTS)).to_pylist()
    assert (first["prediction_id"], second["prediction_id"]) == ("r1#0", "r1#1")
    assert first["as_of"] == first["logged_at"] == first["due"] == AT
    assert (first["model"], first["model_input"]) == ("late", "A320")
    assert (first["share"], first["seats"], first["holiday"], first["origin"]) == (1.0, 180, True, "EWR")
    assert first["big"] is None
    assert (first["ages"], first["absent"], first["given"]) == ('{"weather":60.0}', ["temp"], ["share"])
    assert (first["version"], first["revision"], first["arm"], first["latency_ms"]) == (3, 5, "champion", 0.4)


def test_nulls_and_scores_are_kept(tmp_path: Path) -> None:
    nothing = dict.fromkeys(INPUTS)
    row = prediction_table(written(tmp_path, nothing, prediction=0.6, scores=[0.4, 0.6], id=None)).to_pylist()[0]
    assert row["scores"] == [0.4, 0.6]
    assert all(row[name] is None for name in ("share", "seats", "origin", "holiday", "due", "model_input", "id"))


def test_the_same_piece_gives_the_same_bytes(tmp_path: Path) -> None:
    piece = written(tmp_path, INPUTS)

    def data() -> bytes:
        sink = pa.BufferOutputStream()
        table = prediction_table(piece)
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue().to_pybytes())

    assert data() == data()


def test_columns_do_not_depend_on_the_values(tmp_path: Path) -> None:
    table = prediction_table(written(tmp_path, dict.fromkeys(INPUTS)))
    assert table.schema == prediction_schema(SHAPE)
    assert table.schema.field("seats").type == pa.int64()
    assert table.schema.field("due").type == pa.timestamp("us", "UTC")


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("uint8", pa.int64()),
        ("float64?", pa.float64()),
        ("decimal(9,2)", pa.float64()),
        ("date", pa.date32()),
        ("list<int32>", pa.list_(pa.int64())),
        ("json", pa.string()),
    ],
)
def test_every_type_of_the_format_is_stored_as_one_of_six(kind: str, stored: pa.DataType) -> None:
    assert stored_type(kind) == stored


def test_a_value_of_another_type_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="does not fit"):
        prediction_table(written(tmp_path, {**INPUTS, "due": "yesterday"}))


def test_no_input_may_be_named_as_a_column_of_the_log() -> None:
    assert {name for name, _ in COLUMNS} <= RESERVED_INPUTS


def test_columns_are_stored_as_the_same_rows_would_be(tmp_path: Path) -> None:
    """The two line forms of one request."""
    rows = [INPUTS, {**INPUTS, "share": None, "holiday": False, "due": None, "origin": None}]
    own = {"id": None, "as_of": AT, "decision": "a", "scores": [0.75, 0.25], "prediction": 0.75}
    said = [{**own, "ages": {}, "absent": [], "given": ["share"], "inputs": inputs} for inputs in rows]
    inputs = {name: [row[name] for row in rows] for name in INPUTS} | {"share": np.array([1, np.nan], np.float32)}
    columns = {"as_of": AT, "decision": ["a", "a"], "prediction": np.array([0.75, 0.75])}
    columns["scores"] = np.array([[0.75, 0.25], [0.75, 0.25]])
    both = WriteAhead(tmp_path)
    both.append(SHAPE, Logged("r1", AT, "late", 3, "champion", 5, 0.4, said))
    both.append(SHAPE, LoggedColumns("r1", AT, "late", 3, "champion", 5, 0.4, 2, columns, inputs, ["share"]))
    both.close()
    assert pending(tmp_path) == 4
    table = prediction_table(read_piece(sealed_pieces(tmp_path)[0]))
    assert table.schema == prediction_schema(SHAPE)
    assert table.slice(0, 2).to_pylist() == table.slice(2, 2).to_pylist()
    assert table["prediction_id"].to_pylist() == ["r1#0", "r1#1"] * 2


def test_columns_may_have_an_id_and_a_moment_per_row(tmp_path: Path) -> None:
    later = AT.replace(hour=13)
    log = WriteAhead(tmp_path)
    own = {"id": ["a", None], "as_of": [AT, later], "prediction": [1.0, 2.0]}
    log.append(SHAPE, LoggedColumns("r1", AT, "late", 3, "champion", 5, 0.4, 2, own, {}))
    log.close()
    rows = prediction_table(read_piece(sealed_pieces(tmp_path)[0])).to_pylist()
    assert [(row["id"], row["as_of"], row["decision"], row["share"]) for row in rows] == [
        ("a", AT, None, None),
        (None, later, None, None),
    ]


@pytest.mark.parametrize(
    ("column", "values", "stored"),
    [
        ("share", np.array([0.5, np.nan, np.inf], np.float32), [0.5, None, None]),
        ("share", np.array([0.5, 2, 0], np.float16), [0.5, 2.0, 0.0]),
        ("seats", np.array([180, np.nan, -3], np.float64), [180, None, -3]),
        ("seats", np.array([180, 0, -3], np.int16), [180, 0, -3]),
        ("big", np.array([2**64 - 1, 2**63 - 1, 7], np.uint64), [None, 2**63 - 1, 7]),
        ("big", np.array([1e19, 7, -0.0], np.float64), [None, 7, 0]),
        ("holiday", np.array([True, False, True]), [True, False, True]),
    ],
)
def test_columns_of_numbers_are_packed_and_stored_as_numbers(
    tmp_path: Path, column: str, values: np.ndarray, stored: list[object]
) -> None:
    log = WriteAhead(tmp_path)
    own = {"as_of": AT, "prediction": np.array([0.1, 1e300, np.nan])}
    log.append(SHAPE, LoggedColumns("r1", AT, "late", 3, "champion", 5, 0.4, count=3, own=own, inputs={column: values}))
    log.close()
    table = prediction_table(read_piece(sealed_pieces(tmp_path)[0]))
    assert table[column].to_pylist() == stored
    assert table["prediction"].to_pylist() == [0.1, 1e300, None]


def test_columns_that_are_not_what_was_packed_are_corrupt(tmp_path: Path) -> None:
    log = WriteAhead(tmp_path)
    own = {"as_of": AT, "prediction": {"dtype": "<f8", "base64": "AAA"}}
    log.append(SHAPE, LoggedColumns("r1", AT, "late", 3, "champion", 5, 0.4, count=1, own=own, inputs={}))
    log.close()
    with pytest.raises(Corrupt, match="does not fit"):
        prediction_table(read_piece(sealed_pieces(tmp_path)[0]))
