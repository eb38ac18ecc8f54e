"""Endpoints behind a plain ASGI server (uvicorn), without Ray: for small traffic, and for machines that run no cluster.

This process binds the socket, ships what is logged, and starts its workers again when they die; a worker holds every
endpoint and answers. A connection that comes while no worker is there waits in the socket's queue. What a killed
worker has logged, or a killed server, lies in the log folder and is shipped by who finds it.
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
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from types import TracebackType

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.lake import open_lake
from lakeloop.ray_jobs.serving.counts import clear
from lakeloop.ray_jobs.serving.metrics import metrics_folder
from lakeloop.ray_jobs.serving.plain_worker import work
from lakeloop.ray_jobs.serving.replica import Replica
from lakeloop.ray_jobs.serving.shipper import Shipper

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

    def __init__(self, replicas: Sequence[Replica], listening: socket.socket, workers: int) -> None:
        host, port = listening.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
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

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Return when a worker answers for all endpoints. Unavailable with what it says when time is over."""
        until, said = time.monotonic() + timeout_s, "no worker answers"
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5):
                    return
            except urllib.error.HTTPError as error:
                said = error.read().decode(errors="replace")[:500]
            except OSError:
                pass
            time.sleep(0.1)
        raise Unavailable(f"not ready after {timeout_s:.0f} s: {said}", todo="see what the server has logged")

    def pending(self) -> int:
        """Prediction rows of this folder that are not in the lake yet."""
        return int(self._shipper.state()["pending"])

    def stop(self, timeout_s: float = DRAIN_S) -> bool:
        """Let workers answer what they have begun, ship what is logged, then end. False when rows are left, which the
        next start ships."""
        self._stopping.set()
        self._thread.join()
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
    workers: int = 1,
    ready_s: float = READY_S,
) -> PlainServing:
    """Serve endpoints from `workers` processes and wait until one answers. Port 0: any free one. All replicas are of
    one lake and log to one folder.

    Unavailable when uvicorn is not installed, the port is taken, or no worker comes up.
    """
    if find_spec("uvicorn") is None:
        raise Unavailable("uvicorn is not installed", todo='pip install "lakeloop[serve]"')
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {host}:{port} ({error.strerror})", todo="take another --port; 0 finds a free one"
        ) from error
    serving = PlainServing(replicas, listening, workers)
    try:
        serving.wait_ready(ready_s)
    except BaseException:
        serving.stop()
        raise
    return serving
