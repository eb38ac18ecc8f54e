"""The prediction log under faults: whatever fails between request and journal, each answered row is there once."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lakeloop.lakehouse.errors import Unavailable, Unknown
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.ray_jobs.serving.shipper import ship
from lakeloop.ray_jobs.serving.write_ahead import Logged, Shape, WriteAhead, adopt, pending, sealed_pieces

SHAPE = Shape("p", "late", (("share", "float32"),))
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
PIECES, ROWS = 4, 3


class Killed(BaseException):
    """The process ends here."""


class Failing:
    """A lake's journal around a journal: the k-th append fails before or after it took effect."""

    def __init__(self, lake: Lake, k: int, *, after: bool, error: Callable[[], BaseException]) -> None:
        self.lake, self.k, self.after, self.error, self.calls = lake, k, after, error, 0

    def __call__(self, name: str) -> Any:
        journal, outer = self.lake.journal(name), self

        class Journal:
            def append(self, rows: Any, segment: str) -> None:
                outer.calls += 1
                fails = outer.calls == outer.k
                if fails and not outer.after:
                    raise outer.error()
                journal.append(rows, segment)
                if fails:
                    raise outer.error()

        return Journal()


def request(number: int) -> Logged:
    at = START + timedelta(seconds=number)
    row = {"id": None, "as_of": at, "prediction": 0.5, "inputs": {"share": 0.5}}
    return Logged(f"r{number}", at, "late", 1, "champion", 1, 0.1, [row] * ROWS)


def log_pieces(folder: Path) -> None:
    log = WriteAhead(folder)
    for number in range(PIECES):
        log.append(SHAPE, request(number))
        log.close()


def assert_each_row_once(lake: Lake, requests: int = PIECES) -> None:
    rows = lake.journal("predictions.p.late").read()
    assert rows is not None
    wanted = {f"r{number}#{row}" for number in range(requests) for row in range(ROWS)}
    assert Counter(rows["prediction_id"].to_pylist()) == dict.fromkeys(wanted, 1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return open_lake(str(tmp_path / "lake"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("k", range(1, PIECES + 1))
@pytest.mark.parametrize("error", [Killed, lambda: Unavailable("away"), lambda: Unknown("answer lost")])
def test_whichever_append_fails_a_second_run_ships_each_row_once(
    lake: Lake, folder: Path, k: int, after: bool, error: Callable[[], BaseException]
) -> None:
    log_pieces(folder)
    with contextlib.suppress(Killed):
        ship(folder, Failing(lake, k, after=after, error=error))
    assert len(sealed_pieces(folder)) == PIECES - (k - 1)
    ship(folder, lake.journal)
    assert pending(folder) == 0
    assert_each_row_once(lake)


def test_a_piece_that_was_folded_before_it_is_shipped_again_is_recognised(lake: Lake, folder: Path) -> None:
    log_pieces(folder)
    with pytest.raises(Killed):
        ship(folder, Failing(lake, PIECES, after=True, error=Killed))
    journal = lake.journal("predictions.p.late")
    assert journal.fold() == PIECES * ROWS
    journal.fold(grace_s=-1)
    assert journal.waiting() == []
    ship(folder, lake.journal)
    assert_each_row_once(lake)
    journal.fold(grace_s=-1)
    assert_each_row_once(lake)


def test_two_shippers_over_one_folder_ship_each_row_once(lake: Lake, folder: Path) -> None:
    log_pieces(folder)
    start = threading.Barrier(2)

    def run() -> None:
        start.wait()
        ship(folder, lake.journal)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pending(folder) == 0
    assert_each_row_once(lake)


def test_while_the_store_is_away_requests_are_logged_and_nothing_is_lost(lake: Lake, folder: Path) -> None:
    log = WriteAhead(folder)
    away = Failing(lake, 1, after=False, error=lambda: Unavailable("away"))
    for number in range(PIECES):
        log.append(SHAPE, request(number))
        log.close()
        away.calls = 0
        assert ship(folder, away).stopped == "away"
    assert pending(folder) == PIECES * ROWS
    ship(folder, lake.journal)
    assert_each_row_once(lake)


@pytest.mark.parametrize("lost", [1, 40, 200])
def test_a_write_that_was_cut_short_by_a_kill_loses_only_the_row_that_was_not_answered(
    lake: Lake, folder: Path, lost: int
) -> None:
    log = WriteAhead(folder)
    for number in range(PIECES):
        log.append(SHAPE, request(number))
    (path,) = folder.glob("*.jsonl")
    whole = path.read_bytes()
    orphan = folder / "1dead-000001.jsonl"
    orphan.write_bytes(whole[: len(whole) - lost])  # no process holds this one
    path.unlink()
    assert adopt(folder) == 1
    ship(folder, lake.journal)
    assert_each_row_once(lake, PIECES - 1)


def test_a_shipper_that_is_killed_while_it_adopts_leaves_the_rest_to_the_next(lake: Lake, folder: Path) -> None:
    log_pieces(folder)
    for path in sealed_pieces(folder):  # as if their writers had been killed before they sealed
        path.rename(path.with_name(path.name.split("-", 1)[1].removesuffix(".sealed")))
    first = min(folder.iterdir())
    first.rename(first.with_name(f"20260501T120000000000Z-{first.name}.sealed"))
    assert adopt(folder) == PIECES - 1
    ship(folder, lake.journal)
    assert_each_row_once(lake)
