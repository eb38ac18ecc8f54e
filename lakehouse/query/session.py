"""A DuckDB connection that can see one lake and nothing else.

Names in a query become relations only when the query names them: no request is made before that. The connection is
locked down before the first statement: no file outside the lake, no extension, no setting, no Python variable can be
reached through SQL.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import duckdb
import pyarrow as pa

from lakeloop.lakehouse.errors import Invalid, LakeloopError, Unavailable
from lakeloop.lakehouse.query.statements import TABLE_FUNCTIONS, parse, references
from lakeloop.lakehouse.store import Location


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


GONE = re.compile(r"tables/.*\.parquet.*(No such file|404)|(No such file|404).*tables/.*\.parquet")
Relation: TypeAlias = Stored | Files | Query | pa.Table
Catalog: TypeAlias = Callable[[str], Relation | None]
"""From a name (`weather`, `flights.weather`, `weather@3`) to what it is, or None."""


def quoted(name: str) -> str:
    """An identifier for SQL text; `a.b` is one identifier with a dot in it unless split before."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal for SQL text."""
    return "'" + text.replace("'", "''") + "'"


def timestamp(at: datetime) -> str:
    """A moment for SQL text."""
    return f"timestamptz {literal(at.isoformat())}"


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
    ) -> None:
        """`scratch` is a folder of the caller's, for `attach_file` and for what does not fit in memory."""
        self._catalog = catalog
        self._connection = _connect(location, threads, memory, scratch)
        self._known: set[str] = set()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def run(self, sql: str, values: Sequence[object] | Mapping[str, object] = (), *, where: str = "") -> pa.Table:
        """The answer as Arrow. `where` names the text in an error (a file, "the query")."""
        self._attach_all(sql)
        try:
            return self._connection.execute(sql, values).to_arrow_table()
        except duckdb.Error as error:
            raise translated(error, where) from error

    def stream(self, sql: str, values: Sequence[object] = (), *, where: str = "", rows: int = 1 << 17) -> Batches:
        """The answer in batches of so many rows, computed as they are asked for. One at a time for a session."""
        self._attach_all(sql)
        return Batches(self._connection, sql, values, where, rows)

    def attach_file(self, name: str, path: Path) -> None:
        """A Parquet file in `scratch` under a name, with `_line` (1 is the first row) in place of a column that is
        called so."""
        file = f"read_parquet({literal(str(path))}, file_row_number = true)"
        self._connection.execute(
            f"create or replace view {quoted(name)} as "
            f"select * exclude (file_row_number), file_row_number + 1 as _line "
            f"from (select columns(c -> lower(c) <> '_line') from {file})"
        )
        self._known.add(name)

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Give a table in memory a name."""
        self._connection.register(name, rows)
        self._known.add(name)

    def keep(self, name: str, sql: str, values: Sequence[object] = (), *, where: str = "") -> None:
        """Compute a query once, under a name: a temporary table."""
        self._attach_all(sql)
        try:
            self._connection.execute(f"create or replace temp table {quoted(name)} as {sql}", values)
        except duckdb.Error as error:
            raise translated(error, where) from error
        self._known.add(name)

    def define(self, name: str, sql: str) -> None:
        """Give a query a name; it is computed anew each time the name is read."""
        self._attach_all(sql)
        self._view(name, sql)
        self._known.add(name)

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
        if isinstance(relation, pa.Table):
            self._connection.register(f"_rows_{len(self._known)}", relation)
            self._view(name, f"select * from _rows_{len(self._known)}")
        elif isinstance(relation, Stored):
            self._view(name, f"select * from delta_scan({literal(relation.uri)}, version => {relation.version})")
        elif isinstance(relation, Files):
            self._view(name, _files(relation))
        else:
            for dependency in sorted(_names(relation.sql)):
                self._attach(dependency, (*path, name))
            self._view(name, relation.sql)
        self._known.add(name)

    def _view(self, name: str, sql: str) -> None:
        """Under its name in its schema; a pinned one also as one identifier, since `"flights.weather@3"` may be spelled
        so."""
        schema, dot, short = name.rpartition(".")
        targets = [f"{quoted(schema)}.{quoted(short)}"] if dot else []
        targets += [quoted(name)] if "@" in name or not dot else []
        if dot:
            self._connection.execute(f"create schema if not exists {quoted(schema)}")
        for target in targets:
            try:
                self._connection.execute(f"create or replace view {target} as (\n{sql}\n)")
            except duckdb.Error as error:
                raise translated(error, name) from error


class Batches:
    """An answer that is computed while it is read."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[object], where: str, rows: int
    ) -> None:
        self._where = where
        try:
            self._reader = connection.execute(sql, values).to_arrow_reader(rows)
        except duckdb.Error as error:
            raise translated(error, where) from error

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                return
            except (duckdb.Error, OSError, pa.ArrowException) as error:
                raise translated(error, self._where) from error
            yield batch


@lru_cache(maxsize=1024)
def _names(sql: str) -> frozenset[str]:
    """The tables a text names. Invalid for a function that reads files: DuckDB's lock keeps rows from it, but would
    still tell columns."""
    found = references(parse(sql))
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


def _connect(location: Location | None, threads: int, memory: str, scratch: Path | None) -> duckdb.DuckDBPyConnection:
    # The extensions are files of installed wheels, as trusted as any module; checking their signature again costs 120
    # ms a connection.
    connection = duckdb.connect(
        ":memory:", config={"threads": threads or os.cpu_count() or 1, "allow_unsigned_extensions": "true"}
    )
    for extension in ("delta", "httpfs") if location and location.options else ("delta",) if location else ():
        connection.execute(f"load {literal(_extension(extension))}")
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set python_enable_replacements = false")
    # DuckDB takes an Arrow table for a handful of rows, and would compare each with each: 44 s instead of 0.15 s.
    connection.execute("set asof_loop_join_threshold = 0")
    connection.execute("set enable_progress_bar = false")
    if memory:
        connection.execute(f"set memory_limit = {literal(memory)}")
    folders = [location.uri.rstrip("/")] if location else []
    if location and location.options:
        connection.execute(_secret(location.options))
    if scratch:
        folders.append(str(scratch))
        connection.execute(f"set temp_directory = {literal(str(scratch / 'spilled'))}")
    connection.execute(f"set allowed_directories = [{', '.join(literal(f'{folder}/') for folder in folders)}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


def _secret(options: Mapping[str, str]) -> str:
    """A DuckDB secret with what delta-rs is given."""
    parts = {"TYPE": "s3", "REGION": literal(options["AWS_REGION"])}
    if "AWS_ACCESS_KEY_ID" in options:
        parts |= {"KEY_ID": literal(options["AWS_ACCESS_KEY_ID"]), "SECRET": literal(options["AWS_SECRET_ACCESS_KEY"])}
    if "AWS_SESSION_TOKEN" in options:
        parts["SESSION_TOKEN"] = literal(options["AWS_SESSION_TOKEN"])
    if "AWS_ENDPOINT_URL" in options:
        scheme, _, host = options["AWS_ENDPOINT_URL"].partition("://")
        parts |= {
            "ENDPOINT": literal(host.rstrip("/")),
            "URL_STYLE": "'path'",
            "USE_SSL": str(scheme == "https").lower(),
        }
    return f"create secret lake ({', '.join(f'{key} {value}' for key, value in parts.items())})"


def _extension(name: str) -> str:
    """The extension's file in its wheel: nothing is downloaded."""
    found = importlib.util.find_spec(f"duckdb_extension_{name}")
    folders = list(found.submodule_search_locations or ()) if found else []
    files = [file for folder in folders for file in Path(folder).rglob(f"{name}.duckdb_extension")]
    if not files:
        raise Unavailable(
            f"DuckDB's extension {name} is not installed",
            todo=f"pip install duckdb-extension-{name}=={duckdb.__version__}",
        )
    return str(files[0])


def translated(error: Exception, where: str) -> LakeloopError:
    """DuckDB's error as one of ours: its first sentence, and its hint as the way out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = lines[0] if lines else type(error).__name__
    hint = next((line for line in lines[1:] if line.startswith(("Did you mean", "Candidate"))), "")
    if isinstance(error, duckdb.HTTPException | duckdb.IOException) and GONE.search(what):
        return Unavailable(
            "a file of this version is gone: vacuum deleted it, or rows in it were forgotten",
            where=where,
            todo="try again, or read a newer version",
        )
    if isinstance(error, duckdb.HTTPException | duckdb.IOException):
        return Unavailable(what, where=where, todo="check the store, then try again")
    if isinstance(error, duckdb.OutOfMemoryException):
        return Unavailable(
            "the query needs more memory than it may use", where=where, todo="select fewer rows or columns"
        )
    return Invalid(what, where=where or "the query", todo=hint or "mend the SQL")
