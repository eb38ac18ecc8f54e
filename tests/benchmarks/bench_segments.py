"""A query over a journal none of whose segments is folded, against a bare reading of the same objects."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.segments import KEPT, READERS, encoded
from tests.benchmarks.places import moto, scaled
from tests.benchmarks.timing import compare, report

SEGMENTS, ON_MOTO = scaled(10_000), scaled(2_000)
SQL = "select count(*) as n, count(distinct key) as keys, max(logged_at) as at from lakeloop.events"


def fill(lake: Lake, count: int) -> None:
    journal = lake.journal("events")
    at = pa.array([datetime.now(UTC)], pa.timestamp("us", "UTC"))

    def put(number: int) -> None:
        rows = pa.table({"kind": ["bench"], "key": [str(number)], "logged_at": at})
        name = journal.segment_name("bench", number, datetime.now(UTC))
        lake.store.put(keys.segment("events", name), encoded(rows))

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(put, range(count)))


def asked(lake: Lake, count: int, *, cold: bool) -> None:
    if cold:
        KEPT.forget(lake.url)
    (row,) = lake.sql(SQL).to_pylist()
    assert (row["n"], row["keys"]) == (count, count)


def on_a_folder() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = open_lake(folder, who="bench")
        fill(lake, SEGMENTS)

        def bare() -> None:
            tables = []
            with os.scandir(f"{folder}/inbox/events") as entries:
                for entry in entries:
                    with open(entry.path, "rb") as file:
                        tables.append(pa.ipc.open_file(pa.BufferReader(file.read())).read_all())
            assert pa.concat_tables(tables).num_rows == SEGMENTS

        a, b = compare(lambda: asked(lake, SEGMENTS, cold=True), bare)
        what = f"lake.sql over {SEGMENTS:,} unfolded segments in a folder"
        report(f"{what}, first query", f"{a:.2f} s", f"{b:.2f} s, reading and decoding the files", a / b, "at most 3 s")
        a, b = compare(lambda: asked(lake, SEGMENTS, cold=False), bare)
        report(f"{what}, second query", f"{a:.2f} s", f"{b:.2f} s, reading and decoding the files", a / b, "")


def on_moto() -> None:
    import boto3
    from botocore.config import Config

    with moto() as url:
        lake = open_lake(f"{url}/lake", who="bench")
        fill(lake, ON_MOTO)
        client = boto3.client("s3", config=Config(max_pool_connections=32))
        names = [f"lake/{entry.key}" for entry in lake.journal("events").waiting()]

        def got(key: str) -> bytes:
            data: bytes = client.get_object(Bucket="bench", Key=key)["Body"].read()
            return data

        def bare() -> None:
            with ThreadPoolExecutor(READERS) as pool:
                assert len(list(pool.map(got, names))) == ON_MOTO

        def listed() -> None:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket="bench", Prefix="lake/inbox/events/")
            assert sum(len(page["Contents"]) for page in pages) == ON_MOTO

        a, b = compare(lambda: asked(lake, ON_MOTO, cold=True), bare)
        what = f"lake.sql over {ON_MOTO:,} unfolded segments on moto"
        reference = f"{b:.2f} s, boto3 getting them, {READERS} at a time"
        report(f"{what}, first query", f"{a:.2f} s", reference, a / b, "at most 1.3")
        a, b = compare(lambda: asked(lake, ON_MOTO, cold=False), listed)
        report(f"{what}, second query", f"{a:.2f} s", f"{b:.2f} s, boto3 listing them", a / b, "")


if __name__ == "__main__":
    on_a_folder()
    on_moto()
