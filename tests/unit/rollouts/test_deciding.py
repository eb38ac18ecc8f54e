"""What is to be done with a rollout follows from its plan, the evidence and the time, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeloop.lakehouse.project.definitions import Rollout as Plan
from lakeloop.lakehouse.rollouts.deciding import Back, Complete, Move, Wait, decide, findings
from lakeloop.lakehouse.rollouts.evidence import Counts, Drift, Evidence, Replica, judge
from lakeloop.lakehouse.rollouts.latency import BINS, EDGES_MS, RATIO, added, bin_of, quantile_ms
from lakeloop.lakehouse.rollouts.state import Challenger, Note, Rollout, Stage, Step, record_of, rollout_of
from lakeloop.lakehouse.statistics.sequential import Difference

START = datetime(2026, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
LOADED = Evidence((Replica("a", 7, 7), Replica("b", 7, 7)))


def rollout(stage: Stage = "share", weight: int = 100, *, rules: tuple[str, ...] = (), **more: object) -> Rollout:
    plan = Plan(timedelta(hours=2), (1, 10, 100), HOUR, rules)
    note = Note("ann", "better", START)
    made = Rollout("canary", 1, (Challenger("canary", 2),), plan, note, (Step(stage, weight, 7, START),))
    return replace(made, **more)  # type: ignore[arg-type]


def latencies(ms: float, count: int) -> tuple[int, ...]:
    counts = [0] * BINS
    counts[bin_of(ms)] = count
    return tuple(counts)


@pytest.mark.parametrize(
    ("there", "then"),
    [(("share", 100), Move("share", 1000, "")), (("load", 0), Move("share", 100, "")), (("share", 1000), Complete(""))],
)
def test_each_step_has_its_successor_once_its_time_is_over(there: tuple[Stage, int], then: Move | Complete) -> None:
    decision = decide(rollout(*there), LOADED, START + HOUR)
    assert isinstance(decision, Move | Complete)
    assert replace(decision, why="") == then


def test_a_shadow_lasts_its_own_time_and_then_loads() -> None:
    assert decide(rollout("shadow", 0), Evidence(), START + HOUR) == Wait("shadow is not over", START + 2 * HOUR)
    assert decide(rollout("shadow", 0), Evidence(), START + 2 * HOUR) == Move("load", 0, "the shadow's time is over")


def test_a_step_waits_for_its_time_and_says_when() -> None:
    assert decide(rollout(), LOADED, START) == Wait("hold is not over", START + HOUR)


def test_no_rise_while_a_breaker_keeps_the_version_from_answering() -> None:
    failing = replace(LOADED, taken_out=frozenset({2}))
    decision = decide(rollout("share", 1000), failing, START + HOUR)
    assert decision == Wait("version 2 fails: the breaker of a replica keeps it from answering")
    assert decide(rollout("share", 1000), replace(LOADED, taken_out=frozenset({1})), START + HOUR) == Complete(
        "its time is over"
    )


def test_no_replica_or_one_that_lags_holds_every_rise() -> None:
    lagging = Evidence((Replica("a", 7, 7), Replica("b", 7, 6, "version 2 does not match its hash")))
    late = START + HOUR
    assert decide(rollout(), Evidence(), late) == Wait("no live replica has reported")
    waits = decide(rollout(), lagging, late)
    assert waits == Wait("1 of 2 replicas have not loaded it: version 2 does not match its hash")


def test_a_plan_without_100_waits_for_a_person_at_its_last_step() -> None:
    part = rollout(plan=Plan(None, (10,), HOUR))
    assert decide(rollout(weight=1000, plan=part.plan), LOADED, START + HOUR) == Wait(
        "10 % is its last step: a person promotes it"
    )


def test_an_ab_runs_until_a_person_ends_it_but_goes_back_by_its_rules() -> None:
    arms = (Challenger("b", 2, 2000), Challenger("c", 3, 1000))
    ab = rollout("load", 0, rules=("errors > 1%",), kind="ab", challengers=arms)
    assert decide(ab, LOADED, START) == Move("share", 3000, "all replicas have loaded it")
    on = ab.at_step(Step("share", 3000, 8, START))
    assert [(one.name, one.weight) for one in on.weights()] == [("b", 2000), ("c", 1000)]
    good, bad = Counts(1000, 0), Counts(1000, 50)
    assert decide(on, replace(LOADED, counts={2: good, 3: good}), START + 999 * HOUR) == Wait(
        "runs until a person ends it"
    )
    assert decide(on, replace(LOADED, counts={2: good, 3: bad}), START) == Back(
        3, "errors > 1%: 50 of 1000 requests failed (5.00%)"
    )


def test_a_pause_stops_even_a_return() -> None:
    paused = rollout(rules=("errors > 1%",), paused=Note("ann", "I look", START))
    assert decide(paused, replace(LOADED, counts={2: Counts(100, 100)}), START + HOUR) == Wait("paused by ann: I look")


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        (Counts(49, 0), "early"),
        (Counts(50, 0), "good"),
        (Counts(50, 1), "early"),  # 2 %, but one by chance
        (Counts(100, 1), "good"),
        (Counts(2, 2), "early"),
        (Counts(3, 3), "breached"),
        (Counts(1000, 23), "early"),
        (Counts(1000, 26), "breached"),
        (Counts(100_000, 1150), "breached"),
    ],
)
def test_errors_take_back_when_they_are_surely_too_many_and_hold_when_they_may_be(counts: Counts, verdict: str) -> None:
    assert judge("errors > 1%", 2, 1, Evidence(counts={2: counts})).verdict == verdict


@pytest.mark.parametrize(("rate", "least", "most"), [(0.01, 0, 0.02), (0.05, 0.98, 1)])
def test_looking_after_every_50_requests_takes_back_what_is_bad_and_not_what_is_at_its_bound(
    rate: float, least: float, most: float
) -> None:
    rng, rounds, requests = np.random.default_rng(3), 100, 10_000
    taken_back = 0
    for _ in range(rounds):
        errors = np.cumsum(rng.random(requests) < rate)
        looks = (Counts(n, int(errors[n - 1])) for n in range(50, requests + 1, 50))
        taken_back += any(
            judge("errors > 1%", 2, 1, Evidence(counts={2: counts})).verdict == "breached" for counts in looks
        )
    assert least <= taken_back / rounds <= most


@pytest.mark.parametrize(
    ("rule", "ours", "verdict"),
    [
        ("latency_p99 > 2x", latencies(10, 49), "early"),
        ("latency_p99 > 2x", latencies(10, 50), "good"),
        ("latency_p99 > 2x", latencies(30, 50), "breached"),
        ("latency_p99 > 2x", latencies(30, 3), "breached"),
        ("latency_p99 > 2x", added([latencies(10, 63), latencies(30, 1)]), "early"),  # the slowest of 64 is its p99
        ("latency_p99 > 2x", added([latencies(10, 999), latencies(30, 1)]), "good"),
        ("latency_p50 > 15ms", latencies(10, 50), "good"),
        ("latency_p50 > 5ms", latencies(10, 50), "breached"),
        ("latency_p50 > 0.02s", latencies(10, 50), "good"),
        ("latency_p99 > 1s", latencies(1e9, 50), "breached"),
    ],
)
def test_latency_is_judged_against_the_champion_or_a_bound(rule: str, ours: tuple[int, ...], verdict: str) -> None:
    counts = {1: Counts(100, 0, latencies(10, 100)), 2: Counts(sum(ours), 0, ours)}
    assert judge(rule, 2, 1, Evidence(counts=counts)).verdict == verdict


@pytest.mark.parametrize(
    ("drift", "verdict"),
    [
        (None, "early"),
        (Drift(9.0, 0.0, 199, 5000), "early"),
        (Drift(0.5, 1e-9, 200, 200), "breached"),
        (Drift(0.5, 0.01, 200, 200), "early"),
        (Drift(0.1, 1e-9, 9000, 9000), "good"),
    ],
)
def test_drift_needs_rows_size_and_significance(drift: Drift | None, verdict: str) -> None:
    evidence = Evidence(drift={2: drift} if drift else {})
    assert judge("drift > 0.2", 2, 1, evidence).verdict == verdict


@pytest.mark.parametrize(
    ("rule", "low", "verdict"),
    [
        ("quality < champion", -0.001, "good"),
        ("quality < champion", 0.001, "breached"),
        ("quality < champion - 0.01", 0.001, "good"),
        ("quality < champion - 0.01", 0.011, "breached"),
    ],
)
def test_quality_is_judged_by_the_near_end_of_the_interval(rule: str, low: float, verdict: str) -> None:
    evidence = Evidence(quality={2: Difference(low + 0.02, low, low + 0.04, 0.01, (500, 500))})
    assert judge(rule, 2, 1, evidence).verdict == verdict


def test_labels_come_late_and_no_step_waits_for_them() -> None:
    assert isinstance(decide(rollout(rules=("quality < champion",)), LOADED, START + HOUR), Move)


def test_while_it_loads_nothing_is_judged_and_in_the_shadow_no_latency() -> None:
    rules = ("errors > 1%", "latency_p99 > 2x")
    assert findings(rollout("load", 0, rules=rules), Evidence()) == []
    assert [one.rule for _, one in findings(rollout("shadow", 0, rules=rules), Evidence())] == ["errors > 1%"]


def test_a_rollout_is_read_as_it_was_written() -> None:
    one = rollout("shadow", 0, rules=("errors > 1%",), paused=Note("ann", "", START))
    assert rollout_of({"rollout": record_of(one)}) == one


@given(st.lists(st.floats(0.06, 40_000), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_at_most_a_bin_above_the_true_one(values: list[float], share: float) -> None:
    counts = added([latencies(value, 1) for value in values])
    rank = max(1, -(-share * len(values) // 1))
    true = sorted(values)[min(len(values), int(rank)) - 1]
    assert true <= quantile_ms(counts, share) * (1 + 1e-9)
    assert quantile_ms(counts, share) <= true * RATIO * (1 + 1e-9)


def test_what_takes_longer_than_all_bins_is_infinite() -> None:
    assert quantile_ms(latencies(EDGES_MS[-1] * 2, 3), 0.5) == float("inf")
