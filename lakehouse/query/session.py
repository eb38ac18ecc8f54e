"""A DuckDB connection that can see one lake and nothing else.

Names in a query become relations only when the query names them: no request is made before that. The connection is
locked down before the first statement: no file outside the lake, no extension, no setting, no Python variable can be
reached through SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable
from urllib.parse import quote

import duckdb
import pyarrow as pa

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.query.connecting import Limits, connect, disconnect
from lakeloop.lakehouse.query.failures import translated
from lakeloop.lakehouse.query.interrupting import Interruptible
from lakeloop.lakehouse.query.quoting import literal, quoted
from lakeloop.lakehouse.query.statements import FORBIDDEN_FUNCTIONS, TABLE_FUNCTIONS, parse, references
from lakeloop.lakehouse.store import Location

T = TypeVar("T")
WHOLE_ROWS, PART_ROWS = 1_000_000, 1 << 17
"""Rows of a batch where the answer is wanted whole, and where it is read part by part."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A Delta table at one version."""

    uri: str
    version: int


@dataclass(frozen=True, slots=True)
class Files:
    """Parquet files with these columns (name → DuckDB type): a version of a table that needs no log."""

    uris: tuple[str, ...]
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT over other names."""

    sql: str


@dataclass(frozen=True, slots=True)
class Union:
    """Rows of several relations, columns by name: a journal is what was folded and what was not."""

    parts: tuple[Stored | pa.Table, ...]
    select: str = "select *"
    then: str = ""
    """What is asked of them, if not all: in one view, since DuckDB opens a table's log for each that stands on it."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A table outside of the lake: what scans it, and from the columns found there to the list of a SELECT over it."""

    scan: str
    select: Callable[[Mapping[str, str]], str]


Relation: TypeAlias = Stored | Files | Union | Query | Foreign | pa.Table
Catalog: TypeAlias = Callable[[str], Relation | None]
"""From a name (`weather`, `flights.weather`, `weather@3`) to what it is, or None."""


@runtime_checkable
class Outreaching(Protocol):
    """A catalog some of whose tables lie outside of the lake."""

    def outside(self) -> Sequence[Location]:
        """The folders or files beyond the lake that a connection may read."""


class Session:
    """One locked-down connection. Use as a context manager; not shared between threads."""

    def __init__(
        self,
        location: Location | None,
        catalog: Catalog,
        *,
        threads: int = 0,
        memory: str = "",
        scratch: Path | None = None,
        views: bool = False,
    ) -> None:
        """`scratch` is a folder of the caller's, for `attach_file` and for what does not fit in memory. With `views`
        texts come as Arrow's string views: cheaper for who writes them on, but Arrow can neither filter nor compare
        them."""
        self._catalog = catalog
        outside = catalog.outside() if location and isinstance(catalog, Outreaching) else ()
        limits = Limits(threads, memory, scratch, views)
        self._connection = connect([location, *outside] if location else [], limits)
        self._interruptible = Interruptible(self._connection)
        self._known: set[str] = set()
        self._numbers = count()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interruptible.close()
        disconnect(self._connection)

    def run(self, sql: str, values: Sequence[object] | Mapping[str, object] = (), *, where: str = "") -> pa.Table:
        """The answer as Arrow. `where` names the text in an error (a file, "the query")."""
        batches = self.stream(sql, values, where=where, rows=WHOLE_ROWS)
        return pa.Table.from_batches(batches, batches.schema)

    def stream(
        self,
        sql: str,
        values: Sequence[object] | Mapping[str, object] = (),
        *,
        where: str = "",
        rows: int = PART_ROWS,
    ) -> Batches:
        """The answer in batches of at most `rows`, computed as they are asked for. One at a time for a session."""
        self._attach_all(sql)
        reader = self._call(lambda: self._connection.execute(sql, values).to_arrow_reader(rows), where)
        return Batches(reader.schema, lambda: self._call(lambda: next(reader, None), where))

    def attach_file(self, name: str, path: Path, rows: tuple[int, int] | None = None, *, where: str = "") -> None:
        """A Parquet file in `scratch` (or its rows [begin, end)) under a name, with `_line` (1 is the first row of the
        file) in place of a column that is called so."""
        file = f"read_parquet({literal(str(path))}, file_row_number = true)"
        part = f" where file_row_number between {rows[0]} and {rows[1] - 1}" if rows else ""
        sql = (
            f"create or replace temp view {quoted(name)} as "
            f"select * exclude (file_row_number), file_row_number + 1 as _line "
            f"from (select columns(c -> lower(c) <> '_line') from {file}{part})"
        )
        self._call(lambda: self._connection.execute(sql), where)
        self._known.add(name)

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader, *, where: str = "") -> None:
        """Give a table in memory a name."""
        # DuckDB replaces a name that it registered, and no other.
        self._call(lambda: self._connection.execute(f"drop view if exists {quoted(name)}"), where)
        self._call(lambda: self._connection.register(name, rows), where)
        self._known.add(name)

    def keep(self, name: str, sql: str, values: Sequence[object] = (), *, where: str = "") -> None:
        """Compute a query once, under a name: a temporary table."""
        self._attach_all(sql)
        self._call(
            lambda: self._connection.execute(f"create or replace temp table {quoted(name)} as {sql}", values), where
        )
        self._known.add(name)

    def define(self, name: str, sql: str) -> None:
        """Give a query a name; it is computed anew each time the name is read."""
        self._attach_all(sql)
        self._view(name, sql)
        self._known.add(name)

    def _call(self, call: Callable[[], T], where: str) -> T:
        """A call on the connection that Ctrl-C ends, and whose errors are ours."""
        try:
            return self._interruptible(call)
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise translated(error, where) from error

    def _attach_all(self, sql: str) -> None:
        for name in sorted(_names(sql)):
            self._attach(name, ())

    def _attach(self, name: str, path: tuple[str, ...]) -> None:
        if name in self._known:
            return
        if name in path:
            raise Invalid(f"{' → '.join((*path, name))} is a circle", todo="let one of them not depend on the others")
        relation = self._catalog(name)
        if relation is None:
            return  # DuckDB says it best, with the names that are near
        if isinstance(relation, Query):
            for dependency in sorted(_names(relation.sql)):
                self._attach(dependency, (*path, name))
        self._view(name, self._select(name, relation))
        self._known.add(name)

    def _select(self, name: str, relation: Relation) -> str:
        """A relation as SQL. Rows in memory become a temporary table: DuckDB pushes a join's Bloom filter into a view
        of Arrow rows that stands in a union, and then fails because their scan knows none."""
        match relation:
            case Query():
                return relation.sql
            case Stored():
                return f"select * from delta_scan({literal(_path(relation.uri))}, version => {relation.version})"
            case Files():
                return _files(relation)
            case Foreign():
                return f"select {relation.select(self._described(name, relation.scan))} from {relation.scan}"
            case Union():
                rows = " union all by name ".join(self._select(name, part) for part in relation.parts)
                return f"{relation.select} from ({rows}) {relation.then}"
        held = f"_rows_{next(self._numbers)}"
        self._connection.register(f"{held}_arrow", relation.combine_chunks())
        self._connection.execute(f"create temp table {held} as select * from {held}_arrow")
        self._connection.unregister(f"{held}_arrow")
        return f"select * from {held}"

    def _described(self, name: str, scan: str) -> dict[str, str]:
        """The columns of a scan and their types."""
        rows = self._call(lambda: self._connection.execute(f"describe select * from {scan}").fetchall(), name)
        return {str(row[0]): str(row[1]) for row in rows}

    def _view(self, name: str, sql: str) -> None:
        """Under its name in its schema; a pinned one also as one identifier, since `"flights.weather@3"` may be spelled
        so."""
        base, at, version = name.partition("@")  # a moment may hold a dot
        schema, dot, short = base.rpartition(".")
        targets = [f"{quoted(schema)}.{quoted(short + at + version)}"] if dot else []
        targets += [quoted(name)] if "@" in name or not dot else []
        if dot:
            self._connection.execute(f"create schema if not exists {quoted(schema)}")
        for target in targets:
            text = f"create or replace view {target} as (\n{sql}\n)"
            self._call(lambda: self._connection.execute(text), name)  # noqa: B023 - called at once


def _path(uri: str) -> str:
    """How DuckDB's Delta reader takes a place: of a path it cuts off a last part with '%' or beyond ASCII, of a URL
    not."""
    return uri if (uri.isascii() and "%" not in uri) or "://" in uri else f"file://{quote(uri)}"


@dataclass(frozen=True, slots=True)
class Batches:
    """An answer that is computed while it is read: its memory is that of a batch."""

    schema: pa.Schema
    _next: Callable[[], pa.RecordBatch | None]

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return iter(self._next, None)


@lru_cache(maxsize=1024)
def _names(sql: str) -> frozenset[str]:
    """The tables a text names. Invalid for a function that reads files: DuckDB's lock keeps rows from it, but would
    still tell columns; and for one that the lock does not hold."""
    found = references(parse(sql))
    for name in sorted(set(found.functions) & FORBIDDEN_FUNCTIONS):
        raise Invalid(f"{name}() may not be used", where="the query", todo="a query reads data, and nothing else")
    for name in sorted(set(found.table_functions) - TABLE_FUNCTIONS):
        raise Invalid(f"{name}() may not be used as a table", where="the query", todo="read tables by their names")
    return frozenset(found.tables)


def _files(relation: Files) -> str:
    """SQL: columns that a file, or every file, lacks are null there."""
    empty = ", ".join(f"null::{kind} as {quoted(name)}" for name, kind in relation.columns.items())
    if not relation.uris:
        return f"select {empty} where false"
    uris = ", ".join(map(literal, relation.uris))
    columns = ", ".join(map(quoted, relation.columns))
    return (
        f"select {columns} from (select * from read_parquet([{uris}], union_by_name = true) "
        f"union all by name select {empty} where false)"
    )
