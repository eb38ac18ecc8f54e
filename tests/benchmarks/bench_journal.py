"""One-row events appended to a journal by four processes, against one Delta append for each event by four processes."""

from __future__ import annotations

import subprocess
import sys
import time

import pyarrow as pa
from deltalake import write_deltalake

from lakeloop.lakehouse.lake import open_lake
from tests.benchmarks.places import in_folder_and_on_moto, scaled
from tests.benchmarks.timing import report

PROCESSES = 4
EVENTS = {"a folder": (scaled(1_000), scaled(40)), "moto": (scaled(200), scaled(20))}
"""Of each process: to the journal, and to the Delta table."""
ROUNDS = 3
HEAD = """
import sys
from datetime import UTC, datetime
import pyarrow as pa
url, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

def row():
    now = pa.array([datetime.now(UTC)], pa.timestamp("us", "UTC"))
    return pa.table({"kind": ["x"], "value": [1.0], "logged_at": now})
"""
OURS = """
from lakeloop.lakehouse.lake import open_lake
journal = open_lake(url, who="bench").journal("bench")
row()
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    journal.append(row(), journal.segment_name(writer, number, datetime.now(UTC)))
"""
REFERENCE = """
from deltalake import write_deltalake
row()
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    write_deltalake(url, row(), mode="append")
"""


def events_a_second(script: str, url: str, count: int, turn: str) -> float:
    """Of all processes together, from when all are ready until the last is done."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", HEAD + script, url, f"{turn}-{number}", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.perf_counter()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\\n")
        process.stdin.close()
    assert [process.wait() for process in running] == [0] * PROCESSES
    return PROCESSES * count / (time.perf_counter() - began)


def main(url: str, place: str) -> None:
    ours, delta = EVENTS[place]
    write_deltalake(f"{url}-delta" if "://" not in url else f"{url}/delta", empty())
    rates = []
    for turn in range(ROUNDS):
        rates.append(
            (
                events_a_second(OURS, url, ours, f"t{turn}"),
                events_a_second(REFERENCE, f"{url}-delta" if "://" not in url else f"{url}/delta", delta, f"t{turn}"),
            )
        )
    rows = open_lake(url).journal("bench").read()
    assert rows is not None
    assert rows.num_rows == ROUNDS * PROCESSES * ours
    a, b = (sorted(rate[side] for rate in rates)[ROUNDS // 2] for side in (0, 1))
    report(
        f"one-row events to a journal, {PROCESSES} processes, {place}",
        f"{a:,.0f}/s",
        f"{b:,.0f}/s, a Delta append for each",
        a / b,
        "at least 10",
    )


def empty() -> pa.Table:
    columns = {"kind": pa.string(), "value": pa.float64(), "logged_at": pa.timestamp("us", "UTC")}
    return pa.schema(columns).empty_table()


if __name__ == "__main__":
    in_folder_and_on_moto(main)
