"""`copy_lake`: a whole lake to another place, while its writers go on, and again after it was killed anywhere.

What the copy is: every document as it was when the copy began, and everything that these name; of every journal and
table a state not older than that. It holds because of the order in which the source is read:

1. The *list* of documents, open runs and events comes first, their copying last. What they name was there before them
   and is read after them; what is named is not deleted.
2. `inbox/` and `landing/` are copied before the tables. A segment leaves the inbox, and a file leaves landing/, only
   after the commit that holds its rows. So one that vanishes before it is read is in the log that is listed later, and
   one that is copied and is also in a table is left out by readers, and recognised by `fold` and `ingest_data`: no row
   is lost, none is doubled. (Read the other way round, a fold between the two would lose its rows.)
3. Of each table the log is listed first and copied last, after the files: a log names only files that were written
   before it. When a part of it vanishes meanwhile (maintenance cleans up), the table is begun anew; at the end the copy
   is opened, and every file it names must be there.
4. `_lake/format.json` is copied at the very end: until then the destination is no lake. It carries the lake's identity,
   by which a finished copy, an unfinished one and another lake are told apart.

Names that never get other bytes are not copied again, so a repeated copy goes on where the last one stopped. Nothing
in a lake holds its address, so the copy works where it lies.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, takewhile
from threading import Lock

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import AlreadyExists, Conflict, Corrupt, Invalid, NotFound, Refused, Unknown
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.pins import missing_files
from lakeloop.lakehouse.store import Entry, Store

CHUNK = 8 << 20
"""Bytes of an object in memory at once; a larger one is read by ranges."""
WORKERS = 8
BATCH = 1000
TRIES = 5
LISTED_FIRST = ("docs/", keys.OPEN_RUNS, "events/")
MOVED_INTO_TABLES = (keys.INBOX, keys.LANDING)
TABLES = "tables/"
LOG = "_delta_log/"
FIXED = ("artifacts/", "docs/", keys.INBOX, "online/", "raw/", TABLES)
"""Where a name never gets other bytes, but for Delta's note of its last checkpoint."""
NOTE = "_last_checkpoint"


@dataclass(slots=True)
class Copied:
    """What was done so far. `part` is what is being copied now."""

    part: str = ""
    objects: int = 0
    size: int = 0
    there: int = 0
    """Objects that an earlier try had copied."""
    tables: int = 0
    finished_before: bool = False
    _lock: Lock = field(default_factory=Lock, repr=False)

    def add(self, size: int, *, there: bool) -> None:
        with self._lock:
            self.objects, self.size, self.there = self.objects + (not there), self.size + size, self.there + there


def copy_lake(source: Lake, target: Lake, *, progress: Callable[[Copied], None] | None = None) -> Copied:
    """Copy a lake to a place that is empty, or that holds an unfinished copy of the same lake. Refused for any other.

    Objects stream through at most `WORKERS` × `CHUNK` bytes of memory; one request to the source and one to the target
    for each object that is not there yet.
    """
    done = Copied()
    work = _Copy(source.store, target.store, done, progress or (lambda _: None))
    if not _begin(source, target):
        done.finished_before = True
        return done
    listed = [entry for part in LISTED_FIRST for entry in source.store.list(part)]
    for part in MOVED_INTO_TABLES:
        work.copy(part, source.store.list(part))
    for name in _tables(source.store):
        _copy_table(work, target, name)
        done.tables += 1
    others = (LISTED_FIRST, MOVED_INTO_TABLES, (TABLES, "_lake/"))
    for entry in source.store.list(delimiter="/"):
        if not entry.key.startswith(tuple(chain(*others))):
            work.copy(entry.key, source.store.list(entry.key) if entry.key.endswith("/") else [entry])
    work.copy("docs/", listed)
    _end(source, target)
    return done


# -- whose place it is ---


def _begin(source: Lake, target: Lake) -> bool:
    """Whether there is anything to do. Refused when the target is not ours to fill."""
    theirs, ours = f"{target.url}/", f"{source.url}/"
    if theirs.startswith(ours) or ours.startswith(theirs):
        raise Invalid("a lake cannot be copied into itself", where=target.url, todo="name another place")
    identity = _identity(source.store, keys.FORMAT)
    if not identity:
        raise NotFound("there is no lake here", where=source.url, todo="name it with --lake")
    there = _identity(target.store, keys.FORMAT)
    begun = _identity(target.store, keys.COPYING)
    if there == identity:
        target.store.delete([keys.COPYING])
        return False
    if there or (begun and begun != identity):
        what = "another lake" if there else "an unfinished copy of another lake"
        raise Refused(f"{what} lies there; nothing was written", where=target.url, todo="name an empty place")
    if not begun:
        if next(iter(target.store.list(limit=1)), None):
            raise Refused("the place is not empty; nothing was written", where=target.url, todo="name an empty place")
        try:
            target.store.put(keys.COPYING, json.dumps({"write": identity}).encode(), if_absent=True)
        except (AlreadyExists, Unknown):
            return _begin(source, target)
    return True


def _end(source: Lake, target: Lake) -> None:
    target.store.put(keys.FORMAT, source.store.get(keys.FORMAT))
    target.store.delete([keys.COPYING])


def _identity(store: Store, key: str) -> str:
    """The random id that a lake got when it was made, or empty."""
    try:
        return str(json.loads(store.get(key))["write"])
    except NotFound as error:
        if "bucket" in error.what:
            raise
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{key} cannot be read", where=store.url, todo="restore it from a copy of the lake") from error


# -- tables ---


def _tables(store: Store) -> list[str]:
    """`project/name` of every table."""
    projects = [entry.key for entry in store.list(TABLES, delimiter="/") if entry.key.endswith("/")]
    found = chain.from_iterable(store.list(project, delimiter="/") for project in projects)
    return [entry.key[len(TABLES) : -1] for entry in found if entry.key.endswith("/")]


def _copy_table(work: _Copy, target: Lake, name: str) -> None:
    folder = f"{keys.table(name)}/"
    for _ in range(TRIES):
        log = list(work.source.list(f"{folder}{LOG}"))
        if not log:
            return  # files of a writer that has not made its table yet: what is to be in them is still elsewhere
        work.copy(name, (entry for entry in work.source.list(folder) if LOG not in entry.key))
        notes = [entry for entry in log if entry.key.endswith(NOTE)]
        whole = work.copy(name, (entry for entry in log if entry not in notes))
        if whole and work.copy(name, notes) and _is_whole(target, name):
            return
    raise Conflict(f"the table {name} changes faster than it can be copied", todo="run the copy again")


def _is_whole(target: Lake, name: str) -> bool:
    """Whether every file that the newest version of a table in the copy names is there."""
    table = target.table(name)
    return table is None or not missing_files(target, name, table.data_files())


# -- objects ---


@dataclass(frozen=True, slots=True)
class _Copy:
    source: Store
    target: Store
    done: Copied
    progress: Callable[[Copied], None]

    def copy(self, part: str, entries: Iterable[Entry]) -> bool:
        """Copy what is listed, by many at once; whether all of it was still there."""
        self.done.part = part
        whole = True
        left = iter(entries)
        with ThreadPoolExecutor(WORKERS) as pool:
            while batch := list(islice(left, BATCH)):
                there = self._there(batch)
                whole = all(list(pool.map(partial(self._copy_one, there=there), batch))) and whole
        return whole

    def _there(self, batch: list[Entry]) -> dict[str, int]:
        """Sizes of what the target has between the first and the last key of a batch."""
        first, last = min(entry.key for entry in batch), max(entry.key for entry in batch)
        found = self.target.list(after=first[:-1])
        return {entry.key: entry.size for entry in takewhile(lambda entry: entry.key <= last, found)}

    def _copy_one(self, entry: Entry, there: dict[str, int]) -> bool:
        fixed = entry.key.startswith(FIXED) and not entry.key.endswith(NOTE)
        if fixed and there.get(entry.key) == entry.size:
            self.done.add(entry.size, there=True)
        else:
            try:
                self._stream(entry, fixed=fixed)
            except NotFound as error:
                if "bucket" in error.what:
                    raise
                return False
            self.done.add(entry.size, there=False)
        self.progress(self.done)
        return True

    def _stream(self, entry: Entry, *, fixed: bool) -> None:
        """One object. A large one whose name may get other bytes is compared, so that no mixture of two stays."""
        if entry.size <= CHUNK:
            return self.target.put(entry.key, self.source.get(entry.key))
        for _ in range(TRIES):
            self.target.put(entry.key, io.BufferedReader(_Ranges(self.source, entry), CHUNK))
            if fixed or self._is_same(entry):
                return None
            entry = next((one for one in self.source.list(entry.key, limit=1) if one.key == entry.key), entry)
        raise Conflict(f"{entry.key} changes faster than it can be copied", todo="run the copy again")

    def _is_same(self, entry: Entry) -> bool:
        """Also behind the end, since it may have grown."""
        parts = range(0, entry.size + 1, CHUNK)
        return all(
            self.source.get(entry.key, at, at + CHUNK) == self.target.get(entry.key, at, at + CHUNK) for at in parts
        )


class _Ranges(io.RawIOBase):
    """A stored object as a file: each read is one GET of a range."""

    def __init__(self, store: Store, entry: Entry) -> None:
        self._store, self._entry, self._at = store, entry, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._entry.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        stop = min(self._at + len(buffer), self._entry.size)
        data = self._store.get(self._entry.key, self._at, stop) if stop > self._at else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
