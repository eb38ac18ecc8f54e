"""Latencies as counts in fixed bins, so that those of many replicas add up: each bin ends 15 % above the one before."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

FIRST_MS: Final = 0.05
RATIO: Final = 1.15
EDGES_MS: Final = tuple(FIRST_MS * RATIO**i for i in range(101))
"""Upper ends, from 0.05 ms to about a minute; one more bin is open."""
BINS: Final = len(EDGES_MS) + 1


def bin_of(ms: float) -> int:
    return bisect_left(EDGES_MS, ms)


def added(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The counts of all of them."""
    total = [0] * BINS
    for counts in histograms:
        for at, count in enumerate(counts):
            total[at] += count
    return total


def quantile_ms(counts: Sequence[int], share: float) -> float:
    """The upper end of the bin in which this share of the requests is reached; NaN of none, infinite in the open one.

    At most 15 % above the true quantile (of what takes more than 0.05 ms).
    """
    wanted = math.ceil(share * sum(counts))
    if not wanted:
        return math.nan
    seen = 0
    for at, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return EDGES_MS[at] if at < len(EDGES_MS) else math.inf
    return math.inf
