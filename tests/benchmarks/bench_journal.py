"""One-row events appended to a journal, against one Delta append for each event; both in a folder."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from itertools import count

import pyarrow as pa
from deltalake import write_deltalake

from lakeloop.lakehouse.lake import open_lake
from tests.benchmarks.timing import compare, report

EVENTS = 50


def main() -> None:
    row = pa.table(
        {"kind": ["x"], "value": [1.0], "logged_at": pa.array([datetime.now(UTC)], pa.timestamp("us", "UTC"))}
    )
    numbers = count()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        journal = open_lake(folder).journal("events")

        def ours() -> None:
            for _ in range(EVENTS):
                journal.append(row, journal.segment_name("bench", next(numbers), datetime.now(UTC)))

        def reference() -> None:
            for _ in range(EVENTS):
                write_deltalake(other, row, mode="append")

        a, b = compare(ours, reference)
    report(
        "one-row events to a journal, one process, a folder",
        f"{EVENTS / a:,.0f}/s",
        f"{EVENTS / b:,.0f}/s, a Delta append for each",
        b / a,
        "at least 10",
    )


if __name__ == "__main__":
    main()
