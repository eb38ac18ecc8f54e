"""The write-ahead log: what is appended survives, is read back, and is sealed once."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakeloop.lakehouse.errors import Corrupt, Unavailable
from lakeloop.lakehouse.journal import segment_name
from lakeloop.ray_jobs.serving.write_ahead import (
    Backlog,
    LogFull,
    Logged,
    Shape,
    WriteAhead,
    adopt,
    pending,
    read_piece,
    sealed_pieces,
    segment_of,
)

SHAPE = Shape("flights", "late", (("share", "float32"),))
OTHER = Shape("flights", "late", (("share", "float32"), ("origin", "category")))
AT = datetime(2026, 5, 1, 12, 0, 0, 250_000, UTC)


def request(name: str, rows: int = 1, at: datetime = AT) -> Logged:
    row = {
        "id": None,
        "as_of": at,
        "prediction": 0.5,
        "decision": "true",
        "scores": None,
        "ages": {},
        "absent": [],
        "given": [],
        "inputs": {"share": 0.5},
    }
    return Logged(name, at, "late", 3, "champion", 5, 0.4, [row] * rows)


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def test_what_was_appended_is_read_back_from_the_sealed_piece(tmp_path: Path) -> None:
    log = WriteAhead(tmp_path)
    log.append(SHAPE, request("one"))
    log.append(SHAPE, request("two", rows=3))
    assert pending(tmp_path) == 4
    log.close()
    (sealed,) = sealed_pieces(tmp_path)
    piece = read_piece(sealed)
    assert piece.shape == SHAPE
    assert [line["request_id"] for line in piece.lines] == ["one", "two"]
    assert pending(tmp_path) == 4


def test_a_row_is_on_the_disk_before_append_returns(tmp_path: Path) -> None:
    log = WriteAhead(tmp_path)
    log.append(SHAPE, request("one"))
    (path,) = tmp_path.glob("*.jsonl")
    assert b'"request_id":"one"' in path.read_bytes()


def test_a_sealed_piece_is_named_as_the_journal_names_a_segment(tmp_path: Path) -> None:
    log = WriteAhead(tmp_path)
    log.append(SHAPE, request("one"))
    log.append(SHAPE, request("two", at=AT + timedelta(seconds=3)))
    log.close()
    (sealed,) = sealed_pieces(tmp_path)
    writer = segment_of(sealed).split("-")[1]
    assert segment_of(sealed) == segment_name(writer, 1, AT)


def test_a_piece_is_sealed_when_it_is_old_enough_and_not_before(tmp_path: Path) -> None:
    clock = Clock()
    log = WriteAhead(tmp_path, piece_age_s=0.5, monotonic=clock)
    log.append(SHAPE, request("one"))
    clock.s = 0.4
    log.seal_due()
    assert sealed_pieces(tmp_path) == []
    clock.s = 0.5
    log.seal_due()
    assert len(sealed_pieces(tmp_path)) == 1


def test_a_piece_is_sealed_when_it_is_large_enough(tmp_path: Path) -> None:
    log = WriteAhead(tmp_path, piece_bytes=1)
    log.append(SHAPE, request("one"))
    log.append(SHAPE, request("two"))
    assert [line["request_id"] for path in sealed_pieces(tmp_path) for line in read_piece(path).lines] == ["one", "two"]


def test_rows_of_two_shapes_never_share_a_piece(tmp_path: Path) -> None:
    log = WriteAhead(tmp_path)
    for number in range(4):
        log.append(SHAPE if number % 2 else OTHER, request(str(number)))
    log.close()
    pieces = [read_piece(path) for path in sealed_pieces(tmp_path)]
    assert {piece.shape for piece in pieces} == {SHAPE, OTHER}
    assert [len(piece.lines) for piece in pieces] == [2, 2]


def test_a_line_that_was_cut_short_is_dropped_and_the_others_stay(tmp_path: Path) -> None:
    log = WriteAhead(tmp_path)
    log.append(SHAPE, request("one"))
    log.append(SHAPE, request("two"))
    log.close()
    (sealed,) = sealed_pieces(tmp_path)
    sealed.write_bytes(sealed.read_bytes()[:-10])
    assert [line["request_id"] for line in read_piece(sealed).lines] == ["one"]
    assert pending(tmp_path) == 1


def test_a_file_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    log = WriteAhead(tmp_path)
    log.append(SHAPE, request("one"))
    assert adopt(tmp_path) == 0
    log.append(SHAPE, request("two"))
    log.close()
    assert pending(tmp_path) == 2


def test_a_file_whose_writer_was_killed_is_adopted(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path; from datetime import datetime, UTC\n"
        "from lakeloop.ray_jobs.serving.write_ahead import *\n"
        "log = WriteAhead(Path(sys.argv[1]))\n"
        "at = datetime(2026, 5, 1, tzinfo=UTC)\n"
        "log.append(Shape('p', 'm', ()), Logged('killed', at, 'm', 1, 'champion', 1, 0.1, [{}]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -9
    assert adopt(tmp_path) == 1
    (sealed,) = sealed_pieces(tmp_path)
    assert sealed.name.startswith("20260501T000000000000Z-")
    assert read_piece(sealed).lines[0]["request_id"] == "killed"


def test_an_orphan_without_a_whole_row_is_removed(tmp_path: Path) -> None:
    (tmp_path / "1-000001.jsonl").write_bytes(b'{"project":"p","endpoint":"m","inputs":[]}\n{"n":1,"requ')
    (tmp_path / "1-000002.jsonl").write_bytes(b"")
    assert adopt(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_unavailable_and_what_was_logged_before_stays_whole(tmp_path: Path) -> None:
    room = [10_000]

    def write(fd: int, data: bytes) -> int:
        fits = data[: room[0]]
        room[0] -= len(fits)
        return os.write(fd, fits)

    log = WriteAhead(tmp_path, write=write)
    log.append(SHAPE, request("one"))
    room[0] = 20
    with pytest.raises(Unavailable, match="no space left"):
        log.append(SHAPE, request("two"))
    room[0] = 10_000
    log.append(SHAPE, request("three"))
    log.close()
    adopt(tmp_path)
    names = {line["request_id"] for path in sealed_pieces(tmp_path) for line in read_piece(path).lines}
    assert names == {"one", "three"}


def test_a_disk_that_fails_is_unavailable(tmp_path: Path) -> None:
    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, "input/output error")

    with pytest.raises(Unavailable, match="input/output error"):
        WriteAhead(tmp_path, write=write).append(SHAPE, request("one"))


def test_a_file_that_is_no_log_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.sealed"
    path.write_bytes(b"not a log\n")
    with pytest.raises(Corrupt):
        read_piece(path)


def test_the_line_that_did_not_fit_is_taken_back_and_the_file_goes_on(tmp_path: Path) -> None:
    room = [10_000]

    def write(fd: int, data: bytes) -> int:
        fits = data[: room[0]]
        room[0] -= len(fits)
        return os.write(fd, fits)

    log = WriteAhead(tmp_path, write=write)
    log.append(SHAPE, request("one"))
    for number in range(20):
        room[0] = 20
        with pytest.raises(LogFull):
            log.append(SHAPE, request(f"lost-{number}"))
    room[0] = 10_000
    log.append(SHAPE, request("two"))
    log.close()
    (sealed,) = sealed_pieces(tmp_path)
    assert [line["request_id"] for line in read_piece(sealed).lines] == ["one", "two"]


def test_a_disk_that_takes_nothing_leaves_no_files_behind(tmp_path: Path) -> None:
    log = WriteAhead(tmp_path, write=lambda fd, data: 0)
    for number in range(20):
        with pytest.raises(LogFull):
            log.append(SHAPE, request(str(number)))
    log.seal_due()
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_the_system_in_the_middle_of_a_line_loses_no_answered_row(tmp_path: Path) -> None:
    """A process that may write files of 4,000 bytes at most: the kernel cuts the line that crosses it."""
    code = (
        "import resource, sys; from pathlib import Path; from datetime import datetime, UTC\n"
        "from lakeloop.ray_jobs.serving.write_ahead import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "log, at, answered = WriteAhead(Path(sys.argv[1])), datetime(2026, 5, 1, tzinfo=UTC), 0\n"
        "for number in range(100):\n"
        "    try:\n"
        "        log.append(Shape('p', 'm', ()), Logged(str(number), at, 'm', 1, 'champion', 1, 0.1, [{}]))\n"
        "        answered += 1\n"
        "    except LogFull:\n"
        "        pass\n"
        "print(answered)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    answered = int(ended.stdout)
    assert 0 < answered < 100
    adopt(tmp_path)
    names = [line["request_id"] for path in sealed_pieces(tmp_path) for line in read_piece(path).lines]
    assert names == [str(number) for number in range(answered)]


def test_what_lies_in_open_files_survives_the_removal_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = WriteAhead(folder)
    log.append(SHAPE, request("one"))
    log.append(OTHER, request("other"))
    shutil.rmtree(folder)
    log.append(SHAPE, request("two"))
    log.seal()
    log.append(SHAPE, request("three"))
    log.close()
    names = [line["request_id"] for path in sealed_pieces(folder) for line in read_piece(path).lines]
    assert sorted(names) == ["one", "other", "three", "two"]
    assert adopt(folder) == 0


def test_a_clock_that_goes_back_changes_names_and_loses_nothing(tmp_path: Path) -> None:
    clock = Clock()
    log = WriteAhead(tmp_path, monotonic=clock)
    for number, at in enumerate((AT, AT - timedelta(hours=1), AT - timedelta(days=400), AT)):
        log.append(SHAPE, request(str(number), at=at))
        clock.s += 1
        log.seal_due()
    assert len({segment_of(path) for path in sealed_pieces(tmp_path)}) == 4
    names = [line["request_id"] for path in sealed_pieces(tmp_path) for line in read_piece(path).lines]
    assert sorted(names) == ["0", "1", "2", "3"]


def test_the_backlog_counts_rows_and_bytes_and_reads_a_sealed_file_once(tmp_path: Path) -> None:
    log, backlog = WriteAhead(tmp_path), Backlog(tmp_path)
    log.append(SHAPE, request("one", rows=2))
    log.seal()
    log.append(SHAPE, request("two"))
    assert backlog.rows() == 3
    (sealed,) = sealed_pieces(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert backlog.size_bytes() == size
    sealed.write_bytes(b"")  # it is not looked into again
    assert backlog.rows() == 3
    sealed.unlink()
    assert backlog.rows() == 1
