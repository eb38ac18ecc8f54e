"""Ingest of a Parquet file with rules on every column, against a bare Delta write of the same rows."""

from __future__ import annotations

import io
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse.lake import open_lake
from lakeloop.lakehouse.project import parse_project
from tests.benchmarks.timing import compare, report

ROWS = 1_000_000
SOURCE = """owner = "bench"
read = { kind = "landing", format = "parquet" }
event_time = "time"
[columns]
time = "timestamp"
carrier = { type = "string", values = ["UA", "AA", "DL", "B6"] }
flight = "int32"
distance = { type = "int16", range = [1, 10000] }
delay = "float64?"
"""


def rows() -> pa.Table:
    random = np.random.default_rng(1)
    start = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    return pa.table(
        {
            "time": pa.array(start + np.arange(ROWS) * 1_000_000, pa.timestamp("us", "UTC")),
            "carrier": pa.array(np.array(["UA", "AA", "DL", "B6"])[random.integers(0, 4, ROWS)]),
            "flight": pa.array(random.integers(1, 9000, ROWS)),
            "distance": pa.array(random.integers(50, 5000, ROWS)),
            "delay": pa.array(random.normal(5, 40, ROWS)),
        }
    )


def main() -> None:
    table, sink = rows(), io.BytesIO()
    pq.write_table(table, sink)
    project = parse_project({"lakeloop.toml": 'name = "bench"\nowner = "bench"\n', "sources/events.toml": SOURCE})

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            lake = open_lake(folder)
            land(lake, project, "events", "events.parquet", sink.getvalue())
            (done,) = ingest_data(lake, project)
            assert (done.rows, done.quarantined) == (ROWS, 0)

    def reference() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_deltalake(str(Path(folder) / "t"), pq.read_table(io.BytesIO(sink.getvalue())))

    a, b = compare(ours, reference, rounds=3)
    what = f"ingest of {ROWS:,} rows of Parquet with 5 rules: rows per second"
    report(
        what,
        f"{ROWS / a:,.0f}/s",
        f"{ROWS / b:,.0f}/s, write_deltalake of the same file",
        b / a,
        "at least 0.8 (not reached)",
    )


if __name__ == "__main__":
    main()
