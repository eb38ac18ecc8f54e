"""The node's log of answered predictions: rows lie in a local file before the answer leaves; they are shipped later.

A writer appends one JSON line per request with one `os.write`, to a file `<writer>-<n>.jsonl` that it holds a lock
(flock) on. A file that is old or large enough is sealed by renaming it to `<utc of first
row>-<writer>-<n>.jsonl.sealed`; nothing is written to it again. The first line of a file says what its rows look like,
so a sealed piece is read without the process that wrote it. A file whose lock is free has lost its writer: whoever
finds it may seal it.

Promise: what `append` has returned for survives a killed process (not a lost node). A line that was cut short belongs
to an answer that never left, and is dropped. When the folder is removed under a writer, what lies in its open files is
written anew; sealed pieces are gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Corrupt, Unavailable

SEALED = ".jsonl.sealed"
OPEN = ".jsonl"
UNBORN = ".unborn"
"""A file between its creation and its lock; one that stays so has lost its writer before the first row."""
NEVER = 1 << 62
COPY_BYTES = 1 << 20
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

    def __hash__(self) -> int:
        """Of the names alone: a writer looks its file up by shape for every request."""
        return hash((self.project, self.endpoint))


@dataclass(slots=True)
class _Answered:
    """What is the same for all rows of a request. Not frozen: that would double the cost of making one.

    `parts_ms`: of the latency, reading and checking, looking up and deriving, and the model. `answered`: when the
    answer was made, by `perf_counter`. `feature_versions`: by view, the version of the snapshot that was read.
    """

    request_id: str
    at: datetime
    model: str
    version: int
    arm: str
    revision: int
    latency_ms: float
    _: KW_ONLY
    parts_ms: tuple[float, float, float] | None = None
    answered: float | None = None
    feature_versions: Mapping[str, Any] | None = None
    trace_id: str | None = None
    sample_rate: float = 1.0

    def _line(self, count: int, rest: Mapping[str, Any]) -> bytes:
        """JSON; the number of rows comes first, so that rows are counted without parsing them."""
        record = {
            "request_id": self.request_id,
            "logged_at": self.at,
            "model": self.model,
            "version": self.version,
            "arm": self.arm,
            "revision": self.revision,
            "latency_ms": self.latency_ms,
            "parts_ms": self.parts_ms,
            "feature_versions": self.feature_versions,
            "trace_id": self.trace_id,
            "sample_rate": self.sample_rate,
            **rest,
        }
        data = orjson.dumps(record, option=FORMAT)
        took = 0.0 if self.answered is None else (time.perf_counter() - self.answered) * 1000
        return b'{"n":%d,"log_ms":%.4f,%b' % (count, took, data[1:])


@dataclass(slots=True)
class Logged(_Answered):
    """One answered request. Each row: id, as_of, prediction, decision, scores, ages, absent, given, inputs."""

    rows: Sequence[Mapping[str, Any]]

    @property
    def count(self) -> int:
        return len(self.rows)

    def line(self) -> bytes:
        return self._line(len(self.rows), {"rows": self.rows})


@dataclass(slots=True)
class LoggedColumns(_Answered):
    """One answered request as columns: what `Logged` says of many rows, without an object for each of them.

    Each column is a list or a numpy array with a value per row. `own` holds prediction, decision, scores, id and as_of;
    one that is not there is null in every row, and `as_of` may be one moment for all. `inputs` are by name, likewise.
    `given` is the same for every row; nothing was looked up, so there are no ages and nothing is absent.
    """

    count: int
    own: Mapping[str, Any]
    inputs: Mapping[str, Any]
    given: Sequence[str] = ()

    def line(self) -> bytes:
        own, inputs = _packed(self.own), _packed(self.inputs)
        return self._line(self.count, {"given": self.given, "columns": own, "inputs": inputs})


def _packed(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as the base64 of their bytes: to spell them costs ten times as much, and so does reading that."""
    return {name: pack(one) if isinstance(one, np.ndarray) else one for name, one in columns.items()}


def pack(values: NDArray[Any]) -> Any:
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        return values
    return {"dtype": values.dtype.str, "base64": b64encode(values.tobytes()).decode()}


def unpack(packed: Mapping[str, str]) -> NDArray[Any]:
    """What `pack` packed. ValueError when it is not that."""
    return np.frombuffer(b64decode(packed["base64"], validate=True), np.dtype(packed["dtype"]))


class LogFull(Unavailable):
    """The write-ahead folder holds as much as it may, or its disk takes no more. Nothing was logged."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A sealed file as it was read: every whole line behind the first."""

    shape: Shape
    lines: Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class _OpenFile:
    """`size` counts whole lines only; `first_row` and `since` (monotonic) are None until there is a row."""

    fd: int
    path: Path
    size: int = 0
    since: float | None = None
    first_row: datetime | None = None


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
        self._used_bytes = 0
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        return self._folder

    def append(self, shape: Shape, request: Logged | LoggedColumns, most_bytes: int = NEVER) -> None:
        """Write one request's rows. After it returns they survive this process.

        LogFull, and do not answer: nothing was logged, since the folder would hold more than `most_bytes` by then (as
        `measured` was told), or the disk failed.
        """
        line = request.line()
        with self._lock:
            if self._used_bytes + len(line) > most_bytes:
                raise LogFull(
                    f"{most_bytes >> 20:,} MiB of predictions wait to be shipped, which is the most",
                    where=str(self._folder),
                    todo="see why they are not (GET …/state), or raise [serving.log] disk",
                )
            try:
                file = self._files.get(shape) or self._open(shape)
                self._append(shape, file, line)
            except OSError as error:
                raise LogFull(
                    f"the prediction could not be logged ({error.strerror})",
                    where=str(self._folder),
                    todo="free space there, or restart",
                ) from error
            if file.since is None:
                file.since, file.first_row = self._monotonic(), request.at
            if file.size >= self._piece_bytes:
                self._seal(shape)

    def measured(self, used_bytes: int) -> None:
        """Note what the folder holds, whoever wrote it; what this writer adds is counted until the next time."""
        with self._lock:
            self._used_bytes = used_bytes

    def seal_due(self) -> None:
        """Seal what is old enough; to be called often, for a file without traffic seals itself never."""
        with self._lock:
            until = self._monotonic() - self._piece_age_s
            for shape in [shape for shape, file in self._files.items() if file.since is not None]:
                since = self._files[shape].since
                if since is not None and since <= until:
                    self._seal(shape)

    def seal(self) -> None:
        """Seal everything now. The writer can go on afterwards, with new files."""
        with self._lock:
            for shape in list(self._files):
                self._seal(shape)

    def close(self) -> None:
        """Seal everything."""
        self.seal()

    def sealed(self) -> list[Path]:
        """This writer's sealed files that are still there, oldest first."""
        return sorted(self._folder.glob(f"*-{self._writer}-*{SEALED}"))

    def _open(self, shape: Shape) -> _OpenFile:
        file = self._create()
        header = {"project": shape.project, "endpoint": shape.endpoint, "inputs": shape.inputs}
        self._files[shape] = file
        self._append(shape, file, orjson.dumps(header, option=FORMAT))
        return file

    def _create(self) -> _OpenFile:
        """A new file that this process holds the lock of before anybody sees it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._opened += 1
        path = self._folder / f"{self._writer}-{self._opened:06d}{OPEN}"
        unborn = path.with_suffix(UNBORN)
        fd = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unborn.rename(path)
        except OSError:
            os.close(fd)
            raise
        return _OpenFile(fd, path)

    def _append(self, shape: Shape, file: _OpenFile, line: bytes) -> None:
        """All of the line or, with an OSError, nothing."""
        try:
            if self._write(file.fd, line) != len(line):
                raise OSError(errno.ENOSPC, "no space left on the device")
        except OSError:
            self._cut_back(shape, file)
            raise
        file.size += len(line)
        self._used_bytes += len(line)

    def _cut_back(self, shape: Shape, file: _OpenFile) -> None:
        """Away with a line that was cut short. Where that fails, or nothing is left, let the file go: never write
        behind such a line; who finds the file adopts it."""
        try:
            os.ftruncate(file.fd, file.size)
        except OSError:
            del self._files[shape]
            os.close(file.fd)
            return
        if not file.size:
            del self._files[shape]
            file.path.unlink(missing_ok=True)
            os.close(file.fd)

    def _seal(self, shape: Shape) -> None:
        file = self._files[shape]
        if file.first_row is None:  # nothing but the header: there is nothing to ship
            del self._files[shape]
            file.path.unlink(missing_ok=True)
            os.close(file.fd)
            return
        try:
            file.path.rename(sealed_path(file.path, file.first_row))
        except FileNotFoundError:  # the folder was removed under us; the open file still has its rows
            with suppress(OSError):
                self._rescue(file, file.first_row)
        except OSError:  # it is adopted as soon as the lock is gone
            pass
        del self._files[shape]
        os.close(file.fd)

    def _rescue(self, lost: _OpenFile, first_row: datetime) -> None:
        file = self._create()
        try:
            for at in range(0, lost.size, COPY_BYTES):
                part = os.pread(lost.fd, min(COPY_BYTES, lost.size - at), at)
                if self._write(file.fd, part) != len(part):
                    raise OSError(errno.ENOSPC, "no space left on the device")
            file.path.rename(sealed_path(file.path, first_row))
        finally:
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
                path.rename(sealed_path(path, _logged_at(first) or datetime.fromtimestamp(path.stat().st_mtime, UTC)))
                adopted += 1
    return adopted


def _logged_at(line: bytes) -> datetime | None:
    """When a line was logged; None for one that no writer wrote, as a disk that failed may leave."""
    try:
        return datetime.fromisoformat(orjson.loads(line)["logged_at"])
    except (ValueError, KeyError, TypeError):
        return None


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


class Backlog:
    """What lies in a folder and is not shipped yet. A sealed file never changes, so each is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sealed: dict[str, int] = {}
        self._lock = threading.Lock()

    def rows(self) -> int:
        """Rows, those of open files included. One that is being sealed meanwhile may count twice, never not at all."""
        still_open = sum(_rows_in(path) for path in self._folder.glob(f"*{OPEN}"))
        sealed = sealed_pieces(self._folder)
        with self._lock:
            self._sealed = {path.name: self._sealed.get(path.name) or _rows_in(path) for path in sealed}
            return still_open + sum(self._sealed.values())

    def size_bytes(self) -> int:
        """Bytes of all files, those that were set aside included."""
        total = 0
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
        return total


def pending(folder: Path) -> int:
    """Rows in `folder` that are not shipped yet, counted once."""
    return Backlog(folder).rows()


def _rows_in(path: Path) -> int:
    try:
        return sum(int(line[5 : line.index(b",", 5)]) for line in _whole_lines(path, skip=1))
    except (FileNotFoundError, ValueError):  # shipped or sealed meanwhile; or no line of ours
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
