"""Which runs: what filters and orders give, over runs that are folded and runs that are not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.lake import Lake

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
FOLDED, WAITING = 30, 10


def record(lake: Lake, numbers: range) -> None:
    """Runs of two models by turns, every fifth failed; the auc of run n is n / 100, and of its baseline 0.99."""
    for number in numbers:
        run, at = f"r{number:02d}", BEGAN + timedelta(hours=number)
        shared = {"run": run, "project": "p", "model": "ab"[number % 2]}
        started = {**shared, "status": "started", "logged_at": at, "environment": "{}"}
        ended = {"status": "failed" if number % 5 == 0 else "finished", "logged_at": at + timedelta(minutes=5)}
        found = {"params": json.dumps({"depth": number % 3}), "version": number}
        lake.record("runs", [started, {**shared, **ended, **found}])
        if number % 5:
            scores = [("model", "", number / 100), ("model", "big", 0.5), ("baseline", "", 0.99)]
            lake.record(
                "metrics",
                [
                    {**shared, "subject": s, "slice": part, "metric": "auc", "value": v, "low": v - 1, "high": v + 1}
                    for s, part, v in scores
                ]
                + [{**shared, "subject": "model", "slice": "", "metric": "loss", "value": -number, "logged_at": at}],
            )


@pytest.fixture
def runs(folder_lake: Lake) -> Lake:
    record(folder_lake, range(FOLDED))
    for journal in ("runs", "metrics"):
        folder_lake.journal(journal).fold(grace_s=0)
    record(folder_lake, range(FOLDED, FOLDED + WAITING))
    folder_lake.record("verdicts", [{"run": "r39", "verdict": v, "logged_at": BEGAN} for v in ("promoted",)])
    return folder_lake


def ids(lake: Lake, **asked: Any) -> list[int]:
    return [int(run[1:]) for run in lake.runs(**asked).column("run").to_pylist()]


def test_every_metric_of_a_run_comes_where_all_are_asked_for(runs: Lake) -> None:
    found = runs.runs(metric="auc", order="highest", limit=2, all_metrics=True).to_pylist()
    assert [(row["run"], dict(row["metrics"])) for row in found] == [
        ("r39", {"auc": 0.39, "loss": -39.0}),
        ("r38", {"auc": 0.38, "loss": -38.0}),
    ]
    (failed,) = runs.runs(status="failed", limit=1, all_metrics=True).to_pylist()
    assert failed["metrics"] is None


def test_all_runs_come_newest_first_with_what_was_said_last_of_each(runs: Lake) -> None:
    found = runs.runs().to_pylist()
    assert [row["run"] for row in found] == [f"r{number:02d}" for number in reversed(range(40))]
    assert (found[0]["status"], found[0]["version"], found[0]["environment"]) == ("finished", 39, "{}")
    assert (found[0]["verdict"], found[1]["verdict"], found[0]["value"]) == ("promoted", None, None)
    assert found[0]["first_logged_at"] == BEGAN + timedelta(hours=39)


def test_filters_hold_together(runs: Lake) -> None:
    expected = [n for n in range(39, 21, -1) if n % 2 == 1 and n % 5 and n % 3 == 1]
    assert ids(runs, model="b", status="finished", params={"depth": 1}, metric="auc", above=0.21) == expected
    assert ids(runs, status="failed") == [35, 30, 25, 20, 15, 10, 5, 0]
    assert ids(runs, metric="auc", above=0.10, below=0.13) == [12, 11]
    assert ids(runs, model="nothing") == []


def test_a_score_is_that_of_the_whole_model_not_of_a_slice_or_its_baseline(runs: Lake) -> None:
    (best,) = runs.runs(metric="auc", order="highest", limit=1).to_pylist()
    assert (best["run"], best["metric"], best["value"]) == ("r39", "auc", 0.39)
    assert (best["low"], best["high"]) == (0.39 - 1, 0.39 + 1)
    assert ids(runs, metric="loss", order="lowest", limit=2) == [39, 38]


def test_runs_without_a_score_come_last_in_either_order(runs: Lake) -> None:
    for order in ("highest", "lowest"):
        assert sorted(ids(runs, metric="auc", order=order)[-8:]) == list(range(0, 40, 5))


def test_each_model_may_have_a_metric_of_its_own(runs: Lake) -> None:
    found = runs.runs(metric={"a": "loss", "b": "auc"}, limit=2).to_pylist()
    assert [(row["run"], row["metric"], row["value"]) for row in found] == [
        ("r39", "auc", 0.39),
        ("r38", "loss", -38.0),
    ]
    assert {row["metric"] for row in runs.runs(metric={}).to_pylist()} == {None}


def test_a_limit_cuts_after_the_order_and_none_is_all(runs: Lake) -> None:
    assert ids(runs, metric="auc", order="highest", limit=3) == [39, 38, 37]
    assert len(ids(runs, limit=0)) == 40


def test_more_runs_than_a_query_can_name_are_described_too(runs: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakeloop.lakehouse import run_list

    monkeypatch.setattr(run_list, "LISTED", 5)
    assert ids(runs, metric="auc", order="highest", limit=6) == [39, 38, 37, 36, 34, 33]
    assert ids(runs, metric="auc", limit=6) == [39, 38, 37, 36, 35, 34]


def test_an_order_that_is_none_or_needs_a_metric_is_refused(runs: Lake) -> None:
    with pytest.raises(Invalid, match="no order 'best'"):
        runs.runs(order="best")
    with pytest.raises(Invalid, match="no metric is named"):
        runs.runs(above=0.5)


def test_values_are_bound_and_no_sql(runs: Lake) -> None:
    assert ids(runs, model="' or true --") == []
    assert ids(runs, params={'x" or true': "'"}) == []
    assert ids(runs, metric="auc' or true --", above=0.0) == []


def test_a_lake_without_runs_has_none(folder_lake: Lake) -> None:
    assert folder_lake.runs().num_rows == 0
    assert folder_lake.runs(metric="auc", order="highest").num_rows == 0


def test_journals_join_when_a_part_of_each_is_not_folded(runs: Lake) -> None:
    """DuckDB pushes a Bloom filter of the join into the union of both parts, and the scan of Arrow rows knows none."""
    found = runs.sql(
        "select count(*) as n from lakeloop.metrics m join lakeloop.runs r using (run) "
        "where r.status = 'finished' and r.model = 'a' and m.metric = 'auc' and m.subject = 'model' and m.slice = ''"
    )
    assert found.column("n").to_pylist() == [16]
