"""The root of an HTTP server over endpoints of this process: a raw ASGI app.

/v2, /v2/health/live, /v2/health/ready            Open Inference Protocol V2
/v2/models/<endpoint>/…                           endpoint.py
/v1/models/<endpoint>[/versions/<n>][:predict]    TensorFlow Serving's REST
/metrics                                          as `metrics()` writes it, where there is one
/openapi.json, /docs                              what there is, for programs and for people
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.metadata import version as installed
from pathlib import Path

from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.ray_jobs.serving.asgi import (
    Receive,
    Reply,
    Scope,
    Send,
    failed,
    failure,
    not_allowed,
    send_reply,
    success,
)
from lakeloop.ray_jobs.serving.endpoint import Endpoint
from lakeloop.ray_jobs.serving.openapi import openapi

MODELS = "/v2/models/"
FIRST_MODELS = "/v1/models/"
EXTENSIONS = ["binary_tensor_data", "parameters", "row_form"]
PAGE = "text/html; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Server:
    """Answers for the endpoints of this moment. `ready()` says whether the process should get requests."""

    def __init__(
        self,
        endpoints: Callable[[], Mapping[str, Endpoint]],
        *,
        ready: Callable[[], bool] = lambda: True,
        metrics: Callable[[], str] | None = None,
    ) -> None:
        self._endpoints, self._ready, self._metrics = endpoints, ready, metrics
        self._version = installed("lakeloop")
        self._page = Path(__file__).with_name("docs.html").read_bytes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send_reply(await self._reply(scope, receive), send)
        elif scope["type"] == "lifespan":
            await live(receive, send)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path.startswith(MODELS):
            name, slash, rest = path[len(MODELS) :].partition("/")
            return await self._endpoint(name, slash + rest, scope, receive)
        if path.startswith(FIRST_MODELS):
            name, rest = first_path(path[len(FIRST_MODELS) :])
            return await self._endpoint(name, rest, scope, receive)
        return await self._own(path.rstrip("/"), scope)

    async def _endpoint(self, name: str, rest: str, scope: Scope, receive: Receive) -> Reply:
        endpoint = self._endpoints().get(name)
        if endpoint is None:
            there = ", ".join(sorted(self._endpoints())) or "none"
            return failure(404, f"there is no model {name[:200]!r} (there is: {there})")
        return await endpoint.reply(rest, scope, receive)

    async def _own(self, path: str, scope: Scope) -> Reply:
        pages: Mapping[str, Callable[[], Reply]] = {
            "/v2": self._about,
            "/v2/models": self._models,
            "/v1/models": self._models,
            "/v2/health/live": lambda: success({"live": True}),
            "/v2/health/ready": self._health,
            "/openapi.json": self._openapi,
            "/docs": lambda: Reply(200, self._page, kind=(b"content-type", PAGE.encode())),
            **({"/metrics": self._measured} if self._metrics is not None else {}),
        }
        page = pages.get(path)
        if page is None:
            return failure(404, f"there is nothing at {path[:200]!r} (there is: {', '.join(pages)})")
        if scope["method"] not in ("GET", "HEAD"):
            return not_allowed(path, scope["method"], "GET")
        try:
            return await asyncio.to_thread(page) if path == "/metrics" else page()
        except LakeloopError as error:
            return failed(error)

    def _about(self) -> Reply:
        return success({"name": "lakeloop", "version": self._version, "extensions": EXTENSIONS})

    def _models(self) -> Reply:
        return success({"models": sorted(self._endpoints())})

    def _health(self) -> Reply:
        if self._ready():
            return success({"live": True, "ready": True})
        return Reply(503, success({"live": True, "ready": False}).body)

    def _openapi(self) -> Reply:
        return success(openapi([one.inference.metadata() for one in self._endpoints().values()], self._version))

    def _measured(self) -> Reply:
        assert self._metrics is not None
        return Reply(200, self._metrics().encode(), kind=(b"content-type", METRICS.encode()))


def first_path(path: str) -> tuple[str, str]:
    """The endpoint in a path of TensorFlow Serving's, and what of it is asked for."""
    name, colon, verb = path.partition(":")
    name, slash, rest = name.rstrip("/").partition("/")
    return name, f"{slash}{rest}/{verb}" if colon else f"{slash}{rest}/status"


async def live(receive: Receive, send: Send) -> None:
    """The server's start and end, with nothing to do at either."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
