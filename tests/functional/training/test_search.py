"""The search on Ray Tune: what it finds, what it records, and what becomes of trials that fail."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.learners.protocol import Part, TrainingData
from lakeloop.lakehouse.learners.user_file import UserLearner
from lakeloop.lakehouse.project.definitions import Choice, Constant, Model, Search, Split, Trial, Uniform
from lakeloop.lakehouse.scoring.matrix import Matrix

pytest.importorskip("ray")
from lakeloop.ray_jobs.search import TrialRow, best_of, points, search

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

# A "model" is a number; the nearer to 0.3, the better its ranking of one input.
TEXT = """
import time

def train(data, params, run):
    if params.get("fail") == "raise":
        raise ValueError("no such luck")
    if params.get("fail") == "die":
        import os
        os._exit(1)
    for step in range(params.get("rounds", 3)):
        time.sleep(params.get("sleep", 0))
        run.report(step=step, rmse=abs(params["x"] - 0.3) + 1 / (step + 1))
    return params["x"]

def predict(model, X):
    return [model] * len(X)
"""
MODEL = Model(
    name="number",
    problem="regression",
    owner="tests",
    learner="number.py",
    examples_sql="",
    sql_path="models/number.sql",
    split=Split("random", 0.2, 0.2, seed=3),
    search=Search("rmse", "min", trials=6, space={"x": Uniform(0, 1)}),
)
LEARNER = UserLearner("models/number.py", TEXT, "regression")


class Ledger:
    def __init__(self):
        self.rows = []

    def record(self, rows):
        self.rows += rows


def data():
    matrix = Matrix(("x",), np.zeros((20, 1), np.float32))
    return TrainingData(Part(matrix, np.full(20, 0.3)), Part(matrix, np.full(20, 0.3)))


def asked(**changes):
    return replace(MODEL, search=replace(MODEL.search, **changes))


def test_the_best_of_the_points_is_found_and_all_are_recorded():
    ledger, told = Ledger(), []
    found = search(MODEL, data(), LEARNER, ledger, [], lambda *progress: told.append(progress))
    tried = [one["x"] for one in points(MODEL, LEARNER, 20)]
    assert found.params["x"] == min(tried, key=lambda x: abs(x - 0.3))
    assert found.value == pytest.approx(abs(found.params["x"] - 0.3))
    assert found.step == 2
    assert sorted(row.trial for row in ledger.rows if row.status == "done") == list(range(6))
    assert {row.attempt for row in ledger.rows} == {1}
    assert [row.seq for row in ledger.rows] == list(range(len(ledger.rows)))
    assert told[-1] == (6, 6, pytest.approx(found.value))


def test_a_search_goes_on_where_its_ledger_ends():
    first, second = Ledger(), Ledger()
    search(asked(trials=3), data(), LEARNER, first, [])
    found = search(MODEL, data(), LEARNER, second, first.rows)
    assert sorted({row.trial for row in second.rows}) == [3, 4, 5]
    assert {row.attempt for row in second.rows} == {2}
    third = Ledger()
    assert search(MODEL, data(), LEARNER, third, first.rows + second.rows).params == found.params
    assert third.rows == []


def test_a_trial_that_raises_is_recorded_and_the_search_goes_on():
    space = {"x": Uniform(0, 1), "fail": Choice(("raise", "no"))}
    ledger = Ledger()
    definition = asked(space=space)
    found = search(definition, data(), LEARNER, ledger, [])
    failing = {at for at, one in enumerate(points(definition, LEARNER, 20)) if one["fail"] == "raise"}
    assert 0 < len(failing) < 6
    failed = {row.trial: row.error for row in ledger.rows if row.status == "failed"}
    assert failed == dict.fromkeys(failing, "ValueError: no such luck")
    assert found.trial not in failing
    again = Ledger()
    search(definition, data(), LEARNER, again, ledger.rows)
    assert again.rows == []  # it would raise again


def test_a_trial_whose_process_died_is_tried_again_by_the_next_attempt():
    space = {"x": Uniform(0, 1), "fail": Choice(("die", "no"))}
    ledger, again = Ledger(), Ledger()
    definition = replace(asked(space=space, trials=4), split=Split("random", 0.2, 0.2, seed=1))
    dying = {at for at, one in enumerate(points(definition, LEARNER, 20)) if one["fail"] == "die"}
    assert 0 < len(dying) < 4
    search(definition, data(), LEARNER, ledger, [])
    assert {row.trial for row in ledger.rows if row.status == "lost"} == dying
    search(definition, data(), LEARNER, again, ledger.rows)
    assert {row.trial for row in again.rows} == dying


def test_when_no_trial_succeeds_the_reason_is_told():
    with pytest.raises(Invalid, match="none of 6 trials of number succeeded: ValueError: no such luck"):
        search(asked(space={"fail": Constant("raise")}), data(), LEARNER, Ledger(), [])


def test_a_search_ends_when_it_is_good_enough():
    ledger = Ledger()
    definition = replace(asked(trials=40, stop_at=0.9), trial=Trial(parallel=1))
    search(definition, data(), LEARNER, ledger, [])
    assert 1 <= len({row.trial for row in ledger.rows}) < 40
    more = Ledger()
    search(definition, data(), LEARNER, more, ledger.rows)
    assert more.rows == []


def test_a_search_ends_with_its_time_and_keeps_what_it_has():
    ledger = Ledger()
    space = {"x": Uniform(0, 1), "rounds": Constant(10_000), "sleep": Constant(0.1)}
    found = search(asked(space=space, time=timedelta(seconds=6)), data(), LEARNER, ledger, [])
    assert {row.status for row in found.trials} == {"stopped"}
    assert found.step is not None


def test_a_trial_ends_with_its_timeout():
    space = {"x": Uniform(0, 1), "rounds": Constant(10_000), "sleep": Constant(0.1)}
    definition = replace(asked(space=space, trials=2), trial=Trial(timeout=timedelta(seconds=1)))
    found = search(definition, data(), LEARNER, Ledger(), [])
    assert [row.status for row in found.trials] == ["stopped", "stopped"]


def test_asha_stops_trials_that_lag():
    space = {"x": Uniform(0, 1), "rounds": Constant(120), "sleep": Constant(0.01)}
    ledger = Ledger()
    found = search(asked(space=space, trials=8, scheduler="asha"), data(), LEARNER, ledger, [])
    ends = [row.status for row in found.trials]
    assert (ends.count("done") >= 1, ends.count("stopped") >= 1, len(ends)) == (True, True, 8)


def test_nothing_of_tunes_stays_on_the_disk_or_is_printed(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    results = Path("~/ray_results").expanduser()
    there = set(results.iterdir()) if results.exists() else set()
    level = logging.getLogger("ray.tune").level
    search(asked(trials=1), data(), LEARNER, Ledger(), [])
    assert list(tmp_path.iterdir()) == []
    assert (set(results.iterdir()) if results.exists() else set()) == there
    assert logging.getLogger("ray.tune").level == level
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_of_equal_trials_the_first_is_the_best_and_stopped_ones_only_count_when_none_was_done():
    def row(trial, value, status):
        return TrialRow(trial, 1, trial, {"x": trial}, "rmse", value, 1, status, 0.1)

    rows = [row(0, 0.1, "stopped"), row(2, 0.2, "done"), row(1, 0.2, "done"), row(3, None, "failed")]
    assert best_of(MODEL, rows).trial == 1
    assert best_of(MODEL, rows[:1]).trial == 0
