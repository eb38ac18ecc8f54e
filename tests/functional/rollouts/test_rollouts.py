"""Rollouts from end to end: real documents, replicas, reports, logs and labels; only the clock is the test's."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest

from lakeloop.lakehouse import endpoints, events, registry
from lakeloop.lakehouse.errors import Conflict, Corrupt
from lakeloop.lakehouse.freezing import freeze
from lakeloop.lakehouse.rollouts.gathering import LIVE
from lakeloop.tests.functional.rollouts.conftest import HALF, MINUTE, STEPS, Interrupted, Replica, World

HOLD = 10 * MINUTE
ERRORS = '"errors > 1%"'


def begin(world: World, rules: str = ERRORS, *, share: int = 100) -> None:
    """Version 2 answers 1 % of the requests, or half of them."""
    world.apply((STEPS if share == 100 else HALF) % rules)
    world.start_replicas()
    world.promote(2)
    world.step()
    world.poll()
    world.step()
    world.poll()
    assert world.weights == [(1, 10_000 - share), (2, share)]


def test_without_a_plan_a_version_takes_over_at_once(world: World) -> None:
    world.start_replicas()
    world.promote(2)
    assert [one.version for one in world.step()] == [2]
    assert world.weights == [(2, 10_000)]
    assert world.step() == []


def test_a_version_takes_over_in_steps_and_every_key_keeps_to_its_side(world: World) -> None:
    begin(world, "")
    taken: set[str] = set()
    for weight in (100, 1000, 5000):
        assert world.weights == [(1, 10_000 - weight), (2, weight)]
        arms = [
            {f"u{n}": replica.ask([{"id": f"u{n}", "clicks": 0.5}])["version"] for n in range(400)}
            for replica in world.replicas
        ]
        assert arms[0] == arms[1]
        now = {key for key, version in arms[0].items() if version == 2}
        assert taken <= now
        taken = now
        assert world.step() == []
        world.wait(HOLD)
        assert len(world.step()) == 1
        world.poll()
    assert world.weights == [(2, 10_000)]
    assert world.rollout.ended is not None
    assert (world.rollout.ended.outcome, [one.weight for one in world.rollout.steps]) == ("done", [0, 100, 1000, 5000])
    assert world.step() == []
    why = [one["why"] for one in endpoints.history(world.lake, "shop", "buys")]
    assert why == ["2 is better", "first"]


def test_what_a_version_is_follows_its_rollout(world: World) -> None:
    def standing() -> list[str]:
        there = endpoints.endpoint(world.lake, "shop", "buys")
        versions = registry.versions(world.lake, "shop", "buys")
        return [endpoints.standing(there, one.body["version"], one.body["status"]) for one in versions][::-1]

    world.apply(STEPS % "")
    world.start_replicas()
    assert standing() == ["champion", "registered", "registered"]
    world.promote(2)
    registry.set_status(world.lake, "shop", "buys", 2, "champion", "better")
    assert standing() == ["champion", "promoted", "registered"]
    seen = []
    for _ in range(12):
        world.step()
        seen.append(standing()[1])
        world.wait(11 * MINUTE)
    assert list(dict.fromkeys(seen)) == ["canary, 0%", "canary, 1%", "canary, 10%", "canary, 50%", "champion"]
    endpoints.rollback(world.lake, "shop", "buys", "second thoughts")
    world.step()
    assert standing() == ["champion", "barred", "registered"]
    there = endpoints.endpoint(world.lake, "shop", "buys")
    assert there is not None
    world.lake.documents.update(there, {**there.body, "rollout": {"kind": "of another release"}})
    assert standing() == ["champion", "barred", "registered"]


def test_no_weight_rises_before_every_live_replica_has_loaded_the_version(world: World) -> None:
    world.apply(STEPS % "")
    slow, quick = world.start_replicas()
    world.promote(2)
    world.step()
    assert world.weights == [(1, 10_000), (2, 0)]
    quick.watcher.poll()
    assert world.step() == []
    slow.watcher.poll()
    assert len(world.step()) == 1
    assert world.weights == [(1, 9900), (2, 100)]


def test_a_replica_that_is_gone_is_waited_for_no_longer_than_its_last_word_lives(world: World) -> None:
    world.apply(STEPS % "")
    dead, alive = world.start_replicas()
    world.promote(2)
    world.step()
    world.replicas = [alive]
    world.poll()
    assert world.step() == []
    world.wait(LIVE)
    assert len(world.step()) == 1
    dead.watcher.close()


def test_nothing_rises_where_no_replica_reports(world: World) -> None:
    world.apply(STEPS % "")
    world.promote(2)
    world.step()
    world.wait(HOLD)
    assert world.step() == []
    assert world.weights == [(1, 10_000), (2, 0)]


def test_errors_take_a_version_back_and_no_caller_sees_one(world: World) -> None:
    begin(world)

    def broken(clicks: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such column")

    world.behaviour[2] = broken
    world.send(800)
    (done,) = world.step()
    assert re.fullmatch(r"version 2 goes back: errors > 1%: (\d+) of \1 requests failed \(100\.00%\)", done.why)
    assert world.weights == [(1, 10_000)]
    assert (world.body["wanted"], world.body["barred"]) == (1, [2])
    assert world.rollout.ended is not None
    assert world.rollout.ended.outcome == "back"
    status = [registry.version(world.lake, "shop", "buys", n).body["status"] for n in (1, 2)]
    assert status == ["champion", "barred"]
    assert world.alerts() == [("roll-out", "open")]
    answered = world.lake.sql("select version, count(*) as n from predictions group by 1", project="shop").to_pylist()
    assert answered == [{"version": 1, "n": 800}]
    assert world.step() == []
    assert world.alerts() == [("roll-out", "open")]


def test_without_a_rule_a_version_that_fails_rises_no_further(world: World) -> None:
    def broken(clicks: np.ndarray) -> np.ndarray:
        if (clicks != 1).any():  # its own example it answers
            raise RuntimeError("no such column")
        return clicks

    begin(world, "", share=5000)
    world.behaviour[2] = broken
    world.send(100)
    world.wait(HOLD)
    world.send(100)
    assert world.step() == []
    assert world.weights == [(1, 5000), (2, 5000)]


def test_a_step_waits_until_enough_was_answered(world: World) -> None:
    begin(world, share=5000)
    world.send(60)
    world.wait(HOLD)
    assert world.step() == []
    world.send(140)
    assert len(world.step()) == 1
    assert world.weights == [(2, 10_000)]


def test_latency_takes_a_version_back(world: World) -> None:
    begin(world, '"latency_p90 > 3x"', share=5000)
    world.wait(HOLD)

    def slow(clicks: np.ndarray) -> np.ndarray:
        time.sleep(0.004)
        return clicks

    world.behaviour[2] = slow
    world.send(150)
    (done,) = world.step()
    assert done.why.startswith("version 2 goes back: latency_p90 > 3x: p90 ")
    assert world.weights == [(1, 10_000)]


def test_early_quality_takes_a_version_back(world: World) -> None:
    begin(world, '"quality < champion"', share=5000)
    world.behaviour.update({1: lambda x: x + 0.4, 2: lambda x: x * 0 + 0.5})
    world.send(60)
    world.label(lambda number: number % 10 > 0)
    assert world.step() == []
    world.send(240)
    world.label(lambda number: number % 10 > 0)
    (done,) = world.step()
    assert "goes back: quality < champion: mean loss +0.1" in done.why
    assert world.body["barred"] == [2]


def test_drift_takes_a_version_back(world: World) -> None:
    begin(world, '"drift > 0.2"', share=5000)
    for number in range(20):
        world.send(25, value=number / 20)
    world.wait(HOLD)
    world.behaviour[2] = lambda x: x + 0.3
    for number in range(20):
        world.send(50, value=number / 20)
    (done,) = world.step()
    assert "goes back: drift > 0.2: psi " in done.why


def test_a_step_waits_until_drift_can_be_judged(world: World) -> None:
    begin(world, '"drift > 0.2"')
    world.send(500)
    world.wait(HOLD)
    assert world.step() == []
    assert world.weights == [(1, 9900), (2, 100)]


def test_a_version_that_does_not_load_leaves_the_old_serving_and_raises_an_alert_until_it_loads(world: World) -> None:
    world.apply(STEPS % "")
    good, bad = world.start_replicas()
    bad.refuses.add(2)
    world.promote(2)
    world.step()
    world.poll()
    assert world.step() == []
    assert world.weights == [(1, 10_000), (2, 0)]
    assert world.alerts() == [("replica-load", "open")]
    assert {replica.ask([{"clicks": 0.5}])["version"] for replica in (good, bad)} == {1}
    world.wait(HOLD)
    world.step()
    assert world.alerts() == [("replica-load", "open")]
    bad.refuses.clear()
    world.wait(MINUTE)
    world.step()
    assert world.weights == [(1, 9900), (2, 100)]
    assert world.alerts() == [("replica-load", "resolved")]


def test_a_replica_that_starts_without_the_new_version_serves_the_champion_alone(world: World) -> None:
    begin(world, "", share=5000)
    late = Replica(world, "late", refuses={2})
    assert {late.ask([{"id": f"u{n}", "clicks": 0.5}])["version"] for n in range(50)} == {1}
    assert "does not match its hash" in late.watcher.error
    world.replicas.append(late)
    world.wait(HOLD)
    assert world.step() == []
    assert world.alerts() == [("replica-load", "open")]
    late.refuses.clear()
    world.wait(MINUTE)
    assert {late.ask([{"id": f"u{n}", "clicks": 0.5}])["version"] for n in range(50)} == {1, 2}
    assert len(world.step()) == 1


def test_what_a_rollout_waits_for_wakes_the_sweep(world: World) -> None:
    """That replicas have loaded a step, and that a breaker opens; not every report."""
    begin(world, share=5000)
    assert events.pending(world.lake)
    events.done(world.lake, events.pending(world.lake))
    world.wait(MINUTE)
    assert events.pending(world.lake) == []
    world.behaviour[2] = lambda clicks: clicks["no such key"]  # type: ignore[call-overload,no-any-return]
    world.send(60)
    assert events.pending(world.lake)


def test_an_endpoint_whose_rollout_cannot_be_read_holds_no_other_and_a_rollback_mends_it(world: World) -> None:
    begin(world)
    there = endpoints.endpoint(world.lake, "shop", "buys")
    assert there is not None
    world.lake.documents.update(there, {**there.body, "rollout": {"kind": "later"}}, "another release")
    with pytest.raises(Corrupt, match="cannot be read"):
        world.step()
    endpoints.rollback(world.lake, "shop", "buys", "out of this")
    assert world.weights == [(1, 10_000)]
    assert world.step() == []


def test_a_pause_stops_steps_forward_and_back_and_resume_lets_them_go(world: World) -> None:
    begin(world)

    def broken(clicks: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such column")

    world.behaviour[2] = broken
    world.send(800)
    endpoints.pause(world.lake, "shop", "buys", "I look myself")
    assert world.step() == []
    endpoints.resume(world.lake, "shop", "buys", "seen")
    assert len(world.step()) == 1
    assert world.weights == [(1, 10_000)]


def test_a_freeze_stops_steps(world: World) -> None:
    begin(world, "")
    world.wait(HOLD)
    freeze(world.lake, "shop", "buys", frozen=True, why="holidays")
    assert world.step() == []
    freeze(world.lake, "shop", "buys", frozen=False, why="back")
    assert len(world.step()) == 1


def test_a_rollback_that_meets_a_step_is_never_undone(world: World) -> None:
    """The person's write lands between what the stepper read and what it writes."""
    begin(world, "")
    world.wait(HOLD)
    person = world.open("person")
    stepper = Interrupted(world.open("stepper"), lambda: endpoints.rollback(person, "shop", "buys", "people complain"))
    world.step(stepper.lake)
    assert stepper.interrupted
    assert world.weights == [(1, 10_000)]
    assert (world.body["wanted"], world.body["barred"]) == (1, [2])
    world.wait(HOLD)
    assert world.step() == []
    assert world.rollout.ended is not None
    assert world.rollout.ended.outcome == "rolled back"


def test_a_step_that_meets_a_rollback_makes_the_person_decide_again_on_what_is_there(world: World) -> None:
    begin(world, "")
    world.wait(HOLD)
    person = Interrupted(world.open("person"), lambda: world.step())
    with pytest.raises(Conflict):
        endpoints.rollback(person.lake, "shop", "buys", "people complain")
    assert world.weights == [(1, 9000), (2, 1000)]
    endpoints.rollback(person.lake, "shop", "buys", "people complain")
    assert world.weights == [(1, 10_000)]
    assert world.step() == []


def test_a_rollback_among_many_steppers_wins(world: World) -> None:
    begin(world, "")
    world.wait(HOLD)
    ready = threading.Barrier(4)

    def step(name: str) -> None:
        lake = world.open(name)
        ready.wait()
        for _ in range(3):
            world.step(lake)

    threads = [threading.Thread(target=step, args=(f"stepper-{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    ready.wait()
    while True:
        try:
            endpoints.rollback(world.lake, "shop", "buys", "people complain")
            break
        except Conflict:
            continue
    for thread in threads:
        thread.join()
    world.wait(HOLD)
    world.step()
    assert world.weights == [(1, 10_000)]
    assert world.body["wanted"] == 1


def test_another_promotion_ends_the_rollout_and_begins_its_own(world: World) -> None:
    begin(world, "")
    world.promote(3, expected=2)
    world.step()
    assert world.weights == [(1, 10_000)]
    world.step()
    assert world.weights == [(1, 10_000), (3, 0)]
    assert world.rollout.version == 3


def test_another_promotion_waits_for_the_end_of_a_pause(world: World) -> None:
    begin(world, "")
    endpoints.pause(world.lake, "shop", "buys", "I look myself")
    weights = world.weights
    world.promote(3, expected=2)
    assert world.step() == []
    assert world.weights == weights
    endpoints.abort(world.lake, "shop", "buys", "not this one")
    assert (world.body["wanted"], world.body["barred"], world.weights) == (3, [2], [(1, 10_000)])
    world.step()
    assert world.weights == [(1, 10_000), (3, 0)]


def test_a_person_who_promotes_another_version_ends_a_paused_rollout(world: World) -> None:
    begin(world, "", share=5000)
    endpoints.pause(world.lake, "shop", "buys", "I look myself")
    endpoints.promote(world.lake, "shop", "buys", 1, expected=2, why="better as it was", by_hand=True)
    world.step()
    assert world.weights == [(1, 10_000)]


def test_a_rollback_goes_to_no_version_that_never_came_out_of_its_rollout(world: World) -> None:
    begin(world, "")
    world.promote(3, expected=2)
    world.step()
    world.step()
    assert endpoints.rollback(world.lake, "shop", "buys", "people complain") == (3, 1)
    assert world.weights == [(1, 10_000)]


def test_an_abort_gives_all_back_at_once_and_bars_the_version(world: World) -> None:
    begin(world, "")
    endpoints.abort(world.lake, "shop", "buys", "not now")
    assert world.weights == [(1, 10_000)]
    assert (world.body["wanted"], world.body["barred"]) == (1, [2])
    assert world.step() == []


def test_a_promotion_by_hand_takes_over_now(world: World) -> None:
    begin(world, "")
    assert endpoints.finish(world.lake, "shop", "buys", None, "good enough") == (1, 2)
    world.step()
    assert world.weights == [(2, 10_000)]
    assert world.step() == []
