"""A batch that is killed at any point and run again: each row is in its output once, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lakeloop.lakehouse.batch.record import BatchRequest
from lakeloop.lakehouse.batch.rows import QueryRows
from lakeloop.lakehouse.errors import Conflict, LakeloopError, NotFound, Unavailable
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.pins import pins_of
from lakeloop.lakehouse.testing import FaultyStore, When, lost_answer
from lakeloop.ray_jobs.batch_predict import batch_predict, in_process
from lakeloop.tests.crashes import crashes
from lakeloop.tests.orders import Orders, expected
from lakeloop.tests.proxies import Proxy

ROWS = QueryRows("select number as id, placed as as_of, customer, amount from orders")
REQUEST = BatchRequest("shop", "risk", ROWS.told, "shop/scored")
MOST_CALLS = 200
KILLED = """
import sys, time
from lakeloop.lakehouse.lake import open_lake
from lakeloop.lakehouse.applied import load
from lakeloop.lakehouse.batch.record import BatchRequest
from lakeloop.lakehouse.batch.rows import QueryRows
from lakeloop.ray_jobs.batch_predict import batch_predict, in_process

def slowly(lake, batch, numbers):
    for part in in_process(lake, batch, numbers):
        yield part
        time.sleep(0.02)

lake = open_lake(sys.argv[1], who="tester")
rows = QueryRows(sys.argv[2])
request = BatchRequest("shop", "risk", rows.told, "shop/scored")
project = load(lake, "shop")[0]
watch = lambda done, rows: print(done, flush=True)
batch_predict(lake, project, request, rows, compute=slowly, part_rows=2, watch=watch)
"""


def prepared(lake: Lake, rows: int = 5) -> Orders:
    orders = Orders(lake, customers=2)
    orders.take(rows)
    orders.register()
    return orders


def work(lake: Lake) -> None:
    from lakeloop.lakehouse.applied import load

    batch_predict(lake, load(lake, "shop")[0], REQUEST, ROWS, compute=in_process, part_rows=2)


def outcome(lake: Lake) -> list[tuple[str, float]]:
    rows = lake.sql("select id, prediction from shop.scored", project="shop").to_pylist()
    return sorted((row["id"], row["prediction"]) for row in rows)


def right(rows: int) -> list[tuple[str, float]]:
    """Of customers c0 and c1 alone is a payment known."""
    return sorted((f"o{n}", expected(n) if n % 7 < 2 else float(n + 100)) for n in range(rows))


def is_whole(lake: Lake, rows: int, failure: str) -> None:
    assert outcome(lake) == right(rows), failure
    assert [row["rows"] for row in lake.sql("select rows from lakeloop.batches").to_pylist()] == [rows], failure
    assert not [entry.key for entry in lake.store.list("artifacts/batches/")], failure
    assert not pins_of(lake, "shop/spending"), failure


def unavailable() -> LakeloopError:
    return Unavailable("made to fail")


def sweep(lake: Lake, when: When, error: Callable[[], LakeloopError], calls: range) -> int:
    """Each of these calls of the store fails once, in a batch that is then run again; returns how many there were.

    One lake: each turn asks for another output, so that nothing has to be prepared anew.
    """
    orders = prepared(lake)
    for at in calls:
        faulty = FaultyStore(lake.store, at, when, error())
        request = BatchRequest("shop", "risk", ROWS.told, f"shop/scored_{at}")
        try:
            batch_predict(Lake(faulty, "tester"), orders.project, request, ROWS, compute=in_process, part_rows=3)
        except LakeloopError as raised:
            if raised.what != error().what and not isinstance(raised, NotFound | Conflict):
                raise
        batch_predict(lake, orders.project, request, ROWS, compute=in_process, part_rows=3)
        table = lake.table(request.output)
        assert table is not None
        found = sorted((row["id"], row["prediction"]) for row in table.rows().to_pylist())
        assert found == right(5), f"{when} call {at}: {faulty.calls[-1]}"
        if not faulty.failed:
            return at
    return calls[-1]


CASES: list[tuple[When, Callable[[], LakeloopError]]] = [
    ("before", unavailable),
    ("after", unavailable),
    ("before", lost_answer),
    ("after", lost_answer),
]


@pytest.mark.parametrize("case", range(4))
def test_a_call_of_the_store_that_fails_costs_no_row(folder_lake: Lake, case: int) -> None:
    """Every eighth call, others in each case; the next test tries them all."""
    assert sweep(folder_lake, *CASES[case], range(1 + 2 * case, MOST_CALLS, 8)) < MOST_CALLS - 8


@pytest.mark.slow
@pytest.mark.parametrize("case", range(4))
def test_any_call_of_the_store_that_fails_costs_no_row(folder_lake: Lake, case: int) -> None:
    assert sweep(folder_lake, *CASES[case], range(1, MOST_CALLS)) > 30


@pytest.mark.slow
def test_a_crash_at_any_request_costs_no_row(bucket: str, proxy: Proxy) -> None:
    count = 0
    for lake, failure in crashes(proxy, bucket, prepared, work):
        count += 1
        work(lake)
        is_whole(lake, 5, failure)
    assert count > 100


def test_a_driver_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "lake"), who="tester")
    prepared(lake, rows=60)
    reached = [0]
    for kill_after in (1, 2, 3):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, lake.url, ROWS.sql], stdout=subprocess.PIPE, text=True
        ) as driver:
            assert driver.stdout is not None
            lines = [int(driver.stdout.readline()) for _ in range(kill_after + 1)]
            time.sleep(0.01 * kill_after)  # at another place of the next part each time
            os.kill(driver.pid, signal.SIGKILL)
        assert lines[0] >= reached[-1]
        reached.append(lines[-1])
    assert 0 < reached[1] <= reached[2] <= reached[3] < 60
    work(lake)
    is_whole(lake, 60, "killed")
