"""An endpoint's HTTP face: a raw ASGI app, mounted under /v2/models/<endpoint>.

    POST /infer          {"rows": [{…}], "id": "…"}, answered by {"id", "model", "version", "revision",
                         "rows": [{"id", "prediction", "decision", "as_of", "ages", "absent"}]}
    GET  ""              what the model is and takes
    GET  /ready, /live   health
    GET  /state          what is loaded, and how many rows wait to be shipped

Errors are {"error": "…"}.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias

import orjson

from lakeloop.lakehouse.errors import Invalid, LakeloopError
from lakeloop.ray_jobs.serving.inference import Inference, Row, TooLarge, check_count, check_id, new_id, status_of

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

BODY_BYTES = 16 << 20
ROUTES = {"": "GET", "/ready": "GET", "/live": "GET", "/state": "GET", "/infer": "POST"}
JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
log = logging.getLogger("lakeloop.endpoint")


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and a JSON body; `rows` that were answered."""

    status: int
    body: bytes
    allow: str = ""
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed body of /infer."""

    id: str
    rows: Sequence[Row]


class Endpoint:
    """Speaks HTTP for one `Inference`."""

    def __init__(self, inference: Inference) -> None:
        self.inference = inference

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request."""
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", ""))).rstrip("/")
        began = time.perf_counter()
        try:
            reply = await self._route(path, str(scope["method"]), scope, receive)
        except LakeloopError as error:
            reply = failure(status_of(error), str(error))
        except Exception:
            log.exception("%s: a request failed", self.inference.name)
            reply = failure(500, "the model failed on this request; its log says why")
        if path == "/infer":
            self.inference.count(reply.status, reply.rows, time.perf_counter() - began)
        await _send(reply, send)

    async def _route(self, path: str, method: str, scope: Scope, receive: Receive) -> Reply:
        allowed = ROUTES.get(path)
        if allowed is None:
            return failure(404, f"there is nothing at {path!r} (there is: POST /infer; GET /ready, /live, /state)")
        if method != allowed:
            return Reply(405, failure(405, f"{path or '/'} takes {allowed}, not {method}").body, allow=allowed)
        match path:
            case "/infer":
                return await self._infer(await _body(scope, receive))
            case "/state":
                return success(await asyncio.to_thread(self.inference.describe))
            case "":
                return success(self.inference.metadata())
            case _:
                return success({"live": True, "ready": True})

    async def _infer(self, body: bytes) -> Reply:
        began = time.perf_counter()
        request = parse(body)
        answer = await self.inference.rows(request.rows, request.id, None, began)
        return Reply(200, orjson.dumps(answer, option=JSON), rows=len(request.rows))


def parse(body: bytes) -> Request:
    """A request from its body. Invalid says what is wrong and what is allowed; TooLarge for too many rows."""
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON ({error})", todo='send {"rows": [{…}]}') from error
    if not isinstance(record, dict):
        raise Invalid("the body is not a JSON object", todo='send {"rows": [{…}]}')
    for key in record.keys() - {"rows", "id"}:
        near = get_close_matches(key, ("rows", "id"), 1)
        raise Invalid(
            f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""), todo="allowed: rows, id"
        )
    request_id = record.get("id")
    if request_id is not None:
        check_id(request_id)
    return Request(request_id or new_id(), _rows(record.get("rows")))


def _rows(rows: Any) -> Sequence[Row]:
    if not isinstance(rows, list) or not rows:
        raise Invalid("'rows' is not a list with at least one row", todo='send {"rows": [{…}]}')
    check_count(len(rows))
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise Invalid(f"row {number} is not an object", todo="a row is {input: value}")
    return rows


def success(body: Mapping[str, Any]) -> Reply:
    return Reply(200, orjson.dumps(body, option=JSON))


def failure(status: int, message: str) -> Reply:
    return Reply(status, orjson.dumps({"error": message}))


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body; TooLarge as soon as it is known to be."""
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    parts, size, more = [], int(announced) if announced.isdigit() else 0, True
    while more and size <= BODY_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("the caller left before the body was whole")
        parts.append(message.get("body", b""))
        size, more = max(size, sum(map(len, parts))), message.get("more_body", False)
    if size > BODY_BYTES:
        raise TooLarge(f"the body is larger than {BODY_BYTES >> 20} MiB", todo="send fewer rows at once")
    return b"".join(parts)


async def _send(reply: Reply, send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(reply.body)).encode())]
    if reply.allow:
        headers.append((b"allow", reply.allow.encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
