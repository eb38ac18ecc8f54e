"""Endpoints on a real cluster of this machine: answers, swaps, kills, and a log in which each answer is once."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lakeloop.functions.roll_out import roll_out
from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.errors import NotFound, Refused
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import parse_project
from lakeloop.lakehouse.rollouts.state import Rollout, rollout_of
from lakeloop.ray_jobs.serving.arms import place_of

pytestmark = pytest.mark.ray
UNLOADABLE = 13


def loader() -> Callable[..., Any]:
    """Loads a model that answers its version, but not version 13. Local functions travel to workers by value."""

    def load_scorer(lake: Any, project: str, model: str, version: int, snapshots: Any) -> Any:
        import numpy as np

        from lakeloop.lakehouse.errors import Corrupt
        from lakeloop.lakehouse.scoring.scorer import Scorer
        from lakeloop.lakehouse.scoring.signature import Input, Signature

        class Constant:
            def predict(self, model: float, matrix: Any) -> Any:
                return np.full(len(matrix), model)

        if version == UNLOADABLE_HERE:
            raise Corrupt("version 13 does not match its hash")
        inputs = (Input("share", "request", "float32", "number"),)
        return Scorer(
            Signature("regression", inputs, example={"share": 1.0}), Constant(), float(version), None, {}, version
        )

    UNLOADABLE_HERE = UNLOADABLE  # noqa: N806 a worker cannot import this module

    def load(lake: Any, project: str, endpoint: str, revision: Any, previous: Any) -> Any:
        from lakeloop.ray_jobs.serving.loading import load_with

        return load_with(load_scorer, lake, project, endpoint, revision, previous)

    return load


def body(version: int) -> dict[str, Any]:
    return {
        "model": "late",
        "wanted": version,
        "arms": [{"version": version, "weight": 10_000, "name": "champion"}],
        "snapshots": {},
    }


class Place:
    """The lake, what serves, and the words of the tests for both."""

    def __init__(self, lake: Lake, serving: Any) -> None:
        self.lake, self.serving = lake, serving
        self.url = serving.endpoint_url("late")

    def promote(self, version: int) -> int:
        documents = self.lake.documents
        return documents.update(documents.get("endpoints", "flights.late"), body(version)).number

    def get(self, path: str) -> Mapping[str, Any]:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return dict(json.load(answer))

    def processes(self) -> set[int]:
        """The replicas that answer now."""
        return {self.get("/state")["process"] for _ in range(12)}

    def logged(self) -> Counter[str]:
        """How often each request is in the journal, after all of the log is there."""
        assert self.serving.drain(60)
        rows = self.lake.journal("predictions.flights.late").read()
        assert rows is not None
        return Counter(rows["request_id"].to_pylist())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    from lakeloop.ray_jobs.cluster import start_local

    folder = tmp_path_factory.mktemp("serving")
    lake = open_lake(str(folder / "lake"))
    lake.documents.create("endpoints", "flights.late", body(1))
    with start_local(folder / "ray", serve=True) as cluster:
        from lakeloop.ray_jobs.serving.deployment import deploy
        from lakeloop.ray_jobs.serving.policy import Policy

        logs, policies = cluster.log_folder, {"late": Policy(2, 2)}
        with deploy(lake.url, "flights", ["late"], log_folder=logs, policies=policies, load=loader()) as serving:
            yield Place(lake, serving)


class Load:
    """Requests without a pause from a few connections; what was answered, and what failed."""

    def __init__(self, url: str, name: str, connections: int = 4) -> None:
        self.url, self.name = urlsplit(url), name
        self.answered: dict[str, int] = {}
        self.failed: list[str] = []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(connections)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        until = len(self.answered) + count
        while len(self.answered) < until and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.01)

    def _run(self, connection: int) -> None:
        number = 0
        client = http.client.HTTPConnection(self.url.hostname or "", self.url.port, timeout=30)
        while not self._ending.is_set():
            number += 1
            name = f"{self.name}-{connection}-{number}"
            try:
                client.request("POST", f"{self.url.path}/infer", json.dumps({"id": name, "rows": [{"share": 1.0}]}))
                answer = client.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{name}: {error!r}")
                client.close()
                continue
            if answer.status == 200:
                self.answered[name] = json.loads(data)["version"]
            else:
                self.failed.append(f"{name}: {answer.status} {data[:80]!r}")
        client.close()


def settled(place: Place, revision: int) -> bool:
    return all(place.get("/state")["revision"] == revision for _ in range(12))


def wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


def test_an_endpoint_without_a_document_or_a_champion_is_refused_before_anything_starts(tmp_path: Path) -> None:
    from lakeloop.ray_jobs.serving.deployment import deploy

    lake = open_lake(str(tmp_path))
    with pytest.raises(NotFound, match="no endpoint 'late'"):
        deploy(lake.url, "flights", ["late"], log_folder=tmp_path / "log")
    lake.documents.create("endpoints", "flights.late", {**body(1), "arms": []})
    with pytest.raises(Refused, match="no version answers"):
        deploy(lake.url, "flights", ["late"], log_folder=tmp_path / "log")


def test_a_version_is_swapped_under_load_without_a_failed_request(place: Place) -> None:
    with Load(place.url, "swap") as load:
        load.more(200)
        for version in (2, 3, 4):
            revision = place.promote(version)
            wait_until(lambda revision=revision: settled(place, revision))
            load.more(200)
    assert load.failed == []
    assert set(load.answered.values()) == {1, 2, 3, 4}
    logged = place.logged()
    assert {name: logged[name] for name in load.answered} == dict.fromkeys(load.answered, 1)


def test_a_version_that_cannot_be_loaded_leaves_the_old_serving_and_state_says_why(place: Place) -> None:
    before = place.get("/state")["arms"]
    place.promote(UNLOADABLE)
    wait_until(lambda: all("does not match its hash" in place.get("/state")["error"] for _ in range(12)))
    state = place.get("/state")
    assert state["arms"] == before
    assert state["wanted"] == state["revision"] + 1
    revision = place.promote(before[0]["version"])
    wait_until(lambda: settled(place, revision))


def test_of_a_killed_replica_and_a_killed_shipper_every_answer_is_logged_exactly_once(place: Place) -> None:
    import ray

    wait_until(lambda: len(place.processes()) == 2)
    with Load(place.url, "kill") as load:
        load.more(300)
        victim = min(place.processes())
        os.kill(victim, signal.SIGKILL)
        load.more(300)
        os.kill(ray.get(place.serving.shipper.state.remote())["process"], signal.SIGKILL)
        load.more(300)
        wait_until(lambda: len(place.processes() - {victim}) == 2)
        load.more(300)
    logged = place.logged()
    assert {name: logged[name] for name in load.answered} == dict.fromkeys(load.answered, 1)
    assert max(logged.values()) == 1
    assert len(load.answered) >= 1200


RAMP = {
    "lakeloop.toml": 'name = "flights"\ngoal = "Tell who will be late"\nowner = "ops"\n',
    "sources/f.toml": """owner = "ops"
read = { kind = "landing", format = "csv" }
key = ["id"]
event_time = "at"
[columns]
id = "string"
at = "timestamp"
share = "float32"
delay = "float32"
""",
    "models/late.sql": "select id, at as as_of, share, delay as label, at as label_known_at from f",
    "models/late.toml": """problem = "regression"
learner = "sklearn"
[inputs.request]
share = "float32"
[split]
by = "time"
test = "7d"
[search]
metric = "mae"
[serving]
rollout = { canary = [20, 60, 100], hold = "1s", back_if = ["errors > 1%"] }
""",
}


def test_a_version_ramps_under_load_by_what_replicas_report_without_a_failed_request(place: Place) -> None:
    project = parse_project(RAMP)
    for number in (1, 2):
        record = {"artifacts": [], "metrics": [], "lineage": {"views": {}}}
        assert registry.register(place.lake, "flights", "late", f"run{number}", record) == number
    documents = place.lake.documents
    begun = {**body(1), "project": "flights", "barred": []}
    revision = documents.update(documents.get("endpoints", "flights.late"), begun).number
    wait_until(lambda: settled(place, revision))
    endpoints.promote(place.lake, "flights", "late", 2, expected=1, why="better")

    def done() -> bool:
        roll_out(place.lake, project)
        return [arm["version"] for arm in documents.get("endpoints", "flights.late").body["arms"]] == [2]

    with Load(place.url, "ramp") as load:
        wait_until(done)
        revision = documents.get("endpoints", "flights.late").number
        wait_until(lambda: settled(place, revision))
        load.more(100)
    assert load.failed == []
    assert set(load.answered.values()) == {1, 2}
    rollout = rollout_of(documents.get("endpoints", "flights.late").body)
    assert rollout is not None
    assert rollout.ended is not None
    assert rollout.ended.outcome == "done"
    assert [(one.stage, one.weight) for one in rollout.steps] == [("load", 0), ("share", 2000), ("share", 6000)]
    logged = place.logged()
    assert {name: logged[name] for name in load.answered} == dict.fromkeys(load.answered, 1)
    assert arms_kept(place, rollout)


def arms_kept(place: Place, rollout: Rollout) -> bool:
    """Every key that was answered by the new version stayed with it in later steps: replicas agree with the hash."""
    rows = place.lake.journal("predictions.flights.late").read()
    assert rows is not None
    shares = {one.revision: one.weight for one in rollout.steps}
    ramp = [row for row in rows.to_pylist() if row["request_id"].startswith("ramp-") and row["revision"] in shares]
    return all(
        row["version"] == (2 if place_of("late", row["request_id"]) >= 10_000 - shares[row["revision"]] else 1)
        for row in ramp
    )
