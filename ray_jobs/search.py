"""The hyperparameter search, on Ray Tune. What was tried is in our own ledger, not in Tune's files.

The points are fixed before the first trial (by the split's seed and the trial's number), so a search that was killed
goes on where its ledger ends: on another machine, with more trials, with another version of Ray. Which trials ASHA
cuts short depends on how they happen to run side by side; what a point is worth does not.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from lakeloop.lakehouse.errors import Invalid, Unavailable
from lakeloop.lakehouse.learners.protocol import Learner, TrainingData
from lakeloop.lakehouse.learners.space import point
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.statistics import evaluate, metric_of

Status: TypeAlias = Literal["running", "done", "stopped", "failed", "lost"]
Progress: TypeAlias = Callable[[int, int, float | None], None]
ENDED = ("done", "stopped", "failed")
FLUSH_S = 5.0
START_S = 60.0
"""A first trial that starts later, perhaps never for want of CPUs, takes from the search's time."""
REPORT_S = 0.05
"""A trial that reports oftener than this is only heard so often: each report is a round trip to Tune."""
QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1", "RAY_AIR_NEW_OUTPUT": "0"}


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One line of the ledger. The last one of a trial, by attempt and seq, is what became of it."""

    trial: int
    attempt: int
    seq: int
    params: Mapping[str, Any]
    metric: str
    value: float | None
    step: int | None
    status: Status
    seconds: float
    error: str = ""


class Ledger(Protocol):
    """Where trials are written down. A row that was recorded is there for the next attempt."""

    def record(self, rows: Sequence[TrialRow]) -> None: ...


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The best point, the step at which it was best, and what became of every trial."""

    params: Mapping[str, Any]
    value: float
    step: int | None
    trial: int
    trials: tuple[TrialRow, ...]


def search(
    definition: Model,
    data: TrainingData,
    learner: Learner,
    ledger: Ledger,
    done: Sequence[TrialRow],
    progress: Progress = lambda done, total, best: None,
) -> SearchResult:
    """Try the points that the ledger does not hold yet, and answer with the best of all. Ray must be running.

    A trial that raises is recorded and the others go on; one whose process was lost is tried again at the next attempt.
    Invalid when not one trial succeeded.
    """
    chosen = points(definition, learner, len(data.train))
    rows = {trial: row for trial, row in last_rows(done).items() if row.status in ENDED and trial < len(chosen)}
    watcher = _Watcher(definition, chosen, ledger, rows, 1 + max((row.attempt for row in done), default=0), progress)
    missing = [trial for trial in range(len(chosen)) if trial not in rows]
    if missing and not watcher.good_enough:
        _run_tune(definition, data, learner, chosen, missing, watcher)
    return best_of(definition, list(watcher.rows.values()))


def points(definition: Model, learner: Learner, rows: int) -> list[dict[str, Any]]:
    """The parameters of every trial. With the learner's own space, the first are the learner's own defaults."""
    asked = definition.search
    space = asked.space or learner.default_space(definition.problem, rows)
    found = [point(space, definition.split.seed, trial) for trial in range(asked.trials)]
    if not asked.space:
        found[0] = dict(learner.default_params(definition.problem, rows))
    return found


def last_rows(rows: Sequence[TrialRow]) -> dict[int, TrialRow]:
    """What became of each trial."""
    return {row.trial: row for row in sorted(rows, key=lambda row: (row.attempt, row.seq))}


def best_of(definition: Model, rows: Sequence[TrialRow]) -> SearchResult:
    """The best trial that ran to its end; of equal ones the first. If none did, the best of those that were stopped."""
    sign = -1.0 if definition.search.mode == "max" else 1.0
    valued = [row for row in rows if row.value is not None and np.isfinite(row.value)]
    candidates = [row for row in valued if row.status == "done"] or [row for row in valued if row.status == "stopped"]
    if not candidates:
        errors = [row for row in rows if row.error]
        told = f": {errors[-1].error}" if errors else ""
        todo = "correct what it says, or give the search more [search] time"
        raise Invalid(f"none of {len(rows)} trials of {definition.name} succeeded{told}", todo=todo)
    best = min(candidates, key=lambda row: (sign * float(row.value or 0.0), row.trial))
    return SearchResult(best.params, float(best.value or 0.0), best.step, best.trial, tuple(rows))


def _run_tune(
    definition: Model,
    data: TrainingData,
    learner: Learner,
    chosen: Sequence[Mapping[str, Any]],
    missing: Sequence[int],
    watcher: _Watcher,
) -> None:
    asked, trial = definition.search, definition.trial
    function = tune.with_parameters(
        _trial,
        data=data,
        task={
            "learner": learner,
            "points": list(chosen),
            "problem": definition.problem,
            "metric": asked.metric,
            "mode": asked.mode,
            "seed": definition.split.seed,
        },
    )
    resources = {"cpu": trial.cpu} | ({"memory": trial.memory} if trial.memory else {})
    with _quiet(), _away(), tempfile.TemporaryDirectory(prefix="lakeloop-search-") as folder:
        tune.Tuner(
            tune.with_resources(function, resources),
            param_space={"trial": tune.grid_search(list(missing))},
            tune_config=tune.TuneConfig(
                metric="value",
                mode=asked.mode,
                scheduler=_scheduler(definition, chosen),
                max_concurrent_trials=trial.parallel or None,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                verbose=0,
                stop=_Limits(definition, watcher),
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        ).fit()
    watcher.finish()


def _scheduler(definition: Model, chosen: Sequence[Mapping[str, Any]]) -> TrialScheduler:
    """ASHA (Li et al. 2020) on steps: rungs at a sixth and a half of the rounds that a point may take."""
    if definition.search.scheduler == "none":
        return FIFOScheduler()
    longest = max((int(one["rounds"]) for one in chosen if isinstance(one.get("rounds"), int)), default=100)
    return AsyncHyperBandScheduler(
        time_attr="at", max_t=max(longest + 1, 2), grace_period=max(longest // 6, 1), reduction_factor=3
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No files of Tune's loggers, which it reads from the environment only, and nothing on the terminal."""
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    level = logging.getLogger("ray.tune").level
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.getLogger("ray.tune").setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _away() -> Iterator[None]:
    """A cluster that is lost is no fault of the search: the run stays open, and its ledger holds what was tried."""
    try:
        yield
    except (RayError, tune.TuneError) as error:
        raise Unavailable(f"the search was cut off ({type(error).__name__})", todo="start it again") from error


def _trial(config: dict[str, Any], data: TrainingData, task: Mapping[str, Any]) -> None:
    """One trial, in a worker. What it raises is its result: Tune would throw the process away, which costs seconds."""
    run = TuneRun(seed=int(task["seed"]), metric=task["metric"], mode=task["mode"])
    try:
        value, error = _judged(task["points"][config["trial"]], data, task, run), ""
    except Exception as raised:  # noqa: BLE001 - the edge of a process that runs the user's code
        value, error = float("nan"), f"{type(raised).__name__}: {str(raised).strip()}"[:500]
    tune.report({"value": value, "step": run.step, "at": run.at, "final": True, "error": error})


def _judged(params: Mapping[str, Any], data: TrainingData, task: Mapping[str, Any], run: TuneRun) -> float:
    """Fit, and judge the model by the platform's own metric on the validation part."""
    learner: Learner = task["learner"]
    model = learner.fit(data, params, run)
    valid = data.valid if len(data.valid) else data.train
    predictions = learner.predict(model, valid.matrix)
    value = evaluate(task["problem"], task["metric"], valid.y, predictions, weight=valid.weight)
    if not np.isfinite(value):
        what = f"{task['metric']} is undefined on the validation part"
        raise Invalid(what, todo="see that each class has rows in it, and that predictions are finite")
    return value


@dataclass(slots=True)
class TuneRun:
    """A trial's run: what it reports of the search's metric goes to Tune, which may end the trial there."""

    seed: int
    metric: str
    mode: str
    best_step: int | None = None
    step: int | None = None
    at: int = 0
    _best: float = float("nan")
    _heard: float = 0.0
    _fixed: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def report(self, step: int, **metrics: float) -> None:
        self.at = max(self.at, int(step))
        value = metrics.get(self.metric)
        if value is None or not np.isfinite(value):
            return
        sign = 1.0 if self.mode == "max" else -1.0
        if not self._fixed and not sign * value <= sign * self._best:
            self._best, self.step = float(value), int(step)
        if time.monotonic() - self._heard >= REPORT_S:
            self._heard = time.monotonic()
            tune.report({"value": float(value), "step": self.step, "at": self.at, "final": False})

    def log(self, **facts: Any) -> None:
        self.facts.update(facts)
        if "best_step" in facts:
            self.step, self._fixed = int(facts["best_step"]), True

    def checkpoint(self, path: Any) -> None:
        return


class _Nobody:
    """What Tune's own files hold in place of our callback and stopper: it pickles them, and nobody reads them again."""


class _Limits(tune.Stopper):  # type: ignore[misc]
    """A trial ends at its timeout; the search ends with its time, or when a finished trial is good enough.

    The time counts from the first trial's start: what Ray takes for that, up to `START_S`, is not the search's.
    """

    def __init__(self, definition: Model, watcher: _Watcher) -> None:
        timeout, time_asked = definition.trial.timeout, definition.search.time
        self._timeout_s = timeout.total_seconds() if timeout else None
        self._search_s = time_asked.total_seconds() if time_asked else None
        self._latest = time.monotonic() + START_S
        self._watcher = watcher

    def __reduce__(self) -> tuple[Any, ...]:
        return _Nobody, ()

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        return self._timeout_s is not None and float(result.get("time_total_s", 0.0)) > self._timeout_s

    def stop_all(self) -> bool:
        started = self._latest if self._watcher.started is None else self._watcher.started
        over = self._search_s is not None and time.monotonic() - started > self._search_s
        return over or self._watcher.good_enough


class _Watcher(tune.Callback):  # type: ignore[misc]
    """Hears of every trial, and keeps the ledger."""

    def __init__(
        self,
        definition: Model,
        chosen: Sequence[Mapping[str, Any]],
        ledger: Ledger,
        rows: dict[int, TrialRow],
        attempt: int,
        progress: Progress,
    ) -> None:
        self.rows = rows
        self._asked, self._chosen, self._ledger = definition.search, chosen, ledger
        self._up = metric_of(definition.problem, definition.search.metric).greater_is_better
        self._attempt, self._seq, self._progress = attempt, 0, progress
        self._waiting: list[TrialRow] = []
        self._flushed = time.monotonic()
        self.started: float | None = None
        """When the first trial started, on the monotonic clock."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Nobody, ()

    @property
    def good_enough(self) -> bool:
        """Whether a trial that ran to its end reached `stop_at`."""
        bound, best = self._asked.stop_at, self._best()
        return bound is not None and best is not None and (best >= bound if self._up else best <= bound)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        if self.started is None:
            self.started = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        error = str(result.get("error") or "")
        status: Status = "failed" if error else "done" if result.get("final") else "running"
        self._keep(trial, status, result, error)
        if status != "running":
            self._flush()
            self._tell()
        elif time.monotonic() - self._flushed > FLUSH_S:
            self._flush()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        number = int(trial.config["trial"])
        if number not in self.rows or self.rows[number].status == "running":
            self._keep(trial, "stopped", trial.last_result or {})
            self._flush()
            self._tell()

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Only a process that ended comes here: what a trial raises, it reports itself."""
        self._keep(trial, "lost", trial.last_result or {}, _last_words(trial))
        self._flush()
        self._tell()

    def finish(self) -> None:
        """Write what is left; a trial that was cut off by the end of the search was stopped."""
        for number, row in list(self.rows.items()):
            if row.status == "running":
                self._add(number, "stopped", row.value, row.step, row.seconds, "")
        self._flush()

    def _keep(self, trial: Trial, status: Status, result: Mapping[str, Any], error: str = "") -> None:
        value, step = result.get("value"), result.get("step")
        if value is not None and not np.isfinite(value):
            value = None
        seconds = float(result.get("time_total_s") or 0.0)
        self._add(int(trial.config["trial"]), status, value, step, seconds, error)

    def _add(self, trial: int, status: Status, value: Any, step: Any, seconds: float, error: str) -> None:
        row = TrialRow(
            trial,
            self._attempt,
            self._seq,
            self._chosen[trial],
            self._asked.metric,
            None if value is None else float(value),
            None if step is None else int(step),
            status,
            seconds,
            error,
        )
        self._seq += 1
        self.rows[trial] = row
        self._waiting.append(row)

    def _flush(self) -> None:
        if self._waiting:
            self._ledger.record(self._waiting)
        self._waiting, self._flushed = [], time.monotonic()

    def _tell(self) -> None:
        ended = sum(row.status != "running" for row in self.rows.values())
        self._progress(ended, len(self._chosen), self._best())

    def _best(self) -> float | None:
        values = [row.value for row in self.rows.values() if row.status == "done" and row.value is not None]
        return (max(values) if self._up else min(values)) if values else None


def _last_words(trial: Trial) -> str:
    """How Tune says that a trial's process ended, in one line."""
    path = Path(trial.error_file or "")
    lines = path.read_text().split("\n") if path.is_file() else []
    told = next((line.strip() for line in lines if line.strip() and not line.startswith("Failure #")), "")
    return f"its process ended: {told}"[:500] if told else "its process ended"
