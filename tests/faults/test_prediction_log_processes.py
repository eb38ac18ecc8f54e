"""The prediction log with real processes, HTTP and S3: whoever is killed or away, each answered request is there once.

Each test prints how many requests were sent, answered and logged.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.ray_jobs.serving.write_ahead import pending
from lakeloop.tests.faults.logging_node import Callers, Forks, Node, logged
from lakeloop.tests.proxies import DROP, Proxy


@pytest.fixture
def lake(proxy: Proxy, bucket: str) -> Lake:
    """A lake in a bucket, behind a proxy that may be switched off."""
    return open_lake(f"s3://{bucket}/lake")


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


@pytest.fixture
def node(forks: Forks, lake: Lake, tmp_path: Path) -> Iterator[Node]:
    made = Node(forks, lake.url, tmp_path / "log")
    made.start_shipper()
    made.start_replica()
    yield made
    made.close()


def test_replicas_that_are_killed_under_load_lose_no_answered_request(node: Node, lake: Lake) -> None:
    callers = Callers(node)
    node.start_replica()
    with callers.calling():
        for _ in range(4):
            time.sleep(0.4)
            node.stop_replica(signal.SIGKILL)
            node.start_replica()
    node.stop_replica(signal.SIGKILL)
    node.stop_replica(signal.SIGKILL)
    callers.check(logged(lake, node.folder), "6 replicas killed under load")


def test_a_shipper_that_is_killed_again_and_again_ships_each_row_once(node: Node, lake: Lake) -> None:
    callers = Callers(node)
    with callers.calling():
        for _ in range(4):
            time.sleep(0.7)
            node.stop_shipper()
            node.start_shipper()
    node.start_shipper()  # and two of them over one folder
    node.stop_replica(signal.SIGTERM)
    callers.check(logged(lake, node.folder), "4 shippers killed under load, then two at once")


@pytest.mark.parametrize("seconds", [pytest.param(4, id="4s"), pytest.param(120, id="120s", marks=pytest.mark.slow)])
def test_an_outage_of_the_store_with_a_scale_down_in_it_loses_nothing(
    node: Node, lake: Lake, proxy: Proxy, seconds: int
) -> None:
    """Half of the requests to the store fail at once, the others take effect and their answer is lost."""
    callers = Callers(node)
    node.start_replica()
    node.start_replica()
    with callers.calling():
        time.sleep(0.7)
        proxy.answer = lambda method, path, number: (503, DROP)[number % 2]
        time.sleep(seconds / 2)
        node.stop_replica(signal.SIGTERM)  # a scale-down
        node.stop_replica(signal.SIGKILL)
        node.stop_shipper()
        node.start_shipper()
        time.sleep(seconds / 2)
        assert pending(node.folder) > 0
        proxy.answer = lambda method, path, number: 0
        time.sleep(0.5)
    node.stop_replica(signal.SIGKILL)
    callers.check(logged(lake, node.folder), f"{seconds} s without the store, a scale-down and a kill in it")


def test_a_folder_that_is_full_refuses_and_answers_again_when_it_was_shipped(node: Node, lake: Lake) -> None:
    callers = Callers(node)
    node.stop_shipper()
    node.stop_replica(signal.SIGTERM)
    node.start_replica(disk_bytes=200 << 10)
    with callers.calling():
        until = time.monotonic() + 60
        while not callers.refused:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert sum(path.stat().st_size for path in node.folder.iterdir()) <= 200 << 10
        answered = len(callers.answered)
        node.start_shipper()
        while len(callers.answered) < answered + 50:
            assert time.monotonic() < until
            time.sleep(0.05)
    node.stop_replica(signal.SIGTERM)
    callers.check(logged(lake, node.folder), "a folder that may hold 200 KiB, and its shipper away")


def test_a_node_that_comes_back_ships_what_it_had(node: Node, lake: Lake) -> None:
    """All is killed at once, with the store away; a shipper alone brings it all."""
    callers = Callers(node)
    node.stop_shipper()
    with callers.calling():
        time.sleep(0.7)
        node.stop_replica(signal.SIGKILL)
    assert pending(node.folder) >= len(callers.answered)
    node.start_shipper()
    callers.check(logged(lake, node.folder), "a node killed whole")
