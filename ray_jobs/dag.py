"""Tasks with declared inputs and outputs, run in their order; one whose inputs had an output before is not run again.

A task's hash is over its name, its own inputs and the outputs of the tasks it needs. What it puts out is small JSON
that names artifacts by their hash. The output is a document under that hash, so any machine goes on where another
stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, TypeAlias

from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.runs import OpenRun

KIND = "tasks"
Output: TypeAlias = Mapping[str, Any]
Work: TypeAlias = Callable[[str, Mapping[str, Output]], Output]
"""(hash of the inputs, outputs by name of the tasks it needs) → output."""


@dataclass(frozen=True, slots=True)
class Task:
    """`inputs` are JSON values; what is not in them or in the needed outputs must not change the output."""

    name: str
    needs: tuple[str, ...]
    inputs: Mapping[str, Any]
    work: Work


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """What a task did, for whoever watches. `note` is a sentence; `done`, `total` and `best` are of trials."""

    task: str
    status: Literal["started", "running", "done", "reused", "failed"]
    seconds: float = 0.0
    note: str = ""
    done: int = 0
    total: int = 0
    best: float | None = None


Watch: TypeAlias = Callable[[TaskEvent], None]


def ordered(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, each after those it needs; Invalid for a cycle, or a need that is no task."""
    by_name = {task.name: task for task in tasks}
    unknown = sorted({need for task in tasks for need in task.needs} - set(by_name))
    if unknown:
        raise Invalid(f"a task needs {', '.join(unknown)}, which is no task")
    try:
        return [by_name[name] for name in TopologicalSorter({t.name: t.needs for t in tasks}).static_order()]
    except CycleError as error:
        raise Invalid(f"tasks need each other in a circle: {' → '.join(error.args[1])}") from error


def run_tasks(
    lake: Lake, run: OpenRun, tasks: Sequence[Task], watch: Watch, *, reuse: bool = True
) -> dict[str, Output]:
    """Every task's output by name. Start, end and outcome of each are rows of the journal `tasks`."""
    outputs: dict[str, Output] = {}
    for task in ordered(tasks):
        needed = {name: outputs[name] for name in task.needs}
        digest = input_hash(task, needed)
        found = lake.documents.latest(KIND, digest) if reuse else None
        if found is not None and not found.body.get("void"):
            outputs[task.name] = found.body["output"]
            now = lake.clock()
            _note(lake, run, task, digest, "reused", now, now, json.dumps(found.body["output"]))
            watch(TaskEvent(task.name, "reused", note=str(found.body["output"].get("note", ""))))
        else:
            outputs[task.name] = _work(lake, run, task, digest, needed, watch)
    return outputs


def input_hash(task: Task, needed: Mapping[str, Output]) -> str:
    """sha256 over what the output follows from."""
    text = json.dumps([task.name, task.inputs, {name: needed[name] for name in sorted(needed)}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _work(lake: Lake, run: OpenRun, task: Task, digest: str, needed: Mapping[str, Output], watch: Watch) -> Output:
    started = lake.clock()
    _note(lake, run, task, digest, "started", started, None)
    watch(TaskEvent(task.name, "started"))
    try:
        output = json.loads(json.dumps(task.work(digest, needed)))
    except BaseException as error:
        _note(lake, run, task, digest, "failed", started, lake.clock(), error=f"{type(error).__name__}: {error}"[:2000])
        watch(TaskEvent(task.name, "failed", note=str(error)))
        raise
    ended = lake.clock()
    body = {"task": task.name, "run": run.run, "output": output}
    try:
        lake.documents.create(KIND, digest, body, f"run {run.run}")
    except LostRace as race:  # the same inputs were worked on elsewhere too: ours is as good
        if race.won.body.get("void"):
            with suppress(LostRace):
                lake.documents.update(race.won, body, f"run {run.run}")
    _note(lake, run, task, digest, "done", started, ended, json.dumps(output))
    watch(TaskEvent(task.name, "done", (ended - started).total_seconds(), str(output.get("note", ""))))
    return output  # type: ignore[no-any-return]


def _note(
    lake: Lake,
    run: OpenRun,
    task: Task,
    digest: str,
    status: str,
    started: datetime,
    ended: datetime | None,
    output: str = "",
    error: str = "",
) -> None:
    row = {
        "run": run.run,
        "project": run.project,
        "model": run.model,
        "task": task.name,
        "status": status,
        "inputs": digest,
        "started": started,
        "ended": ended,
        "seconds": (ended - started).total_seconds() if ended else None,
        "output": output,
        "error": error,
    }
    lake.record("tasks", [row])
