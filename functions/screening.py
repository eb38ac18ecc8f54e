"""A file without the rows of forgotten entities, in its own format, its other bytes as they were.

CSV and JSON Lines lose whole records, Parquet is written anew with its own schema; what was packed is packed again. A
line that cannot be read goes when one of its words is a forgotten value.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakeloop.functions.decoding import BATCH
from lakeloop.functions.spooling import plain_name, unpacked
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.forgetting import Read, Tombstones, numeric
from lakeloop.lakehouse.keys import RETRIED
from lakeloop.lakehouse.project.definitions import Source

HEAD = 1 << 20


@dataclass(frozen=True, slots=True)
class Format:
    """How the rows of a file are read, and which of its columns are text: those are taken as they are."""

    name: str = ""
    """csv, jsonl or parquet; empty: as the file's name ends, else as it looks."""
    delimiter: str = ","
    texts: frozenset[str] = frozenset()

    def forms(self, column: str, text: str) -> Iterable[str]:
        return () if column in self.texts else numeric(column, text)


def format_of(source: Source | None) -> Format:
    """The format of a source's files; of a source that no project declares any more, by the file."""
    if source is None:
        return Format()
    texts = frozenset(name for name, column in source.columns.items() if column.type.name in ("string", "category"))
    return Format(source.read.format, source.read.delimiter, texts)


@dataclass(frozen=True, slots=True)
class Screened:
    """The file to keep, which is the one that came where nothing is to go."""

    path: Path
    gone: int = 0
    """Rows of forgotten entities."""
    empty: bool = False
    """Whether no other rows are left."""


def screen(name: str, path: Path, scratch: Path, form: Format, tombstones: Tombstones) -> Screened:
    """A file without the rows that are forgotten. Invalid for one that cannot be read at all."""
    if not tombstones or not _may_concern(name, path, form, tombstones):
        return Screened(path)
    folder = scratch / "screened"
    folder.mkdir(exist_ok=True)
    plain = unpacked(name, path, folder)
    kept = folder / "kept"
    with open(plain, "rb") as file:
        begins = file.read(HEAD)
    match _format(form, plain_name(name), begins):
        case "csv":
            gone, left = _csv(plain, kept, form, tombstones)
        case "jsonl":
            gone, left = _jsonl(plain, kept, form, tombstones)
        case "parquet":
            gone, left = _parquet(name, plain, kept, form.forms, tombstones)
        case _:
            raise Invalid("this is no CSV, JSON Lines or Parquet", where=name)
    return Screened(_packed(name, path, kept, folder), gone, not left) if gone else Screened(path)


def unreadable_tells(name: str, path: Path, scratch: Path, tombstones: Tombstones) -> bool:
    """Whether a file that cannot be read has a forgotten value among its words, packed or not."""
    if not tombstones:
        return False
    if tombstones.tell_words(path.read_bytes().decode("utf-8", "replace")):
        return True
    try:
        plain = unpacked(name, path, scratch)
    except Invalid:
        return False
    return plain != path and tombstones.tell_words(plain.read_bytes().decode("utf-8", "replace"))


def screen_parquet(
    data: bytes, tombstones: Tombstones, *, model: str = "", tells: Callable[[str], bool]
) -> tuple[bytes, int]:
    """Parquet bytes in memory, whose columns have their stored types, without the rows, and how many went. `tells` is
    asked of each `id`."""
    rows = pq.read_table(pa.BufferReader(data))
    kept = tombstones.drop(rows, model=model)
    if "id" in kept.column_names and pa.types.is_string(kept.schema.field("id").type):
        told = [one is not None and tells(one) for one in kept.column("id").to_pylist()]
        kept = kept.filter(pc.invert(pa.array(told, pa.bool_())))
    if kept.num_rows == rows.num_rows:
        return data, 0
    sink = pa.BufferOutputStream()
    pq.write_table(kept, sink, compression="zstd")
    return sink.getvalue().to_pybytes(), rows.num_rows - kept.num_rows


def _may_concern(name: str, path: Path, form: Format, tombstones: Tombstones) -> bool:
    """Whether a file has the columns of a tombstone, as far as a glance says: at a header, or for the columns' names.

    Broken lines of a file without such columns are not looked at.
    """
    try:
        with _opened(name, path) as file:
            begins = file.read(HEAD)
            match _format(form, plain_name(name), begins):
                case "csv":
                    header, newline, _ = begins.partition(b"\n")
                    names = next(csv.reader([header.decode(errors="replace")], delimiter=form.delimiter), [])
                    return not newline or not any(names) or tombstones.concern(n.strip("\ufeff\r") for n in names)
                case "jsonl":
                    return _names_columns(file, begins, tombstones)
                case _:
                    return True
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, csv.Error, RuntimeError):
        return True


def _names_columns(file: IO[bytes], begins: bytes, tombstones: Tombstones) -> bool:
    wanted = {form for columns in tombstones.marks for name in columns for form in (name, json.dumps(name)[1:-1])}
    missing, rest = {form.encode() for form in wanted}, b""
    while begins:
        missing -= {form for form in missing if form in rest + begins}
        if len(missing) < len(wanted):
            return True
        rest, begins = begins[-HEAD:], file.read(HEAD)
    return False


def _opened(name: str, path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked as they are read."""
    if name.endswith(".gz"):
        return gzip.open(path)  # type: ignore[return-value]
    if name.endswith(".zip"):
        archive = zipfile.ZipFile(path)
        return archive.open(next(one for one in archive.infolist() if not one.is_dir() and not _of_mac(one.filename)))
    return open(path, "rb")


def _format(form: Format, name: str, begins: bytes) -> str:
    if begins.startswith(b"PAR1"):
        return "parquet"
    if name.endswith((RETRIED, ".jsonl", ".ndjson")) or (not form.name and begins.lstrip().startswith(b"{")):
        return "jsonl"
    return form.name or ("csv" if name.endswith((".csv", ".tsv", ".txt")) else "")


class _Taken:
    """Lines of a text, and those that were taken since one last asked."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file, self._lines = iter(file), list[str]()

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self._lines.append(line)
            yield line

    def taken(self) -> str:
        text = "".join(self._lines)
        self._lines.clear()
        return text


def _csv(path: Path, kept: Path, form: Format, tombstones: Tombstones) -> tuple[int, int]:
    """How many rows went, and how many stayed."""
    gone, left, header = 0, 0, list[str]()
    how: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    csv.field_size_limit(1 << 30)
    with open(path, **how) as file, open(kept, "w", **how) as out:
        lines = _Taken(file)
        try:
            for values in csv.reader(lines, delimiter=form.delimiter):
                text = lines.taken()
                if not header:
                    header = [value.removeprefix("\ufeff") for value in values]
                    if header and not tombstones.concern(header):
                        return 0, 0
                elif values and _is_forgotten(header, values, text, form.forms, tombstones):
                    gone += 1
                    continue
                else:
                    left += bool(values)
                out.write(text)
        except csv.Error as error:
            raise Invalid(f"this cannot be read as CSV: {error}", where=path.name) from error
    return gone, left


def _is_forgotten(header: list[str], values: list[str], text: str, forms: Read, tombstones: Tombstones) -> bool:
    if len(values) != len(header):
        return tombstones.tell_text(text)
    return tombstones.tell(dict(zip(header, values, strict=True)), forms)


def _jsonl(path: Path, kept: Path, form: Format, tombstones: Tombstones) -> tuple[int, int]:
    gone = left = 0
    with open(path, "rb") as file, open(kept, "wb") as out:
        for line in file:
            if line.strip() and _forgotten_line(line, form.forms, tombstones):
                gone += 1
            else:
                left += bool(line.strip())
                out.write(line)
    return gone, left


def _forgotten_line(line: bytes, forms: Read, tombstones: Tombstones) -> bool:
    text = line.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return tombstones.tell_text(text)
    return isinstance(row, dict) and tombstones.tell(row, forms)


def _parquet(name: str, path: Path, kept: Path, forms: Read, tombstones: Tombstones) -> tuple[int, int]:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if not tombstones.concern(schema.names):
                return 0, 0
            gone = left = 0
            with pq.ParquetWriter(kept, schema, compression="zstd") as out:
                for batch in file.iter_batches(BATCH):
                    rows = pa.Table.from_batches([batch], schema)
                    mask = tombstones.mask(rows, read=forms)
                    whole = rows if mask is None else rows.filter(pc.invert(mask))
                    gone, left = gone + rows.num_rows - whole.num_rows, left + whole.num_rows
                    out.write_table(whole)
            return gone, left
    except (pa.ArrowException, OSError) as error:
        raise Invalid(f"this cannot be read as Parquet: {str(error).splitlines()[0]}", where=name) from error


def _packed(name: str, original: Path, kept: Path, folder: Path) -> Path:
    """Packed again as the original was."""
    packed = folder / "packed"
    if name.endswith(".gz"):
        with open(kept, "rb") as file, gzip.GzipFile(packed, "wb", mtime=0) as out:
            shutil.copyfileobj(file, out)
        return packed
    if name.endswith(".zip"):
        with zipfile.ZipFile(original) as archive:
            member = next(one for one in archive.infolist() if not one.is_dir() and not _of_mac(one.filename))
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(kept, member.filename)
        return packed
    return kept


def _of_mac(member: str) -> bool:
    return member.startswith("__MACOSX/")
