"""A shop whose endpoint is served by real replicas in this process: watchers, inference and prediction logs over a
lake in a folder, without Ray, by a clock that a test moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.roll_out import RolledOut, roll_out
from lakeloop.functions.score_shadow import score_shadow
from lakeloop.lakehouse import applied, endpoints, events, registry
from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.endpoints import KIND
from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.rollouts.state import Rollout, rollout_of
from lakeloop.lakehouse.scoring.loading import SIGNATURE
from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.loading import load_with
from lakeloop.ray_jobs.serving.reports import Reporter
from lakeloop.ray_jobs.serving.shipper import ship
from lakeloop.ray_jobs.serving.watcher import Watcher
from lakeloop.ray_jobs.serving.write_ahead import WriteAhead
from lakeloop.tests.buying import FILES

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EXAMPLE = {"clicks": 1.0}
SIGNED = Signature(
    "binary",
    (Input("clicks", "request", "float32", "number"),),
    (),
    ("false", "true"),
    "true",
    example=EXAMPLE,
)
STEPS = '[serving]\nrollout = { canary = [1, 10, 50, 100], hold = "10m", back_if = [%s] }\n'
HALF = STEPS.replace("1, 10, ", "")


class Learner:
    """Predicts clicks + model, or fails, or takes its time, as the test says by version."""

    def __init__(self, version: int, behaviour: Mapping[int, Callable[[np.ndarray], np.ndarray]]) -> None:
        self._version, self._behaviour = version, behaviour

    def predict(self, model: Any, matrix: Matrix) -> np.ndarray:
        clicks = matrix.values[:, 0].astype(float)
        return self._behaviour.get(self._version, lambda x: x)(clicks)


class Clock:
    """UTC that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return (self.now - START).total_seconds()


class Replica:
    """One replica: what Ray would run in a process of its own."""

    def __init__(self, world: World, name: str, refuses: set[int] | None = None) -> None:
        lake = world.open(name)
        self.world, self.log, self.refuses = world, WriteAhead(world.logs), refuses or set()
        document = endpoints.endpoint_id("shop", "buys")
        reporter = Reporter(
            "shop",
            "buys",
            name,
            lake.record,
            lake.clock,
            wake=lambda: events.wake(lake, "rollout", document),
            monotonic=world.clock.monotonic,
        )
        self.watcher = Watcher(
            lake.documents.get(KIND, document),
            lambda number: lake.documents.next(KIND, document, number),
            lambda revision, before: load_with(self.scorer, lake, "shop", "buys", revision, before),
            report=reporter.report,
            monotonic=world.clock.monotonic,
        )
        self.inference = Inference(
            "shop",
            "buys",
            loaded=lambda: self.watcher.loaded,
            append=self.log.append,
            state=dict,
            clock=lake.clock,
        )

    def scorer(self, lake: Lake, project: str, model: str, version: int, snapshots: object) -> Scorer:
        if version in self.refuses:
            raise Corrupt(f"version {version} does not match its hash")
        return self.world.load(lake, project, model, version, snapshots)

    def ask(self, rows: Sequence[Mapping[str, Any]], request_id: str = "r") -> Mapping[str, Any]:
        return asyncio.run(self.inference.rows(rows, request_id, None, time.perf_counter()))


class World:
    """The lake, the replicas, the clock, and the words of the tests for them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs, self.clock = folder, folder / "log", Clock()
        self.behaviour: dict[int, Callable[[np.ndarray], np.ndarray]] = {}
        self.lake = self.open("stepper")
        self.project = self.apply("")
        self.replicas: list[Replica] = []
        self.asked = 0
        for version in (1, 2, 3):
            self.register(version)
        endpoints.promote(self.lake, "shop", "buys", 1, expected=None, why="first")
        self.step()

    def load(self, lake: Lake, project: str, model: str, version: int, snapshots: object) -> Scorer:
        """A version that behaves as the test says."""
        return Scorer(SIGNED, Learner(version, self.behaviour), None, None, {}, version)

    def score(self, who: str = "scorer", **given: Any) -> tuple[int, int]:
        """Rows and errors that were scored in the shadow now."""
        done = score_shadow(self.open(who), self.project, **{"load": self.load, **given})
        return sum(one.rows for one in done), sum(one.errors for one in done)

    def open(self, who: str) -> Lake:
        return open_lake(str(self.folder / "lake"), who=who, clock=self.clock)

    def apply(self, more: str, changed: Mapping[str, tuple[str, str]] | None = None) -> Project:
        files = {name: text.replace(*(changed or {}).get(name, ("", ""))) for name, text in FILES.items()}
        self.project = parse_project({**files, "models/buys.toml": files["models/buys.toml"] + more})
        applied.publish(self.lake, self.project, code_version="test")
        return self.project

    def register(self, version: int) -> None:
        kept = self.lake.artifacts.put("runs", f"run{version}", SIGNATURE, SIGNED.to_bytes())
        body = {"artifacts": [kept.to_json()], "metrics": [], "lineage": {"views": {}}}
        assert registry.register(self.lake, "shop", "buys", f"run{version}", body) == version

    def start_replicas(self, count: int = 2) -> list[Replica]:
        self.replicas = [Replica(self, f"replica-{number}") for number in range(count)]
        self.poll()
        return self.replicas

    def promote(self, version: int, expected: int = 1) -> None:
        endpoints.promote(self.lake, "shop", "buys", version, expected=expected, why=f"{version} is better")

    def poll(self) -> None:
        for replica in self.replicas:
            replica.watcher.poll()

    def step(self, lake: Lake | None = None) -> list[RolledOut]:
        return roll_out(lake or self.lake, self.project)

    def send(self, count: int, *, value: float = 0.5) -> None:
        """Requests in turn to the replicas, each with an id of its own, shipped at once; reports are due after."""
        for number in range(count):
            self.asked += 1
            row = {"id": f"v{self.asked}", "clicks": value}
            self.replicas[number % len(self.replicas)].ask([row], f"q{self.asked}")
        self.ship()
        self.wait(timedelta(seconds=31))

    def ship(self) -> None:
        for replica in self.replicas:
            replica.log.close()
        ship(self.logs, self.lake.journal)

    def wait(self, duration: timedelta) -> None:
        self.clock.now += duration
        self.poll()

    def label(self, bought: Callable[[int], bool]) -> None:
        """What became of every visit so far, known now."""
        now = self.clock.now
        lines = [
            f"v{number},{now.isoformat()},1,{str(bought(number)).lower()},{now.isoformat()}"
            for number in range(1, self.asked + 1)
        ]
        text = "\n".join(["id,seen,clicks,bought,known", *lines])
        land(self.lake, self.project, "visits", f"labels-{self.asked}.csv", text.encode())
        ingest_data(self.lake, self.project)

    @property
    def body(self) -> Mapping[str, Any]:
        found = endpoints.endpoint(self.lake, "shop", "buys")
        assert found is not None
        return found.body

    @property
    def rollout(self) -> Rollout:
        found = rollout_of(self.body)
        assert found is not None
        return found

    @property
    def weights(self) -> list[tuple[int, int]]:
        return [(arm["version"], arm["weight"]) for arm in self.body["arms"]]

    def alerts(self) -> list[tuple[str, str]]:
        rows = self.lake.sql("select monitor, status, message from lakeloop.alerts order by alert").to_pylist()
        return [(row["monitor"], row["status"]) for row in rows]


class Interrupted:
    """A lake whose first update of a document is preceded by something another does."""

    def __init__(self, lake: Lake, first: Callable[[], object]) -> None:
        self.lake, self.interrupted = lake, False
        update = lake.documents.update

        def interrupted(previous: Revision, body: Mapping[str, Any], why: str = "") -> Revision:
            if not self.interrupted:
                self.interrupted = True
                first()
            return update(previous, body, why)

        lake.documents.update = interrupted  # type: ignore[method-assign]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
