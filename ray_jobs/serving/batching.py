"""Micro-batches: requests that are there at the same turn of the event loop share one call of their model.

Nothing waits for company. A request takes the next turn, and with it go all that arrived while the loop was busy, for
the most part with the model: so a batch grows with the load, and a lone request is a batch of one. Each request keeps
its own arm, its own `as_of` and its own error. A model takes part if it gains by it, which is measured once when its
version is loaded: a fast one is called as if this module were not there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from lakeloop.lakehouse.scoring.scorer import Answer, Prepared, Scorer
    from lakeloop.ray_jobs.serving.arms import Loaded

MOST_ROWS = 64
"""Rows of one call: it runs in the event loop, so it should not last."""
TRIED_ROWS = 32
LEAST_GAIN = 8.0
"""A model takes part if so many rows at once cost less than this many calls with one row …"""
LEAST_SAVED_S = 100e-6
"""… and each request saves at least this much: what a batch itself costs, with a margin."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What calls of a model cost, in seconds: with one row, and with TRIED_ROWS."""

    one_s: float
    many_s: float

    @property
    def batched(self) -> bool:
        saved_s = self.one_s - self.many_s / TRIED_ROWS
        return self.many_s < LEAST_GAIN * self.one_s and saved_s >= LEAST_SAVED_S

    def describe(self) -> Mapping[str, Any]:
        one_us, many_us = round(self.one_s * 1e6), round(self.many_s * 1e6)
        return {"batched": self.batched, "one_row_us": one_us, f"{TRIED_ROWS}_rows_us": many_us}


def measure(scorer: Scorer, now: datetime, *, clock: Callable[[], float] = time.perf_counter) -> Gain | None:
    """The gain of a scorer on its signature's example; None without one. Costs ten calls."""
    example = scorer.signature.example
    if not example:
        return None
    prepared = scorer.prepare([example], now)

    def best(requests: Sequence[Prepared]) -> float:
        taken = []
        for _ in range(5):
            began = clock()
            scorer.finish(requests)
            taken.append(clock() - began)
        return min(taken)

    return Gain(best([prepared]), best([prepared] * TRIED_ROWS))


class Batches:
    """The batches of one event loop, by scorer; and what is known of each scorer's gain."""

    def __init__(self, *, most_rows: int = MOST_ROWS) -> None:
        self._most_rows = most_rows
        self._gains: WeakKeyDictionary[Scorer, Gain | None] = WeakKeyDictionary()
        self._waiting: dict[Scorer, list[_Waiting]] = {}

    def learn(self, loaded: Loaded, now: datetime) -> Loaded:
        """Measure the scorers that are new here, and give back what was loaded. For the thread that loads."""
        for arm in loaded.arms:
            if arm.scorer not in self._gains:
                self._gains[arm.scorer] = measure(arm.scorer, now)
        return loaded

    def gain(self, scorer: Scorer) -> Gain | None:
        return self._gains.get(scorer)

    def gains(self, scorer: Scorer) -> bool:
        """Whether a request to this scorer should come by `answer`."""
        gain = self._gains.get(scorer)
        return gain is not None and gain.batched

    async def answer(self, scorer: Scorer, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[Answer]:
        """`scorer.answer`, in one call of the model with the others of this turn."""
        request = _Waiting(scorer.prepare(rows, now), asyncio.get_running_loop().create_future())
        waiting = self._waiting.setdefault(scorer, [])
        waiting.append(request)
        if len(waiting) == 1:
            request.answers.get_loop().call_soon(self._run, scorer)
        return await request.answers

    def _run(self, scorer: Scorer) -> None:
        waiting = self._waiting.pop(scorer)
        batch, rest = split(waiting, self._most_rows)
        if rest:
            self._waiting[scorer] = rest
            batch[0].answers.get_loop().call_soon(self._run, scorer)
        finish(scorer, [one for one in batch if not one.answers.done()])


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


def finish(scorer: Scorer, batch: Sequence[_Waiting]) -> None:
    """Give every request its answers. Where the model fails on a batch, each has its own call, and its own error."""
    if not batch:
        return
    try:
        answers = scorer.finish([one.prepared for one in batch])
    except Exception as error:  # noqa: BLE001 a model fails in any way, and it goes on to whom it concerns
        if len(batch) == 1:
            batch[0].answers.set_exception(error)
            return
        for one in batch:
            finish(scorer, [one])
        return
    for one, own in zip(batch, answers, strict=True):
        one.answers.set_result(own)
