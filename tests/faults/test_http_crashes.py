"""A crash at every HTTP request of an append, a fold, an ingest, a compaction and a vacuum.

A reader sees the old state or the new, each row once, and a second run completes.
"""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.maintain_lake import vacuum
from lakeloop.lakehouse.compaction import compact
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.pins import find_pin, hold, pin_of
from lakeloop.lakehouse.project import parse_project
from lakeloop.lakehouse.query.session import Files, Session
from lakeloop.tests.crashes import crashes
from lakeloop.tests.proxies import Proxy

NAME = "numbers"


def append(lake: Lake, number: int, **more: int) -> None:
    columns = {"n": [number]} | {name: [value] for name, value in more.items()}
    lake.journal(NAME).append(pa.table(columns), f"s{number:03d}")


def read(lake: Lake) -> list[int]:
    rows = lake.journal(NAME).read()
    return [] if rows is None else sorted(rows.column("n").to_pylist())


def inbox(lake: Lake) -> list[str]:
    return [entry.key for entry in lake.store.list("inbox/")]


def test_an_append_is_whole_or_not_there(bucket: str, proxy: Proxy) -> None:
    failures = []
    for lake, failure in crashes(proxy, bucket, lambda lake: append(lake, 1), lambda lake: append(lake, 2)):
        failures.append(failure)
        assert read(lake) in ([1], [1, 2]), failure
        append(lake, 2)
        assert read(lake) == [1, 2], failure
    assert [failure.split(":")[0] for failure in failures] == ["before request 1", "after request 1"]


@pytest.mark.slow
def test_the_first_fold_moves_each_row_once(bucket: str, proxy: Proxy) -> None:
    def prepare(lake: Lake) -> None:
        append(lake, 1)
        append(lake, 2, extra=7)
        lake.store.put(f"inbox/{NAME}/zz-broken", b"not a segment")

    complete(bucket, proxy, prepare, [1, 2])


@pytest.mark.slow
def test_a_fold_into_a_table_moves_each_row_once(bucket: str, proxy: Proxy) -> None:
    """Among the segments is one that was folded before and is shipped again, and one that cannot be read."""

    def prepare(lake: Lake) -> None:
        append(lake, 1)
        append(lake, 2)
        fold(lake)
        fold(lake)
        append(lake, 2)
        append(lake, 3, extra=7)
        lake.store.put(f"inbox/{NAME}/zz-broken", b"not a segment")

    complete(bucket, proxy, prepare, [1, 2, 3])


def fold(lake: Lake) -> None:
    lake.journal(NAME).fold(grace_s=-1)


def complete(bucket: str, proxy: Proxy, prepare: object, expected: list[int]) -> None:
    commits = 0
    for lake, failure in crashes(proxy, bucket, prepare, fold):  # type: ignore[arg-type]
        commits += "_delta_log" in failure
        assert read(lake) == expected, failure
        for _ in range(3):
            fold(lake)
        assert read(lake) == expected, failure
        assert inbox(lake) == [], failure
        assert lake.store.get(f"quarantine/inbox/{NAME}/zz-broken") == b"not a segment", failure
    assert commits > 2


SHOP = parse_project(
    {
        "lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n',
        "sources/sales.toml": 'owner = "crm"\ntimeless = true\nread = { kind = "landing" }\n'
        '[columns]\nid = "int64"\nprice = "float64"\n',
    }
)
SALES = b"id,price\n1,1.5\n2,dear\n3,2.5\n4\n"


def sold(lake: Lake) -> list[int]:
    table = lake.table("shop/sales")
    return sorted(table.rows().column("id").to_pylist()) if table else []


def quarantined(lake: Lake) -> list[int]:
    rows = lake.journal("quarantine").read()
    return [] if rows is None else sorted(rows.column("line").to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize("before", [[], [9]])
def test_an_ingest_takes_each_row_in_once(bucket: str, proxy: Proxy, before: list[int]) -> None:
    def prepare(lake: Lake) -> None:
        for number in before:
            land(lake, SHOP, "sales", "before.csv", f"id,price\n{number},1\n".encode())
            ingest_data(lake, SHOP)
        land(lake, SHOP, "sales", "a.csv", SALES)

    failures = 0
    for lake, failure in crashes(proxy, bucket, prepare, lambda lake: ingest_data(lake, SHOP)):
        failures += 1
        assert sold(lake) in (before, [1, 3, *before]), failure
        if sold(lake) != before:
            assert quarantined(lake) == [2, 4], failure
        for _ in range(2):
            ingest_data(lake, SHOP)
            assert (sold(lake), quarantined(lake)) == ([1, 3, *before], [2, 4]), failure
            assert [*lake.store.list("landing/")] == [], failure
    assert failures > 20


@pytest.mark.slow
@pytest.mark.parametrize("work", ["compact", "vacuum"])
def test_maintenance_changes_nothing_that_is_read(bucket: str, proxy: Proxy, work: str) -> None:
    def prepare(lake: Lake) -> None:
        table = lake.tables.open_or_create("shop/sales", pa.schema([("id", pa.int64())]))
        for number in range(4):
            table.append(pa.table({"id": [number]}))
            if number == 1:
                hold(lake, pin_of(table), "run-1")
        if work == "vacuum":
            compact(lake.store, table)
            table.checkpoint()

    def run(lake: Lake) -> None:
        table = lake.table("shop/sales")
        assert table is not None
        if work == "compact":
            compact(lake.store, table)
            table.checkpoint()
        else:
            vacuum(lake, "shop/sales", retention=timedelta(0))

    for lake, failure in crashes(proxy, bucket, prepare, run):
        for _ in range(2):
            assert sold(lake) == [0, 1, 2, 3], failure
            pin = find_pin(lake, "shop/sales", 2)
            with Session(lake.store.location(), {"t": Files(pin.uris(lake), pin.columns)}.get) as session:
                assert session.run("select id from t order by id").column("id").to_pylist() == [0, 1], failure
            run(lake)
        table = lake.table("shop/sales")
        assert table is not None
        assert len(table.files) == 1, failure
