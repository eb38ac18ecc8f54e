"""The node's log of answered predictions: rows lie in a local file before the answer leaves; they are shipped later.

A writer appends one JSON line per request with one `os.write`, to a file `<writer>-<n>.jsonl` that it holds a lock
(flock) on. A file that is old or large enough is sealed by renaming it to `<utc of first
row>-<writer>-<n>.jsonl.sealed`; nothing is written to it again. The first line of a file says what its rows look like,
so a sealed piece is read without the process that wrote it. A file whose lock is free has lost its writer: whoever
finds it may seal it.

Promise: what `append` has returned for survives a killed process (not a lost node). A line that was cut short belongs
to an answer that never left, and is dropped.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from lakeloop.lakehouse.errors import Corrupt, Unavailable

SEALED = ".jsonl.sealed"
OPEN = ".jsonl"
UNBORN = ".unborn"
"""A file between its creation and its lock; one that stays so has lost its writer before the first row."""
FORMAT = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rows of a piece look like: whose they are, and the inputs in order with FORMAT's type names."""

    project: str
    endpoint: str
    inputs: tuple[tuple[str, str], ...]

    @property
    def journal(self) -> str:
        return f"predictions.{self.project}.{self.endpoint}"


@dataclass(frozen=True, slots=True)
class Logged:
    """One answered request. Each row: id, as_of, prediction, decision, scores, ages, absent, given, inputs."""

    request_id: str
    at: datetime
    model: str
    version: int
    arm: str
    revision: int
    latency_ms: float
    rows: Sequence[Mapping[str, Any]]

    @property
    def size(self) -> int:
        """How many rows."""
        return len(self.rows)

    def line(self) -> bytes:
        """JSON; the number of rows comes first, so that rows are counted without parsing them."""
        record = {
            "n": len(self.rows),
            "request_id": self.request_id,
            "logged_at": self.at,
            "model": self.model,
            "version": self.version,
            "arm": self.arm,
            "revision": self.revision,
            "latency_ms": self.latency_ms,
            "rows": self.rows,
        }
        return orjson.dumps(record, option=FORMAT)


@dataclass(frozen=True, slots=True)
class LoggedColumns:
    """One answered request as columns: what `Logged` says of many rows, without an object for each of them.

    Each column is a list or a numpy array with a value per row. `own` holds prediction, decision, scores, id and as_of;
    one that is not there is null in every row, and `as_of` may be one moment for all. `inputs` are by name, likewise.
    `given` is the same for every row; nothing was looked up, so there are no ages and nothing is absent.
    """

    request_id: str
    at: datetime
    model: str
    version: int
    arm: str
    revision: int
    latency_ms: float
    count: int
    own: Mapping[str, Any]
    inputs: Mapping[str, Any]
    given: Sequence[str] = ()

    @property
    def size(self) -> int:
        """How many rows."""
        return self.count

    def line(self) -> bytes:
        """JSON, the number of rows first, as in `Logged`."""
        record = {
            "n": self.count,
            "request_id": self.request_id,
            "logged_at": self.at,
            "model": self.model,
            "version": self.version,
            "arm": self.arm,
            "revision": self.revision,
            "latency_ms": self.latency_ms,
            "given": self.given,
            "columns": self.own,
            "inputs": self.inputs,
        }
        return orjson.dumps(record, option=FORMAT)


@dataclass(frozen=True, slots=True)
class Piece:
    """A sealed file as it was read: every whole line behind the first."""

    shape: Shape
    lines: Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class _OpenFile:
    fd: int
    path: Path
    size: int
    since: float
    first_row: datetime


class WriteAhead:
    """One process's writer into `folder`. Threads may share it."""

    def __init__(
        self,
        folder: Path,
        *,
        piece_bytes: int = 4 << 20,
        piece_age_s: float = 0.5,
        monotonic: Callable[[], float] = time.monotonic,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._piece_bytes, self._piece_age_s = folder, piece_bytes, piece_age_s
        self._monotonic, self._write = monotonic, write
        self._writer = f"{os.getpid()}{secrets.token_hex(4)}"
        self._opened = 0
        self._files: dict[Shape, _OpenFile] = {}
        self._lock = threading.Lock()

    def append(self, shape: Shape, request: Logged | LoggedColumns) -> None:
        """Write one request's rows. After it returns they survive this process.

        Unavailable: nothing was logged, so do not answer.
        """
        line = request.line()
        with self._lock:
            try:
                file = self._files.get(shape) or self._open(shape, request.at)
                self._append(file, line)
            except OSError as error:
                self._abandon(shape)
                raise Unavailable(
                    f"the prediction could not be logged ({error.strerror})",
                    where=str(self._folder),
                    todo="free space there, or restart",
                ) from error
            if file.size >= self._piece_bytes:
                self._seal(shape)

    def seal_due(self) -> None:
        """Seal what is old enough; to be called often, for a file without traffic seals itself never."""
        with self._lock:
            now = self._monotonic()
            for shape in [shape for shape, file in self._files.items() if now - file.since >= self._piece_age_s]:
                self._seal(shape)

    def close(self) -> None:
        """Seal everything. The writer can go on afterwards, with new files."""
        with self._lock:
            for shape in list(self._files):
                self._seal(shape)

    def _open(self, shape: Shape, first_row: datetime) -> _OpenFile:
        self._opened += 1
        path = self._folder / f"{self._writer}-{self._opened:06d}{OPEN}"
        unborn = path.with_suffix(UNBORN)
        fd = os.open(unborn, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unborn.rename(path)
            file = _OpenFile(fd, path, 0, self._monotonic(), first_row)
            header = {"project": shape.project, "endpoint": shape.endpoint, "inputs": shape.inputs}
            self._append(file, orjson.dumps(header, option=FORMAT))
        except OSError:
            os.close(fd)
            raise
        self._files[shape] = file
        return file

    def _append(self, file: _OpenFile, line: bytes) -> None:
        written = self._write(file.fd, line)
        if written != len(line):
            raise OSError(errno.ENOSPC, "no space left on the device")
        file.size += written

    def _abandon(self, shape: Shape) -> None:
        """Never write behind a line that may have been cut short: let the file go; it will be adopted."""
        file = self._files.pop(shape, None)
        if file is not None:
            os.close(file.fd)

    def _seal(self, shape: Shape) -> None:
        file = self._files.pop(shape)
        with suppress(OSError):  # what could not be renamed is adopted as soon as the lock is gone
            file.path.rename(sealed_path(file.path, file.first_row))
        os.close(file.fd)


def sealed_path(path: Path, first_row: datetime) -> Path:
    """Named as `journal.segment_name` names a segment."""
    return path.with_name(f"{first_row:%Y%m%dT%H%M%S%f}Z-{path.name.removesuffix(OPEN)}{SEALED}")


def segment_of(sealed: Path) -> str:
    """The segment's name in the journal: the same for the same file at every try."""
    return sealed.name.removesuffix(SEALED)


def sealed_pieces(folder: Path) -> list[Path]:
    """Sealed files, oldest first."""
    return sorted(path for path in folder.glob(f"*{SEALED}"))


def adopt(folder: Path) -> int:
    """Seal the files whose writer is gone, and remove those without a row. Returns how many were sealed."""
    unborn = [path for path in folder.glob(f"*{UNBORN}") if _age_s(path) > 60]
    orphans = [path for path in [*folder.glob(f"*{OPEN}"), *unborn] if not _is_held(path)]
    adopted = 0
    for path in orphans:
        first = next(_whole_lines(path, skip=1), None)
        with suppress(FileNotFoundError):  # another adopter was first
            if first is None:
                path.unlink()
            else:
                path.rename(sealed_path(path, datetime.fromisoformat(orjson.loads(first)["logged_at"])))
                adopted += 1
    return adopted


def read_piece(path: Path) -> Piece:
    """A sealed file's rows. Corrupt if a whole line is not what a writer writes."""
    lines = _whole_lines(path)
    try:
        header = orjson.loads(next(lines))
        shape = Shape(header["project"], header["endpoint"], tuple((name, kind) for name, kind in header["inputs"]))
        return Piece(shape, [orjson.loads(line) for line in lines])
    except (orjson.JSONDecodeError, StopIteration, KeyError, TypeError, ValueError) as error:
        raise Corrupt(
            f"{path.name} is not a piece of a prediction log", where=str(path.parent), todo="look at it, then remove it"
        ) from error


def pending(folder: Path) -> int:
    """Rows in `folder` that are not shipped yet, open files included.

    One that is being sealed meanwhile may count twice, never not at all.
    """
    still_open = sum(_rows_in(path) for path in folder.glob(f"*{OPEN}"))
    return still_open + sum(_rows_in(path) for path in folder.glob(f"*{SEALED}"))


def _rows_in(path: Path) -> int:
    try:
        return sum(int(line[5 : line.index(b",", 5)]) for line in _whole_lines(path, skip=1))
    except FileNotFoundError:  # shipped or sealed meanwhile
        return 0


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0


def _whole_lines(path: Path, skip: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number >= skip and line.endswith(b"\n"):
                yield line


def _is_held(path: Path) -> bool:
    """Whether a living process holds the file's lock. The kernel frees it with the process, however that ended."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
