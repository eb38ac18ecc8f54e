"""Many processes change one document in a folder: no change is lost."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.lake import Lake, open_lake

WRITER = """
import sys
from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.lake import open_lake

documents, writer, turns = open_lake(sys.argv[1]).documents, sys.argv[2], int(sys.argv[3])
for turn in range(turns):
    while True:
        current = documents.get("counters", "c")
        try:
            documents.update(current, {"n": current.body["n"] + 1, "by": f"{writer}-{turn}"})
            break
        except LostRace:
            continue
"""


def race(folder: Path, writers: int, turns: int) -> None:
    lake = open_lake(str(folder / "lake"))
    lake.documents.create("counters", "c", {"n": 0, "by": ""})
    command = [sys.executable, "-c", WRITER, lake.url]
    processes = [subprocess.Popen([*command, str(writer), str(turns)]) for writer in range(writers)]
    assert [process.wait() for process in processes] == [0] * writers
    history = lake.documents.history("counters", "c")
    assert [revision.body["n"] for revision in history] == list(range(writers * turns, -1, -1))
    assert {revision.body["by"] for revision in history[:-1]} == {
        f"{writer}-{turn}" for writer in range(writers) for turn in range(turns)
    }
    assert all(newer.at > older.at for newer, older in itertools.pairwise(history))


def test_of_four_processes_that_count_in_one_document_none_loses_a_count(tmp_path: Path) -> None:
    race(tmp_path, 4, 25)


@pytest.mark.slow
def test_of_eight_processes_that_count_a_thousand_times_none_loses_a_count(tmp_path: Path) -> None:
    race(tmp_path, 8, 1000)


def test_threads_that_count_in_one_document_lose_no_count(lake: Lake) -> None:
    lake.documents.create("counters", "c", {"n": 0})

    def count(_: int) -> None:
        for _turn in range(5):
            while True:
                current = lake.documents.get("counters", "c")
                try:
                    lake.documents.update(current, {"n": current.body["n"] + 1})
                    break
                except LostRace:
                    continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert lake.documents.get("counters", "c").body == {"n": 20}
