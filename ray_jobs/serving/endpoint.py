"""An endpoint's HTTP face: a raw ASGI app, mounted under /v2/models/<endpoint>.

    POST /infer          {"rows": [{…}], "id": "…"}, answered by {"id", "model", "version", "revision",
                         "rows": [{"id", "prediction", "decision", "as_of", "ages", "absent"}]}
    GET  ""              what the model is and takes
    GET  /ready, /live   health
    GET  /state          what is loaded, and how many rows wait to be shipped

Errors are {"error": "…"}. A request is answered only after its rows are in the write-ahead file; when they cannot be
written, it is 503.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from lakeloop.lakehouse.errors import Invalid, LakeloopError, Unavailable
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.write_ahead import Logged, Shape

if TYPE_CHECKING:
    from lakeloop.lakehouse.scoring.scorer import Answer

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

BODY_BYTES = 16 << 20
MOST_ROWS = 10_000
ROWS_INLINE = 16
"""More rows than these are scored in a thread, so that health checks are answered meanwhile."""
ROUTES = {"": "GET", "/ready": "GET", "/live": "GET", "/state": "GET", "/infer": "POST"}
JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
log = logging.getLogger("lakeloop.endpoint")


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and a JSON body."""

    status: int
    body: bytes
    allow: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed body of /infer."""

    id: str
    rows: Sequence[Mapping[str, Any]]


class TooLarge(Invalid):
    """The request is larger than an endpoint takes."""


class Endpoint:
    """Answers requests with what `loaded()` holds at that moment, after `append` has logged them.

    `state()` adds what only the process around knows to /state.
    """

    def __init__(
        self,
        project: str,
        name: str,
        *,
        loaded: Callable[[], Loaded],
        append: Callable[[Shape, Logged], None],
        state: Callable[[], Mapping[str, Any]],
        clock: Callable[[], datetime],
    ) -> None:
        self.project, self.name = project, name
        self._loaded, self._append, self._state, self._clock = loaded, append, state, clock
        self._shapes: dict[int, tuple[Shape, frozenset[str]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request."""
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", ""))).rstrip("/")
        try:
            reply = await self._route(path, str(scope["method"]), scope, receive)
        except LakeloopError as error:
            reply = failure(status_of(error), str(error))
        except Exception:
            log.exception("%s: a request failed", self.name)
            reply = failure(500, "the model failed on this request; its log says why")
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
                return await asyncio.to_thread(self._describe_state)
            case "":
                return success(self._metadata())
            case _:
                return success({"live": True, "ready": True})

    async def _infer(self, body: bytes) -> Reply:
        began = time.perf_counter()
        request = parse(body)
        if len(request.rows) <= ROWS_INLINE:
            return self._answer(request, began)
        return await asyncio.to_thread(self._answer, request, began)

    def _answer(self, request: Request, began: float) -> Reply:
        loaded, now = self._loaded(), self._clock()
        arm = loaded.arm_for(self.name, request.id)
        answers = arm.scorer.answer(request.rows, now)
        body = orjson.dumps(
            {
                "id": request.id,
                "model": loaded.model,
                "version": arm.version,
                "revision": loaded.revision,
                "rows": [_public(answer) for answer in answers],
            },
            option=JSON,
        )
        latency_ms = (time.perf_counter() - began) * 1000
        shape, store = self._columns(arm)
        rows = [_logged(store, row, answer) for row, answer in zip(request.rows, answers, strict=True)]
        self._append(
            shape, Logged(request.id, now, loaded.model, arm.version, arm.name, loaded.revision, latency_ms, rows)
        )
        return Reply(200, body)

    def _columns(self, arm: Arm) -> tuple[Shape, frozenset[str]]:
        """How an arm's rows are logged, and which inputs a row may give in the store's place; once per version."""
        found = self._shapes.get(arm.version)
        if found is None:
            inputs = arm.scorer.signature.inputs
            shape = Shape(self.project, self.name, tuple((one.name, one.type) for one in inputs))
            found = self._shapes[arm.version] = shape, frozenset(one.name for one in inputs if one.role != "request")
        return found

    def _describe_state(self) -> Reply:
        loaded = self._loaded()
        arms = [{"name": arm.name, "version": arm.version, "weight": arm.weight} for arm in loaded.arms]
        seen = {
            "name": self.name,
            "model": loaded.model,
            "revision": loaded.revision,
            "arms": arms,
            "snapshots": loaded.snapshots,
        }
        return success({**seen, **self._state()})

    def _metadata(self) -> Mapping[str, Any]:
        loaded = self._loaded()
        inputs = [
            {"name": one.name, "type": one.type, "role": one.role} for one in loaded.champion.scorer.signature.inputs
        ]
        versions = [str(arm.version) for arm in loaded.arms]
        return {
            "name": self.name,
            "versions": versions,
            "platform": "lakeloop",
            "model": loaded.model,
            "inputs": inputs,
        }


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
    if request_id is not None and not (isinstance(request_id, str) and 0 < len(request_id) <= 200):
        raise Invalid("'id' is not a text of 1 to 200 characters", todo="leave it out to have one made")
    return Request(request_id or secrets.token_hex(16), _rows(record.get("rows")))


def _rows(rows: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(rows, list) or not rows:
        raise Invalid("'rows' is not a list with at least one row", todo='send {"rows": [{…}]}')
    if len(rows) > MOST_ROWS:
        raise TooLarge(
            f"{len(rows):,} rows in one request", todo=f"send at most {MOST_ROWS:,}; lakeloop predict scores more"
        )
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise Invalid(f"row {number} is not an object", todo="a row is {input: value}")
    return rows


def _public(answer: Answer) -> Mapping[str, Any]:
    return {
        "id": answer.id,
        "prediction": answer.prediction,
        "decision": answer.decision,
        "as_of": answer.as_of,
        "ages": answer.ages,
        "absent": answer.absent,
    }


def _logged(store: frozenset[str], row: Mapping[str, Any], answer: Answer) -> Mapping[str, Any]:
    scores = answer.prediction if isinstance(answer.prediction, (list, tuple)) else None
    return {
        "id": answer.id,
        "as_of": answer.as_of,
        "prediction": max(scores) if scores else answer.prediction,
        "decision": _text(answer.decision),
        "scores": scores,
        "ages": answer.ages,
        "absent": answer.absent,
        "given": [name for name in row if name in store],
        "inputs": answer.inputs,
    }


def _text(decision: Any) -> str | None:
    """A decision as SQL would spell it: true, false, or the class."""
    if decision is None or isinstance(decision, str):
        return decision
    return str(decision).lower() if isinstance(decision, bool) else str(decision)


def status_of(error: LakeloopError) -> int:
    match error:
        case TooLarge():
            return 413
        case Invalid():
            return 400
        case Unavailable():
            return 503
        case _:
            return 500


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
