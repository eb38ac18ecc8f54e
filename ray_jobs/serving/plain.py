"""Endpoints behind a plain ASGI server (uvicorn), without Ray: for small traffic, and for machines that run no cluster.

This process binds the socket, ships what is logged, holds gRPC's gateway, and starts its workers again when they die; a
worker holds every endpoint and answers. A connection that comes while no worker is there waits in the socket's queue.
What a killed worker has logged, or a killed server, lies in the log folder and is shipped by who finds it.
"""

from __future__ import annotations

import logging
import multiprocessing
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import TYPE_CHECKING

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.lake import open_lake
from lakeloop.ray_jobs.serving.counts import clear
from lakeloop.ray_jobs.serving.metrics import metrics_folder
from lakeloop.ray_jobs.serving.plain_worker import work
from lakeloop.ray_jobs.serving.replica import Replica
from lakeloop.ray_jobs.serving.shipper import Shipper

if TYPE_CHECKING:
    from lakeloop.ray_jobs.serving.plain_grpc import PlainGrpc

BACKLOG = 1024
WATCH_S = 0.2
READY_S = 60.0
DRAIN_S = 30.0
LONGEST_PAUSE_S = 15.0
STEADY_S = 30.0
"""A worker that lived so long is started again at once."""
log = logging.getLogger("lakeloop.plain")


@dataclass(slots=True)
class _Worker:
    """A worker, or the one that is to come at `due`; times are monotonic."""

    process: BaseProcess | None = None
    since: float = 0.0
    due: float = 0.0
    pause_s: float = 0.5


class PlainServing:
    """A running server. Use as a context manager; `stop` ends it."""

    def __init__(
        self, replicas: Sequence[Replica], listening: socket.socket, workers: int, grpc: PlainGrpc | None
    ) -> None:
        host, port = listening.getsockname()[:2]
        near = f"[{host}]" if ":" in host else host
        self.url, self._grpc = f"http://{near}:{port}", grpc
        self.grpc_address = f"{near}:{grpc.port}" if grpc is not None else ""
        self._replicas, self._listening = tuple(replicas), listening
        self._context = multiprocessing.get_context("spawn")
        folder = replicas[0].log_folder
        clear(metrics_folder(folder))
        self._shipper = Shipper(folder, open_lake(replicas[0].lake_url).journal)
        self._workers = [_Worker() for _ in range(workers)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="workers", daemon=True)
        for worker in self._workers:
            self._start(worker)
        self._thread.start()

    def endpoint_url(self, endpoint: str) -> str:
        return f"{self.url}/v2/models/{endpoint}"

    @property
    def processes(self) -> list[int]:
        """The workers that live."""
        found = [worker.process for worker in self._workers]
        return [one.pid for one in found if one is not None and one.pid is not None and one.is_alive()]

    def failed(self) -> dict[str, str]:
        """Endpoints that do not answer, and what they say."""
        said = {one.endpoint: self._ask(f"/v2/models/{one.endpoint}/ready") for one in self._replicas}
        return {name: reason for name, reason in said.items() if reason}

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Return when an endpoint answers: one that fails keeps no other from serving. Unavailable with what the first
        one says when time is over."""
        until = time.monotonic() + timeout_s
        while len(failed := self.failed()) == len(self._replicas):
            if time.monotonic() > until:
                what = f"not ready after {timeout_s:.0f} s: {next(iter(failed.values()))}"
                raise Unavailable(what, todo="see what the server has logged")
            time.sleep(0.1)

    def _ask(self, path: str) -> str:
        """Nothing, or why a path is not answered."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5):
                return ""
        except urllib.error.HTTPError as error:
            return error.read().decode(errors="replace")[:500]
        except OSError as error:
            return f"no worker answers ({error})"

    def pending(self) -> int:
        """Prediction rows of this folder that are not in the lake yet."""
        return int(self._shipper.state()["pending"])

    def stop(self, timeout_s: float = DRAIN_S) -> bool:
        """Let workers answer what they have begun, ship what is logged, then end. False when rows are left, which the
        next start ships."""
        self._stopping.set()
        self._thread.join()
        if self._grpc is not None:
            self._grpc.stop()
        until = time.monotonic() + timeout_s
        alive = [worker.process for worker in self._workers if worker.process is not None]
        for process in alive:
            process.terminate()
        for process in alive:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._listening.close()
        while self.pending() and time.monotonic() < until:
            time.sleep(0.05)
        self._shipper.close()
        return not self.pending()

    def __enter__(self) -> PlainServing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, worker: _Worker) -> None:
        process = self._context.Process(target=work, args=(self._replicas, self._listening), name="lakeloop-worker")
        process.start()
        worker.process, worker.since = process, time.monotonic()

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_S):
            for worker in self._workers:
                self._tend(worker, time.monotonic())

    def _tend(self, worker: _Worker, now: float) -> None:
        """Start a worker that has ended again: at once, or after a growing pause when it ends soon each time."""
        if worker.process is not None and not worker.process.is_alive():
            worker.pause_s = 0.5 if now - worker.since >= STEADY_S else min(2 * worker.pause_s, LONGEST_PAUSE_S)
            log.error("a worker ended (%s); another starts", worker.process.exitcode)
            worker.process, worker.due = None, now + (worker.pause_s if worker.pause_s > 0.5 else 0.0)
        if worker.process is None and now >= worker.due:
            self._start(worker)


def serve_plain(
    replicas: Sequence[Replica],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    grpc_port: int | None = None,
    workers: int = 1,
    ready_s: float = READY_S,
) -> PlainServing:
    """Serve endpoints from `workers` processes and wait until one of the endpoints answers. Port 0: any free one. All
    replicas are of one lake and log to one folder. No `grpc_port`: HTTP alone.

    Unavailable when uvicorn or gRPC is not installed, a port is taken, or no worker comes up.
    """
    if find_spec("uvicorn") is None:
        raise Unavailable("uvicorn is not installed", todo='pip install "lakeloop[serve]"')
    if grpc_port is not None and not speaks_grpc():
        raise Unavailable("gRPC is not installed", todo='pip install "lakeloop[serve,grpc]"')
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {host}:{port} ({error.strerror})", todo="take another --port; 0 finds a free one"
        ) from error
    grpc = None
    try:
        grpc = None if grpc_port is None else gateway(host, listening.getsockname()[1], grpc_port)
        serving = PlainServing(replicas, listening, workers, grpc)
    except BaseException:
        if grpc is not None:
            grpc.stop()
        listening.close()
        raise
    try:
        serving.wait_ready(ready_s)
    except BaseException:
        serving.stop()
        raise
    return serving


def speaks_grpc() -> bool:
    """Whether the extra "grpc" is installed, in versions that fit each other."""
    try:
        import_module("lakeloop.ray_jobs.serving.plain_grpc")
    except (ImportError, RuntimeError):  # generated code says the latter of a gRPC that is too old for it
        return False
    return True


def gateway(host: str, http_port: int, port: int) -> PlainGrpc:
    from lakeloop.ray_jobs.serving.plain_grpc import PlainGrpc

    return PlainGrpc(host, http_port, port)
