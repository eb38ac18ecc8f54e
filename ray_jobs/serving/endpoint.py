"""An endpoint's HTTP face: a raw ASGI app, mounted under /v2/models/<endpoint>.

    POST /infer          tensors, by the Open Inference Protocol V2 (open_inference.py), or flat rows:
                         {"rows": [{…}], "id": "…"}, answered by {"id", "model", "version", "revision",
                         "rows": [{"id", "prediction", "decision", "as_of", "ages", "absent"}]}
    GET  ""              what the model is and takes
    GET  /ready, /live   health
    POST /predict        TensorFlow Serving's JSON (tensorflow_serving.py); GET /status, its status of the versions
    GET  /state          what is loaded, and how many rows wait to be shipped

/versions/<n> before "", /ready, /status, /infer and /predict asks for one version. /infer takes the protocol's protobuf
messages, too. Errors are {"error": "…"}.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias

import orjson

from lakeloop.lakehouse.errors import Invalid, LakeloopError
from lakeloop.ray_jobs.serving.asgi import (
    FORMAT,
    Header,
    Headers,
    Receive,
    Reply,
    Scope,
    Send,
    failed,
    failure,
    not_allowed,
    read_body,
    send_reply,
    success,
)
from lakeloop.ray_jobs.serving.inference import Inference, check_id
from lakeloop.ray_jobs.serving.limits import check_count
from lakeloop.ray_jobs.serving.open_inference import HEADER, read_request, split, write_response
from lakeloop.ray_jobs.serving.tensorflow_serving import predict, status
from lakeloop.ray_jobs.serving.tracing import follow

DESCRIBED = ("", "/ready", "/live", "/state", "/status")
VERSIONS = "/versions/"
ASKS = ("/infer", "/predict")
PROTOBUF: Header = (b"content-type", b"application/x-protobuf")
WITHOUT_VERSION = ("/live", "/state")
SEND = 'send {"rows": [{…}]}, or {"inputs": [{"name", "datatype", "shape", "data"}]}'
ROW_KEYS = frozenset({"rows", "id"})
log = logging.getLogger("lakeloop.endpoint")

Permit: TypeAlias = Callable[[Scope], Reply | None]
"""What a caller gets that may not ask: a reply; None lets the request through."""


class Endpoint:
    """Speaks HTTP for one `Inference`. `permit` guards all but health."""

    def __init__(self, inference: Inference, *, permit: Permit | None = None) -> None:
        self.inference, self._permit = inference, permit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        await send_reply(await self.reply(path, scope, receive), send)

    async def reply(self, path: str, scope: Scope, receive: Receive) -> Reply:
        """The reply to a request for a path under the endpoint's own. Never raises what a request can cause."""
        began = time.perf_counter()
        counted = path.endswith(ASKS)
        headers = dict(scope["headers"])
        follow(headers)
        try:
            reply = await (
                self._infer(path, scope, headers, receive, began) if counted else self._describe(path, scope)
            )
        except LakeloopError as error:
            reply = failed(error)
        except Exception:
            log.exception("%s: a request failed", self.inference.name)
            reply = failure(500, "the model failed on this request; its log says why")
        if counted:
            self.inference.count(reply.status, reply.rows, time.perf_counter() - began)
        return reply

    async def _infer(self, path: str, scope: Scope, headers: Headers, receive: Receive, began: float) -> Reply:
        version = None
        if path not in ASKS:
            version = version_of(path.removesuffix("/predict").removesuffix("/infer"))
            if not version:
                return nothing_at(path)
        if scope["method"] != "POST":
            return not_allowed(path, scope["method"], "POST")
        if self._permit is not None and (refused := self._permit(scope)) is not None:
            return refused
        body = await read_body(headers, receive)
        if headers.get(PROTOBUF[0]) == PROTOBUF[1]:
            return await self._infer_message(body, version)
        header = headers.get(HEADER)
        text, binary = split(body, header) if header is not None else (body, b"")
        record = parse(text)
        if path.endswith("/predict"):
            return await self._predict(record, version, began)
        if "rows" in record or "inputs" not in record:
            return await self._rows(record, version, began)
        asked = read_request(record, binary)
        return write_response(await self.inference.infer(asked.request, version), asked)

    async def _infer_message(self, body: bytes, version: str | None) -> Reply:
        try:
            from lakeloop.ray_jobs.serving import inference_messages as messages
        except ImportError:  # protobuf comes with the extra "grpc"
            return failure(415, "protobuf is not read here; send JSON")
        asked = messages.read_request(body)
        answer = await self.inference.infer(asked.request, version or asked.version or None)
        written = messages.write_answer(answer, raw=asked.raw)
        return Reply(200, written, kind=PROTOBUF, rows=answer.outputs[0].shape[0])

    async def _predict(self, record: Mapping[str, Any], version: str | None, began: float) -> Reply:
        answer = await predict(self.inference, record, version, began)
        rows = next(iter(answer.values()))
        return Reply(
            200, orjson.dumps(answer, option=FORMAT), rows=len(rows["prediction"] if isinstance(rows, dict) else rows)
        )

    async def _rows(self, record: Mapping[str, Any], version: str | None, began: float) -> Reply:
        request_id = check_rows(record)
        rows = record["rows"]
        answer = await self.inference.rows(rows, request_id, version, began)
        return Reply(200, orjson.dumps(answer, option=FORMAT), rows=len(rows))

    async def _describe(self, path: str, scope: Scope) -> Reply:
        path, version = path.rstrip("/"), None
        if path.startswith(VERSIONS):
            version, _, rest = path.removeprefix(VERSIONS).partition("/")
            path = f"/{rest}" if rest else ""
        if path not in DESCRIBED or (version is not None and path in WITHOUT_VERSION):
            return nothing_at(path)
        if scope["method"] not in ("GET", "HEAD"):
            return not_allowed(path, scope["method"], "GET")
        if path in ("/ready", "/live"):
            return self._ready(version)
        if self._permit is not None and (refused := self._permit(scope)) is not None:
            return refused
        if path == "/state":
            return success(await asyncio.to_thread(self.inference.describe))
        metadata = self.inference.metadata(version)
        return success(status(metadata, version) if path == "/status" else metadata)

    def _ready(self, version: str | None) -> Reply:
        said: dict[str, Any] = {"name": self.inference.name, "live": True, "ready": True}
        return success(said | ({"version": self.inference.checked(version)} if version is not None else {}))


def version_of(path: str) -> str:
    """The version in /versions/<n>; nothing where the path is not so."""
    version = path.removeprefix(VERSIONS)
    return version if path.startswith(VERSIONS) and "/" not in version else ""


def nothing_at(path: str) -> Reply:
    there = "POST /infer, /versions/<n>/infer; GET /ready, /live, /state, /versions/<n>, /versions/<n>/ready"
    return failure(404, f"there is nothing at {path[:200]!r} (there is: {there})")


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Invalid for anything else."""
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON ({error})", todo=SEND) from None
    if type(record) is not dict:
        raise Invalid("the body is not a JSON object", todo=SEND)
    return record


def check_rows(record: Mapping[str, Any]) -> str:
    """The id of a request of flat rows, or nothing. Invalid says what is wrong and allowed; TooLarge: too many rows."""
    if not record.keys() <= ROW_KEYS:
        key = sorted(record.keys() - ROW_KEYS)[0][:200]
        near = get_close_matches(key, (*ROW_KEYS, "inputs"), 1)
        raise Invalid(
            f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""), todo="allowed: rows, id"
        )
    rows = record.get("rows")
    if type(rows) is not list or not rows:
        raise Invalid("'rows' is not a list with at least one row", todo=SEND)
    check_count(len(rows))
    for number, row in enumerate(rows):
        if type(row) is not dict:
            raise Invalid(f"row {number} is not an object", todo="a row is {input: value}")
    request_id = record.get("id")
    if request_id is None:
        return ""
    check_id(request_id)
    return str(request_id)
