"""What a question costs on S3, as a proxy before the store sees it: nothing until a table is named, then of that table
only, and of a selective question only the part that it needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import parse_project
from lakeloop.tests.proxies import Passed, Proxy

PROJECT = parse_project(
    {"lakeloop.toml": 'name = "p"\ngoal = "x"\nowner = "o"\n'}
    | {
        f"sources/{name}.toml": 'owner = "o"\nread = { kind = "landing", format = "csv" }\ntimeless = true\n'
        '[columns]\nday = "int64"\nn = "int64"\nnoise = "float64"\ntext = "string"\n'
        for name in ("flights", "weather", "planes")
    }
)
DAYS, ROWS = 4, 50_000


def day(number: int, rows: int = ROWS) -> pa.Table:
    """Most bytes are those of a text that hardly compresses: DuckDB reads a megabyte at a time or not at all."""
    random = np.random.default_rng(number)
    return pa.table(
        {
            "day": np.full(rows, number),
            "n": np.arange(rows),
            "noise": random.random(rows),
            "text": [random.bytes(64).hex() for _ in range(rows)],
            "_file": ["f"] * rows,
            "_line": np.arange(rows),
            "_ingested_at": pa.array([0] * rows, pa.timestamp("us", "UTC")),
        }
    )


@pytest.fixture
def seen(bucket: str, proxy: Proxy) -> tuple[Lake, Proxy]:
    """A lake with three sources, two of which have rows, and nothing that was asked yet."""
    lake = open_lake(f"s3://{bucket}/lake", who="tester")
    applied.publish(lake, PROJECT, code_version="1")
    for name in ("flights", "weather"):
        lake.tables.open_or_create(f"p/{name}", day(0, 10).schema).append(day(0, 10))
    lake.record("events", [{"kind": "a", "key": "1"}])
    proxy.passed.clear()
    return lake, proxy


def asked(proxy: Proxy, call: Callable[[], object]) -> list[Passed]:
    proxy.passed.clear()
    call()
    return list(proxy.passed)


def test_nothing_is_asked_before_a_query_names_a_table(seen: tuple[Lake, Proxy]) -> None:
    lake, proxy = seen
    assert asked(proxy, lambda: open_lake(lake.url)) == []
    for sql in ("select 1", "select * from range(3)", "with t as (select 1 as a) select a from t"):
        assert asked(proxy, lambda sql=sql: lake.sql(sql)) == []  # type: ignore[misc]
        assert asked(proxy, lambda sql=sql: lake.sql(sql, project=PROJECT)) == []  # type: ignore[misc,arg-type]


def test_only_the_table_that_a_query_names_is_asked_for(seen: tuple[Lake, Proxy]) -> None:
    lake, proxy = seen
    paths = [one.path + one.query for one in asked(proxy, lambda: lake.sql("select count(*) from flights"))]
    assert any("tables/p/flights" in path for path in paths)
    for other in ("weather", "planes", "inbox", "tables/lakeloop"):
        assert not [path for path in paths if other in path]
    paths = [one.path + one.query for one in asked(proxy, lambda: lake.sql("select count(*) from lakeloop.events"))]
    assert any("inbox" in path for path in paths)
    paths = [path for path in paths if "docs%2Fforgotten" not in path]  # rows that are not folded may be forgotten
    assert not [path for path in paths if "tables%2Fp%2F" in path or "tables/p/" in path or "docs" in path]


def test_a_selective_question_reads_a_small_share_of_the_bytes(seen: tuple[Lake, Proxy]) -> None:
    """One of the files, by the statistics in the log; of that file the columns that are named."""
    lake, proxy = seen
    table = lake.table("p/flights")
    assert table is not None
    table.overwrite(day(0))
    for number in range(1, DAYS):
        table.append(day(number))
    whole = sum(entry.size for entry in lake.store.list("tables/p/flights/part") if entry.size > 10_000)
    one_file = whole / DAYS

    def data(sql: str) -> tuple[set[str], int]:
        passed = [one for one in asked(proxy, lambda: lake.sql(sql)) if one.method == "GET" and ".parquet" in one.path]
        return {one.path for one in passed}, sum(one.size for one in passed)

    files, size = data("select * from flights_history")
    assert len(files) == DAYS
    assert size > 0.9 * whole
    for sql, count in (
        ("select sum(n) from flights where day = 3", 1),
        ("select sum(n) from flights where day between 2 and 3", 2),
        ("select sum(n) from flights", DAYS),
    ):
        files, size = data(sql)
        print(sql, len(files), size / whole)  # noqa: T201
        assert len(files) == count
        assert size < 0.35 * count * one_file
    assert data("select * from flights where day = 99")[0] == set()


def test_the_requests_of_a_question_do_not_grow_with_what_it_does_not_read(seen: tuple[Lake, Proxy]) -> None:
    lake, proxy = seen
    table = lake.table("p/flights")
    assert table is not None
    counts = []
    for turn in range(2):
        for number in range(turn * 5, turn * 5 + 5):
            table.append(day(100 + number, 10))
        table.checkpoint()
        counts.append(len(asked(proxy, lambda: lake.sql("select sum(n) from flights where day = 3"))))
    assert counts[1] <= counts[0] < 80


def test_ten_documents_are_got_once_and_in_parallel(seen: tuple[Lake, Proxy]) -> None:
    lake, proxy = seen
    for number in range(10):
        lake.documents.create("models", f"m{number}", {"n": number})
    sql = "select count(*) as n from lakeloop.documents"
    first = asked(proxy, lambda: lake.sql(sql))
    assert len([one for one in first if one.method == "GET" and "/docs/" in one.path]) == 11
    second = asked(proxy, lambda: lake.sql(sql))
    assert [one.path for one in second if "/docs/" in one.path] == []
    assert len(second) == 1
