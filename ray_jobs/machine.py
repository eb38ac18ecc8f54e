"""What a cluster needs of its machine: a short private folder for each run, free ports, an end to what a dead run left.

A run is one process that holds a lock (flock) on its record in `<folder>/runs/`; the record names the run's short
folder. The lock goes with the process, however that ended, so a run whose lock is free is over: processes that name its
folder are ended, one by one by their id, and the folder is removed. Nothing outside the records of `<folder>` is
touched, so another checkout's cluster on this machine is safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lakeloop.lakehouse.errors import Unavailable

LONGEST_TMP = 20
"""Characters of a temporary folder with which every socket still fits.

A socket's path has at most 107, of which the run's own folder, HAProxy and Ray use 85.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that this process holds: its record, its lock and its short private folder."""

    record: Path
    lock: int
    folder: Path

    def close(self) -> None:
        """Remove what the run left, and let it go."""
        end_processes(naming(self.folder))
        shutil.rmtree(self.folder, ignore_errors=True)
        self.record.unlink(missing_ok=True)
        os.close(self.lock)


def new_run(folder: Path) -> Run:
    """A run of this process, after an end was made of runs in `folder` whose process is gone."""
    runs = folder / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "runs.lock"):
            for record in runs.iterdir():
                _bury(record)
            short = Path(tempfile.mkdtemp(prefix="ll-", dir=_short_tmp()))
            record = runs / short.name
            lock = os.open(record, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.write(lock, str(short).encode())
    except OSError as error:
        raise Unavailable(
            f"no folder for Ray's files ({error})", where=str(folder), todo="make the folder writable"
        ) from error
    return Run(record, lock, short)


def _bury(record: Path) -> None:
    """End what a run left whose process is gone; leave alone one that lives."""
    try:
        lock = os.open(record, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # that run ended by itself just now
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        short = Path(os.read(lock, 4096).decode())
        if short.name == record.name and short.name.startswith("ll-"):
            end_processes(naming(short))
            shutil.rmtree(short, ignore_errors=True)
        record.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def naming(folder: Path) -> Callable[[], list[int]]:
    """Finds the processes of Ray and HAProxy that name a run's folder, or are workers of that run."""

    def find() -> list[int]:
        return [pid for pid, command in _commands() if pid != os.getpid() and belongs(command, pid, folder)]

    return find


def belongs(command: Sequence[str], pid: int, folder: Path) -> bool:
    """Whether a process is part of the run in `folder`, and not, say, an editor that shows one of its files."""
    mark, program = f"{folder}/", os.path.basename(command[0])
    if program.startswith("ray::"):  # a worker hides its command line behind a title; its environment tells
        return mark in _environment(pid)
    ours = program in ("haproxy", "raylet", "gcs_server") or (
        program.startswith("python") and any("/ray/" in word for word in command)
    )
    return ours and any(mark in word for word in command)


def end_processes(find: Callable[[], list[int]], *, patience_s: float = 3.0) -> None:
    """Ask the processes that `find` names to end, and after a while make them.

    They are looked for anew each time: an id may be another's by then.
    """
    for sign, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
        for pid in find():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, sign)
        until = time.monotonic() + wait_s
        while find() and time.monotonic() < until:
            time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def free_range(count: int) -> tuple[int, int]:
    """A run of free ports below those that systems give out by themselves: [first, last]."""
    for _ in range(100):
        first = random.randrange(12_000, 32_000 - count, count)
        if all(map(_is_free, range(first, first + count))):
            return first, first + count - 1
    raise Unavailable(
        f"no {count} free ports in a row between 12000 and 32000", todo="end other clusters on this machine"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _short_tmp() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) <= LONGEST_TMP else "/tmp"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _commands() -> Iterator[tuple[int, list[str]]]:
    """The command line of every process that can be seen."""
    if not Path("/proc/self/cmdline").exists():
        yield from _commands_of_ps()
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
                if command[0]:
                    yield int(entry.name), command


def _commands_of_ps() -> Iterator[tuple[int, list[str]]]:
    listing = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        pid, _, command = line.strip().partition(" ")
        if command.strip():
            yield int(pid), command.split()


def _environment(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""
