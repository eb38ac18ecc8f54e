"""Bins: edges from a reference, counts of a window in them, and the bins of a calibration curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One point of a calibration curve: mean probability, share of positives with its 95% Wilson interval, and rows."""

    predicted: float
    observed: float
    low: float
    high: float
    rows: int


def quantile_edges(values: npt.ArrayLike, bins: int = 10) -> Floats:
    """Ascending inner edges that cut the values into about equal parts; `histogram` with e edges has e + 1 bins.

    The outermost bins are open, so no later value falls outside. With at most `bins` distinct values each has its own
    bin; a value so common that it takes several parts gets one edge; a constant gets three bins (below, equal,
    above). NaN and infinities are left out; with no value at all there are no edges.
    """
    finite = _finite(values)
    if len(finite) == 0:
        return np.empty(0)
    distinct = np.unique(finite)
    if len(distinct) == 1:
        return np.array([np.nextafter(distinct[0], -np.inf), distinct[0]])
    if len(distinct) <= bins:
        return distinct[:-1]
    cuts = np.quantile(finite, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.unique(np.where(cuts == distinct[-1], distinct[-2], cuts))


def histogram(values: npt.ArrayLike, edges: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Rows per bin: bin i holds edges[i-1] < value <= edges[i], the first all below, the last all above.

    So does DuckDB's `histogram`. NaN is counted nowhere; infinities fall into the outer bins.
    """
    given, cuts = np.asarray(values, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    bins = np.searchsorted(cuts, given[~np.isnan(given)], side="left")
    return np.bincount(bins, minlength=len(cuts) + 1)


def calibration_bins(y: npt.ArrayLike, p: npt.ArrayLike, bins: int = 10) -> list[CalibrationBin]:
    """The calibration curve of P(positive) in bins of equal width (those of the metric `ece`), empty ones left out."""
    truth, score = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    known = ~(np.isnan(truth) | np.isnan(score))
    truth, score = truth[known], score[known]
    member = np.clip((score * bins).astype(np.int64), 0, bins - 1)
    rows = np.bincount(member, minlength=bins)
    predicted, positive = np.bincount(member, score, bins), np.bincount(member, truth, bins)
    return [_bin(predicted[i], positive[i], int(rows[i])) for i in np.flatnonzero(rows)]


def _bin(predicted: float, positive: float, rows: int) -> CalibrationBin:
    """With Wilson's score interval (Wilson 1927), which stays inside [0, 1] and is not empty at 0 or 1."""
    z, share = 1.959963984540054, float(positive) / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * float(np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)))
    return CalibrationBin(float(predicted) / rows, share, max(centre - half, 0.0), min(centre + half, 1.0), rows)


def _finite(values: npt.ArrayLike) -> Floats:
    given = np.asarray(values, dtype=np.float64).ravel()
    return given[np.isfinite(given)]
