"""A sequential test: the difference of two means, looked at as often as one likes.

A test of fixed size that is looked at after every row rejects a true hypothesis sooner or later. Here the mixture
sequential probability ratio test stands instead (Robbins 1970; Johari, Koomen, Pekelis & Walsh, "Always Valid
Inference", Operations Research 2022): the likelihood ratio of N(0, V) against its mixture over effects N(0, τ²),

    Λ = √(V / (V + τ²)) · exp(τ² d² / (2 V (V + τ²))),

is a martingale while nothing differs, so it reaches 1/α at any time with probability α at most. `d` is the difference
seen and V its variance. The variance is estimated, so the promise is asymptotic (Waudby-Smith et al., Annals of
Statistics 2024); samples of less than `LEAST` rows do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EFFECT = 0.1
"""τ in standard deviations of one row: effects of about this size are found soonest; it changes power, never level."""
LEAST = 50


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one side, by their count, mean and variance (n − 1)."""

    rows: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Sample:
        """Of an array; a NaN in it makes all of it NaN, which counts as no sample."""
        array = np.asarray(values, dtype=np.float64)
        rows = len(array)
        return cls(rows, float(array.mean()) if rows else math.nan, float(array.var(ddof=1)) if rows > 1 else math.nan)


@dataclass(frozen=True, slots=True)
class Difference:
    """The second side's mean less the first's. [low, high] covers the truth at all times at once, with 1 − α.

    `pvalue` is valid whenever it is looked at. Without enough rows: value NaN, an infinite interval, pvalue 1.
    """

    value: float
    low: float
    high: float
    pvalue: float
    rows: tuple[int, int]


def difference(strata: Sequence[tuple[Sample, Sample]], *, alpha: float = 0.05, least: int = LEAST) -> Difference:
    """Of two independent samples in strata, such as the steps of a rollout, whose shares differ.

    Each stratum is compared within itself and weighs by its precision, so a change over time that hits both sides is
    not taken for a difference of them.
    """
    used = [(a, b) for a, b in strata if min(a.rows, b.rows) >= least and a.variance + b.variance > 0]
    rows = sum(a.rows for a, _ in strata), sum(b.rows for _, b in strata)
    weights = [1 / (a.variance / a.rows + b.variance / b.rows) for a, b in used]
    if not used:
        return Difference(math.nan, -math.inf, math.inf, 1.0, rows)
    seen = sum(w * (b.mean - a.mean) for w, (a, b) in zip(weights, used, strict=True)) / sum(weights)
    spread = sum(w * (a.variance + b.variance) / 2 for w, (a, b) in zip(weights, used, strict=True)) / sum(weights)
    return _judged(seen, 1 / sum(weights), spread, alpha, rows)


def paired(differences: Sample, *, alpha: float = 0.05, least: int = LEAST) -> Difference:
    """Of differences of the same rows, second less first."""
    rows = differences.rows, differences.rows
    if differences.rows < least or not differences.variance > 0:
        return Difference(math.nan, -math.inf, math.inf, 1.0, rows)
    return _judged(differences.mean, differences.variance / differences.rows, differences.variance, alpha, rows)


def _judged(seen: float, variance: float, spread: float, alpha: float, rows: tuple[int, int]) -> Difference:
    """`spread`: the variance of one row, which sets the scale of τ."""
    mixing = EFFECT**2 * spread
    total = variance + mixing
    log_ratio = 0.5 * math.log(variance / total) + mixing * seen**2 / (2 * variance * total)
    reach = math.sqrt(2 * variance * total / mixing * (math.log(1 / alpha) + 0.5 * math.log(total / variance)))
    return Difference(seen, seen - reach, seen + reach, min(1.0, math.exp(-max(log_ratio, 0.0))), rows)
