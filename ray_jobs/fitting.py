"""The fit of the version that is registered, as one Ray task with a trial's resources.

A first model sees the training part only: calibration and threshold are learnt from what it says of the validation
part. The second sees what [split] refit says, for as many rounds as the search found, and is the one that is judged
and kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lakeloop.lakehouse.errors import Invalid, LakeloopError, Unavailable
from lakeloop.lakehouse.learners.protocol import Learner, Part, SilentRun, TrainingData, Vector
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.scoring.matrix import Matrix


@dataclass(frozen=True, slots=True)
class Fitted:
    """Files by name: of the model to register, and, where that has seen the test part, of the one to judge instead.

    `valid` are the first model's uncalibrated predictions of the validation part.
    """

    files: Mapping[str, bytes]
    judged: Mapping[str, bytes]
    valid: Vector
    rounds: int | None


def fit(
    model: Model,
    learner: Learner,
    train: Part,
    valid: Part,
    test: Part,
    params: Mapping[str, Any],
    best_step: int | None,
) -> Fitted:
    """The same for the same arguments: the model's files have the same bytes."""
    run = SilentRun(seed=model.split.seed, metric=model.search.metric)
    first = learner.fit(TrainingData(train, valid), params, run)
    said = np.asarray(learner.predict(first, valid.matrix), dtype=np.float64)
    step = run.facts.get("best_step", best_step)
    if model.split.refit == "train":
        files = saved(learner, first)
        return Fitted(files, files, said, step)
    both = joined(train, valid)
    judged = saved(learner, learner.fit(TrainingData(both, valid), params, _refit(model, step)))
    if model.split.refit == "train+valid":
        return Fitted(judged, judged, said, step)
    whole = joined(both, test)
    last = learner.fit(TrainingData(whole, valid), params, _refit(model, step))
    return Fitted(saved(learner, last), judged, said, step)


def fit_on_ray(
    model: Model,
    learner: Learner,
    train: Part,
    valid: Part,
    test: Part,
    params: Mapping[str, Any],
    best_step: int | None,
) -> Fitted:
    """`fit` in a worker. Invalid for what the user's code raised; Unavailable when the worker was lost."""
    import ray

    resources = {"num_cpus": model.trial.cpu} | ({"memory": model.trial.memory} if model.trial.memory else {})
    remote = ray.remote(max_retries=1, **resources)(fit)
    try:
        return ray.get(remote.remote(model, learner, train, valid, test, dict(params), best_step))  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, LakeloopError):
            raise cause from None
        raise Invalid(
            f"fitting raised {type(cause).__name__}: {str(cause).strip()[:500]}",
            where=f"models/{model.name}",
            todo="the search's best parameters raised it too late; correct train()",
        ) from error
    except ray.exceptions.RayError as error:
        raise Unavailable(f"the worker that fitted was lost ({type(error).__name__})", todo="try again") from error


def saved(learner: Learner, model: Any) -> dict[str, bytes]:
    """The files that a learner makes of a model, by relative path."""
    with tempfile.TemporaryDirectory(prefix="lakeloop-model-") as name:
        folder = Path(name)
        learner.save(model, folder)
        files = {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }
    if not files:
        raise Invalid("save(model, folder) wrote no file", todo="write at least one file into the folder")
    return files


def joined(first: Part, second: Part) -> Part:
    """The rows of both."""
    weight = None
    if first.weight is not None and second.weight is not None:
        weight = np.concatenate([first.weight, second.weight])
    return Part(Matrix.stack([first.matrix, second.matrix]), np.concatenate([first.y, second.y]), weight)


def _refit(model: Model, step: int | None) -> SilentRun:
    return SilentRun(seed=model.split.seed, metric=model.search.metric, best_step=step)
