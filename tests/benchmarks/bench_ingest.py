"""Ingest of 10 million flight-like rows from Parquet, with rules on every column, against a bare Delta write of the
same file as an Arrow stream. Each in a process of its own, turn by turn; seconds are those of the work alone: the file
landed a few seconds before, and packages are imported."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.timing import report

ROWS, PART, ROUNDS = 10_000_000, 500_000, 5
PROJECT = {
    "lakeloop.toml": 'name = "bench"\nowner = "bench"\n',
    "sources/flights.toml": """owner = "bench"
read = { kind = "landing", format = "parquet" }
event_time = "time_hour"
[columns]
time_hour = "timestamp"
carrier = { type = "string", values = ["UA", "AA", "DL", "B6", "EV", "MQ", "US", "9E"] }
flight = "int32"
tailnum = "string?"
origin = { type = "string", values = ["EWR", "JFK", "LGA"] }
dest = "string"
sched_dep_time = { type = "int16", range = [0, 2400] }
dep_delay = { type = "float64?", range = [-1200, 2880] }
arr_delay = "float64?"
air_time = "int16"
distance = { type = "int16", range = [1, 10000] }
""",
}


def make(path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(1)
    carriers, origins = np.array(["UA", "AA", "DL", "B6", "EV", "MQ", "US", "9E"]), np.array(["EWR", "JFK", "LGA"])
    places = np.array([a + b + c for a in "ABCDE" for b in "FGHIJ" for c in "KLMN"])
    tails = np.array([f"N{number:05d}" for number in range(4000)])
    writer = None
    for at in range(0, ROWS, PART):
        times = 1_356_998_400_000_000 + (np.arange(PART) + at) * 3_000_000
        table = pa.table(
            {
                "time_hour": pa.array(times, pa.timestamp("us", "UTC")),
                "carrier": carriers[random.integers(0, 8, PART)],
                "flight": pa.array(random.integers(1, 9000, PART), pa.int32()),
                "tailnum": tails[random.integers(0, 4000, PART)],
                "origin": origins[random.integers(0, 3, PART)],
                "dest": places[random.integers(0, 100, PART)],
                "sched_dep_time": pa.array(random.integers(0, 2400, PART), pa.int16()),
                "dep_delay": pa.array(random.normal(10, 40, PART).round(), mask=random.random(PART) < 0.02),
                "arr_delay": pa.array(random.normal(5, 45, PART).round(), mask=random.random(PART) < 0.03),
                "air_time": pa.array(random.integers(20, 600, PART), pa.int16()),
                "distance": pa.array(random.integers(50, 5000, PART), pa.int16()),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def ours(path: Path, folder: str) -> float:
    import deltalake  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    from lakeloop.functions.ingest_data import ingest_data, land
    from lakeloop.lakehouse.lake import open_lake
    from lakeloop.lakehouse.project import parse_project

    project, lake = parse_project(PROJECT), open_lake(folder)
    with open(path, "rb") as data:
        land(lake, project, "flights", "flights.parquet", data)
    time.sleep(3)
    began = time.perf_counter()
    (done,) = ingest_data(lake, project)
    took = time.perf_counter() - began
    assert (done.rows, done.quarantined) == (ROWS, 0)
    return took


def reference(path: Path, folder: str) -> float:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import write_deltalake

    began = time.perf_counter()
    file = pq.ParquetFile(path)
    batches = file.iter_batches(batch_size=1 << 17)
    write_deltalake(folder, pa.RecordBatchReader.from_batches(file.schema_arrow, batches))
    return time.perf_counter() - began


def turn(which: str, path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_ingest", which, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            took = {"ours": ours, "reference": reference}[sys.argv[1]](Path(sys.argv[2]), folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        sys.stdout.write(json.dumps({"seconds": took, "peak_gib": peak}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flights.parquet"
        make(path)
        pairs = [(turn("ours", path), turn("reference", path)) for _ in range(ROUNDS + 1)][1:]
    a, b = (statistics.median(pair[n]["seconds"] for pair in pairs) for n in (0, 1))
    peaks = [max(pair[n]["peak_gib"] for pair in pairs) for n in (0, 1)]
    report(
        f"ingest of {ROWS:,} flight-like rows of Parquet, rules on 11 columns: rows per second",
        f"{ROWS / a:,.0f}/s, peak {peaks[0]:.2f} GiB",
        f"{ROWS / b:,.0f}/s, peak {peaks[1]:.2f} GiB, write_deltalake of the same stream",
        b / a,
        "at least 0.8, peak under 1.4 GiB (1.5 GB)",
    )


if __name__ == "__main__":
    main()
