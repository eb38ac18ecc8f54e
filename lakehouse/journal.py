"""Journals: what many small writers append without contention, each row seen exactly once.

A writer puts a *segment*, whose name and bytes are fixed before the first try, so that a repeated append is the same
object. `fold` moves segments into a Delta table; every row there carries `_segment`, and the table is thereby its own
record of what was folded: a segment that comes again later is recognised. A reader lists the inbox first, then opens
the table, and leaves out what the table holds. Who sees a thousand segments that are not folded wakes the sweep.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from lakeloop.lakehouse import events, forgetting, keys
from lakeloop.lakehouse.errors import AlreadyExists, Conflict, Invalid, LakeloopError, NotFound, Unknown
from lakeloop.lakehouse.segments import SEGMENT, encoded, read_segments, segment_of, united
from lakeloop.lakehouse.store import Entry, Store
from lakeloop.lakehouse.stored import stored

if TYPE_CHECKING:
    from lakeloop.lakehouse.tables import Table, Tables

GRACE_S = 60.0
"""A folded segment is deleted only when older than this: longer than a reader takes from its LIST to its last GET."""
WAKE_AT = 1000
"""Unfolded segments from which on who sees them wakes the sweep, which folds them."""
LOOK_EVERY = 250
"""Appends of one process to one journal after which it looks, with one LIST, how many wait."""
FOLD_BYTES = 64 * 2**20
FOLD_SEGMENTS = 10_000
"""What one commit of a fold takes at most: its memory is bounded by them, however much waits."""
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


class Appends:
    """How often this process appended to each journal. Safe for threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def one_more(self, journal: str) -> int:
        with self._lock:
            self._counts[journal] += 1
            return self._counts[journal]


APPENDS = Appends()


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
        if not NAME.fullmatch(segment) or segment in (".", "..") or SEGMENT in rows.column_names:
            raise Invalid(
                f"{segment!r} cannot be a segment of the journal {self.name}", todo="use letters, digits, '.', '_', '-'"
            )
        if not rows.num_rows:  # the table could never show that it holds it
            return
        data = encoded(stored(rows))
        with suppress(AlreadyExists, Unknown):
            self._store.put(keys.segment(self.name, segment), data, if_absent=True)
        if APPENDS.one_more(f"{self._store.url} {self.name}") % LOOK_EVERY == 0:
            self._look()

    def snapshot(self) -> Snapshot:
        """Inbox first, table second, then every row that the table does not hold."""
        for _ in range(5):
            entries = self.waiting()
            table = self._tables.open(self.table_name)
            fresh = _not_held(entries, table)
            if len(fresh) >= WAKE_AT:
                self._wake()
            try:
                pending = self._rows(fresh, table)
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
        return _together(parts) if parts else None

    def fold(self, *, grace_s: float = GRACE_S) -> int:
        """Move what lies in the inbox into the table, in one commit for each `FOLD_BYTES`; returns the rows moved.
        Losing a race moves no more."""
        entries = self.waiting()
        if not entries:
            return 0
        table = self._tables.open(self.table_name)
        fresh = _not_held(entries, table)
        moved = 0
        for part in _portions(fresh):
            try:
                table, rows = self._commit(part, table)
            except NotFound:  # another has folded and deleted since the LIST
                break
            moved += rows
            if table is None:
                break
        new = {entry.key for entry in fresh}
        self._store.delete(entry.key for entry in entries if entry.key not in new and entry.age_s > grace_s)
        return moved

    def waiting(self) -> list[Entry]:
        """Segments in the inbox, folded or not."""
        return list(self._store.list(keys.inbox(self.name)))

    def _commit(self, entries: Sequence[Entry], table: Table | None) -> tuple[Table | None, int]:
        """One commit with the rows of these, and their number; no table when another was first, who may have folded
        them: the next fold looks anew."""
        names = [segment_of(entry) for entry in entries]
        parts = read_segments(self._store, entries, keep=False)
        try:
            return self._move(names, parts, table)
        except Invalid:  # some bring reals where the table holds whole numbers that no real can say
            return self._move(names, parts, table, widen=False)

    def _move(
        self, names: Sequence[str], parts: Sequence[pa.Table | None], table: Table | None, *, widen: bool = True
    ) -> tuple[Table | None, int]:
        rows, unusable = united(names, parts, table.schema if table else pa.schema([]), widen=widen)
        for name in unusable:
            self._quarantine(name)
        if rows is None or not rows.num_rows:
            return table, 0
        try:
            target = table or self._tables.open_or_create(self.table_name, rows.schema)
            if table is None and target.version:
                return None, 0
            tombstones = forgetting.load(self._store)  # after the table was opened: a later one meets our commit
            kept = self._remembered(rows, tombstones)
            if kept.num_rows:
                target.append(kept)
        except Conflict:
            return None, 0
        if kept.num_rows < rows.num_rows:
            self._delete_forgotten(rows, kept)
        return target, int(kept.num_rows)

    def _remembered(self, rows: pa.Table, tombstones: forgetting.Tombstones) -> pa.Table:
        """The rows without those of forgotten entities."""
        model = self.name.removeprefix("predictions.")
        return tombstones.drop(rows, model=model, json_columns=forgetting.JSON_ROWS.get(self.name, ()))

    def _delete_forgotten(self, rows: pa.Table, kept: pa.Table) -> None:
        """Segments that held forgotten rows go at once; a reader that misses one lists again."""
        before, after = (Counter(one.column(SEGMENT).to_pylist()) for one in (rows, kept))
        self._store.delete(keys.segment(self.name, name) for name in before if after[name] < before[name])

    def _rows(self, entries: Sequence[Entry], table: Table | None) -> pa.Table | None:
        """Rows of all segments that can be read and whose types agree with the table's and with those before them."""
        if not entries:
            return None
        parts = read_segments(self._store, entries)
        return united([segment_of(entry) for entry in entries], parts, table.schema if table else pa.schema([]))[0]

    def _quarantine(self, name: str) -> None:
        key = keys.segment(self.name, name)
        with suppress(NotFound):  # it is there already
            self._store.put(f"{keys.QUARANTINED_SEGMENTS}{self.name}/{name}", self._store.get(key))
            self._store.delete([key])

    def _look(self) -> None:
        """Wake the sweep when a LIST of `WAKE_AT` is full. The append is done: no failure of this is one of it."""
        with suppress(LakeloopError):
            if len(list(self._store.list(keys.inbox(self.name), limit=WAKE_AT))) >= WAKE_AT:
                events.put(self._store, "fold", self.name)

    def _wake(self) -> None:
        with suppress(LakeloopError):  # a reader may have no right to write; a lost event changes only when
            events.put(self._store, "fold", self.name)


def _not_held(entries: Sequence[Entry], table: Table | None) -> list[Entry]:
    held = table.column(SEGMENT, map(segment_of, entries)) if table and entries else set()
    return [entry for entry in entries if segment_of(entry) not in held]


def _together(parts: Sequence[pa.Table]) -> pa.Table:
    """All rows. Whole numbers beyond 2^53 beside reals are rounded, as SQL does it, until a fold sets the reals
    aside."""
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowInvalid:
        wide = pa.unify_schemas([part.schema for part in parts], promote_options="permissive")
        chosen = [pa.schema([wide.field(name) for name in part.column_names]) for part in parts]
        cast = [part.cast(schema, safe=False) for part, schema in zip(parts, chosen, strict=True)]
        return pa.concat_tables(cast, promote_options="default")


def _portions(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The same in order, cut where `FOLD_BYTES` or `FOLD_SEGMENTS` are reached."""
    portion: list[Entry] = []
    size = 0
    for entry in entries:
        if portion and (size + entry.size > FOLD_BYTES or len(portion) >= FOLD_SEGMENTS):
            yield portion
            portion, size = [], 0
        portion.append(entry)
        size += entry.size
    if portion:
        yield portion
