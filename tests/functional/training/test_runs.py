"""Runs: opened once for a reason, found by one LIST, settled once."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from lakeloop.lakehouse import keys, runs
from lakeloop.lakehouse.errors import Invalid, NotFound, Unavailable


class Beats:
    """A store that counts puts, and fails the second: one beat that does not get through is no harm."""

    def __init__(self, store):
        self._store, self.count, self.keys, self.third = store, 0, set(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, key, body, **more):
        self.count += 1
        self.keys.add(key)
        if self.count == 2:
            raise Unavailable("away")
        self._store.put(key, body, **more)
        if self.count == 3:
            self.third.set()


@pytest.fixture
def wine(ready):
    return ready("wine", "multiclass", "sklearn")


def test_a_run_is_opened_once_for_an_incident_data_and_rules(wine):
    run = wine.open("wine", "drift of x1")
    assert runs.open_run(
        wine.lake, wine.project, "wine", trigger="again", as_of=wine.as_of + timedelta(hours=1), incident="drift of x1"
    ) is None  # fmt: skip
    other = wine.open("wine", "drift of x2")
    assert sorted(one.run for one in runs.open_runs(wine.lake)) == sorted([run, other])


def test_an_open_run_says_what_it_is_to_do(wine):
    run = wine.open("wine")
    found = runs.open_runs(wine.lake)[0]
    assert (found.run, found.project, found.model, found.trigger) == (run, "wine", "wine", "by hand")
    assert (found.as_of, found.definition, found.code_version) == (wine.as_of, wine.project.hash, "abc123")
    assert (found.status, found.finished, found.lost) == ("opened", False, False)


def test_a_run_whose_opener_stopped_halfway_can_be_opened(wine):
    run = wine.open("wine")
    wine.lake.store.delete([f"{keys.revision('runs', run, 1)}"])  # the marker was put, the document was not
    assert runs.open_runs(wine.lake) == []
    assert wine.open("wine") == run
    assert [one.run for one in runs.open_runs(wine.lake)] == [run]


def test_a_finished_run_stays_open_until_it_was_judged_and_is_not_opened_again(wine):
    run = wine.open("wine")
    runs.finish_run(wine.lake, run, version=3, facts={"seconds": 1.5})
    runs.finish_run(wine.lake, run, version=3, facts={"seconds": 9.5})
    found = runs.open_runs(wine.lake)[0]
    assert (found.status, found.finished, found.version) == ("finished", True, 3)
    runs.close_run(wine.lake, run)
    runs.close_run(wine.lake, run)
    assert runs.open_runs(wine.lake) == []
    assert runs.open_run(
        wine.lake, wine.project, "wine", trigger="again", as_of=wine.as_of, incident="by hand"
    ) is None  # fmt: skip
    rows = wine.lake.journal("runs").read().to_pylist()
    assert [(row["status"], row["version"], row["seconds"]) for row in rows] == [("finished", 3, 1.5)]


def test_a_run_has_one_outcome(wine):
    run = wine.open("wine")
    runs.fail_run(wine.lake, run, "no labels")
    with pytest.raises(Invalid, match="is failed already"):
        runs.finish_run(wine.lake, run, version=1, facts={})
    assert runs.get_run(wine.lake, run).error == "no labels"


def test_a_lost_run_is_closed_with_the_reason(wine):
    run = wine.open("wine")
    runs.close_run(wine.lake, run, lost="its machine is gone")
    assert runs.open_runs(wine.lake) == []
    assert (runs.get_run(wine.lake, run).status, runs.get_run(wine.lake, run).error) == ("lost", "its machine is gone")


def test_a_run_nobody_opened_is_not_found(wine):
    with pytest.raises(NotFound, match="no run 'x'"):
        runs.get_run(wine.lake, "x")


def test_the_beat_puts_the_marker_again_and_ends_with_the_work(wine):
    run = wine.open("wine")
    beats = Beats(wine.lake.store)
    lake = replace(wine.lake, store=beats)
    with runs.beating(lake, run, every_s=0.001):
        assert beats.third.wait(60)
    last = beats.count
    assert beats.keys == {keys.open_run(run)}
    assert not [thread for thread in threading.enumerate() if thread.name == f"beat-{run}"]
    assert beats.count == last


def test_the_table_has_the_newest_of_each_run(wine):
    assert wine.lake.sql("select * from lakeloop.runs").num_rows == 0
    one, two = wine.open("wine", "one"), wine.open("wine", "two")
    opened = runs.get_run(wine.lake, one)
    runs.record_run(wine.lake, opened, "started", wine.lake.clock(), {"environment": "{}"})
    runs.finish_run(wine.lake, one, version=1, facts={"seconds": 2.0})
    runs.fail_run(wine.lake, two, "no")
    rows = {row["run"]: row for row in wine.lake.sql("select * from lakeloop.runs order by logged_at desc").to_pylist()}
    assert (rows[one]["status"], rows[one]["version"], rows[one]["environment"]) == ("finished", 1, "{}")
    assert (rows[two]["status"], rows[two]["error"]) == ("failed", "no")
