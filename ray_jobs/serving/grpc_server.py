"""Open Inference over gRPC: a gateway that says each call to HTTP's face of the same endpoints, and its answer back.

`ask` is the way there: through a node's proxy (front.py), or straight into an app of this process (`asking`). So there
is one place where requests are checked, scored, logged and counted, and gRPC adds a transport alone. With the protocol
come the standard health service ("" is the server, an endpoint's name is that endpoint) and reflection.

An error is the status of HTTP in gRPC's words, with the same message. A call is given up when its deadline is over or
its caller is gone.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import grpc.aio
import orjson
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from lakeloop.lakehouse.errors import Invalid, LakeloopError, NotFound, Unavailable
from lakeloop.ray_jobs.serving.asgi import BODY_BYTES
from lakeloop.ray_jobs.serving.inference_messages import MEDIA_TYPE, MESSAGES, SERVICE, ModelInferRequest, read_message

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
PASSED_ON = frozenset({"authorization", "traceparent", "tracestate", "x-request-id"})
"""Metadata that an endpoint reads as headers."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
MOST_CALLS = 1024
MOST_WATCHING = 128
"""Of them: a watch lasts as long as its caller likes."""
MOST_WORDS = 800
"""Characters of a message: it travels as a header, each up to twelve bytes there, and clients take 8 KiB of headers."""
WATCH_S = 1.0
GRACE_S = 5.0
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
log = logging.getLogger("lakeloop.grpc")

Headers: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer of HTTP. Names of headers are in lower case."""

    status: int
    body: bytes
    headers: Headers = field(default_factory=dict)


Ask: TypeAlias = Callable[[str, str, Headers, bytes], Awaitable[Answered]]
"""(method, path, headers, body) → the answer. Unavailable when there is none."""


class Failed(Exception):
    """HTTP said no."""

    def __init__(self, answered: Answered) -> None:
        super().__init__(answered.status)
        self.code, self.message = code_of(answered), message_of(answered)
        self.retry_after = answered.headers.get("retry-after", "")


def code_of(answered: Answered) -> grpc.StatusCode:
    """A 500 without our error is the proxy's: it found no replica."""
    if answered.status == 500:
        ours = "json" in answered.headers.get("content-type", "")
        return grpc.StatusCode.INTERNAL if ours else grpc.StatusCode.UNAVAILABLE
    return CODES.get(answered.status, grpc.StatusCode.UNKNOWN)


def message_of(answered: Answered) -> str:
    """The words of the answer's error."""
    try:
        return str(orjson.loads(answered.body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"no replica answered ({answered.status})"


class Gateway:
    """The protocol's calls, each from and to a message's bytes."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def server_live(self, body: bytes, headers: Headers) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def server_ready(self, body: bytes, headers: Headers) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=await self.is_ready(""))

    async def model_ready(self, body: bytes, headers: Headers) -> Any:
        asked = read_message(MESSAGES["ModelReadyRequest"], body)
        return MESSAGES["ModelReadyResponse"](ready=await self.is_ready(asked.name, asked.version, headers))

    async def server_metadata(self, body: bytes, headers: Headers) -> Any:
        told = await self._get("/v2", headers)
        return MESSAGES["ServerMetadataResponse"](
            name=told["name"], version=told["version"], extensions=told["extensions"]
        )

    async def model_metadata(self, body: bytes, headers: Headers) -> Any:
        asked = read_message(MESSAGES["ModelMetadataRequest"], body)
        told = await self._get(path_of(asked.name, asked.version), headers)
        message = MESSAGES["ModelMetadataResponse"](
            name=told["name"], versions=told["versions"], platform=told["platform"]
        )
        for tensors, described in ((message.inputs, told["inputs"]), (message.outputs, told["outputs"])):
            for one in described:
                tensors.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        return message

    async def model_infer(self, body: bytes, headers: Headers) -> bytes:
        """The request goes on as it came; only whom it is for is read here."""
        asked = read_message(ModelInferRequest, body)
        path = path_of(asked.model_name, asked.model_version) + "/infer"
        answered = await self._ask("POST", path, {**headers, "content-type": MEDIA_TYPE}, body)
        if answered.status != 200:
            raise Failed(answered)
        return answered.body

    async def is_ready(self, name: str, version: str = "", headers: Headers | None = None) -> bool:
        """Whether an endpoint answers, or with no name all of them. Failed for one that is not there."""
        path = f"{path_of(name, version)}/ready" if name else "/v2/health/ready"
        try:
            answered = await self._ask("GET", path, headers or {}, b"")
        except Unavailable:
            return False
        if answered.status in (401, 403, 404):
            raise Failed(answered)
        return answered.status == 200

    async def _get(self, path: str, headers: Headers) -> Any:
        answered = await self._ask("GET", path, headers, b"")
        if answered.status != 200:
            raise Failed(answered)
        return orjson.loads(answered.body)


class Health:
    """The standard health service; what it says is asked for each time."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._watching = gateway, 0

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 gRPC's name
        status = await self._status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        status = health_pb2.HealthCheckResponse(status=await self._status(""))
        return health_pb2.HealthListResponse(statuses={"": status, SERVICE: status})

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        if self._watching >= MOST_WATCHING:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_WATCHING} are watching; ask by Check")
        self._watching += 1
        try:
            told = None
            while True:
                status = await self._status(request.service)
                status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
                if status != told:
                    yield health_pb2.HealthCheckResponse(status=status)
                told = status
                await asyncio.sleep(WATCH_S)
        finally:
            self._watching -= 1

    async def _status(self, service: str) -> Any:
        try:
            return SERVING if await self._gateway.is_ready("" if service == SERVICE else service) else NOT_SERVING
        except (Failed, NotFound):
            return None


async def start_server(ask: Ask, host: str, port: int) -> tuple[grpc.aio.Server, int]:
    """A server that answers, and its port (0: any free one). Unavailable when the port is taken."""
    gateway = Gateway(ask)
    options = [
        ("grpc.max_receive_message_length", BODY_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a port of somebody else is an error, not half of the calls
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MOST_CALLS)
    server.add_generic_rpc_handlers((handlers(gateway),))
    health_pb2_grpc.add_HealthServicer_to_server(Health(gateway), server)
    add_reflection(server)
    address = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{address}:{port}")
    except RuntimeError as error:
        raise Unavailable(
            f"gRPC cannot listen on {address}:{port}", todo="choose another --grpc-port, or -1 for none"
        ) from error
    await server.start()
    return server, bound


def handlers(gateway: Gateway) -> Any:
    """The protocol's methods. Bytes in and out: what is no message is INVALID_ARGUMENT with our words."""
    calls = {
        "ServerLive": gateway.server_live,
        "ServerReady": gateway.server_ready,
        "ModelReady": gateway.model_ready,
        "ServerMetadata": gateway.server_metadata,
        "ModelMetadata": gateway.model_metadata,
        "ModelInfer": gateway.model_infer,
    }
    return grpc.method_handlers_generic_handler(
        SERVICE, {name: grpc.unary_unary_rpc_method_handler(answering(call)) for name, call in calls.items()}
    )


Call: TypeAlias = Callable[[bytes, Headers], Awaitable[Any]]


def answering(call: Call) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """A gRPC method of a call: errors as statuses."""

    async def answer(body: bytes, context: Any) -> bytes:
        headers = {name: value for name, value in context.invocation_metadata() or () if name in PASSED_ON}
        try:
            message = await call(body, headers)
        except Failed as failed:
            pushback = (("retry-after", failed.retry_after),) if failed.retry_after else ()
            await context.abort(failed.code, failed.message[:MOST_WORDS], pushback)
        except LakeloopError as error:
            await context.abort(status_code(error), str(error)[:MOST_WORDS])
        return message if isinstance(message, bytes) else bytes(message.SerializeToString())

    return answer


def status_code(error: LakeloopError) -> grpc.StatusCode:
    match error:
        case Invalid():
            return grpc.StatusCode.INVALID_ARGUMENT
        case NotFound():
            return grpc.StatusCode.NOT_FOUND
        case Unavailable():
            return grpc.StatusCode.UNAVAILABLE
        case _:
            return grpc.StatusCode.INTERNAL


def path_of(name: str, version: str = "") -> str:
    """An endpoint's path. NotFound for what cannot be a name or a version."""
    for word in (name, version or "0"):
        if not NAME.fullmatch(word):
            raise NotFound(f"there is no model {name!r}" + (f", version {version!r}" if version else ""))
    return f"/v2/models/{name}" + (f"/versions/{version}" if version else "")


def add_reflection(server: grpc.aio.Server) -> None:
    pool = MESSAGES.pool
    for other in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(other.DESCRIPTOR.serialized_pb)
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server, pool=pool)


App: TypeAlias = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def asking(app: App) -> Ask:
    """Ask an ASGI app of this process, without a server between."""

    async def ask(method: str, path: str, headers: Headers, body: bytes) -> Answered:
        sent: list[Mapping[str, Any]] = []
        pairs: Sequence[tuple[bytes, bytes]] = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": pairs,
        }

        async def receive() -> Mapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        await app(scope, receive, send)
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answered(sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:]), answered)

    return ask
