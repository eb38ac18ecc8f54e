"""Admission: what is let in, where it is done, and what is refused."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.ray_jobs.serving.asgi import failed
from lakeloop.ray_jobs.serving.limits import Admission, Limits, Overloaded, TooLate


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def where(wait_s: float = 0.0) -> str:
    time.sleep(wait_s)
    return threading.current_thread().name


@in_loop
async def test_what_is_small_and_quick_is_done_in_the_event_loops_thread() -> None:
    admission = Admission(Limits())
    assert await admission.run(True, where) == threading.current_thread().name


@in_loop
async def test_what_is_large_is_done_in_another_thread() -> None:
    assert await Admission(Limits()).run(False, where) != threading.current_thread().name


@in_loop
async def test_a_slow_model_that_has_all_threads_leaves_the_event_loops_own_to_others() -> None:
    admission, gate = Admission(Limits()), threading.Event()
    running = [asyncio.create_task(admission.run(False, gate.wait, 60)) for _ in range(64)]
    await asyncio.sleep(0)
    assert (await asyncio.to_thread(where)).startswith("asyncio")
    assert not any(one.done() for one in running)
    gate.set()
    await asyncio.gather(*running)


@in_loop
async def test_what_was_slow_moves_to_a_thread_and_back_when_it_is_quick_again() -> None:
    admission, here = Admission(Limits()), threading.current_thread().name
    assert await admission.run(True, where, 0.05) == here
    assert await admission.run(True, where, 0.05) != here
    for _ in range(40):
        last = await admission.run(True, where)
    assert last == here


@in_loop
async def test_one_more_than_may_be_in_flight_is_refused_at_once() -> None:
    admission, gate = Admission(Limits(most_in_flight=2)), threading.Event()
    running = [asyncio.create_task(admission.run(False, gate.wait, 20)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await admission.run(False, where)
    gate.set()
    await asyncio.gather(*running)
    assert refused.value.retry_after_s >= 1
    assert (admission.in_flight, admission.refused) == (0, 1)
    await admission.run(False, where)


@in_loop
async def test_what_was_measured_before_the_first_request_bounds_the_first_burst() -> None:
    admission, gate = Admission(Limits(timeout_s=1.0)), threading.Event()
    admission.expect(0.2 * (os.cpu_count() or 1))
    running = [asyncio.create_task(admission.run(True, gate.wait, 20)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await admission.run(True, where)
    gate.set()
    await asyncio.gather(*running)


@in_loop
async def test_a_request_whose_wait_is_foreseen_to_be_too_long_is_refused_unless_it_is_the_only_one() -> None:
    admission, gate = Admission(Limits(timeout_s=1.0)), threading.Event()
    admission.share_s = 0.4
    running = asyncio.create_task(admission.run(False, gate.wait, 20))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await admission.run(True, where)
    gate.set()
    await running
    for _ in range(30):
        await admission.run(True, where)
    assert admission.share_s < 0.01, "a wrong prediction mends itself"


@in_loop
async def test_a_late_event_loop_refuses_what_comes_until_it_has_caught_up() -> None:
    admission = Admission(Limits(timeout_s=1.0))
    admission.lag_s = 2.5
    with pytest.raises(Overloaded) as refused:
        await admission.run(True, where)
    assert refused.value.retry_after_s == 3
    admission.lag_s = 0.0
    await admission.run(True, where)


@in_loop
async def test_an_answer_that_takes_longer_than_the_timeout_is_too_late() -> None:
    admission, gate = Admission(Limits(timeout_s=0.02)), threading.Event()
    with pytest.raises(TooLate, match=r"within 0\.02 s"):
        await admission.run(False, gate.wait, 20)
    gate.set()
    assert (admission.in_flight, admission.late) == (0, 1)


@in_loop
async def test_a_models_own_timeout_error_is_no_timeout_of_the_endpoint() -> None:
    def fails() -> None:
        raise TimeoutError("the model's")

    with pytest.raises(TimeoutError, match="the model's"):
        await Admission(Limits()).run(False, fails)


def test_refusals_have_their_status_and_say_when_to_try_again() -> None:
    overloaded = failed(Overloaded(7))
    assert (overloaded.status, dict(overloaded.headers)[b"retry-after"]) == (503, b"7")
    assert failed(TooLate("no answer")).status == 504
    assert failed(Unavailable("the disk is full")).status == 503


async def held(until: asyncio.Event) -> str:
    await until.wait()
    return "done"


@in_loop
async def test_shared_work_is_counted_in_flight_and_bounded_in_number() -> None:
    admission, until = Admission(Limits(most_in_flight=2)), asyncio.Event()
    waiting = [asyncio.ensure_future(admission.share(True, held, until)) for _ in range(2)]
    await asyncio.sleep(0)
    assert admission.in_flight == 2
    with pytest.raises(Overloaded):
        await admission.share(True, held, until)
    until.set()
    assert await asyncio.gather(*waiting) == ["done", "done"]
    assert admission.in_flight == 0


@in_loop
async def test_shared_work_elsewhere_is_too_late_after_the_timeout_and_the_next_is_let_in() -> None:
    admission, until = Admission(Limits(timeout_s=0.01)), asyncio.Event()
    with pytest.raises(TooLate):
        await admission.share(False, held, until)
    assert (admission.late, admission.in_flight) == (1, 0)
    until.set()
    assert await admission.share(False, held, until) == "done"
