"""Small data that a tree can learn, for each problem."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lakeloop.lakehouse.learners.protocol import Part, TrainingData
from lakeloop.lakehouse.scoring.matrix import Matrix


def part(problem: str, rows: int, seed: int) -> Part:
    random = np.random.default_rng(seed)
    x = random.normal(size=rows).astype(np.float32)
    kind = random.integers(0, 4, rows).astype(np.float32)
    noise = random.normal(size=rows)
    values = np.column_stack([x, kind, np.where(random.uniform(size=rows) < 0.1, np.nan, x + noise)]).astype(np.float32)
    signal = x + np.where(kind == 2, 2.0, 0.0)
    y = {
        "binary": (signal + noise > 0.5).astype(float),
        "multiclass": np.digitize(signal + noise, [-0.5, 1.0]).astype(float),
        "regression": signal + 0.1 * noise,
    }[problem]
    values[random.uniform(size=rows) < 0.05, 1] = np.nan
    return Part(Matrix(("x", "kind", "noisy"), values, {"kind": ("a", "b", "c", "d")}), y)


def training_data(problem: str) -> TrainingData:
    return TrainingData(part(problem, 600, 1), part(problem, 300, 2))


@pytest.fixture
def data() -> Callable[[str], TrainingData]:
    return training_data
