"""The registry: numbers without gaps or repeats, statuses with a history."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from lakeloop.lakehouse import registry
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.lake import Lake, open_lake

NAMES = count()
BODY = {"metrics": [], "artifacts": []}


@pytest.fixture
def lake() -> Lake:
    return open_lake(f"memory://registry-{next(NAMES)}", who="ana")


def test_versions_are_counted_from_one_per_model(lake):
    assert registry.register(lake, "flights", "late", "run-a", BODY) == 1
    assert registry.register(lake, "flights", "late", "run-b", BODY) == 2
    assert registry.register(lake, "flights", "late_too", "run-c", BODY) == 1
    assert registry.numbers(lake, "flights", "late") == [1, 2]


def test_a_run_has_one_version_however_often_it_registers(lake):
    registry.register(lake, "flights", "late", "run-a", BODY)
    registry.register(lake, "flights", "late", "run-b", BODY)
    assert registry.register(lake, "flights", "late", "run-a", {**BODY, "metrics": [1]}) == 1
    assert registry.version(lake, "flights", "late", 1).body["metrics"] == []


def test_versions_beyond_nine_stay_in_order(lake):
    for at in range(12):
        registry.register(lake, "flights", "late", f"run-{at}", BODY)
    assert registry.numbers(lake, "flights", "late") == list(range(1, 13))
    assert [one.body["version"] for one in registry.versions(lake, "flights", "late")][:3] == [12, 11, 10]


def test_runs_that_register_at_once_get_different_versions(lake):
    runs = [f"run-{at % 8}" for at in range(16)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda run: registry.register(lake, "flights", "late", run, BODY), runs))
    assert sorted(set(found)) == list(range(1, 9))
    assert found[:8] == found[8:]


def test_a_status_changes_with_who_and_why(lake):
    registry.register(lake, "flights", "late", "run-a", BODY)
    registry.set_status(lake, "flights", "late", 1, "champion", "better by 0.01")
    registry.set_status(lake, "flights", "late", 1, "champion", "again")
    registry.set_status(lake, "flights", "late", 1, "retired", "version 2 is the champion")
    history = lake.documents.history(registry.KIND, "flights.late.1")
    assert [(one.body["status"], one.why, one.who) for one in history] == [
        ("retired", "version 2 is the champion", "ana"),
        ("champion", "better by 0.01", "ana"),
        ("registered", "registered by run run-a", "ana"),
    ]
    assert history[0].body["run"] == "run-a"


def test_a_version_that_is_not_there_is_told_with_those_that_are(lake):
    with pytest.raises(NotFound, match="train it: lakeloop train late"):
        registry.version(lake, "flights", "late", 1)
    registry.register(lake, "flights", "late", "run-a", BODY)
    with pytest.raises(NotFound, match="there are 1 to 1"):
        registry.version(lake, "flights", "late", 7)


def test_a_metric_is_that_of_the_model_on_all_test_rows_unless_said_otherwise():
    rows = [
        {"subject": "baseline", "metric": "brier", "slice": "", "value": 0.9},
        {"subject": "model", "metric": "brier", "slice": "origin=EWR", "value": 0.3},
        {"subject": "model", "metric": "brier", "slice": "", "value": 0.2},
    ]
    body = {"metrics": rows}
    assert registry.metric(body, "brier")["value"] == 0.2
    assert registry.metric(body, "brier", part="origin=EWR")["value"] == 0.3
    assert registry.metric(body, "brier", subject="baseline")["value"] == 0.9
    assert registry.metric(body, "ece") is None
