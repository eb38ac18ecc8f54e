"""A worker of a plain server: the endpoints and the server's root in one process, under uvicorn.

An endpoint that cannot be opened answers 503 with the reason, keeps no other from answering, and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.ray_jobs.serving.asgi import Receive, Reply, Scope, Send, failure
from lakeloop.ray_jobs.serving.metrics import render
from lakeloop.ray_jobs.serving.replica import Replica, ReplicaApp
from lakeloop.ray_jobs.serving.server import Face, Server

RETRY_S = 5.0
KEEP_ALIVE_S = 30
DRAIN_S = 20
"""How long requests that have begun may still take when the server ends."""
log = logging.getLogger("lakeloop.plain")


def work(replicas: Sequence[Replica], listening: socket.socket) -> None:
    """A worker's whole life: until SIGTERM or SIGINT, or until the process that started it is gone."""
    import uvicorn

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    config = uvicorn.Config(
        PlainApp(replicas),
        lifespan="on",
        ws="none",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(config)
    threading.Thread(target=_follow_parent, args=(server,), name="parent", daemon=True).start()
    server.run(sockets=[listening])


def _follow_parent(server: Any) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        server.should_exit = True


class PlainApp:
    """Replicas by the name of their endpoint, behind the server's root. `make` opens one."""

    def __init__(self, replicas: Sequence[Replica], make: Callable[[Replica], ReplicaApp] = ReplicaApp) -> None:
        self._replicas, self._make = {one.endpoint: one for one in replicas}, make
        self._apps: dict[str, ReplicaApp] = {}
        self._faces: dict[str, Face] = {name: Failed(name, "it is being loaded") for name in self._replicas}
        folder = replicas[0].log_folder
        self._server = Server(lambda: self._faces, ready=self._ready, metrics=lambda: render(folder))
        self._retrying: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._server(scope, receive, send)

    @property
    def failed(self) -> Mapping[str, str]:
        """Endpoints that do not answer, and why."""
        return {name: face.reason for name, face in self._faces.items() if isinstance(face, Failed)}

    def _ready(self) -> bool:
        return not self.failed

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._open()
        self._retrying = asyncio.create_task(self._retry())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._retrying.cancel()
        await asyncio.gather(*(asyncio.to_thread(app.close) for app in self._apps.values()))
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self) -> None:
        """Open what is not open yet, one after another: loading is work for one core."""
        for name in self.failed:
            try:
                app = self._apps[name] = await asyncio.to_thread(self._make, self._replicas[name])
            except LakeloopError as error:
                self._fail(name, str(error))
            except Exception as error:
                log.exception("%s cannot be opened", name)
                self._fail(name, f"{type(error).__name__}: {error}")
            else:
                app.start()
                self._faces[name] = app.endpoint

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            await self._open()

    def _fail(self, name: str, reason: str) -> None:
        if self.failed[name] != reason:
            log.error("%s does not serve: %s", name, reason)
        self._faces[name] = Failed(name, reason)


class Failed:
    """The face of an endpoint that is not open."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason

    async def reply(self, path: str, scope: Scope, receive: Receive) -> Reply:
        return failure(503, f"{self.name} does not serve yet: {self.reason}", (b"retry-after", b"5"))
