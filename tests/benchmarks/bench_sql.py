"""`lake.sql` on a table of a million rows, against bare DuckDB on the same Parquet files."""

from __future__ import annotations

import tempfile

import duckdb
import numpy as np
import pyarrow as pa

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.lake import open_lake
from lakeloop.lakehouse.project import parse_project
from tests.benchmarks.timing import compare, report

ROWS = 5_000_000
SOURCE = (
    'owner = "b"\nread = { kind = "landing", format = "csv" }\ntimeless = true\n[columns]\ng = "int64"\nx = "float64"\n'
)


def main() -> None:
    random = np.random.default_rng(1)
    table = pa.table({"g": random.integers(0, 100, ROWS), "x": random.normal(size=ROWS)})
    with tempfile.TemporaryDirectory() as folder:
        lake = open_lake(folder)
        applied.publish(
            lake,
            parse_project({"lakeloop.toml": 'name = "b"\nowner = "b"\n', "sources/t.toml": SOURCE}),
            code_version="bench",
        )
        stored = lake.tables.open_or_create("b/t", table.schema)
        stored.append(table)
        files, bare = stored.files, duckdb.connect()
        a, b = compare(
            lambda: lake.sql("select g, avg(x), stddev(x), quantile_cont(x, 0.5) from t group by g"),
            lambda: bare.execute(
                "select g, avg(x), stddev(x), quantile_cont(x, 0.5) from read_parquet(?) group by g", [files]
            ).to_arrow_table(),
        )
    report(
        f"lake.sql on {ROWS:,} rows, connection and checks included",
        f"{a:.2f} s",
        f"{b:.2f} s, bare read_parquet",
        a / b,
        "at most 1.2",
    )


if __name__ == "__main__":
    main()
