"""A version in the shadow: it scores the log, once each row, and its rules decide whether it comes out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from lakeloop.functions.start_rollout import start_shadow
from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.errors import Invalid, Refused
from lakeloop.lakehouse.rollouts.gathering import gather
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.tests.functional.rollouts.conftest import MINUTE, World

SHADOW = '[serving]\nrollout = { shadow = "1h", canary = [50, 100], hold = "10m", back_if = [%s] }\n'
HOUR = 60 * MINUTE


def begin(world: World, rules: str = "") -> None:
    world.apply(SHADOW % rules)
    world.start_replicas()
    world.promote(2)
    world.step()
    world.poll()
    assert world.weights == [(1, 10_000)]
    assert world.rollout.step.stage == "shadow"


def shadowed(world: World) -> list[dict[str, object]]:
    sql = "select * from lakeloop.shadow_predictions order by prediction_id"
    return world.lake.sql(sql).to_pylist()


def test_the_log_is_scored_once_each_row_however_often_and_callers_are_answered_by_the_champion(world: World) -> None:
    begin(world)
    world.behaviour[2] = lambda x: x / 2
    world.send(30)
    world.send(20, value=0.25)
    assert world.score() == (50, 0)
    assert world.score("another") == (0, 0)
    rows = shadowed(world)
    assert len({row["prediction_id"] for row in rows}) == len(rows) == 50
    assert {(row["prediction"], row["champion_prediction"]) for row in rows} == {(0.25, 0.5), (0.125, 0.25)}
    assert {
        row["version"] for row in world.lake.sql("select version from predictions", project="shop").to_pylist()
    } == {1}


def test_two_that_score_at_once_write_each_row_once(world: World) -> None:
    begin(world)
    world.send(10)
    raced: list[tuple[int, int]] = []

    def load(*given: Any) -> Scorer:
        """Another scores the same rows after this one has chosen them."""
        raced.append(world.score("another"))
        return world.load(*given)

    assert world.score(load=load) == (10, 0)
    assert raced == [(10, 0)]
    assert len(shadowed(world)) == 10


def test_a_call_that_is_stopped_between_two_segments_is_made_good_by_the_next(world: World) -> None:
    begin(world)
    for _ in range(3):
        world.send(5)
    calls = iter(range(10))

    def stopped(clicks: np.ndarray) -> np.ndarray:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return clicks

    world.behaviour[2] = stopped
    with pytest.raises(KeyboardInterrupt):
        world.score()
    assert 0 < len(shadowed(world)) < 15
    world.score()
    rows = shadowed(world)
    assert len({row["prediction_id"] for row in rows}) == len(rows) == 15


def test_the_work_of_one_call_is_bounded_and_the_newest_come_first(world: World) -> None:
    begin(world)
    for number in range(4):
        world.send(10, value=number / 4)
    assert world.score(most_rows=4)[0] < 20
    assert {row["champion_prediction"] for row in shadowed(world)} == {0.75}


def test_after_its_time_the_version_comes_out_of_the_shadow(world: World) -> None:
    begin(world, '"errors > 1%"')
    world.send(40)
    world.wait(HOUR)
    world.score()
    assert world.step() == []  # 40 are too few to tell
    world.send(40)
    world.score()
    assert len(world.step()) == 1
    assert world.weights == [(1, 10_000), (2, 0)]
    world.poll()
    world.step()
    assert world.weights == [(1, 5000), (2, 5000)]


def test_a_version_that_fails_in_the_shadow_never_answers_anyone(world: World) -> None:
    begin(world, '"errors > 1%"')

    def sometimes(clicks: np.ndarray) -> np.ndarray:
        if (clicks > 0.5).any():
            raise RuntimeError("0.7 is too many")
        return clicks

    world.behaviour[2] = sometimes
    world.send(50, value=0.25)
    world.send(10, value=0.7)
    assert world.score() == (60, 10)
    assert {row["error"] for row in shadowed(world)} == {None, "RuntimeError"}
    (back,) = world.step()
    assert back.why == "version 2 goes back: errors > 1%: 10 of 60 requests failed (16.67%)"
    assert registry.version(world.lake, "shop", "buys", 2).body["status"] == "barred"


def test_drift_and_quality_are_told_from_the_same_rows(world: World) -> None:
    begin(world, '"quality < champion"')
    world.behaviour.update({1: lambda x: x + 0.3, 2: lambda x: x})
    for number in range(30):
        world.send(10, value=number / 60)
    world.label(lambda number: number % 10 > 0)
    world.score()
    seen = gather(world.lake, "shop", "buys", world.rollout, world.clock.now, everything=True)
    assert seen.drift[2].psi > 1
    assert seen.drift[2].rows == seen.drift[2].champion_rows == 300
    assert seen.quality[2].rows == (300, 300)
    assert seen.quality[2].low > 0
    (back,) = world.step()
    assert "quality < champion" in back.why


def test_a_shadow_without_end_answers_nobody_until_a_person_ends_it(world: World) -> None:
    world.start_replicas()
    start_shadow(world.lake, world.project, "buys", 2, (), "let us see")
    world.wait(timedelta(days=30))
    assert world.step() == []
    world.send(5)
    assert world.score() == (5, 0)
    endpoints.abort(world.lake, "shop", "buys", "seen")
    assert world.score() == (0, 0)
    assert (world.body["wanted"], world.body["barred"], world.weights) == (1, [], [(1, 10_000)])


PRIVATE = {"sources/visits.toml": ('clicks = "int32"', 'clicks = { type = "int32", private = "hash" }')}


def test_where_the_log_withholds_what_callers_sent_there_is_no_shadow(world: World) -> None:
    world.apply(SHADOW % "", PRIVATE)
    world.start_replicas()
    world.promote(2)
    (begun,) = world.step()
    assert begun.why == "version 2 begins without a shadow, since the log withholds clicks: load"
    endpoints.abort(world.lake, "shop", "buys", "not so")
    with pytest.raises(Refused, match="withholds clicks"):
        start_shadow(world.lake, world.project, "buys", 3, (), "")


def test_a_shadow_of_an_endpoint_that_nobody_has_asked_yet_has_nothing_to_score(world: World) -> None:
    start_shadow(world.lake, world.project, "buys", 2, ("drift > 0.2", "quality < champion"), "is it better?")
    assert world.score() == (0, 0)
    assert world.step() == []


def test_a_version_whose_code_does_not_load_in_the_shadow_is_named(world: World) -> None:
    world.start_replicas()
    start_shadow(world.lake, world.project, "buys", 2, (), "is it better?")
    world.poll()
    world.send(10)

    def load(*_: object) -> Scorer:
        raise ModuleNotFoundError("No module named 'churn_features'")

    with pytest.raises(Invalid, match="version 2 of buys cannot be loaded"):
        world.score(load=load)
