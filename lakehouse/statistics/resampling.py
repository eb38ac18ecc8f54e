"""Intervals by resampling rows: of one model's metric, and of the gain of one model over another on the same rows.

The percentile bootstrap (Efron & Tibshirani 1993, ch. 13): rows are drawn with replacement, which is the same as
giving each row a multinomial count; the metric is computed from those counts on rows that were sorted once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.statistics.metrics import Array, Statistic, metric_of, prepared


@dataclass(frozen=True, slots=True)
class Interval:
    """A value on all rows, and the two bounds between which `confidence` of the resamples' values lie."""

    value: float
    low: float
    high: float
    rows: int


def bootstrap(
    problem: str,
    metric: str,
    y: npt.ArrayLike,
    prediction: npt.ArrayLike,
    *,
    resamples: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
    weight: npt.ArrayLike | None = None,
    threshold: float = 0.5,
    groups: npt.ArrayLike | None = None,
) -> Interval:
    """A metric with its interval; the arguments are those of `evaluate`.

    Args:
        groups: of each row, such as its day or customer. Whole groups are drawn then, since rows of one group that
            err together make an interval from single rows too narrow (cluster bootstrap, Cameron, Gelbach & Miller
            2008). Give 30 groups or more.

    Returns:
        Bounds of NaN when fewer than half of the resamples have a value (as when a class has hardly any rows).
    """
    statistic, weights = prepared(problem, metric, y, prediction, weight, threshold)
    return _interval(statistic, weights, resamples, confidence, seed, groups)


def paired_bootstrap(
    problem: str,
    metric: str,
    y: npt.ArrayLike,
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    *,
    resamples: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
    weight: npt.ArrayLike | None = None,
    threshold: float = 0.5,
    their_threshold: float | None = None,
    groups: npt.ArrayLike | None = None,
) -> Interval:
    """The gain of `ours` over `theirs` on the same rows, positive where ours is better whichever way the metric points.

    Each resample scores both models on the same draw, so what is hard for both cancels out, and a small steady gain
    is seen.
    """
    sign = 1.0 if metric_of(problem, metric).greater_is_better else -1.0
    our_cut, their_cut = threshold, threshold if their_threshold is None else their_threshold
    mine, weights = prepared(problem, metric, y, ours, weight, our_cut)
    other, _ = prepared(problem, metric, y, theirs, weight, their_cut)
    return _interval(lambda w: sign * (mine(w) - other(w)), weights, resamples, confidence, seed, groups)


def _interval(
    statistic: Statistic,
    weights: Array,
    resamples: int,
    confidence: float,
    seed: int,
    groups: npt.ArrayLike | None,
) -> Interval:
    if not 0 < confidence < 1:
        raise Invalid(f"a confidence of {confidence} is not between 0 and 1")
    value, rows = statistic(weights), len(weights)
    if not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"), rows)
    drawn = np.array([statistic(weights * counts) for counts in _draws(rows, resamples, seed, groups)])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) * 2 <= resamples:
        return Interval(value, float("nan"), float("nan"), rows)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), rows)


def _draws(rows: int, resamples: int, seed: int, groups: npt.ArrayLike | None) -> Iterator[Array]:
    """How often each row is drawn, for each resample."""
    random = np.random.default_rng(seed)
    member = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if member is not None and len(member) != rows:
        raise Invalid(f"{len(member)} groups were given for {rows} rows")
    units = rows if member is None else int(member.max()) + 1
    for _ in range(resamples):
        counts = np.bincount(random.integers(0, units, units), minlength=units)
        yield counts if member is None else counts[member]
