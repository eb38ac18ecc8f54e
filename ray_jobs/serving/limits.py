"""What an endpoint bounds, so that more load than it can carry means clean refusals and not slow answers for everyone.

A request is refused at once (Overloaded) when so many are in flight that its own answer would come too late: the wait
is predicted from how long the last ones took, shared by how many there were. When nothing is in flight one is always
let through, so a wrong prediction mends itself. An answer that has not come after `timeout_s` is TooLate.

What is quick is scored where it arrives; what is not, in a thread, so that refusals and health checks need not wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from lakeloop.lakehouse.errors import Invalid, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

MOST_ROWS = 10_000
MOST_TENSORS = 10_000
MOST_IN_FLIGHT = 256
LONGEST_WAIT = 0.5
"""Part of the timeout that a request may be predicted to take: at 1 it would be refused when it is too late anyway."""
WEIGHT = 0.2
"""Of the newest request in a running mean."""
QUICK_S = 0.005
"""Work of less than this is done in the event loop: a thread costs 0.1 ms, and may cost a switch of 5 ms."""

SCORING = ThreadPoolExecutor(thread_name_prefix="scoring")
"""Apart from the event loop's own threads, so that metrics and states are told while a slow model has all of these."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process bounds for one endpoint."""

    timeout_s: float = 10.0
    most_in_flight: int = MOST_IN_FLIGHT


class TooLarge(Invalid):
    """The request is larger than an endpoint takes."""


class Overloaded(Unavailable):
    """More requests than can be answered in time. Nothing was done; try again after `retry_after_s`."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("too many requests at once", todo=f"try again after {retry_after_s} s")
        self.retry_after_s = retry_after_s


class TooLate(Unavailable):
    """The answer did not come within the endpoint's timeout. The prediction may be logged all the same."""


async def in_scoring_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`asyncio.to_thread` for what a model computes."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(SCORING, lambda: context.run(work, *args, **kwargs))


def check_count(rows: int) -> None:
    """TooLarge for more rows than one request may have."""
    if rows > MOST_ROWS:
        raise TooLarge(
            f"{rows:,} rows in one request", todo=f"send at most {MOST_ROWS:,}; lakeloop predict scores more"
        )


def check_tensors(tensors: int) -> None:
    """TooLarge for more tensors than one request may have."""
    if tensors > MOST_TENSORS:
        raise TooLarge(f"{tensors:,} tensors in one request", todo=f"send at most {MOST_TENSORS:,}")


class Admission:
    """Lets requests in, and counts. Its methods are for one event loop only."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._patience_s = limits, limits.timeout_s * LONGEST_WAIT
        self.in_flight = self.refused = self.late = 0
        self.share_s = 0.0
        """Running mean of a request's time, divided by how many were in flight when it came."""
        self.work_s = 0.0
        """Running mean of the time that the work of a small request takes by itself."""
        self.lag_s = 0.0
        """By how much the event loop was late when it was last looked at: what stands before a request unseen."""

    def expect(self, seconds: float) -> None:
        """What one request takes, from a measurement before the first: so the first burst is bounded, too."""
        self.work_s = seconds
        self.share_s = seconds / (os.cpu_count() or 1)

    async def run(self, small: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`, done here when it is small and has been quick so far, else in a thread.

        Overloaded, or TooLate: then the thread's result is dropped when it comes.
        """
        among, began = self._let_in()
        try:
            if small and self.work_s < QUICK_S:
                return work(*args, **kwargs)
            return await self._in_time(in_scoring_thread(work, *args, **kwargs))
        finally:
            seconds = self._let_out(among, began)
            if small and among == 1:
                self.work_s += (seconds - self.work_s) * WEIGHT

    async def share(self, quick: bool, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of what is done for several requests at once: in the event loop if `quick`, else elsewhere.

        Overloaded or TooLate as `run`.
        """
        among, began = self._let_in()
        try:
            return await (work(*args, **kwargs) if quick else self._in_time(work(*args, **kwargs)))
        finally:
            self._let_out(among, began)

    def _let_in(self) -> tuple[int, float]:
        if (retry_after_s := self.retry_after_s()) is not None:
            self.refused += 1
            raise Overloaded(retry_after_s)
        self.in_flight += 1
        return self.in_flight, time.perf_counter()

    def _let_out(self, among: int, began: float) -> float:
        seconds = time.perf_counter() - began
        self.in_flight -= 1
        self.share_s += (seconds / among - self.share_s) * WEIGHT
        return seconds

    def retry_after_s(self) -> int | None:
        """None when one more may come in, else when to try again."""
        wait_s = self.share_s * (self.in_flight + 1)
        if self.in_flight >= self._limits.most_in_flight or (wait_s > self._patience_s and self.in_flight):
            return max(1, math.ceil(wait_s))
        return max(1, math.ceil(self.lag_s)) if self.lag_s > self._patience_s else None

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._limits.timeout_s) as bound:
                return await answer
        except TimeoutError as error:
            if not bound.expired():
                raise
            self.late += 1
            raise TooLate(
                f"no answer within {self._limits.timeout_s:g} s, the endpoint's timeout", todo="send fewer rows at once"
            ) from error
