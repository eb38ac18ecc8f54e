"""Many processes change one document, in a folder and on S3: no change is lost, and each writer is told what became of
each of its tries."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.store.s3 import S3Store
from lakeloop.tests.proxies import DROP, Proxy

WRITER = """
import json, sys
import boto3
from botocore.config import Config
from tenacity import wait_none
from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.store.s3 import S3Store, default_retrying

url, writer, turns, hasty = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "hasty"
lake = open_lake(url)
if hasty:  # botocore repeats by itself, and waits for nothing
    client = boto3.client("s3", config=Config(retries={"total_max_attempts": 3, "mode": "legacy"}))
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    lake = Lake(S3Store(bucket, prefix, retrying=default_retrying().copy(wait=wait_none()), client=client))
won, lost = [], 0
current = lake.documents.get("counters", "c")
print("ready", flush=True)
sys.stdin.readline()
for turn in range(turns):
    while True:
        current = current or lake.documents.get("counters", "c")
        try:
            made = lake.documents.update(current, {"n": current.body["n"] + 1, "by": f"{writer}-{turn}"})
        except LostRace as loss:
            assert loss.won.number == current.number + 1 and loss.won.body["by"].split("-")[0] != writer
            current = None
            lost += 1
        else:
            current = None
            won.append(made.write)
            break
print(json.dumps({"won": won, "lost": lost}))
"""


def race(url: str, writers: int, turns: int, *, hasty: bool = False) -> int:
    """How many tries lost; fails unless the counter's end is the number of successes told, one revision each. The first
    try of each is on the same revision, so all but one lose at least once."""
    lake = open_lake(url)
    lake.documents.create("counters", "c", {"n": 0, "by": ""})
    command = [sys.executable, "-c", WRITER, lake.url]
    processes = [
        subprocess.Popen(
            [*command, str(writer), str(turns), "hasty" * hasty], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for writer in range(writers)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate()[0] or "null") for process in processes]
    assert [process.returncode for process in processes] == [0] * writers
    with ThreadPoolExecutor(16) as pool:
        read = pool.map(lambda number: lake.documents.next("counters", "c", number), range(writers * turns + 1))
        history = [revision for revision in read if revision is not None]
    writes = {revision.write for revision in history}
    assert not [one for process in told for one in process["won"] if one not in writes], "a success told was undone"
    assert [revision.body["n"] for revision in history] == list(range(writers * turns + 1))
    assert {revision.body["by"] for revision in history[1:]} == {
        f"{writer}-{turn}" for writer in range(writers) for turn in range(turns)
    }
    assert sorted(revision.write for revision in history[1:]) == sorted(itertools.chain(*(one["won"] for one in told)))
    assert all(newer.at > older.at for older, newer in itertools.pairwise(history))
    assert sum(one["lost"] > 0 for one in told) >= writers - 1
    return sum(one["lost"] for one in told)


def test_of_four_processes_that_count_in_one_document_none_loses_a_count(tmp_path: Path) -> None:
    race(str(tmp_path / "lake"), 4, 25)


@pytest.mark.slow
def test_of_eight_processes_that_count_a_thousand_times_none_loses_a_count(tmp_path: Path) -> None:
    race(str(tmp_path / "lake"), 8, 1000)


def test_of_processes_that_count_on_s3_none_loses_a_count(bucket: str) -> None:
    race(f"s3://{bucket}/lake", 3, 5)


@pytest.mark.slow
def test_of_eight_processes_that_count_a_hundred_times_on_s3_none_loses_a_count(bucket: str) -> None:
    race(f"s3://{bucket}/lake", 8, 100)


def losing_answers(method: str, path: str, number: int) -> int:
    """Of the first two requests for an object, every third loses its answer, whether it wrote or read."""
    return DROP if number <= 2 and zlib.crc32(f"{method} {path} {number}".encode()) % 3 == 0 else 0


def losing_first_answers(method: str, path: str, number: int) -> int:
    return DROP if method == "PUT" and number == 1 else 0


def test_a_client_that_repeats_by_itself_meets_its_own_success_and_knows_it(bucket: str, proxy: Proxy) -> None:
    proxy.answer = losing_first_answers
    assert race(f"s3://{bucket}/lake", 1, 5, hasty=True) == 0
    assert max(proxy.counts[one] for one in proxy.counts if one.startswith("PUT")) >= 2


@pytest.mark.parametrize("hasty", [False, True], ids=["our retries", "botocore's retries too"])
def test_no_count_is_lost_with_lost_answers(bucket: str, proxy: Proxy, hasty: bool) -> None:
    proxy.answer = losing_answers
    race(f"s3://{bucket}/lake", 2, 5, hasty=hasty)


@pytest.mark.slow
@pytest.mark.parametrize("hasty", [False, True], ids=["our retries", "botocore's retries too"])
def test_no_count_of_eight_processes_is_lost_with_lost_answers(bucket: str, proxy: Proxy, hasty: bool) -> None:
    proxy.answer = losing_answers
    assert race(f"s3://{bucket}/lake", 8, 40, hasty=hasty) > 0


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


def test_the_newest_of_many_revisions_on_s3_costs_two_requests_and_a_moment_a_few_more(
    bucket: str, proxy: Proxy
) -> None:
    import boto3

    lake = open_lake(f"s3://{bucket}/lake")
    direct = S3Store(bucket, "lake", client=boto3.client("s3", endpoint_url=proxy.target))
    revision = lake.documents.create("models", "m", {"n": 1})
    record = json.loads(lake.store.get("docs/models/m/99999998.json"))

    def put(number: int) -> None:
        at = revision.at.replace(year=revision.at.year + 1, microsecond=number)
        body = {**record, "at": at.isoformat(), "body": {"n": number}}
        direct.put(f"docs/models/m/{99_999_999 - number:08d}.json", json.dumps(body).encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(2, 1101)))  # more than one LIST tells
    proxy.seen.clear()
    newest = lake.documents.get("models", "m")
    assert newest.number == 1100
    assert [one.split()[0] for one in proxy.seen] == ["GET", "GET"]
    proxy.seen.clear()
    found = lake.documents.as_of("models", "m", newest.at.replace(microsecond=300))
    assert found is not None
    assert found.body == {"n": 300}
    assert len(proxy.seen) <= 2 + 11
