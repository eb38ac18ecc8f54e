"""Endpoints behind a gRPC server of this process: what the tests of gRPC talk to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.asgi import Receive, Reply, Scope, failure
from lakeloop.ray_jobs.serving.endpoint import Endpoint
from lakeloop.ray_jobs.serving.grpc_server import asking, start_server
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.server import Server
from lakeloop.ray_jobs.serving.write_ahead import Logged, LoggedColumns, Shape

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
INPUTS = (
    Input("share", "request", "float64", "number", range=(0, 1), nullable=False),
    Input("origin", "request", "category", "category", categories=("EWR", "JFK")),
    Input("seats", "request", "int32?", "integer"),
    Input("late", "request", "bool?", "bool"),
)


class FirstColumn:
    """Predicts the first input. Fails in its own way where it is 0.13."""

    def predict(self, model: Any, matrix: Matrix) -> np.ndarray:
        first = matrix.values[:, 0]
        if np.isclose(first, 0.13).any():
            raise ZeroDivisionError("13")
        return first.astype(float)


class Halves:
    """Two classes whose shares are the first input and the rest."""

    def predict(self, model: Any, matrix: Matrix) -> np.ndarray:
        return np.stack([matrix.values[:, 0], 1 - matrix.values[:, 0]], axis=1)


def binary(version: int) -> Scorer:
    signature = Signature("binary", INPUTS, classes=("false", "true"), positive="true")
    return Scorer(signature, FirstColumn(), None, None, {}, version)


def multiclass() -> Scorer:
    return Scorer(Signature("multiclass", INPUTS[:2], classes=("a", "b")), Halves(), None, None, {}, 1)


class Mortal:
    """An endpoint whose replicas may be gone: then the reply is a proxy's."""

    def __init__(self, endpoint: Endpoint, gone: set[str]) -> None:
        self._endpoint, self._gone = endpoint, gone

    async def reply(self, path: str, scope: Scope, receive: Receive) -> Reply:
        if self._endpoint.inference.name in self._gone:
            return failure(503, "there is no replica", (b"retry-after", b"1"))
        return await self._endpoint.reply(path, scope, receive)


class Served:
    """Endpoints, what they logged, and a gRPC server in a thread with a loop of its own."""

    def __init__(self) -> None:
        self.logged: list[Logged | LoggedColumns] = []
        self.unready: set[str] = set()
        self.permit: Callable[[Scope], Reply | None] | None = None
        arms = (Arm("champion", 3, 10_000, binary(3)), Arm("shadow", 4, 0, binary(4)))
        endpoints = {
            "late": self._endpoint("late", Loaded("late", 5, arms)),
            "kind": self._endpoint("kind", Loaded("kind", 1, (Arm("champion", 1, 10_000, multiclass()),))),
        }
        self._app = Server(lambda: endpoints)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def _endpoint(self, name: str, loaded: Loaded) -> Mortal:
        inference = Inference(
            "flights", name, loaded=lambda: loaded, append=self._append, state=dict, clock=lambda: NOW
        )
        endpoint = Endpoint(inference, permit=lambda scope: self.permit(scope) if self.permit else None)
        return Mortal(endpoint, self.unready)

    def _append(self, shape: Shape, request: Logged | LoggedColumns) -> None:
        self.logged.append(request)

    def __enter__(self) -> Served:
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(start_server(asking(self._app), "127.0.0.1", 0), self._loop)
        self._server, self.port = starting.result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(None), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
