"""A signature with one input of every kind, and fakes for what a scorer works with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest

from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.scoring.signature import (
    CategoryProfile,
    Input,
    Isotonic,
    NumberProfile,
    Signature,
    ViewUse,
)

INPUTS = (
    Input("carrier", "request", "category", "category", nullable=False, categories=("AA", "UA")),
    Input("distance", "request", "float32", "number", nullable=False, range=(1, 10_000)),
    Input("seats", "request", "int16", "integer", default=100),
    Input("sched_dep", "request", "timestamp", "timestamp", column=False, nullable=False),
    Input("holiday", "request", "bool", "bool"),
    Input("note", "request", "string", "string", column=False),
    Input("temp", "feature", "float64", "number"),
    Input("visib", "feature", "float64", "number"),
    Input("hour", "derived", "int8", "integer"),
)
VIEWS = (ViewUse("weather", "weather", "v1", (("origin", "carrier"),), (("temp", "temp"), ("visib", "visib"))),)


class LookupFake:
    """Knows the keys it is given, each with values and the time they are from."""

    def __init__(self, known: dict[tuple[Any, ...], tuple[dict[str, Any], datetime]]) -> None:
        self.known, self.asked = known, []

    def at(self, key: tuple[Any, ...], as_of: datetime) -> tuple[dict[str, Any] | None, datetime | None]:
        self.asked.append((key, as_of))
        return self.known.get(key, (None, None))


class ColumnLearner:
    """Predicts what one column of the matrix says; NaN is 0."""

    def __init__(self, name: str) -> None:
        self.name = name

    def predict(self, model: Any, matrix: Matrix) -> np.ndarray:
        return np.nan_to_num(matrix.values[:, matrix.names.index(self.name)].astype(float))


@pytest.fixture
def signature() -> Signature:
    profile = NumberProfile((1.0, 2.0), (3, 4, 5), 1, 0.5, 9.0, 2.5, 1.25)
    inputs = list(INPUTS)
    inputs[0] = Input(**{**_fields(INPUTS[0]), "profile": CategoryProfile({"AA": 5, "UA": 2}, other=1, nulls=3)})
    inputs[6] = Input(**{**_fields(INPUTS[6]), "profile": profile})
    return Signature(
        "binary",
        tuple(inputs),
        VIEWS,
        ("false", "true"),
        "true",
        threshold=0.4,
        calibration=Isotonic((0.0, 1.0), (0.1, 0.9)),
        derive=True,
        example={"carrier": "AA", "distance": 12.5, "sched_dep": "2013-07-01T12:30:00+00:00", "temp": None},
        prediction=profile,
    )


@pytest.fixture
def plain() -> Signature:
    """The same inputs, without calibration and without derive()."""
    return Signature("binary", INPUTS, VIEWS, ("false", "true"), "true")


@pytest.fixture
def lookup() -> type[LookupFake]:
    return LookupFake


@pytest.fixture
def column_learner() -> type[ColumnLearner]:
    return ColumnLearner


def _fields(one: Input) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Input.__slots__}
