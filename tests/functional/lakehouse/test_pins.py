"""Pins and vacuum: what a run has read can be read again whatever maintenance does, and nothing that somebody may still
read is deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from threading import Event

import pyarrow as pa
import pytest

from lakeloop.functions.maintain_lake import maintain_table, vacuum
from lakeloop.lakehouse import pins
from lakeloop.lakehouse.errors import Conflict, Corrupt, NotFound, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.pins import Pin, find_pin, hold, pin_of, release
from lakeloop.lakehouse.query.session import Files, Session
from lakeloop.lakehouse.tables import Table

NAME = "team/numbers"
AT_ONCE = timedelta(0)


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


def opened(lake: Lake, version: int | None = None) -> Table:
    table = lake.tables.open(NAME, version=version)
    assert table is not None
    return table


def made(lake: Lake) -> Table:
    """Versions 1 to 4: [1], [1, 2], [1, 2] with a column, [9]."""
    table = lake.tables.open_or_create(NAME, numbers().schema)
    table.append(numbers(1))
    table.append(numbers(2))
    table.append(pa.table({"n": [3], "word": ["three"]}))
    table.overwrite(numbers(9))
    return table


def through(lake: Lake, pin: Pin) -> list[tuple[object, ...]]:
    with Session(lake.store.location(), {"t": Files(pin.uris(lake), pin.columns)}.get) as session:
        return [tuple(row.values()) for row in session.run("select * from t order by n").to_pylist()]


def files(lake: Lake) -> list[str]:
    return [entry.key for entry in lake.store.list(f"tables/{NAME}/") if entry.key.endswith(".parquet")]


def without_a_log(lake: Lake) -> None:
    """Log retention to zero, checkpoint, clean up: only the newest version can be opened by its log."""
    opened(lake)._delta.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    table = opened(lake)
    table.checkpoint()
    time.sleep(0.01)
    table.forget_old_log()


def test_a_pin_is_read_after_its_log_is_gone_and_two_vacuums(lake: Lake) -> None:
    made(lake)
    one, three = pin_of(opened(lake, 1)), pin_of(opened(lake, 3))
    for pin in (one, three):
        hold(lake, pin, "run-1")
    without_a_log(lake)
    with pytest.raises(NotFound, match="has no version 3"):
        opened(lake, 3)
    for _ in range(2):
        vacuum(lake, NAME, retention=AT_ONCE)
    for pin, rows in ((one, [(1,)]), (three, [(1, None), (2, None), (3, "three")])):
        assert through(lake, find_pin(lake, NAME, pin.version)) == rows
    assert opened(lake).rows().column("n").to_pylist() == [9]


def test_what_nobody_pinned_is_deleted_and_what_was_released_too(lake: Lake) -> None:
    made(lake)
    before = files(lake)
    hold(lake, pin_of(opened(lake, 1)), "run-1")
    hold(lake, pin_of(opened(lake, 1)), "run-2")
    assert vacuum(lake, NAME, retention=AT_ONCE) == 2
    assert (release(lake, "run-1"), vacuum(lake, NAME, retention=AT_ONCE)) == (1, 0)
    assert (release(lake, "run-2"), vacuum(lake, NAME, retention=AT_ONCE)) == (1, 1)
    assert (len(before), len(files(lake))) == (4, 1)
    assert release(lake, "run-2") == 0
    assert opened(lake).rows().column("n").to_pylist() == [9]


def test_what_is_younger_than_the_retention_stays(lake: Lake) -> None:
    made(lake)
    lake.store.put(f"tables/{NAME}/part-never-committed.parquet", b"x")
    before = files(lake)
    assert vacuum(lake, NAME) == 0
    assert files(lake) == before
    assert sorted(opened(lake, 2).rows().column("n").to_pylist()) == [1, 2]


def test_a_file_is_spared_that_is_old_but_was_replaced_only_now(folder_lake: Lake) -> None:
    made(folder_lake)
    long_ago = time.time() - timedelta(days=30).total_seconds()
    for key in files(folder_lake):
        os.utime(f"{folder_lake.url}/{key}", (long_ago, long_ago))
    folder_lake.store.put(f"tables/{NAME}/part-left-over.parquet", b"x")
    os.utime(f"{folder_lake.url}/tables/{NAME}/part-left-over.parquet", (long_ago, long_ago))
    assert vacuum(folder_lake, NAME) == 1
    assert "part-left-over" not in str(files(folder_lake))
    assert opened(folder_lake, 3).rows().num_rows == 3


def test_a_version_that_was_replaced_long_ago_cannot_be_pinned_any_more(folder_lake: Lake) -> None:
    made(folder_lake)
    later = replace(folder_lake, clock=lambda: folder_lake.clock() + pins.RETENTION / 2 + timedelta(minutes=1))
    with pytest.raises(Refused, match="replaced too long ago"):
        hold(later, pin_of(opened(folder_lake, 2)), "run-1")
    hold(later, pin_of(opened(folder_lake)), "run-1")
    hold(folder_lake, pin_of(opened(folder_lake, 2)), "run-1")
    hold(later, pin_of(opened(folder_lake, 2)), "run-2")  # its files are spared already
    release(folder_lake, "run-1")
    release(folder_lake, "run-2")
    with pytest.raises(Refused):
        hold(later, pin_of(opened(folder_lake, 2)), "run-3")


def test_a_pin_whose_files_are_gone_is_told_before_anything_is_trained(folder_lake: Lake) -> None:
    made(folder_lake)
    pin = pin_of(opened(folder_lake, 2))
    folder_lake.store.delete([f"tables/{NAME}/{pin.files[0].path}"])
    with pytest.raises(Corrupt, match="1 files of version 2"):
        hold(folder_lake, pin, "run-1")


def test_a_pin_of_a_table_without_rows_has_its_columns(folder_lake: Lake) -> None:
    table = folder_lake.tables.open_or_create(NAME, pa.schema([("n", pa.int64()), ("tags", pa.list_(pa.string()))]))
    assert pin_of(table).columns == {"n": "BIGINT", "tags": "VARCHAR[]"}
    assert through(folder_lake, pin_of(table)) == []


def test_vacuum_and_compaction_beside_writers_and_readers_lose_nothing(folder_lake: Lake) -> None:
    folder_lake.tables.open_or_create(NAME, numbers().schema)
    done = Event()

    def write(number: int) -> None:
        for turn in range(8):
            while True:
                try:
                    opened(folder_lake).append(numbers(100 * number + turn))
                    break
                except Conflict:
                    continue

    def maintain() -> None:
        while not done.is_set():
            with suppress(Conflict):
                maintain_table(folder_lake, NAME, now=True)
            vacuum(folder_lake, NAME, retention=timedelta(hours=1))

    def read() -> None:
        seen: Sequence[int] = []
        while not done.is_set():
            now = sorted(opened(folder_lake).rows().column("n").to_pylist())
            assert set(seen) <= set(now)
            assert len(set(now)) == len(now)
            seen = now

    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(maintain), pool.submit(read)]
        for writing in [pool.submit(write, number) for number in (1, 2)]:
            writing.result()
        done.set()
        for other in others:
            other.result()
    assert sorted(opened(folder_lake).rows().column("n").to_pylist()) == sorted(
        100 * number + turn for number in (1, 2) for turn in range(8)
    )
