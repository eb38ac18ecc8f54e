"""The point-in-time join by knowledge time, against DuckDB's plain ASOF join.

That one knows no late rows, no refresh and no ttl.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from lakeloop.lakehouse.features.point_in_time import plain_join
from lakeloop.lakehouse.project.definitions import FeatureView
from lakeloop.lakehouse.query.session import Session
from tests.benchmarks.timing import compare, report

ASKED, ROWS, KEYS = 100_000, 1_000_000, 1_000


def main() -> None:
    random = np.random.default_rng(1)
    day = 86_400_000_000
    times = np.sort(random.integers(0, 90 * day, ROWS))
    stamps = pa.array(times, pa.timestamp("us", "UTC"))
    rows = pa.table({"k": random.integers(0, KEYS, ROWS), "t": stamps, "v": random.normal(size=ROWS)})
    spine = pa.table(
        {"_row": np.arange(ASKED), "_t": random.integers(0, 90 * day, ASKED), "k": random.integers(0, KEYS, ASKED)}
    )
    view = FeatureView(
        "x",
        "b",
        ("k",),
        "t",
        "",
        "x.sql",
        lag=timedelta(minutes=5),
        ttl=timedelta(days=1),
        refresh=timedelta(minutes=5),
    )
    with Session(None, lambda _name: None) as session:
        session.register("r", rows)
        session.register("s", spine)
        asof = "select s._row, r.v from s asof left join r on s.k = r.k and make_timestamptz(s._t) >= r.t"
        a, b = compare(lambda: session.run(plain_join(view, "r", "s", ["v"])), lambda: session.run(asof))
    report(f"point-in-time join, {ASKED:,} × {ROWS:,} rows", f"{a:.2f} s", f"{b:.2f} s, DuckDB's ASOF join", a / b, "")


if __name__ == "__main__":
    main()
