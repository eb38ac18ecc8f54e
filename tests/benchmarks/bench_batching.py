"""Micro-batches: what 16 callers at once, and one alone, get from an endpoint with them and without.

In one process and without HTTP, so only scoring, logging and what batches add are timed.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray sets it for a replica

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from lakeloop.lakehouse.learners.sklearn_trees import SklearnLearner
from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.batching import Batches
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.write_ahead import WriteAhead
from tests.benchmarks.places import scaled
from tests.benchmarks.timing import compare, report

COLUMNS = 10
REQUESTS = scaled(640)
ROW = {f"x{place}": 0.1 for place in range(COLUMNS)}


class First:
    """As fast as a model can be."""

    def predict(self, model: Any, matrix: Matrix) -> Any:
        return matrix.values[:, 0].astype(float)


def trees() -> Any:
    chance = np.random.default_rng(1)
    values = chance.normal(size=(5_000, COLUMNS)).astype(np.float32)
    return HistGradientBoostingClassifier(max_iter=100).fit(values, values[:, 0] + values[:, 1] > 0)


def scorer(learner: Any, model: Any) -> Scorer:
    inputs = tuple(Input(name, "request", "float64", "number") for name in ROW)
    signature = Signature("binary", inputs, classes=("false", "true"), positive="true", example=ROW)
    return Scorer(signature, learner, model, None, {}, 1)


def inference(one: Scorer, folder: str, *, batched: bool) -> Inference:
    loaded, batches = Loaded("late", 1, (Arm("champion", 1, 10_000, one),)), Batches()
    if batched:
        batches.learn(loaded, datetime.now(UTC))
    return Inference(
        "flights",
        "late",
        loaded=lambda: loaded,
        append=WriteAhead(Path(folder)).append,
        state=dict,
        clock=lambda: datetime.now(UTC),
        batches=batches,
    )


def ask(one: Inference, callers: int) -> None:
    async def caller() -> None:
        for number in range(REQUESTS // callers):
            await one.rows([ROW], f"r{number}", None, 0.0)
            await asyncio.sleep(0)  # the answer goes out before the next request comes

    async def all_of_them() -> None:
        await asyncio.gather(*(caller() for _ in range(callers)))

    asyncio.run(all_of_them())


def main(folder: str) -> None:
    models = {
        "HistGradientBoosting": (SklearnLearner("binary"), trees()),
        "the fastest model there is": (First(), None),
    }
    for name, (learner, model) in models.items():
        one = scorer(learner, model)
        ours, reference = (inference(one, folder, batched=batched) for batched in (True, False))
        for callers, aim in ((16, "at most 0.4" if model else "about 1"), (1, "about 1")):
            a, b = compare(lambda: ask(ours, callers), lambda: ask(reference, callers))  # noqa: B023 called at once
            what = f"{REQUESTS:,} one-row requests to {name}, {callers} at a time, with micro-batches"
            report(what, f"{a:.2f} s", f"{b:.2f} s without", a / b, aim)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
