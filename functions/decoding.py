"""From the bytes of a landed file to rows: CSV, JSON Lines, Parquet; gzip by the name's ending.

Lines that cannot be read are told apart, not lost.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.keys import RETRIED
from lakeloop.lakehouse.project.definitions import Read, Source

Broken = list[dict[str, Any]]


def decode(source: Source, where: str, data: bytes) -> tuple[pa.Table, Broken]:
    """Rows with `_line` (1 is the first row after a header), and broken lines as {"_line", "reason", "row"}.

    Invalid when the file as a whole cannot be read, or lacks a column that must be there.
    """
    rows, broken = read_rows(source.read, where, data)
    return _declared(source, where, rows), broken


def read_rows(read: Read, where: str, data: bytes) -> tuple[pa.Table, Broken]:
    """`decode` with every column that the file has: texts, of Parquet as they are typed there."""
    data = unpacked(where, data)
    if where.endswith(RETRIED):
        return _jsonl(where, data)
    match read.format:
        case "csv":
            return _csv(read.delimiter, where, data)
        case "jsonl":
            return _jsonl(where, data)
        case "parquet":
            return _parquet(where, data), []


def unpacked(where: str, data: bytes) -> bytes:
    """The bytes of a file, out of gzip when its name ends so. Invalid when that is broken."""
    if not where.endswith(".gz"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise Invalid(f"this is not a whole gzip file: {error}", where=where, todo="send it again") from error


def _csv(delimiter: str, where: str, data: bytes) -> tuple[pa.Table, Broken]:
    from pyarrow import csv

    if not data.strip():
        raise Invalid("the file is empty", where=where, todo="send it with a header line")
    header = next(csv_lines(data, delimiter))
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise Invalid(
            f"the header names {', '.join(sorted(twice))} more than once", where=where, todo="mend the header"
        )
    if data.count(b'"') % 2:
        _check_last_quote(data, delimiter, where)
    broken: Broken = []

    def note(row: Any) -> str:
        reason = f"broken line: {row.actual_columns} values where the header has {row.expected_columns}"
        broken.append({"_line": row.number - 1, "reason": reason, "row": row.text})
        return "skip"

    try:
        rows = csv.read_csv(
            io.BytesIO(data),
            read_options=csv.ReadOptions(
                use_threads=False, block_size=min(max(len(data), 1 << 20), 1 << 28)
            ),  # a row may not straddle blocks
            parse_options=csv.ParseOptions(delimiter=delimiter, invalid_row_handler=note, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in header}, strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise Invalid(
            f"this cannot be read as CSV: {str(error).splitlines()[0]}",
            where=where,
            todo="send it as UTF-8 with a header line",
        ) from error
    skipped = {entry["_line"] for entry in broken}
    lines = [n for n in range(1, rows.num_rows + len(skipped) + 1) if n not in skipped]
    return _numbered(rows, lines), broken


def _check_last_quote(data: bytes, delimiter: str, where: str) -> None:
    """A quote that nobody closes would swallow every row after it as one text. Invalid when the text ends inside
    quotes."""
    import csv

    rows = csv.reader(
        io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", errors="replace", newline=""), delimiter=delimiter, strict=True
    )
    opened = 1
    try:
        for _ in rows:
            opened = rows.line_num + 1
    except csv.Error as error:
        if "expected after" not in str(error):
            raise Invalid(
                f"a quote that opens in line {opened} is never closed",
                where=where,
                todo="mend the file and send it again",
            ) from error


def _numbered(rows: pa.Table, lines: Sequence[int]) -> pa.Table:
    """With `_line`, which no column of the file may take the place of."""
    return rows.select([name for name in rows.column_names if name != "_line"]).append_column(
        "_line", pa.array(lines, pa.int64())
    )


def csv_lines(data: bytes, delimiter: str) -> Any:
    """Rows of a CSV text as lists, by the standard library's reader: for headers and samples."""
    import csv

    return csv.reader(
        io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", errors="replace", newline=""), delimiter=delimiter
    )


def _jsonl(where: str, data: bytes) -> tuple[pa.Table, Broken]:
    rows, broken = [], []
    for line, text in enumerate(data.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
            json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
        except (ValueError, RecursionError) as error:
            broken.append(
                {"_line": line, "reason": f"broken line: not JSON ({error})", "row": text.decode(errors="replace")}
            )
            continue
        if not isinstance(record, dict):
            broken.append(
                {"_line": line, "reason": "broken line: not a JSON object", "row": text.decode(errors="replace")}
            )
            continue
        rows.append(
            {name: None if v is None else v if isinstance(v, str) else json.dumps(v) for name, v in record.items()}
            | {"_line": line}
        )
    if not rows and not broken:
        raise Invalid("the file is empty", where=where, todo="send one JSON object a line")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table(
        {
            n: pa.array([row.get(n) for row in rows], pa.int64() if n == "_line" else pa.string())
            for n in names or ["_line"]
        }
    ), broken


def _parquet(where: str, data: bytes) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise Invalid(
            f"this cannot be read as Parquet: {str(error).splitlines()[0]}",
            where=where,
            todo="send the file again, whole",
        ) from error
    return _numbered(rows, range(1, rows.num_rows + 1))


def _declared(source: Source, where: str, rows: pa.Table) -> pa.Table:
    """Only declared columns, by the source's `unlisted`; every column that may not be null must be there."""
    names = set(rows.column_names) - {"_line"}
    missing = [name for name, column in source.columns.items() if name not in names and not column.nullable]
    if missing:
        raise Invalid(
            f"the file has no column {', '.join(missing)} (it has {', '.join(sorted(names)) or 'none'})",
            where=where,
            todo=f'mend the header, or declare it as nullable ("type?") in sources/{source.name}.toml',
        )
    if not names & set(source.columns):
        raise Invalid(
            f"the file has none of the declared columns (it has {', '.join(sorted(names)) or 'none'})",
            where=where,
            todo="mend the header",
        )
    extra = sorted(names - set(source.columns))
    if extra and source.unlisted == "stop":
        raise Invalid(
            f"the file has columns that are not declared: {', '.join(extra)}",
            where=where,
            todo=f'list them in sources/{source.name}.toml, or set unlisted = "drop"',
        )
    return rows.select([name for name in rows.column_names if name == "_line" or name in source.columns])
