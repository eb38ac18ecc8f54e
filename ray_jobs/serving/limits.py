"""What an endpoint bounds, so that more load than it can carry means clean refusals and not slow answers for everyone.

A request is refused at once, with 503 and Retry-After, when so many are in flight that its own answer would come too
late: the wait is predicted from how long the last ones took, shared by how many there were. When nothing is in flight
one is always let through, so a wrong prediction mends itself. An answer that has not come after `timeout_s` is 504.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST_IN_FLIGHT = 256
LONGEST_WAIT = 0.5
"""Part of the timeout that a request may be predicted to take: at 1 it would be refused when it is too late anyway."""
WEIGHT = 0.2
"""Of the newest request in the running mean."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a replica bounds."""

    timeout_s: float = 10.0
    most_in_flight: int = MOST_IN_FLIGHT


class Admission:
    """Counts what is in flight and predicts what one more would wait. In one thread only."""

    def __init__(self, limits: Limits) -> None:
        self._most, self._patience_s = limits.most_in_flight, limits.timeout_s * LONGEST_WAIT
        self.in_flight = 0
        self.share_s = 0.0
        """Running mean of a request's time, divided by how many were in flight when it came."""
        self.lag_s = 0.0
        """By how much the event loop was late when it was last looked at: what stands before a request unseen."""

    def retry_after_s(self) -> int:
        """0 when one more may come in, else when to try again."""
        wait_s = self.share_s * (self.in_flight + 1)
        if self.in_flight < self._most and (wait_s <= self._patience_s or not self.in_flight):
            if self.lag_s <= self._patience_s:
                return 0
            wait_s = self.lag_s
        return max(1, math.ceil(wait_s))

    def enter(self) -> int:
        """One comes in; returns how many there are with it."""
        self.in_flight += 1
        return self.in_flight

    def leave(self, among: int, seconds: float) -> None:
        """One that was the `among`-th is done after `seconds`."""
        self.in_flight -= 1
        self.share_s += (seconds / among - self.share_s) * WEIGHT
