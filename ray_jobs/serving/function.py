"""Endpoints as a function: a process that is started for a request, may be frozen after its answer, and costs nothing
between two.

    Function      an ASGI app, for any platform that runs one
    handler       for AWS Lambda: events of a function URL or of an HTTP API (payload 2.0). LAKELOOP_LAKE names the
                  lake, LAKELOOP_PROJECT the project when the lake has several

A model is loaded when it is first asked for, and the endpoint's documents are looked at again when the last look is
older than `FOLLOW_S`: so a promotion, a rollback, new snapshots and revoked tokens are followed without a thread. What
is predicted lies in the lake before the answer leaves. Nothing here imports Ray, DuckDB or delta-rs.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lakeloop.lakehouse import keys, lean, registry
from lakeloop.lakehouse.endpoints import KIND, endpoint_id
from lakeloop.lakehouse.errors import Invalid, LakeloopError
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.ray_jobs.serving.arms import Loaded
from lakeloop.ray_jobs.serving.asgi import Message, Receive, Scope, Send, failed, send_reply
from lakeloop.ray_jobs.serving.direct_log import DirectLog
from lakeloop.ray_jobs.serving.endpoint import Endpoint
from lakeloop.ray_jobs.serving.gate import Gate
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.loading import LoadEndpoint, load_with
from lakeloop.ray_jobs.serving.recorder import Recorder
from lakeloop.ray_jobs.serving.server import Server
from lakeloop.ray_jobs.serving.watcher import Watcher

if TYPE_CHECKING:
    from lakeloop.lakehouse.documents import Revision
    from lakeloop.lakehouse.scoring.scorer import Scorer

FOLLOW_S = 2.0


def load_lean(lake: Lake, project: str, endpoint: str, revision: Revision, previous: Loaded | None) -> Loaded:
    """A `LoadEndpoint` that imports no more than the model needs."""
    lean.import_arrow()
    return load_with(_load_scorer, lake, project, endpoint, revision, previous)


def _load_scorer(lake: Lake, project: str, model: str, version: int, snapshots: Mapping[str, Any]) -> Scorer:
    from lakeloop.lakehouse.scoring.loading import scorer_of

    body = registry.version(lake, project, model, version).body
    if body["learner"]["name"] == lean.XGBOOST:
        lean.import_xgboost()
    else:
        lean.forget_xgboost()
    return scorer_of(lake, body, snapshots)


@dataclass(slots=True)
class _Served:
    """An endpoint that was asked for. `looked` is when its documents were last looked at, by `monotonic`."""

    endpoint: Endpoint
    watcher: Watcher
    gate: Gate
    looked: float


class Endpoints(Mapping[str, Endpoint]):
    """The endpoints of a project, each opened when it is first asked for, which takes its time; LakeloopErrors are
    those of loading it. For one event loop."""

    def __init__(
        self,
        lake: Lake,
        project: str,
        *,
        load: LoadEndpoint = load_lean,
        follow_s: float = FOLLOW_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lake, self._project, self._load = lake, project, load
        self._follow_s, self._monotonic = follow_s, monotonic
        self._log = DirectLog(lake.journal, lake.writer)
        self._served: dict[str, _Served] = {}

    def __getitem__(self, name: str) -> Endpoint:
        served = self._served.get(name)
        if served is None:
            served = self._served[name] = self._open(name)
        elif self._monotonic() - served.looked >= self._follow_s:
            served.watcher.try_step()
            served.gate.try_step()
            served.looked = self._monotonic()
        return served.endpoint

    def __iter__(self) -> Iterator[str]:
        """One LIST."""
        prefix = endpoint_id(self._project, "")
        return iter([found.removeprefix(prefix) for found in self._lake.documents.ids(KIND, prefix)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _open(self, name: str) -> _Served:
        lake, document = self._lake, endpoint_id(self._project, name)
        first = lake.documents.latest(KIND, document) if keys.NAME.fullmatch(name) else None
        if first is None:
            raise KeyError(name)
        watcher = Watcher(
            first,
            lambda number: lake.documents.next(KIND, document, number),
            lambda revision, previous: self._load(lake, self._project, name, revision, previous),
        )
        gate = Gate(lake, self._project, [name])
        inference = Inference(
            self._project,
            name,
            loaded=lambda: watcher.loaded,
            append=Recorder(self._log, lambda: watcher.loaded).append,
            state=lambda: {"wanted": watcher.wanted, "error": watcher.error or gate.error, "process": os.getpid()},
            clock=lake.clock,
        )
        return _Served(Endpoint(inference, permit=gate.permit(name)), watcher, gate, self._monotonic())


class Function:
    """The endpoints of one project as an ASGI app, and for events of AWS Lambda."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._server = Server(lambda: endpoints)
        self._runner: asyncio.Runner | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._server(scope, receive, send)
        except LakeloopError as error:  # of an endpoint that cannot be opened
            await send_reply(failed(error), send)

    def handle(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to an event of payload 2.0, in its form."""
        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(self._answer(event))

    async def _answer(self, event: Mapping[str, Any]) -> dict[str, Any]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        try:
            scope, body = request_of(event)
        except Invalid as error:
            await send_reply(failed(error), send)
        else:
            await self(scope, _once(body), send)
        return response_of(sent)


def request_of(event: Mapping[str, Any]) -> tuple[Scope, bytes]:
    """An event's request as ASGI has it, and its body. Invalid for an event of another kind."""
    try:
        context, text = event["requestContext"], event.get("body") or ""
        path, stage = str(event["rawPath"]), context.get("stage", "$default")
        body = base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()
        headers = [(name.lower().encode(), str(value).encode()) for name, value in event.get("headers", {}).items()]
        method = str(context["http"]["method"]).upper()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Invalid(
            f"the event is not an HTTP request of payload format 2.0 ({type(error).__name__}: {error})",
            todo="call it by a function URL or an HTTP API",
        ) from error
    if stage != "$default":
        path = path.removeprefix(f"/{stage}")
    query = str(event.get("rawQueryString", "")).encode()
    scope = {"type": "http", "method": method, "path": unquote(path), "query_string": query, "headers": headers}
    return scope, body


def response_of(sent: list[Message]) -> dict[str, Any]:
    """What an app has sent, as payload 2.0 has it. JSON and texts go as they are, anything else in base64."""
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"] if name != b"content-length"}
    body = b"".join(message.get("body", b"") for message in sent[1:])
    plain = headers.get("content-type", "").startswith(("application/json", "text/"))
    text = body.decode() if plain else base64.b64encode(body).decode()
    return {"statusCode": sent[0]["status"], "headers": headers, "body": text, "isBase64Encoded": not plain}


def _once(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def handler(event: Mapping[str, Any], context: object = None) -> dict[str, Any]:
    """AWS Lambda's entry: `lakeloop.ray_jobs.serving.function.handler`."""
    return of_environment().handle(event)


@cache
def of_environment() -> Function:
    """The function that the environment describes; one in a process. Invalid when it does not say which."""
    url, project = os.environ.get("LAKELOOP_LAKE"), os.environ.get("LAKELOOP_PROJECT")
    if not url:
        raise Invalid("no lake is named", where="LAKELOOP_LAKE", todo="set it to s3://bucket/prefix")
    lake = open_lake(url)
    if not project:
        from lakeloop.lakehouse import applied

        there = applied.names(lake)
        if len(there) != 1:
            todo = f"set it to one of: {', '.join(there) or 'none is applied yet'}"
            raise Invalid(f"the lake has {len(there)} projects", where="LAKELOOP_PROJECT", todo=todo)
        project = there[0]
    return Function(Endpoints(lake, project))
