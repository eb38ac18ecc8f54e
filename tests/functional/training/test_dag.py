"""Tasks: in order, remembered by what went into them, and told."""

from __future__ import annotations

import pytest

from lakeloop.lakehouse import runs
from lakeloop.lakehouse.errors import Invalid

dag = pytest.importorskip("lakeloop.ray_jobs.dag")


class Work:
    """A task's work that counts how often it was done."""

    def __init__(self, output=None, fail=False):
        self.output, self.fail, self.done = output or {}, fail, 0

    def __call__(self, digest, needed):
        if self.fail:
            raise Invalid("broken")
        self.done += 1
        return {**self.output, "from": sorted(needed)}


@pytest.fixture
def opened(ready):
    wine = ready("wine", "multiclass", "sklearn")
    return wine.lake, runs.get_run(wine.lake, wine.open("wine"))


def tasks(pull, fit, seed=1):
    return [dag.Task("fit", ("pull",), {"seed": seed}, fit), dag.Task("pull", (), {}, pull)]


def test_tasks_are_done_after_what_they_need_and_told(opened):
    events = []
    outputs = dag.run_tasks(*opened, tasks(Work({"rows": 3}), Work()), events.append)
    assert outputs == {"pull": {"rows": 3, "from": []}, "fit": {"from": ["pull"]}}
    assert [(event.task, event.status) for event in events] == [
        ("pull", "started"), ("pull", "done"), ("fit", "started"), ("fit", "done"),
    ]  # fmt: skip
    lake, _ = opened
    rows = lake.journal("tasks").read().to_pylist()
    assert sorted((row["task"], row["status"]) for row in rows) == [
        ("fit", "done"), ("fit", "started"), ("pull", "done"), ("pull", "started"),
    ]  # fmt: skip
    assert all(row["seconds"] >= 0 and row["ended"] >= row["started"] for row in rows if row["status"] == "done")


def test_a_task_is_not_done_again_unless_what_goes_into_it_changed(opened):
    pull, fit = Work(), Work()
    for seed in (1, 1, 2):
        dag.run_tasks(*opened, tasks(pull, fit, seed), lambda event: None)
    assert (pull.done, fit.done) == (1, 2)
    dag.run_tasks(*opened, tasks(pull, fit, 2), lambda event: None, reuse=False)
    assert (pull.done, fit.done) == (2, 3)


def test_a_run_goes_on_from_its_last_good_task(opened):
    pull, fit = Work(), Work(fail=True)
    with pytest.raises(Invalid, match="broken"):
        dag.run_tasks(*opened, tasks(pull, fit), lambda event: None)
    fit.fail = False
    dag.run_tasks(*opened, tasks(pull, fit), lambda event: None)
    assert (pull.done, fit.done) == (1, 1)
    failed = [row for row in opened[0].journal("tasks").read().to_pylist() if row["status"] == "failed"]
    assert [row["error"] for row in failed] == ["Invalid: broken"]


def test_another_output_of_a_task_changes_what_goes_into_the_next(opened):
    fit = Work()
    dag.run_tasks(*opened, tasks(Work({"rows": 1}), fit), lambda event: None, reuse=False)
    dag.run_tasks(*opened, tasks(Work({"rows": 2}), fit), lambda event: None, reuse=False)
    first, second = (dag.input_hash(tasks(Work(), fit)[0], {"pull": {"rows": rows, "from": []}}) for rows in (1, 2))
    assert first != second


def test_a_circle_and_a_need_that_is_no_task_are_refused():
    one, two = dag.Task("one", ("two",), {}, Work()), dag.Task("two", ("one",), {}, Work())
    with pytest.raises(Invalid, match=r"in a circle: .*one.*two"):
        dag.ordered([one, two])
    with pytest.raises(Invalid, match="needs two, which is no task"):
        dag.ordered([one])
