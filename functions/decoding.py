"""From a local file to rows, in batches: CSV, JSON Lines, Parquet.

A file may be read several times; memory is bounded by a batch. Lines that cannot be read are told apart, not lost.
"""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Any, BinaryIO

import pyarrow as pa

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.keys import RETRIED
from lakeloop.lakehouse.project.definitions import Read, Source

BATCH = 1 << 17
BLOCK = 4 << 20
"""Bytes of CSV that are parsed at once; a row may be as long as this. Arrow reads 32 of them ahead."""
PART = 64 << 20
"""Unpacked bytes of Parquet that are read together."""
LINES = 20_000
KEPT = 1 << 20
"""Bytes of broken lines that are held in memory; more of them are on disk."""


class Broken:
    """Lines that a reading could not read. A file may hold nothing else: memory is bounded.

    Arrow may tell them from a thread of its own.
    """

    def __init__(self) -> None:
        self._count = 0
        self._file = SpooledTemporaryFile(KEPT)  # noqa: SIM115 - closed by `close`
        self._runs: deque[range] = deque()
        self._lock = Lock()

    def __len__(self) -> int:
        return self._count

    def add(self, line: int, reason: str, row: str) -> None:
        """The next one; lines come in their order."""
        text = json.dumps({"line": line, "reason": reason, "row": row}).encode()
        with self._lock:
            self._count += 1
            self._file.write(text + b"\n")
            begin = self._runs.pop().start if self._runs and self._runs[-1].stop == line else line
            self._runs.append(range(begin, line + 1))

    def passed(self, line: int) -> int:
        """The first line from this one on that is not known to be broken. Those before are not asked for again."""
        with self._lock:
            while self._runs and self._runs[0].start <= line:
                line = self._runs.popleft().stop
            return line

    def before(self, line: int) -> int:
        """Where the next broken lines begin, if that is before this line; else this line."""
        with self._lock:
            return min(line, self._runs[0].start) if self._runs else line

    def pieces(self) -> Iterator[list[dict[str, Any]]]:
        """All of them, as {"line", "reason", "row"}; once the reading has ended."""
        self._file.seek(0)
        while piece := [json.loads(text) for text in islice(self._file, LINES)]:
            yield piece

    def close(self) -> None:
        self._file.close()


@dataclass(slots=True)
class LandedFile:
    """A file whose columns are known. `broken` are the lines that the last reading could not read; `problem` is why it
    ended early."""

    format: str
    path: Path
    columns: Mapping[str, pa.DataType]
    _read: Callable[[Sequence[str], Broken], Iterator[pa.RecordBatch]]
    parts: Sequence[tuple[int, int]] = ()
    """Of Parquet: ranges of rows that are read together, [begin, end)."""
    alike: frozenset[str] = frozenset()
    """Of Parquet: names that stand there more than once, or once more in other letters."""
    broken: Broken = field(default_factory=Broken)
    problem: Invalid | None = None

    def reader(self, columns: Iterable[str]) -> pa.RecordBatchReader:
        """These columns (those the file lacks are left out) and `_line`; 1 is the first row after a header."""
        names = [name for name in columns if name in self.columns]
        schema = pa.schema([*((name, self.columns[name]) for name in names), ("_line", pa.int64())])
        return pa.RecordBatchReader.from_batches(schema, self._batches(names))

    def _batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.broken.close()
        self.broken, self.problem = Broken(), None
        try:
            yield from self._read(names, self.broken)
        except Invalid as error:
            self.problem = error
            raise


def open_file(read: Read, where: str, path: Path) -> LandedFile:
    """A file by its source's format. Invalid when it is empty, or not of that format."""
    match "jsonl" if where.endswith(RETRIED) else read.format:
        case "csv":
            return _csv(read.delimiter, where, path)
        case "jsonl":
            return _jsonl(where, path)
        case _:
            return _parquet(where, path)


def check_declared(source: Source, where: str, file: LandedFile) -> None:
    """Invalid when a file lacks a column that may not be null, has none that is declared, or one that must not be; and
    when it may be any of several columns that a declared name means."""
    names = set(file.columns)
    declared = {name.lower() for name in source.columns}
    if alike := sorted(name for name in file.alike if name.lower() in declared):
        raise Invalid(
            f"the file has several columns of one name: {', '.join(alike)}",
            where=where,
            todo="send each under a name of its own; capitals make no other name",
        )
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


# -- CSV ---


def csv_lines(file: BinaryIO, delimiter: str, *, errors: str = "replace", **options: Any) -> Any:
    """Rows of a CSV text as lists, by the standard library's reader: for headers and samples."""
    text = io.TextIOWrapper(file, "utf-8-sig", errors=errors, newline="")
    return csv.reader(text, delimiter=delimiter, **options)


def _csv(delimiter: str, where: str, path: Path) -> LandedFile:
    header, quotes = _header(path, delimiter, where), 0
    with open(path, "rb") as file:
        while data := file.read(BLOCK):
            quotes += data.count(b'"')
    if not header:
        raise Invalid("the file is empty", where=where, todo="send it with a header line")
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise Invalid(
            f"the header names {', '.join(sorted(twice))} more than once", where=where, todo="mend the header"
        )
    if quotes % 2:
        _check_last_quote(path, delimiter, where)

    def batches(names: Sequence[str], broken: Broken) -> Iterator[pa.RecordBatch]:
        try:
            yield from _numbered(_csv_batches(path, delimiter, names, broken), broken)
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise _no_csv(where, error) from error

    columns = {name: pa.string() for name in header if name != "_line"}
    return LandedFile("csv", path, columns, batches)


def _header(path: Path, delimiter: str, where: str) -> list[str]:
    with open(path, "rb") as file:
        try:
            rows = csv_lines(file, delimiter, errors="strict")
            return next((row for row in rows if any(value.strip() for value in row)), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise _no_csv(where, error) from error


def _no_csv(where: str, error: Exception) -> Invalid:
    what = str(error).splitlines()[0]
    if "straddling" in what:
        what = f"a row is longer than {BLOCK >> 20} MiB"
    return Invalid(
        f"this cannot be read as CSV: {what}",
        where=where,
        todo="send it as UTF-8 with a header line",
    )


def _csv_batches(path: Path, delimiter: str, names: Sequence[str], broken: Broken) -> Iterable[pa.RecordBatch]:
    from pyarrow import csv as arrow_csv

    if _ends_with_header(path):
        return []

    def note(row: Any) -> str:
        reason = f"broken line: {row.actual_columns} values where the header has {row.expected_columns}"
        broken.add(row.number - 1, reason, row.text)
        return "skip"

    reader: Iterable[pa.RecordBatch] = arrow_csv.open_csv(
        path,
        read_options=arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=note, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, include_columns=names, strings_can_be_null=False
        ),
    )
    return reader


def _ends_with_header(path: Path) -> bool:
    """Whether there is nothing but one line without an end, which Arrow cannot read."""
    with open(path, "rb") as file:
        return path.stat().st_size < BLOCK and b"\n" not in (text := file.read()) and b"\r" not in text


def _numbered(batches: Iterable[pa.RecordBatch], broken: Broken) -> Iterator[pa.RecordBatch]:
    """With `_line`: a batch's rows follow each other, but for the broken lines between them."""
    line = 1
    for batch in batches:
        lines: list[int] = []
        while len(lines) < batch.num_rows:
            line = broken.passed(line)
            end = broken.before(line + batch.num_rows - len(lines))
            lines += range(line, end)
            line = end
        yield batch.append_column("_line", pa.array(lines, pa.int64()))


def _check_last_quote(path: Path, delimiter: str, where: str) -> None:
    """A quote that nobody closes would swallow every row after it as one text. Invalid when the text ends inside
    quotes."""
    opened = 1
    with open(path, "rb") as file:
        rows = csv_lines(file, delimiter, strict=True)
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


# -- JSON Lines ---


def _jsonl(where: str, path: Path) -> LandedFile:
    names: dict[str, None] = {}
    empty = True
    for _, text in _lines(path):
        record, problem = _record(text)
        names.update(dict.fromkeys(record))
        empty = empty and not record and not problem
    if empty:
        raise Invalid("the file is empty", where=where, todo="send one JSON object a line")

    def batches(wanted: Sequence[str], broken: Broken) -> Iterator[pa.RecordBatch]:
        rows: list[dict[str, Any]] = []
        for line, text in _lines(path):
            record, problem = _record(text)
            if problem:
                broken.add(line, problem, text.decode(errors="replace"))
                continue
            rows.append({**record, "_line": line})
            if len(rows) >= LINES:
                yield _texts(rows, wanted)
                rows = []
        yield _texts(rows, wanted)

    return LandedFile("jsonl", path, {name: pa.string() for name in names if name != "_line"}, batches)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with open(path, "rb") as file:
        for number, text in enumerate(file, start=1):
            kept = text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text
            if kept.strip():
                yield number, kept.rstrip(b"\r\n")


def _record(text: bytes) -> tuple[dict[str, Any], str]:
    """A line's object, or why it has none."""
    try:
        record = json.loads(text, object_pairs_hook=_distinct)
        json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
    except (ValueError, RecursionError) as error:
        return {}, f"broken line: not JSON ({error})"
    return (record, "") if isinstance(record, dict) else ({}, "broken line: not a JSON object")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a name that stands there twice one value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _texts(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> pa.RecordBatch:
    columns = [pa.array([_text(row.get(name)) for row in rows], pa.string()) for name in names]
    lines = pa.array([row["_line"] for row in rows], pa.int64())
    return pa.RecordBatch.from_arrays([*columns, lines], names=[*names, "_line"])


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# -- Parquet ---


def _parquet(where: str, path: Path) -> LandedFile:
    import pyarrow.parquet as pq

    def opened() -> pq.ParquetFile:
        return pq.ParquetFile(path)

    def batches(names: Sequence[str], broken: Broken) -> Iterator[pa.RecordBatch]:
        line = 1
        try:
            with opened() as file:
                for batch in file.iter_batches(BATCH, columns=list(names)):
                    lines = pa.array(range(line, line + batch.num_rows), pa.int64())
                    line += batch.num_rows
                    kept = [_known(batch.column(name)) for name in names]
                    yield pa.RecordBatch.from_arrays([*kept, lines], names=[*names, "_line"])
        except (pa.ArrowException, OSError) as error:
            raise _no_parquet(where, error) from error

    try:
        with opened() as file:
            schema, parts = file.schema_arrow, _parts(file.metadata)
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(where, error) from error
    columns = {f.name: pa.float32() if pa.types.is_float16(f.type) else f.type for f in schema if f.name != "_line"}
    folded = [name.lower() for name in schema.names]
    alike = frozenset(name for name in schema.names if folded.count(name.lower()) > 1)
    return LandedFile("parquet", path, columns, batches, parts, alike)


def _known(values: pa.Array) -> pa.Array:
    """Half precision as single: DuckDB knows it in files, but not in memory."""
    return values.cast(pa.float32()) if pa.types.is_float16(values.type) else values


def _parts(metadata: Any) -> list[tuple[int, int]]:
    """Row groups that follow each other, together until they hold enough bytes."""
    parts, begin, end, size = [], 0, 0, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        end, size = end + group.num_rows, size + group.total_byte_size
        if size >= PART or number + 1 == metadata.num_row_groups:
            parts.append((begin, end))
            begin, size = end, 0
    return parts


def _no_parquet(where: str, error: Exception) -> Invalid:
    return Invalid(
        f"this cannot be read as Parquet: {str(error).splitlines()[0]}", where=where, todo="send the file again, whole"
    )
