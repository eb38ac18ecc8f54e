"""Segments of journals: the sealed pieces that writers put into an inbox. Bytes to rows, many at once.

A segment is written once, so what was read of one is kept in this process, by store and key, up to `KEPT_BYTES`. It
is handed out again only for an object that a LIST has just shown with the same tag: one that was deleted or written
anew (`lake forget`) is never answered from here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import pyarrow as pa

from lakeloop.lakehouse.store import Entry, Store
from lakeloop.lakehouse.stored import fitted, misfit, other_types, stored_schema

T = TypeVar("T")
SEGMENT = "_segment"
READERS = 16
"""Parallel GETs."""
KEPT_BYTES = 128 * 2**20
AT_ONCE = 64
"""Objects that one task of a reader fetches at most, so that ten thousand are not ten thousand tasks."""


def segment_of(entry: Entry) -> str:
    """The name of a listed segment."""
    return entry.key.rsplit("/", 1)[1]


def encoded(rows: pa.Table) -> bytes:
    """The bytes of a segment: an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decoded(data: bytes) -> pa.Table | None:
    """The rows of a segment as they were written, or None when its bytes are not those of a whole one."""
    try:
        rows = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        rows.validate(full=True)
    except (pa.ArrowException, OSError, ValueError):
        return None
    return rows


@dataclass(slots=True)
class Kept(Generic[T]):
    """What was read of immutable objects, the least recently used forgotten first. Safe for threads."""

    limit: int = KEPT_BYTES
    bytes: int = 0
    _things: OrderedDict[tuple[str, str], tuple[str, int, T]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, url: str, entry: Entry) -> T | None:
        """What was read of the listed object, if it is kept."""
        with self._lock:
            there = self._things.get((url, entry.key))
            if there is None or not entry.tag or there[0] != entry.tag:
                return None
            self._things.move_to_end((url, entry.key))
            return there[2]

    def put(self, url: str, entry: Entry, thing: T) -> None:
        if not entry.tag or entry.size > self.limit:
            return
        with self._lock:
            self._drop((url, entry.key))
            self._things[(url, entry.key)] = (entry.tag, entry.size, thing)
            self.bytes += entry.size
            while self.bytes > self.limit:
                self._drop(next(iter(self._things)))

    def forget(self, url: str) -> None:
        """Hold nothing of this store any more."""
        with self._lock:
            for key in [key for key in self._things if key[0] == url]:
                self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        there = self._things.pop(key, None)
        self.bytes -= there[1] if there else 0


UNREADABLE = pa.table({})
"""Kept of a segment whose bytes are not those of one."""
KEPT: Kept[pa.Table] = Kept()
"""Of this process. A cache by identity: nothing depends on what is in it."""


def read_segments(store: Store, entries: Sequence[Entry], *, keep: bool = True) -> list[pa.Table | None]:
    """The rows of listed segments, in their order, None for one that cannot be read: a GET for each that is not kept,
    `READERS` at a time. NotFound when one is gone."""
    found = {entry.key: KEPT.get(store.url, entry) for entry in entries}
    missing = [entry for entry in entries if found[entry.key] is None]
    for entry, data in zip(missing, fetched(store, [entry.key for entry in missing]), strict=True):
        rows = decoded(data)
        found[entry.key] = UNREADABLE if rows is None else rows
        if keep:
            KEPT.put(store.url, entry, found[entry.key])
    return [None if found[entry.key] is UNREADABLE else found[entry.key] for entry in entries]


def fetched(store: Store, keys: Sequence[str]) -> Iterable[bytes]:
    """The bytes of many small objects, in order, one GET each. NotFound when one is gone.

    In parallel where a GET waits for a network; in a folder threads would only wait for each other.
    """
    if len(keys) <= 1 or "://" not in store.url:
        return [store.get(key) for key in keys]
    size = max(1, min(AT_ONCE, len(keys) // READERS))
    parts = [keys[at : at + size] for at in range(0, len(keys), size)]
    with ThreadPoolExecutor(min(READERS, len(parts))) as pool:
        done = list(pool.map(lambda part: [store.get(key) for key in part], parts))
    return [data for part in done for data in part]


def united(
    names: Sequence[str], parts: Sequence[pa.Table | None], schema: pa.Schema, *, widen: bool = True
) -> tuple[pa.Table | None, list[str]]:
    """The rows of all segments whose columns agree with `schema` and with those before them, with `_segment`; and the
    names of the others. `widen`: reals agree with whole numbers that came before, if none of these segments' loses by
    it; whether none of the table's does is for the caller to see.

    Segments of one schema are joined first and cast once: ten thousand of them cost little more than their bytes.
    """
    groups: dict[pa.Schema, list[tuple[str, pa.Table]]] = {}
    unusable = [name for name, rows in zip(names, parts, strict=True) if rows is None]
    for name, rows in zip(names, parts, strict=True):
        if rows is not None:
            groups.setdefault(rows.schema, []).append((name, rows))
    usable: list[pa.Table] = []
    for members in groups.values():
        rows, bad = _joined(members, schema, widen=widen)
        if rows is not None and other_types(schema, rows.schema):
            try:
                usable = [fitted(one, rows.schema) for one in usable]
            except pa.ArrowInvalid:  # a whole number beyond what a real can say
                rows, bad = _joined(members, schema, widen=False)
        unusable += bad
        if rows is not None:
            schema = pa.unify_schemas([schema, rows.schema], promote_options="permissive")
            usable.append(rows)
    if not usable:
        return None, unusable
    return pa.concat_tables(usable, promote_options="permissive").combine_chunks(), unusable


def _joined(
    members: Sequence[tuple[str, pa.Table]], schema: pa.Schema, *, widen: bool
) -> tuple[pa.Table | None, list[str]]:
    """Segments of one schema as one table, and the names of those that do not fit. Where the whole does not, each is
    looked at: a column that holds nothing fits any type."""
    rows = _fitted(pa.concat_tables([rows for _, rows in members]), schema, widen=widen)
    if rows is not None:
        return _named(rows, members), []
    if len(members) == 1:
        return None, [members[0][0]]
    single = [(name, _fitted(rows, schema, widen=widen)) for name, rows in members]
    good = [(name, rows) for name, rows in single if rows is not None]
    bad = [name for name, rows in single if rows is None]
    if not good:
        return None, bad
    return _named(pa.concat_tables([rows for _, rows in good], promote_options="permissive"), good), bad


def _fitted(rows: pa.Table, schema: pa.Schema, *, widen: bool) -> pa.Table | None:
    if _is_ambiguous(rows.column_names, schema.names):
        return None
    try:
        rows = fitted(rows.cast(stored_schema(rows.schema)), schema)
    except (pa.ArrowException, ValueError):
        return None
    if misfit(rows.schema, schema) or (not widen and other_types(rows.schema, schema)):
        return None
    return rows


def _is_ambiguous(names: Sequence[str], there: Sequence[str]) -> bool:
    """Whether a column is called like another of the same rows or of the table, but for case: a table cannot hold
    both, and SQL could not tell them apart."""
    spelled = {name.lower(): name for name in there} | {SEGMENT: SEGMENT}
    return len({name.lower() for name in names}) < len(names) or any(
        name == SEGMENT or spelled.get(name.lower(), name) != name for name in names
    )


def _named(rows: pa.Table, members: Sequence[tuple[str, pa.Table]]) -> pa.Table:
    """With the column that says which segment each row came in."""
    counts = [part.num_rows for _, part in members]
    names = [name for (name, _), count in zip(members, counts, strict=True) for _ in range(count)]
    return rows.append_column(SEGMENT, pa.array(names, pa.string()))
