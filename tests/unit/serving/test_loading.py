"""Loading a revision: what did not change goes on, with its counts; what is new is tried before it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project.definitions import Rollout as Plan
from lakeloop.lakehouse.rollouts.state import Challenger, Note, Rollout, Step, arms_of, record_of
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.ray_jobs.serving.arms import Loaded
from lakeloop.ray_jobs.serving.loading import WARM_CALLS, load_with

AT = datetime(2026, 5, 1, tzinfo=UTC)


class Store:
    """Loads versions, and tells which, and with which snapshots."""

    def __init__(self, scorer: Callable[..., Scorer], name: str) -> None:
        self.lake, self._scorer = open_lake(f"memory://{name}"), scorer
        self.loads: list[tuple[int, Mapping[str, Any]]] = []

    def load_scorer(self, lake: Lake, project: str, model: str, version: int, snapshots: Mapping[str, Any]) -> Scorer:
        self.loads.append((version, snapshots))
        return self._scorer(version)

    def load(self, number: int, body: Mapping[str, Any], previous: Loaded | None = None) -> Loaded:
        revision = Revision("endpoints", "p.late", number, AT, "ann", "", body)
        return load_with(self.load_scorer, self.lake, "p", "late", revision, previous)


@pytest.fixture
def store(request: pytest.FixtureRequest, scorer: Callable[..., Scorer]) -> Store:
    return Store(scorer, request.node.name)


def body(weight: int, phase: int, **more: Any) -> dict[str, Any]:
    """Version 2 beside version 1, at a step that began with revision `phase`."""
    canary = Challenger("canary", 2, weight)
    step = Step("share", weight, phase, AT)
    rollout = Rollout("canary", 1, (canary,), Plan(canary=(1, 100)), Note("ann", "", AT), (step,))
    return {"model": "late", "arms": arms_of(1, [canary]), "rollout": record_of(rollout), "snapshots": {}, **more}


def test_counts_go_on_within_a_step_and_begin_anew_with_the_next(store: Store) -> None:
    first = store.load(7, body(100, 7))
    first.arms[1].tally.failed()
    same = store.load(8, body(100, 7), first)
    assert same.arms[1].tally is first.arms[1].tally
    after = store.load(9, body(1000, 9), same)
    assert after.arms[1].tally.counted().requests == 0
    assert after.phase == 9
    assert [version for version, _ in store.loads] == [1, 2]


def test_a_breaker_goes_on_with_its_version(store: Store) -> None:
    first = store.load(7, body(100, 7))
    after = store.load(9, body(1000, 9), first)
    assert after.arms[1].breaker is first.arms[1].breaker


def test_an_arm_has_its_own_snapshots_where_the_document_says_so(store: Store) -> None:
    old, new = {"weather": {"version": "v1"}}, {"weather": {"version": "v2"}}
    split = body(100, 7, snapshots=old)
    split["arms"][1]["snapshots"] = new
    first = store.load(7, split)
    assert store.loads == [(1, old), (2, new)]
    newer = body(100, 7, snapshots={"weather": {"version": "v1b"}})
    newer["arms"][1]["snapshots"] = new
    second = store.load(8, newer, first)
    assert [version for version, _ in store.loads] == [1, 2, 1]
    assert second.arms[1].scorer is first.arms[1].scorer


def test_the_sticky_key_is_the_documents(store: Store) -> None:
    assert store.load(7, body(100, 7, sticky="origin")).sticky == "origin"


def test_a_new_model_is_warm_before_it_answers(store: Store) -> None:
    answered: list[int] = []
    whole = store.load_scorer

    def counting(*given: Any) -> Scorer:
        scorer = whole(*given)
        answer = scorer.answer

        def counted(rows: Any, *rest: Any) -> Any:
            answered.append(scorer.version)
            return answer(rows, *rest)

        scorer.answer = counted  # type: ignore[method-assign]
        return scorer

    store.load_scorer = counting  # type: ignore[method-assign]
    store.load(7, body(100, 7))
    assert 1 < answered.count(2) <= WARM_CALLS
