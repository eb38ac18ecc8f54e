"""Connections to DuckDB that can reach the folders they are given, and nothing else of the machine.

Opening a database costs as much as a short query, so those of the same place and credentials share one. Each has its
names in a catalog of its own, which goes with it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TypeAlias

import duckdb

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.query.quoting import literal
from lakeloop.lakehouse.store import Location

MOST_DATABASES = 4
"""Kept open; with it goes the memory that the allocator keeps."""
_numbers = count()
Place: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may use. 0 and "" are DuckDB's own. With `views` texts come as Arrow's string views."""

    threads: int = 0
    memory: str = ""
    scratch: Path | None = None
    views: bool = False


ALL = Limits()


def connect(places: Sequence[Location], limits: Limits = ALL) -> duckdb.DuckDBPyConnection:
    """A connection to a locked-down database; to be given to `disconnect`."""
    if limits != ALL:
        return _database(places, limits)
    key = tuple((place.uri, tuple(sorted(place.options.items()))) for place in places)
    connection = _shared(key, os.getpid()).cursor()
    own = f"session_{next(_numbers)}"
    connection.execute(f"attach ':memory:' as {own}")
    connection.execute(f"use {own}")
    return connection


def disconnect(connection: duckdb.DuckDBPyConnection) -> None:
    """Close a connection and what it named."""
    with suppress(duckdb.Error):  # a database of its own, or one that is broken, ends with its connection
        own = connection.execute("select current_database()").fetchall()[0][0]
        if own != "memory":
            connection.execute("use memory")
            connection.execute(f"detach {own}")
    connection.close()


@lru_cache(MOST_DATABASES)
def _shared(places: tuple[Place, ...], process: int) -> duckdb.DuckDBPyConnection:
    """The database of these places in this process: a forked one has none of its parent's threads."""
    return _database([Location(uri, dict(options)) for uri, options in places], ALL)


def _database(places: Sequence[Location], limits: Limits) -> duckdb.DuckDBPyConnection:
    # The extensions are files of installed wheels, as trusted as any module; checking their signature again costs 120
    # ms a connection.
    connection = duckdb.connect(
        ":memory:", config={"threads": limits.threads or os.cpu_count() or 1, "allow_unsigned_extensions": "true"}
    )
    remote = next((place for place in places if place.options), None)
    for extension in ("delta", "httpfs") if remote else ("delta",) if places else ():
        connection.execute(f"load {literal(_extension(extension))}")
    connection.execute("set global TimeZone = 'UTC'")
    connection.execute("set global python_enable_replacements = false")
    # DuckDB takes an Arrow table for a handful of rows, and would compare each with each: 44 s instead of 0.15 s.
    connection.execute("set global asof_loop_join_threshold = 0")
    connection.execute("set enable_progress_bar = false")  # which it is until a query takes long
    # Files never change, but their bytes would stay in memory as long as the database.
    connection.execute("set enable_external_file_cache = false")
    connection.execute(f"set produce_arrow_string_view = {str(limits.views).lower()}")
    if limits.memory:
        connection.execute(f"set memory_limit = {literal(limits.memory)}")
    if remote:
        connection.execute(_secret(remote))
        if "AWS_CA_BUNDLE" in remote.options:
            connection.execute(f"set global ca_cert_file = {literal(remote.options['AWS_CA_BUNDLE'])}")
    folders = [place.uri.rstrip("/") for place in places]
    if limits.scratch:
        folders.append(str(limits.scratch))
        connection.execute(f"set temp_directory = {literal(str(limits.scratch / 'spilled'))}")
    connection.execute(f"set allowed_directories = [{', '.join(literal(f'{folder}/') for folder in folders)}]")
    # A table elsewhere may be one file.
    connection.execute(f"set allowed_paths = [{', '.join(map(literal, folders))}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


def _secret(location: Location) -> str:
    """A DuckDB secret with what delta-rs is given, but for the address style: the two halves of DuckDB (httpfs and the
    delta extension) build the address of a bucket at an endpoint alike only in path style."""
    options = location.options
    parts = {"TYPE": "s3", "REGION": literal(options["AWS_REGION"])}
    if "AWS_ACCESS_KEY_ID" in options:
        parts |= {"KEY_ID": literal(options["AWS_ACCESS_KEY_ID"]), "SECRET": literal(options["AWS_SECRET_ACCESS_KEY"])}
    if "AWS_SESSION_TOKEN" in options:
        parts["SESSION_TOKEN"] = literal(options["AWS_SESSION_TOKEN"])
    if location.endpoint:
        scheme, _, host = location.endpoint.partition("://")
        parts |= {
            "ENDPOINT": literal(host.rstrip("/")),
            "URL_STYLE": "'path'",
            "USE_SSL": str(scheme == "https").lower(),
        }
    return f"create secret lake ({', '.join(f'{key} {value}' for key, value in parts.items())})"


@lru_cache
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
