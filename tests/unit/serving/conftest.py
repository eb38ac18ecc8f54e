"""A model whose answer is known: the real scorer over a learner that gives back one column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Input, Signature, ViewUse
from lakeloop.ray_jobs.serving.arms import Arm, Loaded

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class FirstColumn:
    """Predicts the first input."""

    def predict(self, model: Any, matrix: Matrix) -> np.ndarray:
        return matrix.values[:, 0].astype(float)


class Halves:
    """Two classes whose shares are the first input and the rest."""

    def predict(self, model: Any, matrix: Matrix) -> np.ndarray:
        return np.stack([matrix.values[:, 0], 1 - matrix.values[:, 0]], axis=1)


class KnownTemperature:
    """A view that knows one key."""

    newest = datetime(2026, 5, 1, 11, tzinfo=UTC)

    def at(self, key: tuple[Any, ...], as_of: datetime) -> tuple[dict[str, Any] | None, datetime | None]:
        return ({"temp": 7.5}, datetime(2026, 5, 1, 11, tzinfo=UTC)) if key == ("EWR",) else (None, None)


INPUTS = (
    Input("share", "request", "float32", "number", range=(0, 1), nullable=False),
    Input("origin", "request", "category", "category", categories=("EWR", "JFK")),
    Input("temp", "feature", "float64", "number"),
)
VIEWS = (ViewUse("weather", "weather", "v1", (("origin", "origin"),), (("temp", "temp"),)),)


def binary_scorer(version: int = 1) -> Scorer:
    example = {"share": 0.5, "origin": "EWR", "temp": 1.0}
    signature = Signature("binary", INPUTS, VIEWS, ("false", "true"), "true", example=example)
    return Scorer(signature, FirstColumn(), None, None, {"weather": KnownTemperature()}, version)


@pytest.fixture
def scorer() -> Callable[..., Scorer]:
    return binary_scorer


@pytest.fixture
def loaded() -> Callable[..., Loaded]:
    """What serves version 3 (or another), at a revision."""

    def make(version: int = 3, revision: int = 5) -> Loaded:
        return Loaded("late", revision, (Arm("champion", version, 10_000, binary_scorer(version)),))

    return make


@pytest.fixture
def multiclass() -> Loaded:
    signature = Signature("multiclass", INPUTS[:2], classes=("a", "b"))
    return Loaded("kind", 1, (Arm("champion", 1, 10_000, Scorer(signature, Halves(), None, None, {}, 1)),))


@pytest.fixture
def now() -> datetime:
    return NOW
