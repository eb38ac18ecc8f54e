"""`lake.sql` on a table, against bare DuckDB on the same Parquet files; and what a question costs on S3."""

from __future__ import annotations

import os
import tempfile

import duckdb
import numpy as np
import pyarrow as pa

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import parse_project
from tests.benchmarks.places import moto, scaled
from tests.benchmarks.timing import compare, report
from tests.proxies import passing_on

FILES = 10
ROWS, ON_MOTO = scaled(10_000_000), scaled(1_000_000)
COLUMNS = {"day": "int64", "carrier": "string", "distance": "int64", "delay": "float64", "tail": "string"}
SOURCE = 'owner = "b"\nread = { kind = "landing", format = "csv" }\ntimeless = true\n[columns]\n' + "".join(
    f'{name} = "{kind}"\n' for name, kind in COLUMNS.items()
)
PROJECT = parse_project({"lakeloop.toml": 'name = "b"\nowner = "b"\n', "sources/t.toml": SOURCE})
SHAPES = {
    "everything by group": "select carrier, avg(delay), stddev(delay), quantile_cont(delay, 0.5) from {t} group by 1",
    "one day of ten": "select carrier, count(*), avg(distance) from {t} where day = 3 group by carrier",
    "count and sum": "select count(*), sum(distance) from {t}",
    "the latest thousand": "select * from {t} order by delay desc limit 1000",
}


def part(number: int, rows: int) -> pa.Table:
    random = np.random.default_rng(number)
    return pa.table(
        {
            "day": np.full(rows, number),
            "carrier": pa.array(np.array(["UA", "AA", "DL", "B6"])[random.integers(0, 4, rows)]),
            "distance": random.integers(50, 5000, rows),
            "delay": random.normal(5, 40, rows),
            "tail": pa.array(random.integers(0, 10_000, rows).astype(str)),
            "_file": pa.array(["f"] * rows),
            "_line": np.arange(rows),
            "_ingested_at": pa.array(np.zeros(rows, "int64"), pa.timestamp("us", "UTC")),
        }
    )


def filled(url: str, rows: int) -> Lake:
    lake = open_lake(url, who="bench")
    applied.publish(lake, PROJECT, code_version="bench")
    table = lake.tables.open_or_create("b/t", part(0, 1).schema)
    for number in range(FILES):
        table.append(part(number, rows // FILES))
    return lake


def bare(text: str, files: list[str]) -> pa.Table:
    with duckdb.connect() as connection:  # as lake.sql, which opens one for each question
        return connection.execute(text, [files]).to_arrow_table()


def in_a_folder() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = filled(folder, ROWS)
        table = lake.table("b/t")
        assert table is not None
        files = table.files
        for shape, text in SHAPES.items():
            columns = "*" if "*" not in text else ", ".join(COLUMNS)
            reference = text.format(t=f"(select {columns} from read_parquet(?))")
            a, b = compare(
                lambda text=text: lake.sql(text.format(t="t")),  # type: ignore[misc]
                lambda reference=reference: bare(reference, files),  # type: ignore[misc]
            )
            what = f"lake.sql on {ROWS:,} rows, connection and checks included: {shape}"
            report(what, f"{a:.2f} s", f"{b:.2f} s, bare DuckDB read_parquet", a / b, "at most 1.2")


def on_moto() -> None:
    """Requests and bytes, as a proxy counts them; the bytes against those of all files."""
    with moto() as url, passing_on(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.url
        lake = filled(f"{url}/lake", ON_MOTO)
        whole = sum(entry.size for entry in lake.store.list("tables/b/t/part"))
        proxy.passed.clear()
        lake.sql("select 1")
        assert proxy.passed == []
        for shape, text in SHAPES.items():
            proxy.passed.clear()
            lake.sql(text.format(t="t"))
            data = sum(one.size for one in proxy.passed if one.method == "GET" and "/part-" in one.path)
            report(
                f"what lake.sql asks of S3, {FILES} files of {ON_MOTO:,} rows: {shape}",
                f"{len(proxy.passed)} requests, {data / 1e6:.1f} MB of data",
                f"{whole / 1e6:.1f} MB, all files",
                data / whole,
                "",
            )


if __name__ == "__main__":
    in_a_folder()
    on_moto()
