"""The metrics a project may name, which problem each fits, and which direction is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from lakeloop.lakehouse.project.definitions import Problem

Mode = Literal["max", "min"]

METRICS: Final[Mapping[Problem, Mapping[str, Mode]]] = {
    "binary": {
        "roc_auc": "max",
        "average_precision": "max",
        "log_loss": "min",
        "brier": "min",
        "ece": "min",
        "accuracy": "max",
        "f1": "max",
        "precision": "max",
        "recall": "max",
    },
    "multiclass": {"accuracy": "max", "log_loss": "min", "macro_f1": "max"},
    "regression": {"rmse": "min", "mae": "min", "r2": "max"},
}

# Of the endpoint rather than of the model's answers: allowed in gate rules, as a bound only.
LATENCY: Final = "latency_p99_ms"

DEFAULT_METRIC: Final[Mapping[Problem, str]] = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}


def better(metric: str) -> Mode:
    """Whether more or less of the metric is better; "max" for a name that is no metric."""
    if metric == LATENCY:
        return "min"
    return next((modes[metric] for modes in METRICS.values() if metric in modes), "max")
