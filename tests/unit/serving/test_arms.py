"""Arms: which version answers a row, for whom, and who answers when its model fails."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeloop.lakehouse.errors import Corrupt, Invalid, Refused, Unavailable
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.ray_jobs.serving.arms import Arm, Loaded, wanted_arms
from lakeloop.ray_jobs.serving.limits import TooLate
from lakeloop.ray_jobs.serving.tallies import LEAST, PAUSE_S, PROBES, Breaker

keys = st.text(min_size=0, max_size=30)
shares = st.lists(st.integers(0, 3000), min_size=0, max_size=3)


def split(weights: Sequence[int], sticky: str = "") -> Loaded:
    """The champion and an arm for each of the weights; the scorers are never asked."""
    arms = [Arm(f"arm{n}", n + 2, weight, None) for n, weight in enumerate(weights)]  # type: ignore[arg-type]
    champion = Arm("champion", 1, 10_000 - sum(weights), None)  # type: ignore[arg-type]
    return Loaded("late", 1, (champion, *arms), sticky=sticky)


def oracle(endpoint: str, key: str, weights: Sequence[int]) -> str:
    """DESIGN's words, spelled differently: a hash into [0, 10000); the last arm has the top, then the one before it."""
    digest = hashlib.blake2b(endpoint.encode() + b"\x00" + key.encode(), digest_size=8).hexdigest()
    place = int(digest, 16) % 10_000
    line = ["champion"] * (10_000 - sum(weights))
    for number, weight in enumerate(weights):
        line += [f"arm{number}"] * weight
    return line[place]


@given(keys, shares)
def test_an_arm_is_where_the_hash_falls_on_the_line_of_weights(key: str, weights: list[int]) -> None:
    assert split(weights).arm_for("late", key).name == oracle("late", key, weights)


@given(st.lists(keys, min_size=1, max_size=50), st.lists(st.integers(0, 10_000), min_size=2, max_size=6))
def test_a_ramp_only_adds(names: list[str], ramp: list[int]) -> None:
    before: set[str] = set()
    for weight in sorted(ramp):
        chosen = {key for key in names if split([weight]).arm_for("late", key).version == 2}
        assert before <= chosen
        before = chosen


@settings(max_examples=30)
@given(st.lists(keys, min_size=1, max_size=30), shares)
def test_every_replica_and_every_restart_gives_a_key_the_same_arm(names: list[str], weights: list[int]) -> None:
    replicas = [split(weights), split(weights)]
    chosen = [[one.arm_for("late", key).version for key in names] for one in replicas]
    parts = split(weights).split("late", len(names), names.__getitem__)
    assert chosen[0] == chosen[1]
    assert {place: arm.version for arm, places in parts for place in places} == dict(enumerate(chosen[0]))


def test_the_split_is_right_within_the_binomial_error_over_100_000_requests() -> None:
    """Five standard deviations: once in two million."""
    weights, requests = [100, 1000, 2500], 100_000
    loaded = split(weights)
    counts = Counter(loaded.arm_for("late", f"request-{number}").name for number in range(requests))
    for number, weight in enumerate(weights):
        expected, share = requests * weight / 10_000, weight / 10_000
        assert abs(counts[f"arm{number}"] - expected) <= 5 * (expected * (1 - share)) ** 0.5
    assert sum(counts.values()) == requests


def test_two_endpoints_split_their_keys_differently() -> None:
    half = split([5000])
    names = [str(number) for number in range(400)]
    assert [half.arm_for("a", key).name for key in names] != [half.arm_for("b", key).name for key in names]


def test_a_key_is_the_sticky_input_else_the_rows_id_else_the_requests() -> None:
    sticky, plain = split([100], sticky="user"), split([100])
    assert sticky.key_of({"user": 7, "id": "row"}, "request") == "7"
    assert sticky.key_of({"user": 7.0}, "request") == "7"
    assert sticky.key_of({"user": None, "id": "row"}, "request") == "row"
    assert plain.key_of({"user": 7, "id": 12}, "request") == "12"
    assert plain.key_of({"user": 7}, "request") == "request"


def test_an_endpoint_without_a_champion_is_refused() -> None:
    with pytest.raises(Refused, match="no version answers"):
        wanted_arms({"arms": []}, "late")
    with pytest.raises(Refused, match="no version answers"):
        wanted_arms({"arms": [{"name": "champion", "version": 1, "weight": 0}]}, "late")


def test_a_document_whose_arms_make_no_sense_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="names no arms"):
        wanted_arms({"arm": []}, "late")
    arms = [{"name": "champion", "version": 1, "weight": 9000}, {"name": "b", "version": 2, "weight": 500}]
    with pytest.raises(Corrupt, match="9000, 500"):
        wanted_arms({"arms": arms}, "late")


class Models:
    """What versions do when they are asked."""

    def __init__(self, scorer: Callable[..., Scorer]) -> None:
        self.loaded = Loaded(
            "late", 1, (Arm("champion", 1, 5000, scorer(1)), Arm("canary", 2, 5000, scorer(2))), phase=1
        )
        self.champion, self.canary = self.loaded.arms
        self.error: Exception | None = None
        self.champion_error: Exception | None = None

    async def score(self, arm: Arm) -> int:
        error = self.champion_error if arm.version == 1 else self.error
        if error is not None:
            raise error
        return arm.version

    def ask(self) -> int:
        return asyncio.run(self.loaded.answer(self.canary, self.score))[1]

    def counted(self, arm: Arm) -> tuple[int, int]:
        counted = arm.tally.counted()
        return counted.requests, counted.errors


@pytest.fixture
def models(scorer: Callable[..., Scorer]) -> Models:
    return Models(scorer)


def test_an_arm_that_answers_is_counted_with_its_latency(models: Models) -> None:
    assert [models.ask() for _ in range(3)] == [2, 2, 2]
    assert models.counted(models.canary) == (3, 0)
    assert sum(models.canary.tally.counted().latency) == 3


@pytest.mark.parametrize("error", [RuntimeError("boom"), Invalid("no such category")])
def test_what_an_arm_cannot_answer_the_champion_answers_and_it_counts_against_the_arm(
    models: Models, error: Exception
) -> None:
    models.error = error
    assert models.ask() == 1
    assert models.counted(models.canary) == (1, 1)
    assert models.counted(models.champion) == (0, 0)


def test_a_wrong_request_is_the_callers_and_counts_against_nobody(models: Models) -> None:
    models.error, models.champion_error = Invalid("clicks is missing"), Invalid("clicks is missing")
    with pytest.raises(Invalid, match="clicks is missing"):
        models.ask()
    assert models.counted(models.canary) == models.counted(models.champion) == (0, 0)


def test_the_champions_failure_is_raised_and_counted(models: Models) -> None:
    models.champion_error = RuntimeError("boom")
    with pytest.raises(RuntimeError, match="boom"):
        asyncio.run(models.loaded.answer(models.champion, models.score))
    assert models.counted(models.champion) == (1, 1)


@pytest.mark.parametrize(("error", "errors"), [(TooLate("2 s are over"), 1), (Unavailable("the disk is full"), 0)])
def test_what_came_too_late_counts_against_the_arm_and_what_is_the_replicas_own_trouble_does_not(
    models: Models, error: Exception, errors: int
) -> None:
    models.error = error
    with pytest.raises(Unavailable):
        models.ask()
    assert models.counted(models.canary) == (errors, errors)


def test_an_arm_that_fails_often_gives_its_share_to_the_champion(models: Models) -> None:
    models.error = RuntimeError("boom")
    key = next(str(n) for n in range(100) if models.loaded.arm_for("late", str(n)) is models.canary)
    for _ in range(LEAST):
        models.ask()
    assert models.canary.breaker.state == "open"
    assert models.loaded.arm_for("late", key) is models.champion


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened() -> tuple[Breaker, Clock]:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(LEAST):
        breaker.note(good=False)
    assert breaker.state == "open"
    assert not breaker.lets_through()
    return breaker, clock


def test_a_breaker_stays_closed_while_less_than_half_fails() -> None:
    breaker = Breaker(Clock())
    for number in range(500):
        breaker.note(good=number % 5 < 3)
    assert breaker.state == "closed"


def test_after_a_pause_one_request_at_a_time_goes_through_and_enough_good_ones_close_it() -> None:
    breaker, clock = opened()
    clock.now = PAUSE_S
    for number in range(PROBES):
        assert breaker.state == "half-open"
        assert breaker.lets_through()
        assert not breaker.lets_through()
        breaker.note(good=True)
        assert (breaker.state == "closed") == (number == PROBES - 1)
    assert breaker.lets_through()


def test_a_probe_that_fails_opens_it_for_another_pause() -> None:
    breaker, clock = opened()
    clock.now = PAUSE_S
    assert breaker.lets_through()
    breaker.note(good=False)
    assert breaker.state == "open"
    clock.now += PAUSE_S
    assert breaker.lets_through()


def test_a_probe_that_says_nothing_lets_the_next_one_through() -> None:
    breaker, clock = opened()
    clock.now = PAUSE_S
    assert breaker.lets_through()
    breaker.release()
    assert breaker.lets_through()
    assert not breaker.lets_through()
    clock.now += PAUSE_S  # nobody said how it went
    assert breaker.lets_through()
