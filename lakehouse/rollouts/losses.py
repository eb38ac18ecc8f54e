"""The loss of one labelled prediction, small when it is good: what early quality compares.

Bounded where it can be, so that a mean of few rows can be trusted: the Brier score of probabilities, in [0, 1], and
the absolute error of numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakeloop.lakehouse.scoring.signature import Signature

Losses = npt.NDArray[np.float64]


def losses(signature: Signature, rows: pa.Table) -> Losses:
    """One per row, from prediction, scores and label; NaN where there is no prediction."""
    labels = rows.column("label").cast(pa.string()).to_pylist()
    match signature.problem:
        case "regression":
            return np.abs(np.array([float(label) for label in labels]) - _column(rows, "prediction"))
        case "binary":
            truth = np.array([label == signature.positive for label in labels], dtype=np.float64)
            return (truth - _column(rows, "prediction")) ** 2
        case "multiclass":
            return _multiclass(signature, labels, rows.column("scores").to_pylist())


def _multiclass(signature: Signature, labels: list[str], scores: list[list[float]]) -> Losses:
    """½ Σ (p − 1{class})², so that 1 is the worst. Of a class that the model does not know p is 0."""
    known = {name: code for code, name in enumerate(signature.classes)}
    found = np.full(len(labels), np.nan)
    for at, (label, row) in enumerate(zip(labels, scores, strict=True)):
        if row:
            there = np.array(row)
            right = there[known[label]] if label in known else 0.0
            found[at] = ((there**2).sum() - 2 * right + 1) / 2
    return found


def _column(rows: pa.Table, name: str) -> Losses:
    return np.asarray(rows.column(name).to_numpy(), dtype=np.float64)
