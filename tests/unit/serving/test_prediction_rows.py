"""Prediction rows: fixed columns, typed inputs, and the same table at every try."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.prediction_columns import COLUMNS
from lakeloop.lakehouse.project.model_rules import RESERVED_INPUTS
from lakeloop.ray_jobs.serving.prediction_rows import prediction_schema, prediction_table, stored_type
from lakeloop.ray_jobs.serving.write_ahead import Logged, Piece, Shape, WriteAhead, read_piece, sealed_pieces

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
