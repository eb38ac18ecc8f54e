"""Memory is bounded: an ingest of a file that is many times larger takes hardly more of it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

INGEST = """
import resource, sys
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse.lake import open_lake
from lakeloop.lakehouse.project import parse_project
folder, format, file = sys.argv[1:]
project = parse_project({
    "lakeloop.toml": 'name = "shop"\\nowner = "crm"\\n',
    "sources/things.toml": 'owner = "crm"\\ntimeless = true\\nread = { kind = "landing", format = "%s" }\\n'
        '[columns]\\nid = "int64"\\nword = "string"\\nx = { type = "float64", range = [0, 1] }\\n' % format,
})
lake = open_lake(folder)
with open(file, "rb") as data:
    land(lake, project, "things", file.rsplit("/", 1)[1], data)
(done,) = ingest_data(lake, project)
print(done.rows, done.quarantined, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
WORDS = [f"word number {number:06d} of a long list" for number in range(5000)]


def write(path: Path, format: str, rows: int) -> None:
    """Half of the rows are wrong: they must not be held in memory either."""

    def row(n: int) -> tuple[int, str, float]:
        return n, WORDS[n * 7919 % 5000], (n % 1000) / 500

    if format == "parquet":
        with pq.ParquetWriter(path, pa.schema([("id", pa.int64()), ("word", pa.string()), ("x", pa.float64())])) as out:
            for at in range(0, rows, 100_000):
                ids, words, xs = zip(*(row(n) for n in range(at, at + 100_000)), strict=True)
                out.write_table(pa.table({"id": ids, "word": words, "x": xs}))
        return
    with gzip.open(path, "wt", compresslevel=1) if path.suffix == ".gz" else open(path, "w") as out:
        out.write("id,word,x\n" if format == "csv" else "")
        for n in range(rows):
            one = row(n)
            text = (
                ",".join(map(str, one)) if format == "csv" else json.dumps({"id": one[0], "word": one[1], "x": one[2]})
            )
            out.write(text + "\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "name", "rows"),
    [
        ("csv", "a.csv", 8_000_000),
        ("csv", "a.csv.gz", 8_000_000),
        ("jsonl", "a.jsonl", 2_000_000),
        ("parquet", "a.parquet", 8_000_000),
    ],
)
def test_a_file_ten_times_as_long_takes_hardly_more_memory(tmp_path: Path, format: str, name: str, rows: int) -> None:
    peaks = []
    for part in (rows // 10, rows):
        file = tmp_path / f"{part}-{name}"
        write(file, format, part)
        done = subprocess.run(
            [sys.executable, "-c", INGEST, str(tmp_path / f"lake-{part}"), format, str(file)],
            capture_output=True,
            text=True,
            check=True,
        )
        good, wrong, peak = map(int, done.stdout.split())
        assert (good + wrong, wrong) == (part, part // 2 - part // 1000)
        peaks.append(peak)
    assert peaks[1] < 1.4 * 2**30
    assert peaks[1] - peaks[0] < 400 * 2**20, peaks
