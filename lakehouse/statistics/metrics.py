"""Model metrics, each written as a function of row weights, so that a bootstrap sorts and prepares the rows once.

`Metric.prepare(y, prediction, threshold)` does all that does not depend on the weights and returns a `Statistic`;
calling that with ones gives the plain metric, with `weight` the weighted one, with `weight * counts` the metric of a
resample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lakeloop.lakehouse.errors import Invalid

Array = npt.NDArray[Any]
Statistic = Callable[[Array], float]
Prepare = Callable[[Array, Array, float], Statistic]
Needs = Literal["scores", "probabilities", "decision", "values"]

ECE_BINS = 10
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Metric:
    """Which way is better, and what of a prediction is used.

    `needs`: "scores" only their order; "probabilities" their size; "decision" the threshold (or the arg max);
    "values" a regression.
    """

    greater_is_better: bool
    needs: Needs
    prepare: Prepare = field(repr=False, compare=False)


def metric_of(problem: str, metric: str) -> Metric:
    """The metric of that name for that problem.

    Raises:
        Invalid: there is no such problem or metric; names the nearest.
    """
    known: Mapping[str, Any] = METRICS.get(problem, {})
    if not known:
        raise Invalid(f"there is no problem {problem!r}", todo=f"use one of {', '.join(METRICS)}")
    if metric not in known:
        near = get_close_matches(metric, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise Invalid(f"a {problem} model has no metric {metric!r}", todo=f"{hint}there are {', '.join(known)}")
    found: Metric = known[metric]
    return found


def evaluate(
    problem: str,
    metric: str,
    y: npt.ArrayLike,
    prediction: npt.ArrayLike,
    *,
    weight: npt.ArrayLike | None = None,
    threshold: float = 0.5,
) -> float:
    """One number for a model's predictions; NaN where it is undefined.

    Args:
        y: binary 0/1 or bool (n,); multiclass class codes 0..k-1 (n,), any other code is a class no prediction can
            hit; regression (n,).
        prediction: binary P(positive) (n,); multiclass probabilities (n, k); regression (n,).
        weight: of each row, not negative; all 1 by default.
        threshold: a binary prediction is positive where P >= threshold.
    """
    statistic, weights = prepared(problem, metric, y, prediction, weight, threshold)
    return statistic(weights)


def prepared(
    problem: str,
    metric: str,
    y: npt.ArrayLike,
    prediction: npt.ArrayLike,
    weight: npt.ArrayLike | None,
    threshold: float,
) -> tuple[Statistic, Array]:
    """The metric as a function of row weights, and the weights to begin with; a constant NaN without a value."""
    found = metric_of(problem, metric)
    truth, guess = np.asarray(y, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    weights = np.ones(len(truth)) if weight is None else np.asarray(weight, dtype=np.float64)
    if truth.ndim != 1 or len(guess) != len(truth) or len(weights) != len(truth):
        shapes = f"labels {truth.shape}, predictions {guess.shape}, weights {weights.shape}"
        raise Invalid(f"{shapes} are not of the same rows")
    if guess.ndim != (2 if problem == "multiclass" else 1):
        raise Invalid(
            f"a {problem} prediction has no shape {guess.shape}", todo="give (rows,), for multiclass (rows, classes)"
        )
    if len(truth) == 0 or not (np.isfinite(truth).all() and np.isfinite(guess).all() and np.isfinite(weights).all()):
        return _undefined, weights
    return found.prepare(truth, guess, threshold), weights


def _undefined(weights: Array) -> float:
    return float("nan")


def ratio(above: Any, below: Any) -> float:
    """A quotient; NaN over nothing."""
    return float(above / below) if below > 0 else float("nan")


def _mean_of(loss: Array) -> Statistic:
    return lambda w: ratio(w @ loss, w.sum())


def _by_score(y: Array, p: Array) -> Callable[[Array], tuple[Array, Array]]:
    """Sort once; then weights → (positive, negative) weight at each distinct score, ascending: ties are exact."""
    order = np.argsort(p, kind="stable")
    ranked, positive = p[order], y[order] > 0.5
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))

    def grouped(weights: Array) -> tuple[Array, Array]:
        w = weights[order]
        return np.add.reduceat(np.where(positive, w, 0.0), starts), np.add.reduceat(np.where(positive, 0.0, w), starts)

    return grouped


def auc_of_groups(positive: Array, negative: Array) -> float:
    """Area under the ROC curve from the positive and negative weight at each distinct score, ascending.

    The Mann-Whitney form: P(score of a positive > of a negative) + half the probability of a tie (Hanley & McNeil
    1982).
    """
    below = np.cumsum(negative) - negative
    return ratio(positive @ (below + negative / 2), positive.sum() * negative.sum())


def _roc_auc(y: Array, p: Array, threshold: float) -> Statistic:
    grouped = _by_score(y, p)
    return lambda w: auc_of_groups(*grouped(w))


def _average_precision(y: Array, p: Array, threshold: float) -> Statistic:
    """Sum over the thresholds of precision times the step in recall, not interpolated (as scikit-learn defines it)."""
    grouped = _by_score(y, p)

    def statistic(weights: Array) -> float:
        positive, negative = (part[::-1] for part in grouped(weights))
        hits, flagged = np.cumsum(positive), np.cumsum(positive + negative)
        precision = np.divide(hits, flagged, out=np.zeros_like(hits), where=flagged > 0)
        return ratio(positive @ precision, hits[-1])

    return statistic


def _log_loss(y: Array, p: Array, threshold: float) -> Statistic:
    """Mean negative log likelihood in nats; probabilities are clipped to [2.2e-16, 1 − 2.2e-16] as in scikit-learn."""
    clipped = np.clip(p, _EPS, 1 - _EPS)
    return _mean_of(-np.where(y > 0.5, np.log(clipped), np.log1p(-clipped)))


def _brier(y: Array, p: Array, threshold: float) -> Statistic:
    """Mean squared difference of probability and outcome (Brier 1950, in the form for two classes that ends at 1)."""
    return _mean_of((p - y) ** 2)


def _ece(y: Array, p: Array, threshold: float) -> Statistic:
    """Expected calibration error (Naeini et al. 2015), 10 bins of equal width: Σ share · |mean P − share of positives|.

    It cannot be negative, so noise moves it up: in small samples it, and more so its resamples, lie above that of the
    same model on many rows.
    """
    bins = np.clip((p * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)
    return lambda w: ratio(np.abs(np.bincount(bins, w * (y - p), ECE_BINS)).sum(), w.sum())


def _binary_accuracy(y: Array, p: Array, threshold: float) -> Statistic:
    return _mean_of(((p >= threshold) == (y > 0.5)).astype(np.float64))


def _confusion(name: Literal["f1", "precision", "recall"]) -> Prepare:
    """2TP/(2TP+FP+FN), TP/(TP+FP), TP/(TP+FN); NaN where the denominator is 0."""

    def prepare(y: Array, p: Array, threshold: float) -> Statistic:
        decision, actual = (p >= threshold).astype(np.float64), (y > 0.5).astype(np.float64)
        hit = decision * actual
        below = {"f1": (decision + actual) / 2, "precision": decision, "recall": actual}[name]
        return lambda w: ratio(w @ hit, w @ below)

    return prepare


def _codes(y: Array, classes: int) -> npt.NDArray[np.int64]:
    """Class codes; one the model does not know becomes `classes`, which no prediction can hit."""
    codes = y.astype(np.int64)
    return np.where((codes >= 0) & (codes < classes), codes, classes)


def _class_accuracy(y: Array, p: Array, threshold: float) -> Statistic:
    return _mean_of((p.argmax(axis=1) == _codes(y, p.shape[1])).astype(np.float64))


def _class_log_loss(y: Array, p: Array, threshold: float) -> Statistic:
    """Mean −log of the probability given to the true class, clipped as for two classes; an unknown one has none."""
    padded = np.column_stack([p, np.zeros(len(p))])
    chosen = padded[np.arange(len(p)), _codes(y, p.shape[1])]
    return _mean_of(-np.log(np.clip(chosen, _EPS, 1 - _EPS)))


def _macro_f1(y: Array, p: Array, threshold: float) -> Statistic:
    """Plain mean of each class's F1, over the classes that occur among labels or decisions."""
    size = p.shape[1] + 1
    cells = _codes(y, p.shape[1]) * size + p.argmax(axis=1)

    def statistic(weights: Array) -> float:
        table = np.bincount(cells, weights, size * size).reshape(size, size)
        hits, occurs = np.diagonal(table), table.sum(axis=0) + table.sum(axis=1)
        return ratio((2 * hits[occurs > 0] / occurs[occurs > 0]).sum(), int((occurs > 0).sum()))

    return statistic


def _rmse(y: Array, p: Array, threshold: float) -> Statistic:
    mean = _mean_of((y - p) ** 2)
    return lambda w: float(np.sqrt(mean(w)))


def _mae(y: Array, p: Array, threshold: float) -> Statistic:
    return _mean_of(np.abs(y - p))


def _r2(y: Array, p: Array, threshold: float) -> Statistic:
    """1 − residual / total sum of squares about the weighted mean; NaN where the labels do not vary."""
    residual, shifted = (y - p) ** 2, y - y[0]  # shifted, so that equal labels have a variance of exactly 0

    def statistic(weights: Array) -> float:
        mean = ratio(weights @ shifted, weights.sum())
        return 1 - ratio(weights @ residual, weights @ (shifted - mean) ** 2)

    return statistic


METRICS: dict[str, dict[str, Metric]] = {
    "binary": {
        "roc_auc": Metric(True, "scores", _roc_auc),
        "average_precision": Metric(True, "scores", _average_precision),
        "log_loss": Metric(False, "probabilities", _log_loss),
        "brier": Metric(False, "probabilities", _brier),
        "ece": Metric(False, "probabilities", _ece),
        "accuracy": Metric(True, "decision", _binary_accuracy),
        "f1": Metric(True, "decision", _confusion("f1")),
        "precision": Metric(True, "decision", _confusion("precision")),
        "recall": Metric(True, "decision", _confusion("recall")),
    },
    "multiclass": {
        "accuracy": Metric(True, "decision", _class_accuracy),
        "log_loss": Metric(False, "probabilities", _class_log_loss),
        "macro_f1": Metric(True, "decision", _macro_f1),
    },
    "regression": {
        "rmse": Metric(False, "values", _rmse),
        "mae": Metric(False, "values", _mae),
        "r2": Metric(True, "values", _r2),
    },
}
