"""Times two ways of doing the same, turn by turn, so that a noisy machine disturbs both alike."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(ours: Callable[[], object], reference: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
    """Median seconds of each, after one round that does not count."""
    ours(), reference()
    pairs = [(seconds(ours), seconds(reference)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def report(what: str, ours: str, reference: str, ratio: float, aim: str) -> None:
    """One figure: a JSON line."""
    sys.stdout.write(
        json.dumps({"what": what, "ours": ours, "reference": reference, "ratio": ratio, "aim": aim}) + "\n"
    )
