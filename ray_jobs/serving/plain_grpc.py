"""gRPC of a plain server: a gateway to its HTTP, in a thread of the process that binds the socket."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from lakeloop.ray_jobs.serving.grpc_server import GRACE_S, start_server
from lakeloop.ray_jobs.serving.proxy import Proxy


class PlainGrpc:
    """A running gateway to `http_port`; `port` is where it listens. Unavailable when that is taken."""

    def __init__(self, host: str, http_port: int, port: int) -> None:
        self._started: Future[int] = Future()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(host, http_port, port), name="grpc", daemon=True)
        self._thread.start()
        self.port = self._started.result()

    def stop(self) -> None:
        """Answer what has begun, within a grace, and end."""
        self._stop.set()
        self._thread.join()

    def _run(self, host: str, http_port: int, port: int) -> None:
        try:
            asyncio.run(self._live(host, http_port, port))
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _live(self, host: str, http_port: int, port: int) -> None:
        proxy = Proxy(host, http_port)
        await proxy.open()
        try:
            server, bound = await start_server(proxy.ask, host, port)
            self._started.set_result(bound)
            await asyncio.to_thread(self._stop.wait)
            await server.stop(GRACE_S)
        finally:
            await proxy.close()
