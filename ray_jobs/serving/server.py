"""The root of an HTTP server over endpoints, of this process or elsewhere (front.py): a raw ASGI app.

/v2, /v2/health/live, /v2/health/ready            Open Inference Protocol V2
/v2/models/<endpoint>/…                           endpoint.py
/v1/models/<endpoint>[/versions/<n>][:predict]    TensorFlow Serving's REST
/metrics                                          as `metrics()` writes it, where there is one
/openapi.json, /docs                              what there is, for programs and for people
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Protocol, TypeAlias

import orjson

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
from lakeloop.ray_jobs.serving.openapi import openapi

MODELS = "/v2/models/"
FIRST_MODELS = "/v1/models/"
EXTENSIONS = ["binary_tensor_data", "parameters", "row_form"]
PAGE = "text/html; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"

Page: TypeAlias = "Callable[[Scope, Receive], Awaitable[Reply]]"


class Face(Protocol):
    """What answers for one endpoint: an `Endpoint`, or who asks one."""

    async def reply(self, path: str, scope: Scope, receive: Receive) -> Reply:
        """The reply to a request for a path under the endpoint's own."""
        ...


class Server:
    """Answers for the endpoints of this moment. `ready()` says whether the process should get requests at all."""

    def __init__(
        self,
        endpoints: Callable[[], Mapping[str, Face]],
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
        return await self._own(path.rstrip("/"), scope, receive)

    async def _endpoint(self, name: str, rest: str, scope: Scope, receive: Receive) -> Reply:
        endpoint = self._endpoints().get(name)
        if endpoint is None:
            there = ", ".join(sorted(self._endpoints())) or "none"
            return failure(404, f"there is no model {name[:200]!r} (there is: {there})")
        return await endpoint.reply(rest, scope, receive)

    async def _own(self, path: str, scope: Scope, receive: Receive) -> Reply:
        pages: Mapping[str, Page] = {
            "/v2": self._about,
            "/v2/models": self._models,
            "/v1/models": self._models,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._health,
            "/openapi.json": self._openapi,
            "/docs": self._docs,
            **({"/metrics": self._measured} if self._metrics is not None else {}),
        }
        page = pages.get(path)
        if page is None:
            return failure(404, f"there is nothing at {path[:200]!r} (there is: {', '.join(pages)})")
        if scope["method"] not in ("GET", "HEAD"):
            return not_allowed(path, scope["method"], "GET")
        try:
            return await page(scope, receive)
        except LakeloopError as error:
            return failed(error)

    async def _about(self, scope: Scope, receive: Receive) -> Reply:
        return success({"name": "lakeloop", "version": self._version, "extensions": EXTENSIONS})

    async def _models(self, scope: Scope, receive: Receive) -> Reply:
        return success({"models": sorted(self._endpoints())})

    async def _live(self, scope: Scope, receive: Receive) -> Reply:
        return success({"live": True})

    async def _health(self, scope: Scope, receive: Receive) -> Reply:
        """Ready when every endpoint says so."""
        ready = self._ready() and all(reply.status == 200 for reply in await self._all("/ready", scope, receive))
        body = success({"live": True, "ready": ready}).body
        return Reply(200 if ready else 503, body)

    async def _openapi(self, scope: Scope, receive: Receive) -> Reply:
        """Of the endpoints that this caller may know of."""
        told = [reply.body for reply in await self._all("", scope, receive) if reply.status == 200]
        return success(openapi([orjson.loads(body) for body in told], self._version))

    async def _docs(self, scope: Scope, receive: Receive) -> Reply:
        return Reply(200, self._page, kind=(b"content-type", PAGE.encode()))

    async def _measured(self, scope: Scope, receive: Receive) -> Reply:
        assert self._metrics is not None
        text = await asyncio.to_thread(self._metrics)
        return Reply(200, text.encode(), kind=(b"content-type", METRICS.encode()))

    async def _all(self, path: str, scope: Scope, receive: Receive) -> list[Reply]:
        """What each endpoint replies to the same request."""
        return await asyncio.gather(*(one.reply(path, scope, receive) for one in self._endpoints().values()))


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
