"""The sweep: every function once, in the order in which data flows.

State decides what there is to do; events only wake it sooner.

What one function cannot do is kept in a `stuck` document per (function, key), with tries and the last error, and does
not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias, TypeVar

from lakeloop.functions.build_features import build_features
from lakeloop.functions.check_monitors import check_monitors
from lakeloop.functions.expire_predictions import expire_predictions
from lakeloop.functions.gate_model import gate_model
from lakeloop.functions.ingest_data import ingest_data
from lakeloop.functions.launch_training import Launcher, launch_training
from lakeloop.functions.maintain_lake import maintain_lake, maintain_table
from lakeloop.functions.roll_out import roll_out
from lakeloop.functions.score_shadow import score_shadow
from lakeloop.lakehouse import applied, events, keys
from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project

STUCK = "stuck"
T = TypeVar("T")


Watch: TypeAlias = Callable[[str, Any], None]
"""Told (function, result) for each thing that was done, as soon as its function returns."""


@dataclass(slots=True)
class Swept:
    """What a sweep did, by function, and what it could not do."""

    watch: Watch = lambda _function, _result: None
    done: dict[str, list[Any]] = field(default_factory=dict)
    failed: dict[str, LakeloopError] = field(default_factory=dict)

    @property
    def anything(self) -> bool:
        return any(self.done.values()) or bool(self.failed)

    def note(self, function: str, results: Sequence[Any]) -> None:
        self.done.setdefault(function, []).extend(results)
        for result in results:
            self.watch(function, result)


def news(lake: Lake) -> frozenset[str]:
    """What a sweep would act on: the first file, event and run without a verdict. One LIST of one key each."""
    prefixes = (keys.LANDING, keys.EVENTS, keys.OPEN_RUNS)
    return frozenset(entry.key for prefix in prefixes for entry in lake.store.list(prefix, limit=1))


def sweep(
    lake: Lake,
    launcher: Launcher,
    *,
    as_of: datetime | None = None,
    only: str = "",
    watch: Watch = lambda _function, _result: None,
) -> Swept:
    """Look at every applied project (or only one) and close each difference between what is wanted and what is there.

    `as_of` is the moment to judge by (default: now); a replay passes its own.
    """
    swept = Swept(watch)
    woken = events.pending(lake)
    for name in applied.names(lake):
        if not only or name == only:
            loaded = _try(lake, swept, "load", name, partial(applied.load, lake, name))
            if loaded is not None:
                _project(lake, loaded[0], launcher, as_of or lake.clock(), swept)
    swept.note("maintain_lake", _try(lake, swept, "maintain_lake", "lake", lambda: maintain_lake(lake)) or [])
    if woken:
        events.done(lake, woken)
    return swept


def _project(lake: Lake, project: Project, launcher: Launcher, as_of: datetime, swept: Swept) -> None:
    steps: list[tuple[str, Callable[[], Sequence[Any]]]] = [
        ("ingest_data", lambda: ingest_data(lake, project)),
        ("build_features", lambda: build_features(lake, project, as_of=as_of)),
        ("score_shadow", lambda: score_shadow(lake, project)),
        ("roll_out", lambda: roll_out(lake, project)),
        ("check_monitors", lambda: check_monitors(lake, project, as_of=as_of)),
        ("launch_training", lambda: launch_training(lake, project, launcher, as_of=as_of)),
        ("gate_model", lambda: gate_model(lake, project)),
        ("roll_out", lambda: roll_out(lake, project)),
        ("maintain_lake", lambda: _maintain_tables(lake, project, swept)),
        ("maintain_lake", lambda: expire_predictions(lake, project)),
    ]
    for function, step in steps:
        swept.note(function, _try(lake, swept, function, project.name, step) or [])


def _maintain_tables(lake: Lake, project: Project, swept: Swept) -> list[Any]:
    """Of the tables this sweep wrote, those that are due."""
    names = [one.source for one in swept.done.get("ingest_data", [])] + [
        one.view for one in swept.done.get("build_features", [])
    ]
    return [done for name in dict.fromkeys(names) for done in maintain_table(lake, f"{project.name}/{name}")]


def _try(lake: Lake, swept: Swept, function: str, key: str, step: Callable[[], T]) -> T | None:
    try:
        result = step()
    except LakeloopError as error:
        swept.failed[f"{function} {key}"] = error
        _note_stuck(lake, f"{function}.{key}", error)
        return None
    _clear_stuck(lake, f"{function}.{key}")
    return result


def _note_stuck(lake: Lake, doc: str, error: LakeloopError) -> None:
    current = lake.documents.latest(STUCK, doc)
    tries = int(current.body["tries"]) + 1 if current else 1
    body = {"tries": tries, "error": str(error), "kind": type(error).__name__, "todo": error.todo}
    try:
        if current is None:
            lake.documents.create(STUCK, doc, body, "failed")
        elif current.body.get("error") != body["error"] or tries < 10:
            lake.documents.update(current, body, "failed")
    except LostRace:
        return


def _clear_stuck(lake: Lake, doc: str) -> None:
    current = lake.documents.latest(STUCK, doc)
    if current is not None and current.body["tries"]:
        try:
            lake.documents.update(current, {"tries": 0, "error": "", "kind": "", "todo": ""}, "done")
        except LostRace:
            return
