"""Memory of a batch does not follow its rows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import parse_project
from lakeloop.tests.prices import FILES, numbers, price_model

RUN = """
import resource, sys
from lakeloop.lakehouse.applied import load
from lakeloop.lakehouse.batch.record import BatchRequest
from lakeloop.lakehouse.batch.rows import QueryRows
from lakeloop.lakehouse.lake import open_lake
from lakeloop.ray_jobs.batch_predict import batch_predict, in_process

lake, rows = open_lake(sys.argv[1]), QueryRows(sys.argv[2])
request = BatchRequest("shop", "price", rows.told, f"shop/{sys.argv[3]}")
done = batch_predict(lake, load(lake, "shop")[0], request, rows, compute=in_process, part_rows=100_000)
print(done.batch.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_ten_times_the_rows_take_hardly_more_memory(folder_lake: Lake) -> None:
    applied.publish(folder_lake, parse_project(FILES), code_version="test")
    numbers(folder_lake, 2_000_000)
    price_model(folder_lake)
    peaks = []
    for rows in (200_000, 2_000_000):
        sql = f"select * from shop.numbers where id < {rows}"
        arguments = [sys.executable, "-c", RUN, folder_lake.url, sql, f"scored_{rows}"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        count, peak_kib = map(int, done.stdout.split())
        assert count == rows
        peaks.append(peak_kib)
    assert peaks[1] < 1.5 * peaks[0], peaks
