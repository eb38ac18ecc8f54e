"""The shipper: sealed pieces become segments, once each, and wait while they cannot."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.lake import open_lake
from lakeloop.ray_jobs.serving.shipper import Shipper, ship
from lakeloop.ray_jobs.serving.write_ahead import Logged, Shape, WriteAhead, pending

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


def log_requests(folder: Path, *names: str, endpoint: str = "late") -> None:
    log = WriteAhead(folder)
    for name in names:
        row = {"id": None, "as_of": AT, "prediction": 0.5, "inputs": {"share": 0.5}}
        log.append(
            Shape("p", endpoint, (("share", "float32"),)), Logged(name, AT, endpoint, 1, "champion", 1, 0.1, [row])
        )
    log.close()


class Journals:
    """Journals in memory, that may be away."""

    def __init__(self) -> None:
        self.segments: dict[tuple[str, str], pa.Table] = {}
        self.away = False
        self.arrived = threading.Event()

    def __call__(self, name: str) -> Any:
        outer = self

        class Journal:
            def append(self, rows: pa.Table, segment: str) -> None:
                if outer.away:
                    raise Unavailable("the store is away")
                outer.segments[name, segment] = rows
                outer.arrived.set()

        return Journal()

    def requests(self, name: str = "predictions.p.late") -> list[str]:
        tables = [rows for (journal, _), rows in self.segments.items() if journal == name]
        return [request for rows in tables for request in rows["request_id"].to_pylist()]


def test_a_piece_becomes_a_segment_of_its_endpoints_journal_and_its_file_goes(tmp_path: Path) -> None:
    log_requests(tmp_path, "one", "two")
    log_requests(tmp_path, "other", endpoint="noise")
    journals = Journals()
    done = ship(tmp_path, journals)
    assert (done.pieces, done.rows, done.stopped) == (2, 3, "")
    assert journals.requests() == ["one", "two"]
    assert journals.requests("predictions.p.noise") == ["other"]
    assert list(tmp_path.iterdir()) == []


def test_while_the_store_is_away_files_stay(tmp_path: Path) -> None:
    log_requests(tmp_path, "one")
    journals = Journals()
    journals.away = True
    assert ship(tmp_path, journals).stopped == "the store is away"
    assert pending(tmp_path) == 1
    journals.away = False
    assert ship(tmp_path, journals).rows == 1
    assert pending(tmp_path) == 0


def test_a_piece_that_can_never_be_shipped_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "20200101T000000000000Z-x-000001.jsonl.sealed").write_bytes(b"nonsense\n")
    log_requests(tmp_path, "one")
    journals = Journals()
    done = ship(tmp_path, journals)
    assert (done.rows, done.rejected) == (1, 1)
    assert [path.suffix for path in tmp_path.iterdir()] == [".rejected"]
    assert ship(tmp_path, journals).rejected == 0


def test_the_thread_ships_what_is_sealed_and_ends_when_closed(tmp_path: Path) -> None:
    journals = Journals()
    shipper = Shipper(tmp_path, journals)
    log_requests(tmp_path, "one")
    assert journals.arrived.wait(30)
    shipper.close()
    assert shipper.state() == {"pending": 0, "stopped": "", "alive": False, "process": os.getpid()}


def test_a_real_journal_reads_back_what_was_shipped(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "lake"))
    log_requests(tmp_path / "log", "one", "two")
    ship(tmp_path / "log", lake.journal)
    rows = lake.journal("predictions.p.late").read()
    assert rows is not None
    assert rows["prediction_id"].to_pylist() == ["one#0", "two#0"]


def test_a_file_that_a_failing_disk_left_stops_no_shipping(tmp_path: Path) -> None:
    log_requests(tmp_path, "one")
    (tmp_path / "9dead-000001.jsonl").write_bytes(b'{"project":"p","endpoint":"late","inputs":[]}\n\0\0\0\0\n')
    (tmp_path / "20260501T120000000000Z-9dead-000002.jsonl.sealed").write_bytes(
        b'{"project":"p","endpoint":"late","inputs":[["share","float32"]]}\n{"n":1,"rows":[{"id":null}]}\n'
    )
    journals = Journals()
    shipper = Shipper(tmp_path, journals)
    assert journals.arrived.wait(10)
    shipper.close()
    assert journals.requests() == ["one"]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".rejected", ".rejected"]


def test_the_thread_outlives_what_nobody_expected(tmp_path: Path) -> None:
    log_requests(tmp_path, "one")
    journals = Journals()
    broken = iter([True])

    def journal(name: str) -> Any:
        if next(broken, False):
            raise RuntimeError("nobody expected this")
        return journals(name)

    shipper = Shipper(tmp_path, journal)
    assert journals.arrived.wait(10)
    shipper.close()
    assert journals.requests() == ["one"]
