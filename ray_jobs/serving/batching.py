"""Micro-batches: requests that are there at the same turn of the event loop share one call of their model.

Nothing waits for company. A request takes the next turn, and with it go all that arrived while the model was busy: so a
batch grows with the load, and a lone request is a batch of one. Each request keeps its own arm, its own `as_of` and its
own error. A call that is quick is made in the event loop, any other in a thread, one at a time for each version.

A model takes part if it gains by it, which is measured once when its version is loaded: a fast one is called as if this
module were not there. So is one that gains, while nobody else asks it: then only now and then a request looks for
others, because the turn that it takes costs 30 µs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from lakeloop.ray_jobs.serving.limits import QUICK_S, in_scoring_thread

if TYPE_CHECKING:
    from lakeloop.lakehouse.scoring.scorer import Answer, Prepared, Scorer
    from lakeloop.ray_jobs.serving.arms import Loaded

MOST_ROWS = 64
"""Rows of one call: the first of them waits for the last."""
TRIED_ROWS = 32
LONG_S = 0.05
"""Measuring ends early when calls have taken so long."""
LEAST_GAIN = 8.0
"""A model takes part if so many rows at once cost less than this many calls with one row …"""
LEAST_SAVED_S = 100e-6
"""… and each request saves at least this much: what a batch itself costs, with a margin."""


ALONE = 32
"""Requests in a row without company after which only every LOOK-th looks for it."""
LOOK = 16

Outcome: TypeAlias = "list[Answer] | Exception"


@dataclass(frozen=True, slots=True)
class Gain:
    """What calls of a model cost, in seconds: with one row, and with TRIED_ROWS; and what comes before them, for a row:
    to look up and to derive."""

    one_s: float
    many_s: float
    prepare_s: float = 0.0

    @property
    def batched(self) -> bool:
        saved_s = self.one_s - self.many_s / TRIED_ROWS
        gains = self.many_s < LEAST_GAIN * self.one_s and saved_s >= LEAST_SAVED_S
        return gains and self.prepare_s < QUICK_S  # rows are prepared in the event loop

    @property
    def quick(self) -> bool:
        """Whether a batch may hold up the event loop."""
        return self.many_s < QUICK_S

    def describe(self) -> Mapping[str, Any]:
        one_us, many_us = round(self.one_s * 1e6), round(self.many_s * 1e6)
        return {"batched": self.batched, "one_row_us": one_us, f"{TRIED_ROWS}_rows_us": many_us}


def measure(scorer: Scorer, now: datetime, *, clock: Callable[[], float] = time.perf_counter) -> Gain | None:
    """The gain of a scorer on its signature's example; None without one.

    Costs fifteen calls, or three of a slow model, whose replica would come late otherwise.
    """
    example = scorer.signature.example
    if not example:
        return None
    prepared = scorer.prepare([example], now)

    def best(call: Callable[[], object]) -> float:
        taken = []
        for _ in range(5):
            began = clock()
            call()
            taken.append(clock() - began)
            if sum(taken) > LONG_S:
                break
        return min(taken)

    return Gain(
        best(lambda: scorer.finish([prepared])),
        best(lambda: scorer.finish([prepared] * TRIED_ROWS)),
        best(lambda: scorer.prepare([example], now)),
    )


class Batches:
    """The batches of one event loop, by scorer; and what is known of each scorer's gain."""

    def __init__(self, *, most_rows: int = MOST_ROWS) -> None:
        self._most_rows = most_rows
        self._known: WeakKeyDictionary[Scorer, _Known] = WeakKeyDictionary()
        self._waiting: dict[Scorer, list[_Waiting]] = {}
        self._away: dict[Scorer, asyncio.Task[None]] = {}

    def learn(self, loaded: Loaded, now: datetime) -> Loaded:
        """Measure the scorers that are new here, and give back what was loaded. For the thread that loads."""
        for arm in loaded.arms:
            if arm.scorer not in self._known:
                self.know(arm.scorer, measure(arm.scorer, now))
        return loaded

    def know(self, scorer: Scorer, gain: Gain | None) -> None:
        """What a scorer gains, when it is known already."""
        self._known[scorer] = _Known(gain)

    def gain(self, scorer: Scorer) -> Gain | None:
        known = self._known.get(scorer)
        return known.gain if known is not None else None

    def gains(self, scorer: Scorer) -> bool:
        """Whether the next request to this scorer should come by `answer`; to be asked once for each."""
        known = self._known.get(scorer)
        if known is None or known.gain is None or not known.gain.batched:
            return False
        if known.alone < ALONE or not known.gain.quick or scorer in self._waiting:
            return True
        known.alone += 1
        return known.alone % LOOK == 0

    def is_quick(self, scorer: Scorer) -> bool:
        """Whether a batch of it is made in the event loop."""
        gain = self.gain(scorer)
        return gain is None or gain.quick

    async def answer(
        self, scorer: Scorer, rows: Sequence[Mapping[str, Any]], now: datetime, marks: list[float] | None = None
    ) -> list[Answer]:
        """`scorer.answer`, in one call of the model with the others of this turn."""
        loop = asyncio.get_running_loop()
        request = _Waiting(scorer.prepare(rows, now, marks), loop.create_future())
        waiting = self._waiting.setdefault(scorer, [])
        waiting.append(request)
        if len(waiting) == 1 and scorer not in self._away:
            loop.call_soon(self._run, loop, scorer)
        return await request.answers

    def _run(self, loop: asyncio.AbstractEventLoop, scorer: Scorer) -> None:
        batch = self._next(scorer)
        if (known := self._known.get(scorer)) is not None:
            known.alone = known.alone + 1 if len(batch) == 1 else 0
        if not self.is_quick(scorer):
            self._away[scorer] = loop.create_task(self._run_away(loop, scorer, batch))
            return
        settle(batch, outcomes(scorer, [one.prepared for one in batch]))
        if scorer in self._waiting:
            loop.call_soon(self._run, loop, scorer)

    async def _run_away(self, loop: asyncio.AbstractEventLoop, scorer: Scorer, batch: Sequence[_Waiting]) -> None:
        try:
            settle(batch, await in_scoring_thread(outcomes, scorer, [one.prepared for one in batch]))
        finally:
            del self._away[scorer]
            if scorer in self._waiting:
                loop.call_soon(self._run, loop, scorer)

    def _next(self, scorer: Scorer) -> list[_Waiting]:
        """The requests of the next call; those whose callers left are let go."""
        waiting = [one for one in self._waiting.pop(scorer) if not one.answers.done()]
        batch, rest = split(waiting, self._most_rows)
        if rest:
            self._waiting[scorer] = rest
        return batch


@dataclass(slots=True)
class _Known:
    """A scorer's gain, and how many requests to it came alone since two came together."""

    gain: Gain | None
    alone: int = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    prepared: Prepared
    answers: asyncio.Future[list[Answer]]


def split(waiting: list[_Waiting], most_rows: int) -> tuple[list[_Waiting], list[_Waiting]]:
    """The first requests whose rows together are no more than these (one request at least), and the others."""
    rows = 0
    for place, one in enumerate(waiting):
        rows += len(one.prepared)
        if rows > most_rows and place:
            return waiting[:place], waiting[place:]
    return waiting, []


def outcomes(scorer: Scorer, requests: Sequence[Prepared]) -> list[Outcome]:
    """For each request its answers, or its error: where the model fails on a batch, each has a call of its own."""
    if not requests:
        return []
    try:
        return list(scorer.finish(requests))
    except Exception as error:  # noqa: BLE001 a model fails in any way, and it goes on to whom it concerns
        if len(requests) == 1:
            return [error]
    return [outcome for one in requests for outcome in outcomes(scorer, [one])]


def settle(batch: Sequence[_Waiting], ended: Sequence[Outcome]) -> None:
    for one, outcome in zip(batch, ended, strict=True):
        if one.answers.done():  # its caller left meanwhile
            continue
        if isinstance(outcome, Exception):
            one.answers.set_exception(outcome)
        else:
            one.answers.set_result(outcome)
