"""A trained numeric model in a lake, without a run: six numbers in, gradient-boosted trees, one price out."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.learners.choosing import learner_named
from lakeloop.lakehouse.learners.protocol import Part, SilentRun, TrainingData
from lakeloop.lakehouse.scoring.loading import SIGNATURE
from lakeloop.lakehouse.scoring.matrix import Encoder
from lakeloop.lakehouse.scoring.signature import Input, Signature

INPUTS = tuple(Input(f"x{n}", "request", "float64", "number") for n in range(6))
EXAMPLE = {f"x{n}": n / 10 for n in range(6)}


def price_model(
    lake: Lake, learner: str = "xgboost", *, project: str = "shop", rounds: int = 50, run: str = "r1"
) -> int:
    """A version of `price` that is champion and served."""
    signature = Signature("regression", INPUTS, example=EXAMPLE)
    values = np.random.default_rng(0).random((500, 6))
    matrix = Encoder(INPUTS).of_rows([dict(zip(EXAMPLE, row, strict=True)) for row in values.tolist()])
    part = Part(matrix, values @ np.arange(6), None)
    made = learner_named(learner, "regression", 2)
    params = {"rounds": rounds, "max_depth": 4, "learning_rate": 0.1} if learner == "xgboost" else {}
    model = made.fit(TrainingData(part, Part(matrix.take(slice(0, 0)), part.y[:0], None)), params, SilentRun())
    with tempfile.TemporaryDirectory() as folder:
        made.save(model, Path(folder))
        files = {f"model/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}
    files[SIGNATURE] = signature.to_bytes()
    body = {
        "artifacts": [lake.artifacts.put("runs", run, name, data).to_json() for name, data in files.items()],
        "learner": {"name": learner, "threads": 1},
        "model_hash": run,
        "metrics": [],
        "lineage": {"views": {}, "definition": ""},
    }
    before = endpoints.champion(lake, project, "price")
    version = registry.register(lake, project, "price", run, body)
    there = endpoints.promote(lake, project, "price", version, expected=before, why="test")
    endpoints.serve(lake, there, version, {}, "test")
    return version
