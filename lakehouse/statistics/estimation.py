"""What probabilities tell: performance before the labels come (CBPE), and the threshold that serves a purpose best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.statistics.metrics import Array, auc_of_groups, ratio


def cbpe(
    probabilities: npt.ArrayLike, threshold: float = 0.5, *, weight: npt.ArrayLike | None = None
) -> dict[str, float]:
    """Performance a binary model should have on rows without labels: confidence-based estimation (NannyML's CBPE).

    A prediction of p is p of a positive and 1 − p of a negative, so the expected confusion matrix, and from it the
    metrics, follow by adding up. Right only while the probabilities are calibrated and the relation of inputs and
    label is what it was: it sees drift of the inputs, never of the concept.

    Returns:
        rows, accuracy, precision, recall, f1, roc_auc, brier, log_loss; NaN where undefined.
    """
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 0.0, 1.0)
    w = np.ones(len(p)) if weight is None else np.asarray(weight, dtype=np.float64)
    known = ~np.isnan(p)
    p, w = p[known], w[known]
    flagged, total = p >= threshold, float(w.sum())
    tp, fp = float((w * p)[flagged].sum()), float((w * (1 - p))[flagged].sum())
    fn, tn = float((w * p)[~flagged].sum()), float((w * (1 - p))[~flagged].sum())
    return {
        "rows": float(len(p)),
        "accuracy": ratio(tp + tn, total),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "roc_auc": _expected_auc(p, w),
        "brier": ratio(float((w * p * (1 - p)).sum()), total),
        "log_loss": ratio(float((w * _entropy(p)).sum()), total),
    }


def best_threshold(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    rule: float | str | Mapping[str, Any],
    *,
    weight: npt.ArrayLike | None = None,
) -> float:
    """The cut (positive where P >= cut) that serves `rule` best on these rows.

    Args:
        rule: a number is answered as it is; {"maximize": "f1" | "youden"} (or just the name); {"cost": {"fp": …,
            "fn": …}} is the least total cost. Youden's J is recall − false positive rate (Youden 1950).

    Returns:
        A value halfway between two scores that occur, so that rounding in another runtime does not flip a row; 0
        calls all rows positive, and a value above every score none. Of equal ones the highest cut. 0.5 when the rows
        have only one class.
    """
    if isinstance(rule, int | float):
        return float(rule)
    truth, score = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    w = np.ones(len(truth)) if weight is None else np.asarray(weight, dtype=np.float64)
    objective = _objective(rule)
    scores, member = np.unique(score, return_inverse=True)
    positive = np.bincount(member, w * (truth > 0.5), len(scores))[::-1]
    negative = np.bincount(member, w * (truth <= 0.5), len(scores))[::-1]
    if positive.sum() <= 0 or negative.sum() <= 0 or np.isnan(score).any():
        return 0.5
    tp, fp = np.concatenate([[0.0], np.cumsum(positive)]), np.concatenate([[0.0], np.cumsum(negative)])
    return float(_cuts(scores)[int(np.argmax(objective(tp, fp, tp[-1], fp[-1])))])


def _objective(rule: str | Mapping[str, Any]) -> Any:
    """What is to be made large, as a function of (true positives, false positives, positives, negatives)."""
    name = rule if isinstance(rule, str) else rule.get("maximize")
    if name == "f1":
        return lambda tp, fp, all_p, all_n: 2 * tp / (tp + fp + all_p)
    if name == "youden":
        return lambda tp, fp, all_p, all_n: tp / all_p - fp / all_n
    if isinstance(rule, Mapping) and isinstance(cost := rule.get("cost"), Mapping) and {"fp", "fn"} == set(cost):
        return lambda tp, fp, all_p, all_n: -(cost["fp"] * fp + cost["fn"] * (all_p - tp))
    raise Invalid(
        f"there is no threshold rule {rule!r}",
        todo='use a number, { maximize = "f1" | "youden" }, or { cost = { fp = 1, fn = 5 } }',
    )


def _cuts(scores: Array) -> Array:
    """Cuts from the highest (none positive) to the lowest (all positive): one more than there are distinct scores."""
    top, bottom = scores[-1], min(0.0, scores[0])
    none = (top + 1) / 2 if top < 1 else np.nextafter(top, np.inf)
    middle = (scores[:-1] + scores[1:]) / 2
    middle = np.where(middle > scores[:-1], middle, scores[1:])
    return np.concatenate([[none], middle[::-1], [bottom]])


def _expected_auc(p: Array, w: Array) -> float:
    if len(p) == 0:
        return float("nan")
    scores, member = np.unique(p, return_inverse=True)
    return auc_of_groups(np.bincount(member, w * p, len(scores)), np.bincount(member, w * (1 - p), len(scores)))


def _entropy(p: Array) -> Array:
    inner = np.clip(p, 1e-300, 1.0), np.clip(1 - p, 1e-300, 1.0)
    return np.asarray(-(p * np.log(inner[0]) + (1 - p) * np.log(inner[1])))
