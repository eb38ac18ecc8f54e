"""The rows of a batch: a query, a table or a file, read once, and kept as parts of a fixed size that the batch owns.

Kept, because a query has no parts: what it says in another process, in another order, would be other rows. Only the
columns that are needed are kept. Memory is that of one part and of DuckDB, which is bounded and spills.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from lakeloop.lakehouse.batch.record import BATCH, KIND, PART, StagedPart
from lakeloop.lakehouse.errors import Invalid, NotFound
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.query.asking import check_names
from lakeloop.lakehouse.query.catalog import OF_LAKE, LakeCatalog
from lakeloop.lakehouse.query.session import Session, quoted
from lakeloop.lakehouse.query.statements import check_statement
from lakeloop.lakehouse.scoring.signature import Signature

PART_ROWS = 500_000
READ_ROWS = 1 << 16
MEMORY = "2GB"
"""What DuckDB may take before it spills."""
MADE = ("model", "version", "prediction", "decision", "scores", BATCH, PART)
"""Columns that a batch makes; none of these is kept from the rows."""
ID, AS_OF = "id", "as_of"


@dataclass(frozen=True, slots=True)
class TableRows:
    """All rows of what SQL calls so: a source, a view, `flights@3`, a table of the lake."""

    name: str

    @property
    def told(self) -> str:
        return f"table {self.name}"


@dataclass(frozen=True, slots=True)
class QueryRows:
    """The answer to one SELECT."""

    sql: str

    @property
    def told(self) -> str:
        return f"query {self.sql.strip()}"


@dataclass(frozen=True, slots=True)
class FileRows:
    """A file of this machine: Parquet, CSV with a header, or JSON Lines."""

    path: Path

    @property
    def told(self) -> str:
        """Its name and the hash of its bytes: the file is read."""
        with _opened(self.path) as file:
            return f"file {self.path.name}#{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


BatchRows: TypeAlias = TableRows | QueryRows | FileRows


@dataclass(frozen=True, slots=True)
class OpenRows:
    """Rows whose columns are known. `read` streams some of the columns; it is called once.

    `keys` are columns that the rows' owner declares as what tells them apart. `tables` are the versions they are read
    from; `settled` says that nothing else went into them.
    """

    schema: pa.Schema
    read: Callable[[Sequence[str]], Iterable[pa.RecordBatch]]
    keys: tuple[str, ...] = ()
    tables: Mapping[str, int] | None = None
    settled: bool = False


@contextmanager
def open_rows(lake: Lake, project: Project, rows: BatchRows) -> Iterator[OpenRows]:
    """The rows, ready to be read. Invalid for a query that may not be asked, NotFound for a file that is not there."""
    match rows:
        case FileRows():
            with _file(rows.path) as opened:
                yield opened
        case QueryRows():
            with _query(lake, project, rows.sql) as opened:
                yield opened
        case TableRows():
            name = ".".join(quoted(part) for part in rows.name.split(".", 1))
            with _query(lake, project, f"select * from {name}", _keys(project, rows.name)) as opened:
                yield opened


@contextmanager
def _query(lake: Lake, project: Project, sql: str, keys: tuple[str, ...] = ()) -> Iterator[OpenRows]:
    tables = check_statement(sql, where="the query")
    text = sql.strip().rstrip(";")
    catalog = LakeCatalog(lake, project, record=True)
    check_names(catalog, tables)
    with (
        TemporaryDirectory(prefix="lakeloop-") as scratch,
        Session(lake.store.location(), catalog, memory=MEMORY, scratch=Path(scratch)) as session,
    ):
        schema = session.run(f"select * from (\n{text}\n) limit 0", where="the query").schema

        def read(columns: Sequence[str]) -> Iterable[pa.RecordBatch]:
            chosen = ", ".join(quoted(name) for name in columns)
            return session.stream(f"select {chosen} from (\n{text}\n)", rows=READ_ROWS, where="the query")

        settled = not any(_unversioned(name) for name in tables)
        yield OpenRows(schema, read, keys, catalog.versions, settled)


def _unversioned(name: str) -> bool:
    """Journals and documents have no version that a later look could be compared with."""
    short = name.rpartition(".")[2]
    return "@" not in name and (short in OF_LAKE or short == "predictions_labelled")


def _keys(project: Project, name: str) -> tuple[str, ...]:
    base = name.partition("@")[0].removeprefix(f"{project.name}.")
    if base in project.sources:
        return project.sources[base].key
    return project.views[base].entity if base in project.views else ()


@contextmanager
def _file(path: Path) -> Iterator[OpenRows]:
    from pyarrow import csv, json

    with _opened(path) as file:
        try:
            match path.suffix.lower():
                case ".parquet" | ".pq":
                    parquet = pq.ParquetFile(file)

                    def read(columns: Sequence[str]) -> Iterable[pa.RecordBatch]:
                        return parquet.iter_batches(READ_ROWS, columns=list(columns))  # type: ignore[no-any-return]

                    yield OpenRows(parquet.schema_arrow, read, settled=True)
                case ".csv":
                    lines = csv.open_csv(file, read_options=csv.ReadOptions(block_size=8 << 20))
                    yield _lines(lines)
                case ".jsonl" | ".ndjson":
                    lines = json.open_json(file, read_options=json.ReadOptions(block_size=8 << 20))
                    yield _lines(lines)
                case _:
                    todo = "a batch reads .parquet, .csv and .jsonl"
                    raise Invalid(f"{path.name} is no file that can be scored", todo=todo)
        except pa.ArrowException as error:
            raise Invalid(str(error).partition("\n")[0][:300], where=str(path), todo="mend the file") from error


def _lines(lines: pa.RecordBatchReader) -> OpenRows:
    return OpenRows(lines.schema, lambda columns: (one.select(list(columns)) for one in lines), settled=True)


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    if not path.is_file():
        raise NotFound(f"there is no file {path}", todo="check the path")
    with path.open("rb") as file:
        yield file


def needed_columns(signature: Signature, found: OpenRows, keep: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Which columns are read, and which of these go to the output: what tells the rows apart, and `keep`.

    Invalid for an input that the rows lack, for a name in `keep` that they lack or that the batch makes, and when
    nothing would tell the rows apart.
    """
    there = list(found.schema.names)
    lacking = [one.name for one in signature.named("request") if one.name not in there and one.default is None]
    if lacking:
        raise Invalid(
            f"the rows have no column {', '.join(lacking)}",
            todo=_near(lacking[0], there) or "add what the model's request inputs name (null where it is unknown)",
        )
    named = there if tuple(keep) == ("*",) else list(keep)
    for name in named:
        if name not in there:
            raise Invalid(f"the rows have no column {name!r} to keep", todo=_near(name, there) or "see --keep")
        if name in MADE and tuple(keep) != ("*",):
            raise Invalid(f"{name!r} is a column that the batch makes", todo="give it another name: select … as …")
    keys = [name for name in (ID, *found.keys) if name in there]
    kept = tuple(dict.fromkeys(name for name in (*keys, *named) if name not in (*MADE, AS_OF)))
    if not kept:
        raise Invalid("nothing tells the rows apart", todo="name columns that do: --keep customer,day")
    inputs = [one.name for one in signature.inputs if one.name in there]
    return list(dict.fromkeys([*kept, *(name for name in (AS_OF,) if name in there), *inputs])), kept


def _near(name: str, there: Sequence[str]) -> str:
    found = get_close_matches(name, there, n=1)
    return f"did you mean its column {found[0]!r}?" if found else ""


def stage(lake: Lake, owner: str, rows: Iterable[pa.RecordBatch], part_rows: int = PART_ROWS) -> tuple[StagedPart, ...]:
    """Keep rows as parts of `part_rows` (the last may be smaller), in the order they come. One PUT each."""
    return tuple(
        StagedPart(lake.artifacts.put(KIND, owner, f"{at:05d}.parquet", _parquet(part)), part.num_rows)
        for at, part in enumerate(_parts(rows, part_rows))
    )


def _parts(rows: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in rows:
        while count + batch.num_rows >= size:
            held.append(batch.slice(0, size - count))
            batch = batch.slice(size - count)
            yield pa.Table.from_batches(held)
            held, count = [], 0
        if batch.num_rows:
            held.append(batch)
            count += batch.num_rows
    if held:
        yield pa.Table.from_batches(held)


def _parquet(part: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(part, sink, row_group_size=part.num_rows, compression="zstd", compression_level=1)
    return sink.getvalue()
