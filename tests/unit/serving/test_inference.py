"""The transport-free core: tensors in, tensors out, logged on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Invalid, NotFound
from lakeloop.ray_jobs.serving.arms import Loaded
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.tensors import InferRequest, InferResponse, Tensor


class Asked:
    """An inference and what it logged."""

    def __init__(self, loaded: Loaded, now: datetime) -> None:
        self.logged: list[Any] = []
        self.inference = Inference(
            "flights",
            "late",
            loaded=lambda: loaded,
            append=lambda shape, request: self.logged.append(request),
            state=dict,
            clock=lambda: now,
        )

    def infer(self, *tensors: Tensor, version: str | None = None, **more: Any) -> InferResponse:
        return asyncio.run(self.inference.infer(InferRequest(tensors, **more), version))


@pytest.fixture
def asked(loaded: Callable[..., Loaded], now: datetime) -> Asked:
    return Asked(loaded(), now)


def share(*values: float) -> Tensor:
    return Tensor("share", "FP32", (len(values),), np.array(values, np.float32))


def test_a_tensor_per_input_is_answered_by_prediction_and_decision(asked: Asked) -> None:
    answer = asked.infer(share(0.25, 0.75), Tensor("origin", "BYTES", (2, 1), [b"EWR", "JFK"]), id="r1")
    prediction, decision = answer.outputs
    assert (answer.model, answer.version, answer.id) == ("late", "3", "r1")
    assert (prediction.datatype, prediction.shape, list(prediction.data)) == ("FP64", (2,), [0.25, 0.75])
    assert (decision.datatype, decision.shape, list(decision.data)) == ("BOOL", (2,), [False, True])
    assert [request.request_id for request in asked.logged] == ["r1"]


def test_a_version_that_does_not_serve_is_not_found(asked: Asked) -> None:
    assert asked.infer(share(0.5), version="3").version == "3"
    with pytest.raises(NotFound, match="version '4' of late does not serve"):
        asked.infer(share(0.5), version="4")


def test_an_output_that_is_not_there_is_refused(asked: Asked) -> None:
    assert [one.name for one in asked.infer(share(0.5), outputs=("decision",)).outputs] == ["decision"]
    with pytest.raises(Invalid, match="no output 'class'"):
        asked.infer(share(0.5), outputs=("class",))
