"""Journals: what many small writers append without contention, each row seen exactly once.

A writer puts a *segment*, whose name and bytes are fixed before the first try, so that a repeated append is the same
object. `fold` moves segments into a Delta table; every row there carries `_segment`, and the table is thereby its own
record of what was folded: a segment that comes again later is recognised. A reader lists the inbox first, then opens
the table, and leaves out what the table holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from lakeloop.lakehouse import forgetting, keys
from lakeloop.lakehouse.errors import AlreadyExists, Conflict, Invalid, NotFound, Unknown
from lakeloop.lakehouse.store import Entry, Store
from lakeloop.lakehouse.tables import Table, Tables, fitted, misfit, stored, stored_schema

SEGMENT = "_segment"
GRACE_S = 60.0
"""A folded segment is deleted only when older than this: longer than a reader takes from its LIST to its last GET."""
READERS = 16
NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A journal at one moment: the folded rows (a table's version, or None) and the rows not folded yet."""

    table: Table | None
    pending: pa.Table | None


class Folded(Protocol):
    """What fold needs of tables; `Tables` in a lake, a dict in tests."""

    def open(self, name: str) -> Table | None: ...

    def open_or_create(self, name: str, schema: pa.Schema) -> Table: ...


def segment_name(writer: str, number: int, at: datetime) -> str:
    """`<utc of the first row>-<writer>-<n>`: sorts by time, and no two writers share one."""
    return f"{at:%Y%m%dT%H%M%S%fZ}-{writer}-{number:06d}"


class Journal:
    """One journal of a lake."""

    def __init__(self, store: Store, tables: Tables | Folded, name: str) -> None:
        self.name, self.table_name = name, f"lakeloop/{name}"
        self._store, self._tables = store, tables

    @staticmethod
    def segment_name(writer: str, number: int, at: datetime) -> str:
        return segment_name(writer, number, at)

    def append(self, rows: pa.Table, segment: str) -> None:
        """One object with these rows. The same segment with the same rows again changes nothing; no rows, no object."""
        if not NAME.fullmatch(segment) or SEGMENT in rows.column_names:
            raise Invalid(
                f"{segment!r} cannot be a segment of the journal {self.name}", todo="use letters, digits, '.', '_', '-'"
            )
        if not rows.num_rows:  # the table could never show that it holds it
            return
        sink = pa.BufferOutputStream()
        kept = stored(rows)
        with pa.ipc.new_file(sink, kept.schema) as writer:
            writer.write_table(kept)
        try:
            self._store.put(keys.segment(self.name, segment), sink.getvalue().to_pybytes(), if_absent=True)
        except (AlreadyExists, Unknown):
            return

    def snapshot(self) -> Snapshot:
        """Inbox first, table second, then every row that the table does not hold."""
        for _ in range(5):
            names = [entry.key.rsplit("/", 1)[1] for entry in self._store.list(keys.inbox(self.name))]
            table = self._tables.open(self.table_name)
            held = table.column(SEGMENT, names) if table else set()
            try:
                pending = self._read_segments([name for name in names if name not in held], table)
                if pending is not None:
                    pending = self._remembered(pending, forgetting.load(self._store))
                return Snapshot(table, pending)
            except NotFound:  # folded and deleted since the LIST: once more
                continue
        raise Conflict(f"the journal {self.name} is folded faster than it can be read", todo="try again")

    def read(self) -> pa.Table | None:
        """Every row once, or None when nothing was ever appended. For journals that fit in memory; SQL reads the
        others."""
        snapshot = self.snapshot()
        parts = []
        if snapshot.table is not None:
            parts.append(snapshot.table.rows())
        if snapshot.pending is not None:
            parts.append(snapshot.pending)
        return pa.concat_tables(parts, promote_options="permissive") if parts else None

    def fold(self, *, grace_s: float = GRACE_S) -> int:
        """Move what lies in the inbox into the table, in one commit; returns the rows moved. Losing a race moves
        nothing."""
        entries = list(self._store.list(keys.inbox(self.name)))
        if not entries:
            return 0
        names = [entry.key.rsplit("/", 1)[1] for entry in entries]
        table = self._tables.open(self.table_name)
        held = table.column(SEGMENT, names) if table else set()
        try:
            moved = self._commit([name for name in names if name not in held], table)
        except NotFound:  # another has folded and deleted since the LIST
            return 0
        old = [entry for entry, name in zip(entries, names, strict=True) if name in held and entry.age_s > grace_s]
        self._store.delete(entry.key for entry in old)
        return moved

    def waiting(self) -> list[Entry]:
        """Segments in the inbox, folded or not."""
        return list(self._store.list(keys.inbox(self.name)))

    def _commit(self, names: Sequence[str], table: Table | None) -> int:
        rows = self._read_segments(names, table, quarantine=True)
        if rows is None or not rows.num_rows:
            return 0
        try:
            target = table or self._tables.open_or_create(self.table_name, rows.schema)
            if table is None and target.version:
                # Another made it meanwhile, and may have folded: the next fold looks anew.
                return 0
            tombstones = forgetting.load(self._store)  # after the table was opened: a later one meets our commit
            kept = self._remembered(rows, tombstones)
            if kept.num_rows:
                target.append(kept)
        except Conflict:
            return 0
        if kept.num_rows < rows.num_rows:
            self._delete_forgotten(rows, kept)
        return int(kept.num_rows)

    def _remembered(self, rows: pa.Table, tombstones: forgetting.Tombstones) -> pa.Table:
        """The rows without those of forgotten entities."""
        model = self.name.removeprefix("predictions.")
        return tombstones.drop(rows, model=model, json_columns=forgetting.JSON_ROWS.get(self.name, ()))

    def _delete_forgotten(self, rows: pa.Table, kept: pa.Table) -> None:
        """Segments that held forgotten rows go at once; a reader that misses one lists again."""
        before, after = (Counter(one.column(SEGMENT).to_pylist()) for one in (rows, kept))
        self._store.delete(keys.segment(self.name, name) for name in before if after[name] < before[name])

    def _read_segments(self, names: Sequence[str], table: Table | None, *, quarantine: bool = False) -> pa.Table | None:
        """Rows of all segments that can be read and whose types agree with the table's and with those before them; a
        fold quarantines the others."""
        if not names:
            return None
        with ThreadPoolExecutor(min(READERS, len(names))) as pool:
            data = dict(
                zip(names, pool.map(lambda name: self._store.get(keys.segment(self.name, name)), names), strict=True)
            )
        schema, readable = table.schema if table else pa.schema([]), []
        for name in names:
            rows = _decoded(data[name], name, schema)
            if rows is not None:
                schema = pa.unify_schemas([schema, rows.schema], promote_options="permissive")
                readable.append(rows)
            elif quarantine:
                self._store.put(f"{keys.QUARANTINED_SEGMENTS}{self.name}/{name}", data[name])
                self._store.delete([keys.segment(self.name, name)])
        return pa.concat_tables(readable, promote_options="permissive") if readable else None


def _decoded(data: bytes, name: str, schema: pa.Schema) -> pa.Table | None:
    """The rows of a segment, or None when its bytes cannot be read or its types contradict `schema`."""
    try:
        rows = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        rows = fitted(rows.cast(stored_schema(rows.schema)), schema)
    except (pa.ArrowException, OSError, ValueError):
        return None
    if misfit(rows.schema, schema):
        return None
    return rows.append_column(SEGMENT, pa.array([name] * rows.num_rows, pa.string()))
