"""Micro-batches: one call of the model for the requests of one turn, each with its own error."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.batching import ALONE, LOOK, TRIED_ROWS, Batches, Gain, measure
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.tensors import InferRequest, Tensor
from lakeloop.ray_jobs.serving.write_ahead import Logged, Shape

SLOW = Gain(one_s=0.5e-3, many_s=0.6e-3)
POISON = 13.0


class Counted:
    """Predicts its only input, and keeps how many rows each call had. It fails on a row of 13."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(self, model: Any, matrix: Matrix) -> np.ndarray:
        self.calls.append(len(matrix))
        if POISON in matrix.values:
            raise ZeroDivisionError("13")
        return matrix.values[:, 0].astype(float)


class Held(Counted):
    """The same, but its first call lasts until it may go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def predict(self, model: Any, matrix: Matrix) -> np.ndarray:
        predicted = super().predict(model, matrix)
        assert self.go.wait(30)
        return predicted


def scorer_of(learner: Counted, version: int = 1) -> Scorer:
    inputs = (Input("x", "request", "float64", "number", range=(0, 100), nullable=False),)
    return Scorer(Signature("regression", inputs, example={"x": 1.0}), learner, None, None, {}, version)


async def together(batches: Batches, scorer: Scorer, now: datetime, *requests: list[dict[str, Any]]) -> list[Any]:
    asked = (batches.answer(scorer, rows, now) for rows in requests)
    return await asyncio.gather(*asked, return_exceptions=True)


def predictions(answers: Any) -> list[float]:
    return [one.prediction for one in answers]


def test_requests_of_one_turn_share_a_call_and_get_their_own_answers_in_order(now: datetime) -> None:
    learner = Counted()
    got = asyncio.run(together(Batches(), scorer_of(learner), now, [{"x": 1}], [{"x": 2}, {"x": 3}], [{"x": 4}]))
    assert [predictions(one) for one in got] == [[1], [2, 3], [4]]
    assert learner.calls == [4]


def test_a_lone_request_is_a_batch_of_one(now: datetime) -> None:
    learner = Counted()

    async def one_by_one() -> None:
        batches, scorer = Batches(), scorer_of(learner)
        for _ in range(3):
            await batches.answer(scorer, [{"x": 1}], now)

    asyncio.run(one_by_one())
    assert learner.calls == [1, 1, 1]


def test_a_row_that_breaks_the_contract_fails_its_own_request_alone(now: datetime) -> None:
    learner = Counted()
    good, bad, other = asyncio.run(together(Batches(), scorer_of(learner), now, [{"x": 1}], [{"x": 101}], [{"x": 3}]))
    assert predictions(good) + predictions(other) == [1, 3]
    assert isinstance(bad, Invalid)
    assert "row 0: x: 101 is out of range" in str(bad)
    assert learner.calls == [2]


def test_a_row_on_which_the_model_fails_fails_its_own_request_alone(now: datetime) -> None:
    requests = [[{"x": 1}], [{"x": POISON}], [{"x": 3}]]
    good, bad, other = asyncio.run(together(Batches(), scorer_of(Counted()), now, *requests))
    assert predictions(good) + predictions(other) == [1, 3]
    assert isinstance(bad, ZeroDivisionError)


def test_a_call_has_no_more_rows_than_allowed_and_no_request_is_torn(now: datetime) -> None:
    learner = Counted()
    requests = [[{"x": 1}] * count for count in (3, 2, 4, 9, 1)]
    got = asyncio.run(together(Batches(most_rows=5), scorer_of(learner), now, *requests))
    assert [len(one) for one in got] == [3, 2, 4, 9, 1]
    assert learner.calls == [5, 4, 9, 1]


def test_a_caller_who_left_is_not_answered_and_the_others_are(now: datetime) -> None:
    learner = Counted()

    async def leave() -> list[float]:
        batches, scorer = Batches(), scorer_of(learner)
        gone, stays = (asyncio.ensure_future(batches.answer(scorer, [{"x": x}], now)) for x in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        return predictions(await stays)

    assert asyncio.run(leave()) == [2]


def test_a_slow_model_works_in_a_thread_and_what_arrives_meanwhile_is_the_next_batch(now: datetime) -> None:
    learner = Held()

    async def run() -> list[list[float]]:
        batches, scorer = Batches(), scorer_of(learner)
        batches.know(scorer, Gain(one_s=1.0, many_s=2.0))
        first = asyncio.ensure_future(batches.answer(scorer, [{"x": 1}], now))
        while not learner.calls:
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(batches.answer(scorer, [{"x": x}], now)) for x in (2, POISON, 4)]
        gone = asyncio.ensure_future(batches.answer(scorer, [{"x": 5}], now))
        await asyncio.sleep(0.01)
        gone.cancel()
        learner.go.set()
        answers = [await first, *await asyncio.gather(*others, return_exceptions=True)]
        return [one if isinstance(one, Exception) else predictions(one) for one in answers]

    first, second, poisoned, fourth = asyncio.run(run())
    assert (first, second, fourth) == ([1], [2], [4])
    assert isinstance(poisoned, ZeroDivisionError)
    assert learner.calls == [1, 3, 1, 1, 1]


def test_versions_have_batches_of_their_own(now: datetime) -> None:
    first, second = Counted(), Counted()
    batches = Batches()

    async def both() -> None:
        scorers = scorer_of(first, 1), scorer_of(second, 2)
        await asyncio.gather(*(batches.answer(scorers[place % 2], [{"x": 1}], now) for place in range(6)))

    asyncio.run(both())
    assert (first.calls, second.calls) == ([3], [3])


@pytest.mark.parametrize(
    ("one_us", "many_us", "batched"),
    [(545, 640, True), (18, 40, False), (3000, 60_000, False), (90, 100, False), (10_000, 20_000, True)],
)
def test_a_model_takes_part_where_it_gains(one_us: float, many_us: float, batched: bool) -> None:
    assert Gain(one_us * 1e-6, many_us * 1e-6).batched is batched


def test_the_gain_is_measured_once_for_a_version_on_its_example(now: datetime) -> None:
    learner, batches = Counted(), Batches()
    loaded = Loaded("late", 1, (Arm("champion", 1, 10_000, scorer_of(learner)),))
    assert batches.learn(loaded, now) is loaded
    batches.learn(loaded, now)
    assert learner.calls == [1] * 5 + [TRIED_ROWS] * 5
    gain = batches.gain(loaded.champion.scorer)
    assert gain is not None
    assert gain.describe().keys() == {"batched", "one_row_us", "32_rows_us"}


def test_the_gain_is_that_of_the_best_of_five_calls(now: datetime) -> None:
    ticks: Iterator[float] = iter(
        [0, 9, 10, 12, 20, 29, 30, 39, 40, 49, 50, 59, 60, 63, 70, 79, 80, 89, 90, 99, *range(10)]
    )
    gain = measure(scorer_of(Counted()), now, clock=lambda: next(ticks) / 1000)
    assert gain is not None
    assert (gain.one_s, gain.many_s, gain.prepare_s) == pytest.approx((0.002, 0.003, 0.001))


def test_a_slow_model_is_measured_by_three_calls_only(now: datetime) -> None:
    ticks: Iterator[float] = iter([0, 1, 2, 5, 6, 8])
    assert measure(scorer_of(Counted()), now, clock=lambda: next(ticks)) == Gain(1, 3, 2)


def test_a_model_whose_rows_take_long_to_prepare_takes_no_part(now: datetime) -> None:
    def derive(row: Any) -> dict[str, Any]:
        time.sleep(0.006)
        return {"half": 1}

    inputs = (Input("x", "request", "float64", "number"), Input("half", "derived", "int8", "integer"))
    signature = Signature("regression", inputs, derive=True, example={"x": 1.0})
    slow = measure(Scorer(signature, Counted(), None, derive, {}, 1), now)
    assert slow is not None
    assert slow.prepare_s >= 0.006
    assert SLOW.batched
    assert not replace(SLOW, prepare_s=slow.prepare_s).batched


class Caller:
    """An endpoint of one or two arms behind `Inference`, and its log."""

    def __init__(self, now: datetime, gain: Gain, *learners: Counted) -> None:
        arms = tuple(
            Arm(f"arm{place}", place + 1, 10_000 // len(learners), scorer_of(learner, place + 1))
            for place, learner in enumerate(learners)
        )
        batches = Batches()
        for arm in arms:
            batches.know(arm.scorer, gain)
        self.logged: list[Logged] = []
        self.inference = Inference(
            "flights",
            "late",
            loaded=lambda: Loaded("late", 1, arms),
            append=self.append,
            state=dict,
            clock=lambda: now,
            batches=batches,
        )

    def append(self, shape: Shape, request: Any) -> None:
        self.logged.append(request)

    def ask(self, count: int) -> list[Any]:
        async def all_at_once() -> list[Any]:
            asked = [self.inference.rows([{"x": place % 13}], f"r{place}", None, 0.0) for place in range(count)]
            return await asyncio.gather(*asked)

        return asyncio.run(all_at_once())


def test_an_endpoint_batches_what_comes_together_and_logs_each_request(now: datetime) -> None:
    learner = Counted()
    caller = Caller(now, SLOW, learner)
    answers = caller.ask(10)
    assert learner.calls == [10]
    assert [one["rows"][0]["prediction"] for one in answers] == list(range(10))
    assert sorted(one.request_id for one in caller.logged) == sorted(one["id"] for one in answers)


def test_an_endpoint_of_a_fast_model_calls_it_for_each_request(now: datetime) -> None:
    learner = Counted()
    Caller(now, Gain(20e-6, 40e-6), learner).ask(10)
    assert learner.calls == [1] * 10


def test_who_asks_alone_soon_takes_no_turn_for_it(now: datetime) -> None:
    scorer, batches = scorer_of(Counted()), Batches()
    batches.know(scorer, SLOW)

    async def ask(requests: int) -> list[bool]:
        """Whether each looked for others."""
        looked = []
        for _ in range(requests):
            looked.append(batches.gains(scorer))
            if looked[-1]:
                await batches.answer(scorer, [{"x": 1}], now)
        return looked

    async def run() -> None:
        assert all(await ask(ALONE))
        assert sum(await ask(10 * LOOK)) in (9, 10, 11)

    asyncio.run(run())


def test_requests_that_come_together_after_a_lonely_time_are_batched_again(now: datetime) -> None:
    learner = Counted()
    caller = Caller(now, SLOW, learner)
    for _ in range(3 * ALONE):
        caller.ask(1)
    assert learner.calls == [1] * 3 * ALONE
    caller.ask(40)
    caller.ask(40)
    assert learner.calls[-1] == 40


def test_tensors_that_come_together_after_a_lonely_time_are_batched_again(now: datetime) -> None:
    learner = Counted()
    inference = Caller(now, SLOW, learner).inference
    request = InferRequest((Tensor("x", "FP64", (1,), np.array([4.0])),))

    async def run() -> None:
        for _ in range(3 * ALONE):
            await inference.infer(request)
        for _ in range(3):
            await asyncio.gather(*(inference.infer(request) for _ in range(20)))

    asyncio.run(run())
    assert learner.calls[: 3 * ALONE] == [1] * 3 * ALONE
    assert learner.calls[-1] == 20


def test_arms_are_chosen_as_without_batches_and_batched_apart(now: datetime) -> None:
    first, second = Counted(), Counted()
    batched = Caller(now, SLOW, first, second).ask(12)
    alone = Caller(now, Gain(20e-6, 40e-6), Counted(), Counted()).ask(12)
    assert [one["version"] for one in batched] == [one["version"] for one in alone]
    assert (len(first.calls), len(second.calls), sum(first.calls + second.calls)) == (1, 1, 12)


def test_tensors_and_rows_share_a_batch(now: datetime) -> None:
    learner = Counted()
    inference = Caller(now, SLOW, learner).inference
    request = InferRequest((Tensor("x", "FP64", (2,), np.array([4.0, 5.0])),), "t1")

    async def both() -> Any:
        return await asyncio.gather(inference.rows([{"x": 1}], "r1", None, 0.0), inference.infer(request))

    rows, tensors = asyncio.run(both())
    assert learner.calls == [3]
    assert rows["rows"][0]["prediction"] == 1
    assert tensors.outputs[0].data.tolist() == [4, 5]


def test_state_says_which_arms_batch(now: datetime) -> None:
    (arm,) = Caller(now, SLOW, Counted()).inference.describe()["arms"]
    assert arm["batching"] == {"batched": True, "one_row_us": 500, "32_rows_us": 600}
