"""What stands before an endpoint's ASGI app: the token, the bound on what is in flight, and the timeout.

Health (/ready, /live) passes always. Refusals are {"error": "…"}: 401 with WWW-Authenticate, 503 with Retry-After, 504.
What was sent with the request never gets into an answer, a count or a log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import orjson

from lakeloop.ray_jobs.serving.endpoint import Receive, Scope, Send
from lakeloop.ray_jobs.serving.gate import Authorize
from lakeloop.ray_jobs.serving.inference import Count
from lakeloop.ray_jobs.serving.limits import Admission, Limits
from lakeloop.ray_jobs.serving.metrics import Refusal

ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]


class Guard:
    """Lets requests through to `app`. `tick` must be called every tenth of a second or so."""

    def __init__(
        self,
        app: ASGIApp,
        endpoint: str,
        limits: Limits,
        *,
        authorize: Authorize,
        count: Count,
        refused: Callable[[Refusal], None],
    ) -> None:
        self._app, self._endpoint, self._timeout_s = app, endpoint, limits.timeout_s
        self._authorize, self._count, self._refused = authorize, count, refused
        self.admission = Admission(limits)
        self._began: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request."""
        path = scope["path"]
        if path.endswith(("/ready", "/live")):
            await self._app(scope, receive, send)
        elif not self._authorize(self._endpoint, header(scope, b"authorization")):
            if path.endswith("/infer"):
                self._count(401, 0, 0.0)
            await refuse(send, 401, "this endpoint answers only to a token", [(b"www-authenticate", b"Bearer")])
        elif path.endswith("/infer"):
            await self._infer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def tick(self, late_s: float = 0.0) -> None:
        """End requests that take too long. `late_s`: by how much the event loop was late for this."""
        self.admission.lag_s = late_s
        oldest = time.perf_counter() - self._timeout_s
        for task, began in list(self._began.items()):
            if began < oldest and task not in self._late:
                self._late.add(task)
                task.cancel()

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        admission = self.admission
        if retry_after_s := admission.retry_after_s():
            self._refused("overload")
            self._count(503, 0, 0.0)
            await refuse(send, 503, "too many requests at once", [(b"retry-after", b"%d" % retry_after_s)])
            return
        task = asyncio.current_task()
        assert task is not None
        began = self._began[task] = time.perf_counter()
        among = admission.enter()
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            await self._too_late(send, time.perf_counter() - began)
        finally:
            del self._began[task]
            self._late.discard(task)
            admission.leave(among, time.perf_counter() - began)

    async def _too_late(self, send: Send, seconds: float) -> None:
        self._refused("timeout")
        self._count(504, 0, seconds)
        with suppress(RuntimeError):  # the answer was on its way already
            await refuse(send, 504, f"no answer within {self._timeout_s:g} s, the endpoint's timeout")


def header(scope: Scope, name: bytes) -> bytes | None:
    """A header of a request, by its name in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def refuse(send: Send, status: int, message: str, headers: Headers | None = None) -> None:
    """Answer {"error": message}."""
    body = orjson.dumps({"error": message})
    known = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": known + (headers or [])})
    await send({"type": "http.response.body", "body": body})
