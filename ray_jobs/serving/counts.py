"""Numbers that a serving process counts where others can read them: a file of its own, mapped into its memory.

Counting is an addition in memory, so it costs a request less than a microsecond, and what was counted survives any end
of the process. The process holds the file's lock as long as it lives: gauges count only of files that are held,
counters of all. `retire` folds the files of ended processes into one, and no count is ever in both.

    file     uint64 bytes used | entries
    entry    uint32 values | uint32 length of the key | key as JSON, padded to 8 bytes | float64 each
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import secrets
import struct
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

SIZE = 1 << 18
HEADER = struct.Struct("<Q")
ENTRY = struct.Struct("<II")
SUFFIX = ".counts"
RETIRED = "retired.json"
LOCK = "retired.lock"
Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name, and its labels in order."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A series of one process. Of a histogram: the number in each bucket, the rest, then the sum."""

    key: Key
    values: tuple[float, ...]
    alive: bool


class Counts:
    """The file of this process. Not for two threads at once, but for different series."""

    def __init__(self, folder: Path) -> None:
        with _lock(folder):  # between its creation and its lock it would be taken for an ended process's
            path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.ftruncate(self._fd, SIZE)
        self._map = mmap.mmap(self._fd, SIZE)
        self.values = memoryview(self._map).cast("d")
        self._places: dict[Key, int] = {}
        HEADER.pack_into(self._map, 0, HEADER.size)
        self._spare = self._entry(("", ()), 32)
        """Where series count that found no room: nobody reads them."""

    def place(self, name: str, labels: Mapping[str, str], values: int = 1) -> int:
        """Where in `values` this series begins; the same for the same name and labels."""
        key = (name, tuple(labels.items()))
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = self._entry(key, values)
        return found

    def set(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """A gauge."""
        self.values[self.place(name, labels)] = value

    def close(self) -> None:
        """Let the file go: what it counted stays, its gauges end."""
        self.values.release()
        self._map.close()
        os.close(self._fd)

    def _entry(self, key: Key, values: int) -> int:
        text = json.dumps(key).encode()
        padded = text + b" " * (-len(text) % 8)
        used = int(HEADER.unpack_from(self._map, 0)[0])
        first = used + ENTRY.size + len(padded)
        if first + 8 * values > SIZE:
            return self._spare
        ENTRY.pack_into(self._map, used, values, len(padded))
        self._map[used + ENTRY.size : first] = padded
        HEADER.pack_into(self._map, 0, first + 8 * values)
        return first // 8


class Histogram:
    """Counts values into buckets; a value equal to a bound is in that bound's bucket."""

    def __init__(self, counts: Counts, name: str, labels: Mapping[str, str], bounds: Sequence[float]) -> None:
        self._values, self._bounds = counts.values, tuple(bounds)
        self._first = counts.place(name, labels, len(bounds) + 2)
        self._sum = self._first + len(bounds) + 1

    def observe(self, value: float) -> None:
        values = self._values
        values[self._first + bisect_left(self._bounds, value)] += 1.0
        values[self._sum] += value


def read(folder: Path) -> Iterator[Counted]:
    """Every series of every process, living or ended. A process that starts meanwhile may be missing."""
    with _lock(folder):
        retired = _retired(folder)
        for name, key, values in retired.series:
            yield Counted((name, key), values, alive=False)
        for path in _files(folder, retired):
            yield from _read_file(path)


def retire(folder: Path) -> int:
    """Fold the files of ended processes into one; returns how many. Killed anywhere, it has folded each once."""
    with _lock(folder):
        retired = _retired(folder)
        ended = [path for path in _files(folder, retired) if not _held(path)]
        if not ended:
            return 0
        sums: dict[Key, list[float]] = defaultdict(list)
        for name, labels, values in retired.series:
            _add(sums[name, labels], values)
        for path in ended:
            for one in _read_file(path):
                _add(sums[one.key], one.values)
        record = {"holds": [path.name for path in ended], "series": [[*key, values] for key, values in sums.items()]}
        unborn = folder / f"{RETIRED}.new"
        unborn.write_text(json.dumps(record))
        unborn.replace(folder / RETIRED)
        for path in ended:
            path.unlink(missing_ok=True)
        return len(ended)


def clear(folder: Path) -> None:
    """Forget what ended processes counted."""
    with _lock(folder):
        (folder / RETIRED).unlink(missing_ok=True)
        for path in folder.glob(f"*{SUFFIX}"):
            if not _held(path):
                path.unlink()


@dataclass(frozen=True, slots=True)
class _Retired:
    holds: frozenset[str]
    series: tuple[tuple[str, tuple[tuple[str, str], ...], tuple[float, ...]], ...]


def _retired(folder: Path) -> _Retired:
    try:
        record = json.loads((folder / RETIRED).read_text())
    except FileNotFoundError:
        return _Retired(frozenset(), ())
    series = tuple((name, _labels(labels), tuple(values)) for name, labels, values in record["series"])
    return _Retired(frozenset(record["holds"]), series)


def _labels(pairs: Iterable[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in pairs)


def _add(sums: list[float], values: Sequence[float]) -> None:
    sums.extend([0.0] * (len(values) - len(sums)))
    for number, value in enumerate(values):
        sums[number] += value


def _files(folder: Path, retired: _Retired) -> list[Path]:
    return [path for path in sorted(folder.glob(f"*{SUFFIX}")) if path.name not in retired.holds]


def _read_file(path: Path) -> Iterator[Counted]:
    data, alive = path.read_bytes(), _held(path)
    (used,) = HEADER.unpack_from(data, 0) if len(data) >= HEADER.size else (0,)
    at = HEADER.size
    while at < used:
        count, length = ENTRY.unpack_from(data, at)
        name, labels = json.loads(data[at + ENTRY.size : at + ENTRY.size + length])
        at += ENTRY.size + length
        if name:
            yield Counted((name, _labels(labels)), struct.unpack_from(f"<{count}d", data, at), alive)
        at += 8 * count


def _held(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Readers and `retire` one after another, so that no count is missed or taken twice."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
