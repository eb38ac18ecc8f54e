"""Delta tables as compare-and-swap: a writer commits with the handle it read, and of two from one version exactly one
wins.

Every commit that adds or removes rows carries one application transaction (app id `lakeloop`, version = the handle's
+ 1) and is written *with that handle*: delta-rs then refuses a stale one in any mode. After any exception the truth
is Unknown: open the table again and ask whether the work is still to be done. Writers run no post-commit hook;
checkpoints and clean-up belong to maintenance, which alone may delete.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from queue import Full, Queue
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import Conflict, Corrupt, Denied, Invalid, LakeloopError, NotFound, Unavailable, Unknown
from lakeloop.lakehouse.store import Location
from lakeloop.lakehouse.stored import fitted, misfit, stored, stored_schema, stored_type, widens

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

APP = "lakeloop"
ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
UNANSWERED = ("error sending request", "Connection refused", "Connection reset", "timed out", "500 Inter", "503 Serv")
"""What delta-rs says when the store is away, after its own tries."""
AHEAD = 4
"""Batches that are read before the writer asks for them."""
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
WRITER = WriterProperties(
    # Line numbers count up: as differences they take a seventh of the bytes, and no dictionary is tried in vain.
    column_properties={"_line": ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")}
)
COMPACTED = WriterProperties(
    # A reader skips row groups by their statistics, and each is one thread's: a quarter of what delta-rs writes.
    max_row_group_size=262_144,
    compression="ZSTD",
    column_properties={"_line": ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")},
)
STATISTICS = {"delta.dataSkippingNumIndexedCols": "-1"}
"""Of every column: what tells a file's or a segment's rows comes behind those of the user."""
T = TypeVar("T")
Rows: TypeAlias = pa.Table | pa.RecordBatchReader


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a table, by its path below the table's folder."""

    path: str
    size: int
    rows: int


class Table:
    """One version of a table: a handle. A write leaves the handle at the version it made."""

    def __init__(self, name: str, delta: DeltaTable) -> None:
        self.name, self._delta = name, delta

    @property
    def version(self) -> int:
        return int(self._delta.version())

    @property
    def id(self) -> str:
        """Delta's own identity of the table: another when it was dropped and made anew."""
        return str(self._delta.metadata().id)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(self._delta.schema().to_arrow())

    @property
    def files(self) -> list[str]:
        return list(self._delta.file_uris())

    def data_files(self) -> list[DataFile]:
        """The files of this version, as the log names them."""
        found = pa.table(self._delta.get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"])
        return sorted(
            (DataFile(row["path"], row["size_bytes"], row["num_records"] or 0) for row in found.to_pylist()),
            key=lambda file: file.path,
        )

    def append(self, rows: Rows, *, facts: Mapping[str, str] | None = None) -> int:
        """One commit with these rows; columns it did not have are added. Returns the version. Conflict for a stale
        handle. A stream is written as it comes, in bounded memory; an error in it is raised, and nothing is committed.

        delta-rs would cast a value to its column's type without a word (1.5 → 1), so types must agree: whole numbers
        fit a column of reals; reals in a column of whole numbers widen it first (`retype`); any other difference is
        Invalid.
        """
        schema = self.schema
        if isinstance(rows, pa.Table):
            rows = fitted(stored(rows), schema)
        if problem := misfit(rows.schema, schema):
            raise Invalid(f"{self.name}: {problem}", todo="give the column another name, or convert the values")
        brought = {field.name: field.type for field in rows.schema}
        if widened := {f.name: brought[f.name] for f in schema if widens(f.type, brought.get(f.name, f.type))}:
            self.retype(widened)
        return self._write(rows, "append", "merge", facts)

    def retype(self, types: Mapping[str, pa.DataType]) -> int:
        """One commit that keeps these columns in other types, which writes the whole table anew and says so.

        Invalid, and nothing is changed, when a value would be lost. Conflict for a stale handle.
        """
        named = ", ".join(types)
        wide = pa.schema([pa.field(f.name, stored_type(types.get(f.name, f.type))) for f in self.schema])
        try:
            rows = self.batches().cast(wide)
            return self._write(rows, "overwrite", "overwrite", {"lakeloop.retyped": named})
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            kinds = ", ".join(map(str, types.values()))
            raise Invalid(
                f"{self.name}: {named} cannot become {kinds}: {_brief(error)}",
                todo="give the column another name, or mend the rows that are there",
            ) from error

    def overwrite(self, rows: Rows, *, facts: Mapping[str, str] | None = None) -> int:
        """One commit whose rows and columns are the whole table. Returns the version. Conflict for a stale handle."""
        return self._write(rows, "overwrite", "overwrite", facts)

    def remove(self, where: str, *, facts: Mapping[str, str] | None = None) -> int:
        """One commit without the rows for which `where` (SQL over the columns) is true; only files that hold such rows
        are written anew. Returns how many rows went. Conflict for a stale handle, and for an append meanwhile."""
        found = self._commit(
            lambda marks: self._delta.delete(where, commit_properties=marks, post_commithook_properties=NO_HOOKS), facts
        )
        return int(found["num_deleted_rows"] or 0)

    def replace(self, column: str, text: str, by: str, *, facts: Mapping[str, str] | None = None) -> int:
        """One commit in which this text of a column is another. Returns in how many rows. Conflict as in `remove`."""
        where, value = f"{_identifier(column)} = {_literal(text)}", _literal(by)

        def call(marks: CommitProperties) -> Any:
            return self._delta.update(
                updates={_identifier(column): value},
                predicate=where,
                commit_properties=marks,
                post_commithook_properties=NO_HOOKS,
            )

        return int(self._commit(call, facts)["num_updated_rows"] or 0)

    def fence(self, *, facts: Mapping[str, str] | None = None) -> int:
        """One commit without rows: whoever computed from an older handle is refused. Returns the version."""
        return self._write(self.schema.empty_table(), "append", "merge", facts)

    def column(self, name: str, values: Iterable[str]) -> set[str]:
        """Those of `values` that stand in this string column; only files whose statistics admit one are read."""
        wanted = pa.array(sorted(values), pa.string())
        if name not in self.schema.names or not len(wanted):
            return set()
        import pyarrow.dataset as ds

        column = ds.field(name)  # the bounds prune files, which the list alone would not
        admitted = (column >= wanted[0]) & (column <= wanted[-1]) & column.isin(wanted)
        found: set[str] = set()
        dataset = self._delta.to_pyarrow_dataset()
        with _reading(self.name):
            try:
                for batch in dataset.scanner(columns=[name], filter=admitted).to_batches():
                    found.update(batch.column(0).unique().to_pylist())
            except pa.ArrowNotImplementedError:
                # What delta-rs writes for `remove` are views of strings, which Arrow reads and cannot compare.
                for fragment in dataset.get_fragments(filter=admitted):
                    found.update(fragment.to_table(dataset.schema, columns=[name]).column(name).unique().to_pylist())
        return found & set(wanted.to_pylist())

    def newest(self, column: str) -> datetime | None:
        """The greatest value of a column of times, cut to milliseconds as the statistics of the files are; None where
        there is none."""
        found = pa.table(self._delta.get_add_actions(flatten=True))
        values = found.column(f"max.{column}").to_pylist() if f"max.{column}" in found.column_names else []
        return max((_aware(value) for value in values if value is not None), default=None)

    def rows(self) -> pa.Table:
        """All rows of this version, in memory."""
        with _reading(self.name):
            return self._delta.to_pyarrow_table()

    def batches(self, paths: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """All rows of this version, or of some of its files, as a stream."""
        dataset = self._delta.to_pyarrow_dataset()
        wanted = None if paths is None else set(paths)

        def read() -> Iterator[pa.RecordBatch]:
            with _reading(self.name):
                for fragment in dataset.get_fragments():
                    if wanted is None or fragment.path in wanted:
                        yield from fragment.scanner(schema=dataset.schema, batch_readahead=2).to_batches()

        return pa.RecordBatchReader.from_batches(dataset.schema, read())

    def facts(self, limit: int | None = 50) -> list[dict[str, Any]]:
        """Commit records, newest first."""
        with _reading(self.name):
            return list(self._delta.history(limit))

    def unused_files(self, older_than: timedelta) -> list[str]:
        """Paths below the table's folder that this version does not name, and that no version younger than
        `older_than` did: removed, or written and not committed, longer ago than that. Nothing is deleted."""
        hours = ceil(older_than / timedelta(hours=1))
        with _reading(self.name):
            return list(self._delta.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True))

    def forget_old_log(self) -> None:
        """Delete log entries that a checkpoint holds and that are older than the table's log retention (30 days unless
        its property `delta.logRetentionDuration` says otherwise). Versions of that age can then not be opened."""
        with _reading(self.name):
            self._delta.cleanup_metadata()

    def checkpoint(self) -> None:
        """Fold the log so far into one file, which makes opening cheap."""
        try:
            self._delta.create_checkpoint()
        except (DeltaError, OSError) as error:
            raise Unknown(
                f"no checkpoint of {self.name}: {_brief(error)}", todo="the next maintenance tries"
            ) from error

    def refresh(self) -> None:
        """Go to the newest version."""
        with _reading(self.name):
            self._delta.update_incremental()

    def _write(
        self,
        rows: Rows,
        mode: Literal["append", "overwrite"],
        schema_mode: Literal["merge", "overwrite"],
        facts: Mapping[str, str] | None,
    ) -> int:
        source = _Ahead(_reader(rows))

        def write(marks: CommitProperties) -> None:
            write_deltalake(
                self._delta,
                source.reader(),
                mode=mode,
                schema_mode=schema_mode,
                commit_properties=marks,
                post_commithook_properties=NO_HOOKS,
                writer_properties=WRITER,
            )

        try:
            self._commit(write, facts)
        except (Conflict, Unknown):
            if source.error is not None:  # the rows' own error, not the table's: nothing was committed
                raise source.error from None
            raise
        finally:
            source.close()
        return self.version

    def _commit(self, call: Callable[[CommitProperties], T], facts: Mapping[str, str] | None) -> T:
        mark = Transaction(APP, self.version + 1)
        try:
            return call(CommitProperties(app_transactions=[mark], custom_metadata=dict(facts or {})))
        except CommitFailedError as error:
            raise Conflict(
                f"{self.name} has a newer version than {self.version}", todo="open it again and decide again"
            ) from error
        except Exception as error:
            if type(error) is not Exception and not isinstance(error, DeltaError | OSError):
                raise
            raise Unknown(
                f"the commit to {self.name} may or may not have happened: {_brief(error)}", todo="open it and look"
            ) from error


class _Ahead:
    """A stream read in a thread of its own, a few batches ahead of the writer.

    The rows may themselves come out of delta-rs, which cannot read on the thread it writes on; and reading and
    writing take a core each. Remembers the error the rows broke with: what comes back through delta-rs is its text.
    """

    def __init__(self, rows: pa.RecordBatchReader) -> None:
        self._rows, self._queue = rows, Queue[pa.RecordBatch | None](AHEAD)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="rows-ahead", daemon=True)
        self.error: Exception | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._rows.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        self._thread.start()
        while (batch := self._queue.get()) is not None:
            yield batch
        if self.error is not None:
            raise self.error

    def _read(self) -> None:
        try:
            for batch in self._rows:
                if not self._put(batch):
                    return
        except Exception as error:  # noqa: BLE001  whatever it is, it is raised where the rows are written
            self.error = error
        self._put(None)

    def _put(self, batch: pa.RecordBatch | None) -> bool:
        """False when nobody reads on."""
        while not self._over.is_set():
            try:
                self._queue.put(batch, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def close(self) -> None:
        """The writer reads no further, and nobody is at the rows any more."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()


def write_scratch(folder: Path, rows: pa.RecordBatchReader) -> list[dict[str, Any]]:
    """Write rows as the files of a table of their own in a folder of this machine. Returns what its log says of each
    (`add` of the Delta protocol): path below the folder, size, statistics."""
    source = _Ahead(rows)
    try:
        write_deltalake(
            str(folder),
            source.reader(),
            configuration=STATISTICS,
            post_commithook_properties=NO_HOOKS,
            writer_properties=COMPACTED,
        )
    except (DeltaError, OSError) as error:
        raise source.error or Unavailable(f"rows cannot be written to {folder}: {_brief(error)}") from error
    finally:
        source.close()
    log = (folder / "_delta_log" / f"{0:020d}.json").read_text().splitlines()
    return [action["add"] for action in map(json.loads, log) if "add" in action]


def open_elsewhere(location: Location, version: int | None = None) -> Table | None:
    """A Delta table outside of the lake, to be read only; None when there is none. NotFound for a version that its
    owner has cleaned up."""
    try:
        delta = DeltaTable(location.uri, version=version, storage_options=dict(location.options) or None)
    except (DeltaError, OSError) as error:
        if version is not None and open_elsewhere(location) is not None:
            todo = "its owner cleans up old versions; train on the newest"
            raise NotFound(f"version {version} of the table is gone", where=location.uri, todo=todo) from error
        if isinstance(error, TableNotFoundError):
            return None
        what = f"the Delta table cannot be opened: {_brief(error)}"
        raise Corrupt(what, where=location.uri, todo="ask the table's owner") from error
    return Table(location.uri, delta)


class Tables:
    """All tables of the lake at a location."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def uri(self, name: str) -> str:
        """Invalid for a path that delta-rs would take for another."""
        uri = f"{self._location.uri}/{keys.table(name)}"
        if found := ESCAPE.search(uri):
            raise Invalid(f"a table cannot lie below a folder with {found[0]} in its name", where=uri, todo="rename it")
        return uri

    def open(self, name: str, *, version: int | None = None, at: datetime | None = None) -> Table | None:
        """The newest version, or None when there is no such table. `version` names another, `at` the newest one that
        was committed by then: NotFound when there is none, or when its log is gone."""
        try:
            delta = DeltaTable(self.uri(name), storage_options=dict(self._location.options))
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise _unreadable(name, error) from error
        _check_whole(name, self.uri(name), delta)
        if version is None and at is None:
            return Table(name, delta)
        newest = delta.version()
        if version is None:
            assert at is not None
            version = _version_at(name, delta, at)
        try:
            delta.load_as_version(version)
        except (DeltaError, OSError, OverflowError) as error:
            raise NotFound(
                f"{name} has no version {version} (the newest is version {newest})",
                todo=f"lakeloop tables history {name}",
            ) from error
        return Table(name, delta)

    def folder(self, name: str) -> FileSystem:
        """A table's folder, to read files of it that no version names."""
        from pyarrow.fs import PyFileSystem

        return PyFileSystem(DeltaStorageHandler(self.uri(name), dict(self._location.options)))

    def open_or_create(self, name: str, schema: pa.Schema) -> Table:
        """The newest version; an empty table with this schema is made when there is none. Losing that race is no
        error."""
        found = self.open(name)
        if found is not None:
            return found
        failed: Exception | None = None
        try:
            # Not DeltaTable.create, whose commit would name the place: a copied lake must name no other.
            write_deltalake(
                self.uri(name),
                stored_schema(schema).empty_table(),
                mode="error",
                storage_options=dict(self._location.options),
                configuration=STATISTICS,
                commit_properties=CommitProperties(
                    max_commit_retries=0
                ),  # a retried create lands as version 1, on top of the other's
                post_commithook_properties=NO_HOOKS,
            )
        except (DeltaError, OSError) as error:
            failed = error
        there = self.open(name)
        if there is None:
            raise _unreadable(name, failed or OSError("it was made and is gone")) from failed
        return there


def committed_at(commit: Mapping[str, Any]) -> datetime:
    """When a commit (a record of `Table.facts`) was made."""
    return datetime.fromtimestamp(int(commit["timestamp"]) / 1000, UTC)


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _check_whole(name: str, uri: str, delta: DeltaTable) -> None:
    """Corrupt when the newest commit is an empty file, as a power failure can leave one in a folder: readers would take
    it for a commit of nothing, and the next one would go on top."""
    commit = Path(uri) / "_delta_log" / f"{delta.version():020d}.json"
    if "://" not in uri and commit.exists() and not commit.stat().st_size:
        raise Corrupt(
            f"the newest commit of {name} is an empty file: {commit.name}",
            todo="delete that file, and do again what was lost (ingest, build), or restore it from a copy of the lake",
        )


def _version_at(name: str, newest: DeltaTable, at: datetime) -> int:
    """The newest version that was committed by a moment. (A handle at an older version numbers its history wrongly.)"""
    there = [int(commit["version"]) for commit in newest.history() if committed_at(commit) <= at]
    if not there:
        raise NotFound(
            f"nothing is known of {name} at {at:%Y-%m-%d %H:%M:%S}Z: it was not there yet, or its log is gone",
            todo=f"lakeloop tables history {name}",
        )
    return max(there)


def _reader(rows: Rows) -> pa.RecordBatchReader:
    return rows.to_reader() if isinstance(rows, pa.Table) else rows


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> LakeloopError:
    """The store does not permit it, or does not answer, or what lies there is not that table."""
    text = str(error)
    if "403 Forbidden" in text or "necessary privileges" in text or "401 Unauthorized" in text:
        return Denied(f"no permission to read the table {name}", todo="check the credentials and this role's policy")
    if isinstance(error, PermissionError):
        return Denied(f"no permission to read the table {name}", todo="check who owns the folder")
    if any(sign in text for sign in UNANSWERED):
        return Unavailable(f"the table {name} cannot be read: {_brief(error)}", todo="check the store, then try again")
    return Corrupt(
        f"the table {name} cannot be opened: {_brief(error)}",
        todo="check the store, or restore tables/ from a copy of the lake",
    )


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _brief(error: Exception) -> str:
    first = str(error).partition("\n")[0].partition(": ParsedLogPath")[0]  # delta-rs prints a whole Rust value there
    return first[:200] or type(error).__name__
