"""`query`: SQL over the lake, for a person, or as JSON lines or CSV for programs. Answers larger than memory stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption
from lakeloop.infra.cli.output import plain, say, show
from lakeloop.infra.place import find_place

if TYPE_CHECKING:
    import pyarrow as pa

    from lakeloop.lakehouse.query.session import Batches


def query(
    sql: Annotated[str, typer.Argument(help='One SELECT, or "-" to read it from stdin')],
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a header")] = False,
    limit: Annotated[int, typer.Option(help="Rows shown to a person; --json and --csv give all")] = 100,
) -> None:
    """Ask anything of the lake in SQL: sources, views, runs, metrics, predictions, alerts, documents.

    "name@3" and "name@2026-11-24T10:00Z" are what a table said then.
    """
    from lakeloop.lakehouse.query.asking import asked

    place = find_place(lake, env)
    text = sys.stdin.read() if sql == "-" else sql
    with asked(place.lake, text, project=place.local or "") as answer:
        if csv:
            _write_csv(answer)
        elif as_json:
            _write_json(answer)
        else:
            _show(answer, limit)


def _show(answer: Batches, limit: int) -> None:
    """The first rows; the others are counted and not kept."""
    names = distinct(answer.schema.names)
    rows: list[dict[str, Any]] = []
    count = 0
    for batch in answer:
        rows += _rows(batch.slice(0, max(0, limit - len(rows))), names)
        count += batch.num_rows
    show(rows, as_json=False, columns=names, empty="no rows")
    if count > len(rows):
        say(f"{len(rows)} of {count:,} rows; --csv or --json give all")


def _write_json(answer: Batches) -> None:
    names = distinct(answer.schema.names)
    for batch in answer:
        lines = [json.dumps(_finite(row), default=_plain, allow_nan=False) for row in _rows(batch, names)]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _write_csv(answer: Batches) -> None:
    """With a header, also where there are no rows. What CSV has no form for (lists, structs) is JSON in it."""
    import pyarrow as pa
    from pyarrow import csv

    flat = [_is_flat(field.type) for field in answer.schema]
    fields = [f.type if ok else pa.string() for f, ok in zip(answer.schema, flat, strict=True)]
    schema = pa.schema(list(zip(distinct(answer.schema.names), fields, strict=True)))
    with csv.CSVWriter(sys.stdout.buffer, schema) as writer:
        for batch in answer:
            columns = [c if ok else _as_json(c) for c, ok in zip(batch.columns, flat, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def distinct(names: list[str]) -> list[str]:
    """Column names of which no two are the same: `a`, `a_1`."""
    found: list[str] = []
    for name in names:
        spelled = (name, *(f"{name}_{number}" for number in range(1, len(names) + 1)))
        found.append(next(one for one in spelled if one not in found and (one == name or one not in names)))
    return found


def _rows(batch: pa.RecordBatch, names: list[str]) -> Iterator[dict[str, Any]]:
    columns = [column.to_pylist() for column in batch.columns]
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _is_flat(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return not (pa.types.is_nested(kind) or pa.types.is_interval(kind) or pa.types.is_dictionary(kind))


def _as_json(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    values = [None if value is None else _text(value) for value in column.to_pylist()]
    return pa.array(values, pa.string())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_finite(value), default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    """A whole number beyond 64 bits, as sum() gives it, is a number in JSON too."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return plain(value)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    each: Callable[[Any], Any] = _finite
    if isinstance(value, dict):
        return {name: each(one) for name, one in value.items()}
    return [each(one) for one in value] if isinstance(value, list) else value
