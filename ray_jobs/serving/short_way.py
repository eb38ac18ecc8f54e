"""The short way of a request: from a replica's HTTP server straight to its endpoint.

Ray Serve's own way gives each request a context, a task that waits for the caller to leave, metrics and a place in the
counts that scaling follows; together they take longer than the answer. An endpoint with a fixed number of replicas
needs none of it: it bounds, counts and times by itself, and the HTTP server waits for what is in flight before it ends.

Ray asks `middlewares` in every process that has an HTTP server (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH); `open_for`
is called where a replica is built. A proxy's process has no such endpoint, and passes all on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakeloop.ray_jobs.serving.asgi import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from starlette.middleware import Middleware

_open: dict[str, ASGIApp] = {}
"""By path: the app of this process's replica. Ray hands nothing from the one place to the other."""


def open_for(route: str, app: ASGIApp) -> None:
    """Send what is asked for below `route` to `app`."""
    _open[route] = app


def middlewares() -> list[Middleware]:
    from starlette.middleware import Middleware

    return [Middleware(ShortWay)]


class ShortWay:
    """Around Ray's app. Its health checks go to Ray, as everything that is not the replica's own does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            root = scope.get("root_path", "")
            path = scope["path"][len(root) :]
            for route, app in _open.items():
                if path.startswith(route) and path[len(route) : len(route) + 1] in ("", "/"):
                    await app({**scope, "root_path": root + route}, receive, send)
                    return
        await self._app(scope, receive, send)
