"""Calibration of a binary score and the choice of its threshold, both learnt on the validation part."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.project.definitions import Cost, Maximize
from lakeloop.lakehouse.scoring.signature import Calibration, Isotonic, Sigmoid
from lakeloop.lakehouse.statistics import best_threshold

Vector = NDArray[np.float64]
CLIP = 1e-6


def calibrate(calibration: Calibration | None, scores: Vector) -> Vector:
    """The calibrated probabilities of scores."""
    match calibration:
        case None:
            return scores
        case Isotonic(x, y):
            return np.interp(scores, x, y)
        case Sigmoid(a, b):
            return _logistic(a * _log_odds(scores) + b)


def learn_calibration(
    method: Literal["none", "isotonic", "sigmoid"], y: Vector, scores: Vector, weight: Vector | None = None
) -> Calibration | None:
    """The map from scores to the share of positives among rows with such a score. None with fewer than two classes."""
    if method == "none" or len(np.unique(y)) < 2:
        return None
    return _isotonic(y, scores, weight) if method == "isotonic" else _sigmoid(y, scores, weight)


def learn_threshold(rule: float | Maximize | Cost, y: Vector, scores: Vector, weight: Vector | None = None) -> float:
    """The threshold (positive: score >= it) that the definition asks for."""
    match rule:
        case Maximize(metric):
            return best_threshold(y, scores, {"maximize": metric}, weight=weight)
        case Cost(fp, fn):
            return best_threshold(y, scores, {"cost": {"fp": fp, "fn": fn}}, weight=weight)
        case _:
            return float(rule)


def _isotonic(y: Vector, scores: Vector, weight: Vector | None) -> Isotonic:
    """Pool-adjacent-violators, kept off 0 and 1 by half a row: one surprise must not cost an infinite log loss."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, y, sample_weight=weight)
    least = 0.5 / (len(y) + 1)
    values = np.clip(fitted.y_thresholds_, least, 1 - least)
    return Isotonic(tuple(fitted.X_thresholds_.tolist()), tuple(values.tolist()))


def _sigmoid(y: Vector, scores: Vector, weight: Vector | None) -> Sigmoid:
    """Platt (1999) on log-odds, smoothed targets, by Newton's method with halved steps (Lin, Lin & Weng 2007)."""
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    positives, negatives = float(weight[y > 0].sum()), float(weight[y <= 0].sum())
    target = np.where(y > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([_log_odds(scores), np.ones(len(y))])

    def loss(theta: Vector) -> float:
        odds = design @ theta
        return float(weight @ (np.logaddexp(0, odds) - target * odds))

    theta = np.array([1.0, 0.0])
    for _ in range(100):
        fitted = _logistic(design @ theta)
        gradient = design.T @ (weight * (fitted - target))
        curvature: NDArray[Any] = (design * (weight * fitted * (1 - fitted))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        before = loss(theta)
        while loss(theta - step) > before and float(np.abs(step).max()) > 1e-12:
            step = step / 2
        theta = theta - step
        if float(np.abs(step).max()) < 1e-10:
            break
    return Sigmoid(float(theta[0]), float(theta[1]))


def _logistic(odds: Vector) -> Vector:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -500, 500))), dtype=np.float64)


def _log_odds(scores: Vector) -> Vector:
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float64)
