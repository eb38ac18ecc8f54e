"""The front of a node on Ray: the server's own paths over HTTP, and gRPC, for all of the endpoints.

It holds no model. What it is asked it asks the endpoints, through the node's HTTP proxy as any caller would: so Serve's
balancing, draining and back-pressure hold for gRPC as for HTTP, and ready means that a replica has just answered. (A
handle of Serve's took twice as long for the same.) It is a Serve application of its own at "/", behind the endpoints'
longer prefixes, and Serve starts it again when it dies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc.aio
import ray
from ray import serve

from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.ray_jobs.serving.asgi import (
    ASGIApp,
    Receive,
    Reply,
    Scope,
    Send,
    failed,
    failure,
    read_body,
    success,
)
from lakeloop.ray_jobs.serving.grpc_server import GRACE_S, MOST_CALLS, Answered, Ask, start_server
from lakeloop.ray_jobs.serving.metrics import render
from lakeloop.ray_jobs.serving.proxy import MARK, Proxy
from lakeloop.ray_jobs.serving.server import MODELS, Server

APPLICATION = "front"
PASSED_ON = frozenset({"authorization", "content-type", "traceparent", "tracestate", "x-request-id"})
AGAIN = (b"retry-after", b"1")
TOLD_BACK = frozenset({"allow", "retry-after", "www-authenticate"})


@dataclass(frozen=True, slots=True)
class Front:
    """What a front is made from. `asleep` are endpoints that may have no replica: they are not woken to see if they are
    ready. No `grpc_port`: HTTP alone.
    """

    endpoints: tuple[str, ...]
    asleep: frozenset[str]
    log_folder: Path
    host: str
    port: int
    grpc_port: int | None

    @property
    def name(self) -> str:
        return APPLICATION

    @property
    def application(self) -> str:
        return APPLICATION

    @property
    def ready_path(self) -> str:
        return "/v2/health/live"

    def target(self) -> serve.RunTarget:
        """What Serve is asked to run: one on each node, for the ports are a node's."""
        deployment = serve.deployment(serve.ingress(builder(self))()).options(
            name=APPLICATION,
            num_replicas=sum(node["Alive"] for node in ray.nodes()),
            max_replicas_per_node=1,
            max_ongoing_requests=MOST_CALLS,
            ray_actor_options={"num_cpus": 0},
            health_check_period_s=1,
            graceful_shutdown_wait_loop_s=0.2,
            graceful_shutdown_timeout_s=GRACE_S,
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        return serve.RunTarget(deployment.bind(), APPLICATION, route_prefix="/")


def builder(front: Front) -> Callable[[], ASGIApp]:
    """What `serve.ingress` takes."""

    def build() -> ASGIApp:
        return FrontApp(front)

    return build


class FrontApp:
    """The ASGI app of a front; gRPC lives as long as the app."""

    def __init__(self, front: Front) -> None:
        self._front, self._proxy = front, Proxy(front.host, front.port)
        faces = {name: Relayed(name, self._proxy.ask, name in front.asleep) for name in front.endpoints}
        self._server = Server(lambda: faces, metrics=lambda: render(front.log_folder))
        self._grpc: grpc.aio.Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._server(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._grpc is not None:
            await self._grpc.stop(GRACE_S)
        await self._proxy.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        await self._proxy.open()
        if self._front.grpc_port is not None:
            self._grpc, _ = await start_server(self._proxy.ask, self._front.host, self._front.grpc_port)


class Relayed:
    """A `Face` of an endpoint elsewhere."""

    def __init__(self, name: str, ask: Ask, asleep: bool) -> None:
        self._root, self._ask, self._asleep = f"{MODELS}{name}", ask, asleep

    async def reply(self, path: str, scope: Scope, receive: Receive) -> Reply:
        """What the endpoint replies. Never raises what a request can cause."""
        given = dict(scope["headers"])
        if given.get(MARK[0]) == MARK[1] and scope["path"].startswith(MODELS):  # our own question: nobody took it
            return failure(503, "no replica answers", AGAIN)
        if path == "/ready" and self._asleep:
            return success({"ready": True})
        try:
            body = await read_body(given, receive) if scope["method"] == "POST" else b""
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in given.items()}
            passed = {name: value for name, value in headers.items() if name in PASSED_ON}
            answered = await self._ask(scope["method"], self._root + quote(path), passed, body)
        except LakeloopError as error:
            return failed(error)
        return reply_of(answered)


def reply_of(answered: Answered) -> Reply:
    """An answer of the proxy's as a reply; a 500 without our error is the proxy's own: it found no replica."""
    if answered.status == 500 and "json" not in answered.headers.get("content-type", ""):
        return failure(503, "no replica answers", AGAIN)
    told = {name: value for name, value in answered.headers.items() if name in TOLD_BACK}
    headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in told.items())
    kind = (b"content-type", answered.headers.get("content-type", "application/json").encode("latin-1"))
    return Reply(answered.status, answered.body, headers, kind)
