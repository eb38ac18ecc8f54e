"""What a replica counts of each arm, and the breaker that takes an arm out when its model fails."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from lakeloop.lakehouse.rollouts.latency import BINS, bin_of

Circuit: TypeAlias = Literal["closed", "open", "half-open"]

LAST = 50
"""Requests that the breaker looks back on."""
LEAST = 10
LIMIT = 0.5
"""Share of failures among them, from `LEAST` on, at which it opens."""
PAUSE_S = 30.0
PROBES = 5
"""Requests that must succeed, one at a time, before a half-open one closes."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A tally at one moment. `latency`: by the bins of `rollouts.latency`, of answered requests."""

    requests: int
    errors: int
    latency: tuple[int, ...]


class Tally:
    """Requests of one version in one phase of its endpoint. Threads may share it."""

    __slots__ = ("_errors", "_latency", "_lock")

    def __init__(self) -> None:
        self._lock, self._errors, self._latency = threading.Lock(), 0, [0] * BINS

    def answered(self, ms: float) -> None:
        with self._lock:
            self._latency[bin_of(ms)] += 1

    def failed(self) -> None:
        with self._lock:
            self._errors += 1

    def counted(self) -> Counted:
        with self._lock:
            latency, errors = tuple(self._latency), self._errors
        return Counted(sum(latency) + errors, errors, latency)


class Breaker:
    """Opens when half of the last requests failed; then, after a pause, lets single requests through to see.

    Threads may share it.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic, self._lock = monotonic, threading.Lock()
        self._last: deque[bool] = deque(maxlen=LAST)
        self._until: float | None = None
        self._probing_until = 0.0
        self._good = 0

    @property
    def state(self) -> Circuit:
        until = self._until
        if until is None:
            return "closed"
        return "open" if self._monotonic() < until else "half-open"

    def lets_through(self) -> bool:
        """Whether the arm may answer this request. A true answer while half-open is the one probe under way."""
        if self.state == "closed":
            return True
        with self._lock:
            now = self._monotonic()
            until = max(self._until or 0.0, self._probing_until)
            if now >= until:
                self._probing_until = now + PAUSE_S  # in case nobody says how it went
            return now >= until

    def note(self, *, good: bool) -> None:
        """How a request went."""
        with self._lock:
            self._last.append(good)
            if self._until is not None:
                self._probe(good)
            elif not good and len(self._last) >= LEAST and self._last.count(False) >= LIMIT * len(self._last):
                self._open()

    def release(self) -> None:
        """A request that says nothing about the arm, such as a wrong one."""
        with self._lock:
            self._probing_until = 0.0

    def _probe(self, good: bool) -> None:
        self._probing_until = 0.0
        if not good:
            self._open()
            return
        self._good += 1
        if self._good >= PROBES:
            self._until = None
            self._last.clear()

    def _open(self) -> None:
        self._until, self._good = self._monotonic() + PAUSE_S, 0
