"""A replica: one endpoint in a process, which answers HTTP, follows its documents and logs before it answers.

It knows neither Ray nor a server: Ray Serve runs one in a process, a plain server several.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakeloop.lakehouse import events
from lakeloop.lakehouse.endpoints import KIND, endpoint_id
from lakeloop.lakehouse.lake import open_lake
from lakeloop.ray_jobs.serving.arms import Loaded
from lakeloop.ray_jobs.serving.asgi import Receive, Scope, Send
from lakeloop.ray_jobs.serving.batching import Batches
from lakeloop.ray_jobs.serving.endpoint import Endpoint
from lakeloop.ray_jobs.serving.gate import Gate
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.limits import Admission, Limits
from lakeloop.ray_jobs.serving.loading import LoadEndpoint, load_endpoint
from lakeloop.ray_jobs.serving.metrics import EndpointMetrics, metrics_folder
from lakeloop.ray_jobs.serving.recorder import Commits, Recorder
from lakeloop.ray_jobs.serving.reports import Reporter
from lakeloop.ray_jobs.serving.watcher import Watcher
from lakeloop.ray_jobs.serving.write_ahead import Backlog, Logged, LoggedColumns, Shape, WriteAhead

if TYPE_CHECKING:
    from concurrent.futures import Future

SEAL_S = 0.1
TELL_S = 1.0


@dataclass(frozen=True, slots=True)
class Replica:
    """What one replica is made from."""

    lake_url: str
    project: str
    endpoint: str
    log_folder: Path
    load: LoadEndpoint = load_endpoint
    limits: Limits = field(default_factory=Limits)


class ReplicaApp:
    """The app of one replica, with its log writer, what it follows and what it counts.

    Everything is opened when the replica is built: a failure keeps it from starting.
    """

    def __init__(self, replica: Replica) -> None:
        lake = open_lake(replica.lake_url)
        self._clock = lake.clock
        self._backlog = Backlog(replica.log_folder)
        self._log = WriteAhead(replica.log_folder)
        self._commits = Commits(self._log, lake.journal)
        self._recorder = Recorder(self._log, self._loaded, self._commits)
        document, batches = endpoint_id(replica.project, replica.endpoint), Batches()
        self._watcher = Watcher(
            lake.documents.get(KIND, document),
            lambda number: lake.documents.next(KIND, document, number),
            lambda revision, previous: batches.learn(
                replica.load(lake, replica.project, replica.endpoint, revision, previous), lake.clock()
            ),
            report=Reporter(
                replica.project,
                replica.endpoint,
                lake.writer,
                lake.record,
                lake.clock,
                wake=lambda: events.wake(lake, "rollout", document),
            ).report,
        )
        self._gate = Gate(lake, replica.project, [replica.endpoint])
        self._metrics = EndpointMetrics(metrics_folder(replica.log_folder), replica.endpoint)
        self._admission = Admission(replica.limits)
        if (gain := batches.gain(self._watcher.loaded.champion.scorer)) is not None:
            self._admission.expect(gain.prepare_s + gain.one_s)
        self.inference = Inference(
            replica.project,
            replica.endpoint,
            loaded=self._loaded,
            append=self._append,
            state=self._state,
            clock=lake.clock,
            count=self._metrics.answered,
            admission=self._admission,
            batches=batches,
        )
        self.endpoint = Endpoint(self.inference, permit=self._gate.permit(replica.endpoint))
        self._watcher.start()
        self._gate.start()
        self._ticking: tuple[asyncio.Task[None], ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.endpoint(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await asyncio.to_thread(self.close)
                await send({"type": "lifespan.shutdown.complete"})
                return

    def start(self) -> None:
        """Begin what is to be done often, in the running event loop."""
        self._ticking = asyncio.create_task(self._tick()), asyncio.create_task(self._measure())

    async def _tick(self) -> None:
        """Seal the log, and see how late the event loop is. It waits for no thread: a slow model may have them all."""
        while True:
            due = time.monotonic() + SEAL_S
            await asyncio.sleep(SEAL_S)
            self._log.seal_due()
            self._admission.lag_s = time.monotonic() - due

    async def _measure(self) -> None:
        """Tell the gauges, and how much of the log waits."""
        while True:
            self._tell()
            self._log.measured(await asyncio.to_thread(self._backlog.size_bytes))
            await asyncio.sleep(TELL_S)

    def _tell(self) -> None:
        watcher = self._watcher
        self._metrics.tell(
            admission=self._admission,
            loaded=watcher.loaded,
            wanted=watcher.wanted,
            failing=bool(watcher.error or self._gate.error),
            dropped=self._recorder.dropped,
            now=self._clock(),
        )

    def close(self) -> None:
        """End all threads and seal the log. Not in the event loop: it waits."""
        for task in self._ticking:
            task.get_loop().call_soon_threadsafe(task.cancel)
        self._watcher.close()
        self._gate.close()
        self._commits.close()
        self._log.close()
        self._metrics.close()

    def _append(self, shape: Shape, request: Logged | LoggedColumns) -> Future[None] | None:
        written = self._recorder.append(shape, request)
        self._metrics.scored(request.arm, request.version, request.count)
        return written

    def _loaded(self) -> Loaded:
        return self._watcher.loaded

    def _state(self) -> Mapping[str, Any]:
        watcher, gate = self._watcher, self._gate
        return {
            "wanted": watcher.wanted,
            "error": watcher.error or gate.error,
            "pending": self._backlog.rows(),
            "dropped": self._recorder.dropped,
            "process": os.getpid(),
        }
