"""Drives the loop by the product's own functions, as `lakeloop work` does; the tests look at what comes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import urllib3

from lakeloop.functions.build_features import build_features
from lakeloop.functions.gate_model import Verdict, gate_model
from lakeloop.functions.ingest_data import Ingested, ingest_data, land
from lakeloop.functions.roll_out import roll_out
from lakeloop.infra.place import code_version, find_place
from lakeloop.lakehouse import applied, endpoints, runs
from lakeloop.lakehouse.probing import init_lake
from lakeloop.tests.functional.loop.stories import Phase, Story

SINGLE, BATCH = 6, 9


class Loop:
    """One story on one lake, up to the answers of its calm phase."""

    def __init__(self, story: Story, folder: Path) -> None:
        """The lake is the one that LAKELOOP_LAKE names."""
        for path, text in story.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        place = find_place(start=folder)
        self.story, self.lake, self.project = story, place.lake, place.project()
        self.folder, self.landed = folder, 0
        self.ingested: dict[str, Ingested] = {}
        self.first: Verdict | None = None
        self.answers: dict[str, Mapping[str, Any]] = {}
        self.serving: Any = None

    @property
    def journal(self) -> pa.Table:
        """Every row of the predictions journal, after all is shipped."""
        assert self.serving.drain()
        return self.lake.journal(f"predictions.{self.story.project}.{self.story.model}").read()

    def learn(self) -> None:
        """From an empty lake to a champion."""
        init_lake(self.lake)
        applied.publish(self.lake, self.project, code_version=code_version(self.folder, self.project))
        self.ingested = {one.source: one for one in self.arrive(self.story.learn)}
        self.build(self.story.learned)
        run = runs.open_run(
            self.lake, self.project, self.story.model, trigger="first", as_of=self.story.learned, incident="first"
        )
        assert run is not None
        self.train(run)
        (self.first,) = gate_model(self.lake, self.project)
        assert self.first.verdict == "promoted", self.first.why
        roll_out(self.lake, self.project)

    def serve(self, log_folder: Path) -> Any:
        from lakeloop.ray_jobs.serving.deployment import deploy

        self.serving = deploy(self.lake.url, self.story.project, [self.story.model], log_folder=log_folder)
        return self.serving

    def live(self, phase: Phase) -> dict[str, Mapping[str, Any]]:
        """A phase as callers see it: its facts are there, they are answered, and then the truth comes out."""
        self.arrive(phase.facts)
        self.build(phase.start)
        answers = self.ask(phase.requests)
        assert self.serving.drain()
        self.arrive(phase.truths)
        self.build(phase.start)  # labels may come by way of a view
        return answers

    def arrive(self, dumps: Mapping[str, bytes]) -> list[Ingested]:
        self.landed += 1
        for source, data in dumps.items():
            land(self.lake, self.project, source, f"{source}-{self.landed}.csv", data)
        return ingest_data(self.lake, self.project)

    def build(self, as_of: datetime) -> None:
        """Fresh features, which the endpoint has loaded when this returns."""
        build_features(self.lake, self.project, as_of=as_of)
        roll_out(self.lake, self.project)
        if self.serving is not None:
            self.wait_until_loaded()

    def train(self, run: str, *, reuse: bool = True) -> int:
        from lakeloop.ray_jobs.training import train

        return train(self.lake, run, reuse=reuse)

    def ask(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """The first rows in a request each, the others several in one; each answer by its row's id."""
        sizes = [1] * min(SINGLE, len(rows)) + [BATCH] * ((max(0, len(rows) - SINGLE) + BATCH - 1) // BATCH)
        answers: dict[str, Mapping[str, Any]] = {}
        at = 0
        for size in sizes:
            sent = rows[at : at + size]
            at += size
            body = self.post({"rows": sent})
            assert [row["id"] for row in body["rows"]] == [row["id"] for row in sent]
            answers |= {row["id"]: {"version": body["version"], **row} for row in body["rows"]}
        return answers

    def post(self, request: Mapping[str, Any]) -> Any:
        answer = urllib3.request(
            "POST", f"{self.url}/infer", body=json.dumps(request).encode(), retries=False, timeout=60
        )
        assert answer.status == 200, answer.data[:500]
        return json.loads(answer.data)

    @property
    def url(self) -> str:
        return str(self.serving.endpoint_url(self.story.model))

    def wait_until_loaded(self) -> Any:
        """Until the replica serves the newest revision of its document; what it says of itself then."""
        there = endpoints.endpoint(self.lake, self.story.project, self.story.model)
        assert there is not None
        until = time.monotonic() + 60
        while True:
            answer = urllib3.request("GET", f"{self.url}/state", retries=False, timeout=30)
            state = json.loads(answer.data)
            if answer.status == 200 and state["revision"] >= there.number:
                return state
            assert time.monotonic() < until, state
            time.sleep(0.05)
