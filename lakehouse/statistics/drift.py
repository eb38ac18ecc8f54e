"""How far one distribution lies from another, from the counts of the same bins.

Counts, not values: they are what monitoring stores, and those of two windows merge by adding. `expected` is the
reference, `actual` the window looked at. Except in `wasserstein`, a bin's position plays no part but for its order
(`ks`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.statistics.special import chi2_survival

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Test:
    """A statistic, its degrees of freedom, and the probability of such a value or a larger one when nothing differs."""

    statistic: float
    degrees: int
    pvalue: float

    __test__ = False


def psi(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike) -> float:
    """Population stability index: Σ (a − e) ln(a / e) over the shares (Siddiqi 2006); by custom 0.1 is some, 0.2 much.

    A bin that is empty on both sides does not count. One that is empty on one side is given half a row there, so the
    answer is finite and weighs the surprise by the sample: a bin new in 1,000,000 rows says more than one new in 100.
    So give counts, not shares. NaN when a side has no rows.
    """
    expected, actual = _occupied(expected_counts, actual_counts)
    if expected.sum() == 0 or actual.sum() == 0:
        return float("nan")
    e, a = (_shares(np.where(counts == 0, 0.5, counts)) for counts in (expected, actual))
    return float(((a - e) * np.log(a / e)).sum())


def psi_pvalue(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike) -> float:
    """The probability of such a PSI or a larger one from samples of these sizes when nothing has drifted.

    PSI without drift is about (1/N + 1/M) · chi-squared with (occupied bins − 1) degrees (Yurdakul 2018), so a fixed
    cut always fires on small samples and never on large ones. 1 with a single occupied bin, NaN when a side has no
    rows.
    """
    expected, actual = _occupied(expected_counts, actual_counts)
    if expected.sum() == 0 or actual.sum() == 0:
        return float("nan")
    if len(expected) < 2:
        return 1.0
    scale = 1 / expected.sum() + 1 / actual.sum()
    return chi2_survival(psi(expected, actual) / scale, len(expected) - 1)


def js_distance(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike, *, base: float | None = None) -> float:
    """Square root of the Jensen-Shannon divergence (Endres & Schindelin 2003).

    Natural logarithms, or to `base`; with 2 it lies between 0 and 1.
    """
    e, a = _both_shares(expected_counts, actual_counts)
    middle = (e + a) / 2
    divergence = (_relative_entropy(e, middle) + _relative_entropy(a, middle)) / 2
    return float(np.sqrt(np.maximum(divergence, 0.0) / (np.log(base) if base else 1.0)))


def hellinger(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike) -> float:
    """√(½ Σ (√a − √e)²), between 0 and 1 (Hellinger 1909)."""
    e, a = _both_shares(expected_counts, actual_counts)
    return float(np.sqrt(((np.sqrt(a) - np.sqrt(e)) ** 2).sum() / 2))


def ks(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike) -> float:
    """Largest difference of the cumulative shares (Kolmogorov-Smirnov) of ordered bins; exact with a bin per value."""
    e, a = _both_shares(expected_counts, actual_counts)
    return float(np.abs(np.cumsum(a - e)).max())


def wasserstein(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike, positions: npt.ArrayLike) -> float:
    """Earth mover's distance W1: the area between the cumulative shares; a bin's rows lie at its ascending position."""
    expected, actual = _counts(expected_counts, actual_counts)
    where = np.asarray(positions, dtype=np.float64)
    if len(where) != len(expected):
        raise Invalid(f"{len(where)} positions were given for {len(expected)} bins")
    if expected.sum() == 0 or actual.sum() == 0:
        return float("nan")
    return float(np.abs(np.cumsum(_shares(actual) - _shares(expected)))[:-1] @ np.diff(where))


def chi2_fit(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike) -> Test:
    """Pearson's goodness of fit of `actual` to the shares of `expected`, taken as known exactly (Pearson 1900).

    A row in a bin where none is expected makes the statistic infinite; for two samples use `chi2_homogeneity`.
    """
    expected, actual = _occupied(expected_counts, actual_counts)
    if expected.sum() == 0 or actual.sum() == 0:
        return Test(float("nan"), 0, float("nan"))
    wanted = _shares(expected) * actual.sum()
    with np.errstate(divide="ignore"):
        statistic = float(((actual - wanted) ** 2 / wanted).sum())
    return _chi2_test(statistic, len(expected) - 1)


def chi2_homogeneity(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike) -> Test:
    """Whether two samples come from one distribution: the 2 × bins contingency table, no continuity correction."""
    expected, actual = _occupied(expected_counts, actual_counts)
    if expected.sum() == 0 or actual.sum() == 0:
        return Test(float("nan"), 0, float("nan"))
    table = np.stack([expected, actual])
    wanted = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    return _chi2_test(float(((table - wanted) ** 2 / wanted).sum()), len(expected) - 1)


def benjamini_hochberg(pvalues: npt.ArrayLike) -> Floats:
    """Adjusted p-values, in the order given: those <= q are called with at most a share q of false ones among them.

    Benjamini & Hochberg 1995, for independent or positively dependent tests. A NaN stays NaN and does not count as a
    test.
    """
    p = np.asarray(pvalues, dtype=np.float64)
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    raw = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(np.minimum.accumulate(raw[::-1])[::-1], 1.0)
    return adjusted


def _chi2_test(statistic: float, degrees: int) -> Test:
    return Test(statistic, degrees, chi2_survival(statistic, degrees) if degrees else 1.0)


def _counts(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike) -> tuple[Floats, Floats]:
    expected, actual = np.asarray(expected_counts, dtype=np.float64), np.asarray(actual_counts, dtype=np.float64)
    if expected.ndim != 1 or expected.shape != actual.shape:
        raise Invalid(f"counts of {expected.shape} and {actual.shape} are not of the same bins")
    if (expected < 0).any() or (actual < 0).any():
        raise Invalid("a count is negative")
    return expected, actual


def _occupied(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike) -> tuple[Floats, Floats]:
    expected, actual = _counts(expected_counts, actual_counts)
    keep = (expected > 0) | (actual > 0)
    return expected[keep], actual[keep]


def _shares(counts: Floats) -> Floats:
    total = counts.sum()
    return counts / total if total > 0 else np.full(max(len(counts), 1), np.nan)


def _both_shares(expected_counts: npt.ArrayLike, actual_counts: npt.ArrayLike) -> tuple[Floats, Floats]:
    expected, actual = _counts(expected_counts, actual_counts)
    return _shares(expected), _shares(actual)


def _relative_entropy(p: Floats, q: Floats) -> float:
    """Σ p ln(p / q) with 0 ln 0 = 0."""
    if np.isnan(p).any() or np.isnan(q).any():
        return float("nan")
    held = p > 0
    return float((p[held] * np.log(p[held] / q[held])).sum())
