"""A piece of a prediction log as the rows of its journal: the same piece gives the same table, at every try."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.prediction_columns import COLUMNS
from lakeloop.ray_jobs.serving.write_ahead import Piece, Shape, unpack

if TYPE_CHECKING:
    import pyarrow as pa
NAMES = frozenset(name for name, _ in COLUMNS)
COMMON = ("request_id", "logged_at", "model", "version", "arm", "revision", "latency_ms")
COMMON_SINCE = ("log_ms", "trace_id", "sample_rate")
"""What a line says once for all of its rows; the latter not in a piece of an older release."""
OF_LINE = (*COMMON, *COMMON_SINCE, "read_ms", "lookup_ms", "predict_ms", "project", "feature_versions")
OF_ROW = ("id", "as_of", "prediction", "decision", "scores", "absent", "given")


def prediction_schema(shape: Shape) -> pa.Schema:
    """The fixed columns, then one for each input by its name: `<name>_input` where a fixed column is named so."""
    import pyarrow as pa

    fixed = [(name, stored_type(kind)) for name, kind in COLUMNS]
    return pa.schema(fixed + [(input_column(name), stored_type(kind)) for name, kind in shape.inputs])


def input_column(name: str) -> str:
    return f"{name}_input" if name in NAMES else name


def stored_type(kind: str) -> pa.DataType:
    """How a type of FORMAT is stored: BIGINT, DOUBLE, VARCHAR, BOOLEAN, DATE, TIMESTAMP µs UTC, or a list of these."""
    import pyarrow as pa

    kind = kind.removesuffix("?")
    if kind.startswith("list<"):
        return pa.list_(stored_type(kind[5:-1]))
    if kind.startswith(("int", "uint")):
        return pa.int64()
    if kind.startswith(("float", "decimal")):
        return pa.float64()
    simple = {"bool": pa.bool_(), "date": pa.date32(), "timestamp": pa.timestamp("us", "UTC")}
    return simple.get(kind, pa.string())


def prediction_table(piece: Piece) -> pa.Table:
    """A piece's rows in journal form. Corrupt if a value is not of its column's type."""
    import pyarrow as pa

    schema = prediction_schema(piece.shape)
    try:
        parts = [
            _table_of_columns(piece.shape, schema, lines) if columnar else _table_of_rows(piece.shape, schema, lines)
            for columnar, lines in groupby(piece.lines, lambda line: "columns" in line)
        ]
        return pa.concat_tables([schema.empty_table(), *parts]).combine_chunks()
    except (pa.ArrowException, LookupError, AttributeError, ValueError, TypeError, OverflowError) as error:
        raise Corrupt(
            f"a prediction row does not fit its columns ({error})", todo="look at the file that was set aside"
        ) from error


def _table_of_rows(shape: Shape, schema: pa.Schema, lines: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Lines of `Logged`: all values of a column at once, which costs a tenth of a row after the other."""
    import pyarrow as pa

    listed = list(lines)
    rows = [row for line in listed for row in line["rows"]]
    common = [_common(shape, line) for line in listed]
    if len(rows) > len(listed):
        common = [one for one, line in zip(common, listed, strict=True) for _ in line["rows"]]
    values: dict[str, list[Any]] = {
        input_column(name): [r["inputs"].get(name) for r in rows] for name, _ in shape.inputs
    }
    values |= {name: [one[name] for one in common] for name in OF_LINE}
    values |= {name: [row.get(name) for row in rows] for name in OF_ROW}
    values["ages"] = [_text(row.get("ages") or {}) for row in rows]
    values["prediction_id"] = [
        f"{line['request_id']}#{row.get('number', number)}"
        for line in listed
        for number, row in enumerate(line["rows"])
    ]
    return pa.Table.from_arrays([_array(values[field.name], field.type) for field in schema], schema=schema)


def _table_of_columns(shape: Shape, schema: pa.Schema, lines: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Lines of `LoggedColumns`: a column at a time, with no object per row where the type is JSON's own."""
    import pyarrow as pa

    return pa.concat_tables(_table_of_line(shape, schema, line) for line in lines)


def _table_of_line(shape: Shape, schema: pa.Schema, line: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    count = int(line["n"])
    same = {**_common(shape, line), "ages": "{}", "given": line["given"], "absent": []}
    own: dict[str, Any] = {input_column(name): line["inputs"].get(name) for name, _ in shape.inputs}
    own |= {"prediction_id": [f"{line['request_id']}#{number}" for number in range(count)], **line["columns"]}
    if not isinstance(own.get("as_of"), list):
        same["as_of"] = own.pop("as_of", None)

    def column(field: pa.Field) -> pa.Array:
        if field.name in same:
            return pa.repeat(pa.scalar(_stored(same[field.name], field.type), field.type), count)
        values = own.get(field.name)
        return pa.nulls(count, field.type) if values is None else _array(values, field.type)

    return pa.Table.from_arrays([column(field) for field in schema], schema=schema)


def _array(values: Sequence[Any] | Mapping[str, str], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, Mapping):
        return _numbers(unpack(values), kind)
    try:
        if pa.types.is_timestamp(kind):
            return pa.array(values, pa.string()).cast(kind)
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([_stored(value, kind) for value in values], kind)


def _numbers(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Numbers as JSON would have had them: what is not finite, or beyond BIGINT, is null."""
    import pyarrow as pa
    import pyarrow.types as is_type

    match values.dtype.kind:
        case "f":
            null = ~np.isfinite(values)
        case "u":
            null = values > np.uint64(2**63 - 1)
        case _:
            null = np.zeros(len(values), np.bool_)
    if is_type.is_floating(kind):
        return pa.array(values.astype(np.float64), kind, mask=null)
    if is_type.is_integer(kind):
        if values.dtype.kind == "f":
            null = null | (np.abs(values) >= 2.0**63)
        return pa.array(np.where(null, 0, values).astype(np.int64), kind, mask=null)
    return _array(values.tolist(), kind)


def _common(shape: Shape, line: Mapping[str, Any]) -> dict[str, Any]:
    common = {name: line[name] for name in COMMON} | {name: line.get(name) for name in COMMON_SINCE}
    read, lookup, predict = line.get("parts_ms") or (None, None, None)
    common |= {"read_ms": read, "lookup_ms": lookup, "predict_ms": predict}
    return {**common, "project": shape.project, "feature_versions": _text(line.get("feature_versions"))}


def _text(by_name: Mapping[str, Any] | None) -> str | None:
    return None if by_name is None else orjson.dumps(by_name, option=orjson.OPT_SORT_KEYS).decode()


def _stored(value: Any, kind: pa.DataType) -> Any:
    """A JSON value as its column's type wants it: texts to times, and back to text what the column keeps as text."""
    import pyarrow.types as is_type

    if value is None or is_type.is_list(kind):
        return value
    if is_type.is_timestamp(kind):
        return datetime.fromisoformat(value)
    if is_type.is_date(kind):
        return datetime.fromisoformat(value).date()
    if is_type.is_string(kind) and not isinstance(value, str):
        return orjson.dumps(value).decode()
    if is_type.is_integer(kind) and not -(2**63) <= value < 2**63:
        return None  # a uint64 that BIGINT cannot hold
    return float(value) if is_type.is_floating(kind) else value
