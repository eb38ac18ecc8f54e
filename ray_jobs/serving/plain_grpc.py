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
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        # Its loop waits for nothing in a pool: the interpreter would wait for that pool where nobody calls `stop`.
        self._thread = threading.Thread(target=self._run, args=(host, http_port, port), name="grpc", daemon=True)
        self._thread.start()
        self.port = self._started.result()

    def stop(self) -> None:
        """End; what has begun has `GRACE_S` to be answered."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, host: str, http_port: int, port: int) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._live(host, http_port, port))
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
            await self._stop.wait()
            await server.stop(GRACE_S)
        finally:
            await proxy.close()
