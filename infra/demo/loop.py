"""The demo's story, step by step.

Every step looks at the lake first and does only what is missing, so that a demo that was killed goes on.

The product's own functions do all the work, woken as `lakeloop work` wakes them; this module only plays the world
around them: files that land, callers that ask, and the calendar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from lakeloop.functions.build_features import build_features
from lakeloop.functions.gate_model import Verdict, gate_model
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.launch_training import Launcher
from lakeloop.functions.roll_out import roll_out
from lakeloop.functions.sweep import sweep
from lakeloop.infra.demo.flights import World, day
from lakeloop.infra.demo.traffic import Traffic, request_rows
from lakeloop.infra.place import code_version
from lakeloop.infra.progress import TrainingProgress
from lakeloop.infra.training import LocalRay
from lakeloop.lakehouse import applied, endpoints, registry, runs
from lakeloop.lakehouse.errors import LakeloopError, Unavailable
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.probing import init_lake
from lakeloop.lakehouse.project import Project, read_project

if TYPE_CHECKING:
    from lakeloop.ray_jobs.serving.deployment import Serving

PROJECT, MODEL, SECOND = "flights", "late_arrival", "cancellation"
START, SUMMER, REPLAY, END = day(1), day(4), day(7), day(8)
DAY = timedelta(days=1)
WHILE_TRAINING = 12.0
"""Requests a second while a retraining runs: calls keep coming, and last until the new version is rolled out."""
DONE = "demos"


class Demo:
    """One run of the demo on a lake. `say` gets one line for each thing that happened."""

    def __init__(self, lake: Lake, folder: Path, ray: LocalRay, progress: Progress, say: Callable[[str], None]) -> None:
        self.lake, self._folder, self._ray, self._progress, self._say = lake, folder, ray, progress, say
        self.project: Project = read_project(folder)
        self.seconds: dict[str, float] = {}
        self.answered = 0
        self.failures: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage; stages of one name add up."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def run(self) -> None:
        """From an empty folder to a new champion."""
        with self.stage("lake and project"):
            self._apply()
        with World() as world:
            with self.stage("ingest and build, January to March"):
                self._arrive(world, "2013-q1", START, SUMMER)
            with self.stage("train two models"):
                for model in (MODEL, SECOND):
                    self._train_first(model)
            with self.stage("ingest and build, April to June"):
                self._arrive(world, "2013-q2", SUMMER, REPLAY)
            with self.stage("start the endpoint"):
                serving = self._serve()
            with serving:
                self._replay(world, serving)
        self.lake.documents.create(
            DONE, PROJECT, {"seconds": self.seconds, "answered": self.answered, "failures": self.failures}, "finished"
        )

    def finished(self) -> bool:
        return self.lake.documents.latest(DONE, PROJECT) is not None

    # -- before the replay ---------------------------------------------------------------------------------------------

    def _apply(self) -> None:
        _, made = init_lake(self.lake)
        if made:
            self._say(f"lake: {self.lake.url}")
        _, changed = applied.publish(
            self.lake, self.project, code_version=code_version(self._folder, self.project), why="demo"
        )
        if changed:
            self._say(
                f"applied {PROJECT}: {len(self.project.sources)} sources, {len(self.project.views)} views, "
                f"{len(self.project.models)} models"
            )

    def _arrive(self, world: World, name: str, start: datetime, end: datetime, *, quiet: bool = False) -> None:
        """What became known in a span lands, is ingested, and features are built from it."""
        there = self._ingested()
        if start == START and "airports.csv" not in there:
            land(self.lake, self.project, "airports", "airports.csv", world.airports)
        if f"flights-{name}.csv" not in there:
            land(self.lake, self.project, "flights", f"flights-{name}.csv", world.flights(start, end))
        if f"weather-{name}.csv" not in there:
            land(self.lake, self.project, "weather", f"weather-{name}.csv", world.weather(start, end))
        for one in ingest_data(self.lake, self.project):
            reason = f", {one.quarantined} in quarantine ({one.reasons[0]})" if one.quarantined else ""
            if not quiet or one.quarantined:
                self._say(f"ingested {one.source}: {one.rows:,} rows{reason}")
        built = build_features(self.lake, self.project, as_of=end)
        if not quiet and built:
            self._say(f"built {', '.join(f'{one.view} ({one.rows:,} rows)' for one in built)}")
        roll_out(self.lake, self.project)

    def _ingested(self) -> set[str]:
        files = self.lake.sql(
            "select distinct split_part(file, '#', 1) as file from lakeloop.ingestions where project = ?", [PROJECT]
        )
        return set(files.column("file").to_pylist())

    def _train_first(self, model: str) -> None:
        if endpoints.champion(self.lake, PROJECT, model) is not None or registry.numbers(self.lake, PROJECT, model):
            self._judge()
            return
        run = runs.open_run(
            self.lake, self.project, model, trigger="first version", as_of=SUMMER, incident="first"
        ) or self._open(model)
        self._train(run, model)
        self._judge()

    def _open(self, model: str) -> str:
        return next(run.run for run in runs.open_runs(self.lake) if run.model == model and not run.finished)

    def _train(self, run: str, model: str) -> None:
        self._ray.start()
        with TrainingProgress(progress=self._progress, prefix=f"{model}: ") as watching:
            self._ray.train(run, watching.watch)

    def _judge(self) -> None:
        for verdict in gate_model(self.lake, self.project):
            self._tell_verdict(verdict)
        roll_out(self.lake, self.project)

    # -- the replay ----------------------------------------------------------------------------------------------------

    def _serve(self) -> Serving:
        cluster = self._ray.start()
        from lakeloop.ray_jobs.serving.deployment import deploy

        serving = deploy(self.lake.url, PROJECT, [MODEL], log_folder=cluster.log_folder)
        self._say(f"endpoint: {serving.endpoint_url(MODEL)}")
        return serving

    def _replay(self, world: World, serving: Serving) -> None:
        """July, day by day.

        What became known is ingested and built, the day's flights are asked, and the loop looks at the day before.
        """
        bar = self._progress.add_task("July, day by day", total=(END - REPLAY).days, note="")
        today = REPLAY
        while today < END:
            with self.stage("July: ingest and build"):
                self._arrive(world, f"{today:%Y-%m-%d}", today, today + DAY, quiet=True)
                self._wait_until_loaded(serving)
            rows = self._not_asked(request_rows(world.requests(today, today + DAY)), today)
            with self.stage("July: ask, log, monitor, retrain"):
                self._day(serving, rows, today)
            champion = endpoints.champion(self.lake, PROJECT, MODEL)
            note = f"{today:%d %b}: {self.answered:,} answered, version {champion}"
            self._progress.update(bar, advance=1, note=note)
            today += DAY
        with self.stage("July: ask, log, monitor, retrain"):
            self._sweep(self._launch, END)

    def _day(self, serving: Serving, rows: list[dict[str, Any]], today: datetime) -> None:
        """The day's callers ask while the loop looks at what the day before has shown."""
        traffic = Traffic(serving.endpoint_url(MODEL), rows)
        before = endpoints.champion(self.lake, PROJECT, MODEL)
        self._sweep(lambda run: self._launch(run, traffic), today)
        after = endpoints.champion(self.lake, PROJECT, MODEL)
        if after != before:
            self._wait_until_loaded(serving)
            self._say(
                f"{today:%d %b}: version {after} answers; {traffic.answered:,} requests were answered "
                f"while it was trained and rolled out, {len(traffic.failures)} dropped"
            )
        traffic.fast()
        traffic.finish()
        self.answered += traffic.answered
        self.failures += traffic.failures
        if not serving.drain():
            raise Unavailable(
                "the predictions of the day did not reach the lake",
                where=self.lake.url,
                todo="run the demo again: what is logged on this machine is shipped then",
            )

    def _launch(self, run: str, traffic: Traffic | None = None) -> None:
        """A launcher: trains here while the calls go on."""
        if traffic is not None:
            traffic.slow(WHILE_TRAINING)
        opened = runs.get_run(self.lake, run)
        self._say(f"{opened.as_of:%d %b}: retraining {opened.model}, because of that; calls go on meanwhile")
        try:
            self._train(run, opened.model)
        except LakeloopError as error:
            self._say(f"the run failed: {error}")

    def _not_asked(self, rows: list[dict[str, Any]], today: datetime) -> list[dict[str, Any]]:
        """The requests of a day that are not answered yet: a demo that was killed in the middle goes on with them."""
        answered = self.lake.sql(
            "select distinct id from lakeloop.predictions where project = ? and model = ? and as_of >= ? and as_of < ?",
            [PROJECT, MODEL, today, today + DAY],
        )
        there = set(answered.column("id").to_pylist())
        self.answered += sum(row["id"] in there for row in rows)
        return [row for row in rows if row["id"] not in there]

    def _wait_until_loaded(self, serving: Serving) -> None:
        """Until the replica serves the newest revision of its document."""
        import json

        import urllib3

        there = endpoints.endpoint(self.lake, PROJECT, MODEL)
        assert there is not None
        until = time.monotonic() + 60
        while True:
            answer = urllib3.request("GET", f"{serving.endpoint_url(MODEL)}/state", retries=False, timeout=10)
            state = json.loads(answer.data) if answer.status == 200 else {}
            if int(state.get("revision", 0)) >= there.number:
                return
            if time.monotonic() > until:
                raise Unavailable(
                    f"the endpoint does not load revision {there.number}: {state.get('error') or answer.data[:200]!r}",
                    todo="run the demo again",
                )
            time.sleep(0.05)

    # -- telling -------------------------------------------------------------------------------------------------------

    def _sweep(self, launcher: Launcher, as_of: datetime) -> None:
        swept = sweep(self.lake, launcher, as_of=as_of, only=PROJECT, watch=self._tell)
        for function, error in swept.failed.items():
            self._say(f"{function}: {error}")

    def _tell(self, function: str, result: Any) -> None:
        if function == "check_monitors" and result.alert:
            self._say(f"{result.window_end:%d %b}: alarm of {result.monitor}: {result.message}")
        elif function == "gate_model":
            self._tell_verdict(result)

    def _tell_verdict(self, verdict: Verdict) -> None:
        self._say(f"gate: {verdict.model} version {verdict.version} {verdict.verdict}: {verdict.why}")
