"""Endpoints on Ray Serve: an application each under /v2/models/<endpoint>, and a shipper of prediction logs per node.

A replica holds the model, answers HTTP itself, follows its endpoint's document and logs before it answers. The shipper
is an actor of its own that Ray starts again when it dies, so it outlives every replica.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import ray
from ray import serve

from lakeloop.lakehouse.endpoints import KIND, endpoint_id
from lakeloop.lakehouse.endpoints import endpoint as endpoint_document
from lakeloop.lakehouse.errors import NotFound, Unavailable
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.ray_jobs.cluster import output_to
from lakeloop.ray_jobs.machine import free_ports
from lakeloop.ray_jobs.serving.arms import Loaded, wanted_arms
from lakeloop.ray_jobs.serving.asgi import Receive, Scope, Send
from lakeloop.ray_jobs.serving.batching import Batches
from lakeloop.ray_jobs.serving.endpoint import Endpoint
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.loading import LoadEndpoint, load_endpoint
from lakeloop.ray_jobs.serving.recorder import Commits, Recorder
from lakeloop.ray_jobs.serving.reports import Reporter
from lakeloop.ray_jobs.serving.shipper import Shipper
from lakeloop.ray_jobs.serving.watcher import Watcher
from lakeloop.ray_jobs.serving.write_ahead import Backlog, WriteAhead

SEAL_S = 0.1
SEALS = 10
"""Between two looks at how much the folder of the log holds."""
REPLICA_CPUS = 0.2
MOST_ONGOING = 256
READY_S = 120.0
DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Replica:
    """What one replica is made from."""

    lake_url: str
    project: str
    endpoint: str
    log_folder: Path
    load: LoadEndpoint = load_endpoint


@dataclass(frozen=True, slots=True)
class Serving:
    """Endpoints that were deployed on this process's cluster."""

    url: str
    project: str
    endpoints: tuple[str, ...]
    shipper: Any

    def endpoint_url(self, endpoint: str) -> str:
        return f"{self.url}/v2/models/{endpoint}"

    def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """Wait until no logged prediction is left on this node; False when time was over first.

        What is left then is shipped after the next start.
        """
        until = time.monotonic() + timeout_s
        while self.pending():
            if time.monotonic() >= until:
                return False
            time.sleep(0.1)
        return True

    def pending(self) -> int:
        """Prediction rows of this node that are not in the lake yet."""
        return int(ray.get(self.shipper.state.remote())["pending"])

    def shutdown(self, timeout_s: float = DRAIN_S) -> bool:
        """End the endpoints, ship what they logged, then end Serve.

        False when prediction rows were left on the disk.
        """
        for endpoint in self.endpoints:
            serve.delete(application(self.project, endpoint))
        shipped = self.drain(timeout_s)
        ray.get(self.shipper.close.remote())
        ray.kill(self.shipper)
        with output_to(Path(os.devnull)):  # Serve kills its controller during a call; Ray reports that as a failure
            serve.shutdown()
        return shipped

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()


def deploy(
    lake_url: str,
    project: str,
    endpoints: Sequence[str],
    *,
    log_folder: Path,
    replicas: tuple[int, int] = (1, 1),
    host: str = "127.0.0.1",
    port: int = 0,
    load: LoadEndpoint = load_endpoint,
    ready_s: float = READY_S,
) -> Serving:
    """Serve endpoints on the cluster this process is connected to, and wait until each answers. Port 0: any free one.

    NotFound or Refused for an endpoint without a document or a champion, before anything is started; Unavailable when a
    replica does not come up.
    """
    lake = open_lake(lake_url)
    for endpoint in endpoints:
        check_endpoint(lake, project, endpoint)
    port = port or free_ports(1)[0]
    serve.start(
        proxy_location="EveryNode",
        http_options={"host": host, "port": port},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    shipper = start_shipper(lake_url, log_folder)
    serving = Serving(f"http://{host}:{port}", project, tuple(endpoints), shipper)
    try:
        for endpoint in endpoints:
            run_application(Replica(lake_url, project, endpoint, log_folder, load), replicas)
        wait_ready(serving, ready_s)
    except BaseException:
        serving.shutdown()
        raise
    return serving


def check_endpoint(lake: Lake, project: str, endpoint: str) -> None:
    """NotFound or Refused when the endpoint has nothing to serve."""
    found = endpoint_document(lake, project, endpoint)
    if found is None:
        raise NotFound(
            f"{project} has no endpoint {endpoint!r}",
            where=lake.url,
            todo=f"train a model first: lakeloop train {endpoint}",
        )
    wanted_arms(found.body, endpoint)


def application(project: str, endpoint: str) -> str:
    return f"{project}-{endpoint}"


def run_application(replica: Replica, replicas: tuple[int, int]) -> None:
    """Ask Serve for one endpoint's application; it comes up in the background."""
    least, most = replicas
    count: dict[str, Any] = {"num_replicas": least}
    if most > least:
        count = {"autoscaling_config": {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": 8}}
    deployment = serve.deployment(serve.ingress(builder(replica))()).options(
        name="endpoint",
        max_ongoing_requests=MOST_ONGOING,
        ray_actor_options={"num_cpus": REPLICA_CPUS},
        health_check_period_s=5,
        max_constructor_retry_count=3,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=5,
        logging_config={"log_level": "WARNING", "enable_access_log": False},
        **count,
    )
    name = application(replica.project, replica.endpoint)
    target = serve.RunTarget(deployment.bind(), name, route_prefix=f"/v2/models/{replica.endpoint}")
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def wait_ready(serving: Serving, timeout_s: float) -> None:
    """Return when every endpoint has a replica that answers through the proxy.

    Unavailable with Serve's reason when one fails or time is over.
    """
    import urllib.error
    import urllib.request

    until = time.monotonic() + timeout_s
    waiting = list(serving.endpoints)
    while waiting:
        endpoint = waiting[0]
        try:
            with urllib.request.urlopen(f"{serving.endpoint_url(endpoint)}/ready", timeout=5):
                waiting.pop(0)
                continue
        except (urllib.error.URLError, OSError):
            status = serve.status().applications.get(application(serving.project, endpoint))
        if status is not None and status.status == "DEPLOY_FAILED":
            raise Unavailable(
                f"the endpoint {endpoint} does not start: {reason_of(status)}", todo="see the reason, then deploy again"
            )
        if time.monotonic() > until:
            raise Unavailable(
                f"the endpoint {endpoint} was not ready after {timeout_s:.0f} s", todo="look at the logs of Ray Serve"
            )
        time.sleep(0.1)


def reason_of(status: Any) -> str:
    """The line of a replica's traceback that says what went wrong."""
    texts = [one.message for one in status.deployments.values()] or [status.message]
    lines = [line.strip() for text in texts for line in text.splitlines() if "Error" in line or "lakeloop" in line]
    return str(lines[-1] if lines else status.message)


def start_shipper(lake_url: str, log_folder: Path) -> Any:
    """The node's shipper of this folder to this lake: found if it runs already, else started."""
    node = ray.get_runtime_context().get_node_id()
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=4)(ShipperActor)
    mark = hashlib.sha256(f"{lake_url}|{log_folder}".encode()).hexdigest()[:12]
    name = f"shipper-{node[:12]}-{mark}"
    return actor.options(name=name, namespace="lakeloop", lifetime="detached", get_if_exists=True).remote(
        lake_url, log_folder
    )


class ShipperActor:
    """A `Shipper` in a process of its own, which Ray starts again when it dies."""

    def __init__(self, lake_url: str, folder: Path) -> None:
        self._shipper = Shipper(folder, open_lake(lake_url).journal)

    def state(self) -> Mapping[str, Any]:
        return self._shipper.state()

    def close(self) -> None:
        self._shipper.close()


ASGIApp: TypeAlias = "Callable[[Scope, Receive, Send], Any]"


def builder(replica: Replica) -> Callable[[], ASGIApp]:
    """A function without arguments that makes a replica's app in the replica: what `serve.ingress` takes."""

    def build() -> ASGIApp:
        return ReplicaApp(replica)

    return build


class ReplicaApp:
    """The app of one replica, with its log writer and its watcher.

    Everything is opened when the replica is built: a failure keeps it from starting.
    """

    def __init__(self, replica: Replica) -> None:
        lake = open_lake(replica.lake_url)
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
            report=Reporter(replica.project, replica.endpoint, lake.writer, lake.record, lake.clock).report,
        )
        self._watcher.start()
        self.inference = Inference(
            replica.project,
            replica.endpoint,
            loaded=self._loaded,
            append=self._recorder.append,
            state=self._state,
            clock=lake.clock,
            batches=batches,
        )
        self._endpoint = Endpoint(self.inference)
        self._sealing: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._endpoint(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._sealing = asyncio.create_task(self._seal())
                await send({"type": "lifespan.startup.complete"})
            else:
                await asyncio.to_thread(self._close)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _seal(self) -> None:
        while True:
            self._log.measured(await asyncio.to_thread(self._backlog.size_bytes))
            for _ in range(SEALS):
                await asyncio.sleep(SEAL_S)
                self._log.seal_due()

    def _close(self) -> None:
        if self._sealing is not None:
            self._sealing.get_loop().call_soon_threadsafe(self._sealing.cancel)
        self._watcher.close()
        self._commits.close()
        self._log.close()

    def _loaded(self) -> Loaded:
        return self._watcher.loaded

    def _state(self) -> Mapping[str, Any]:
        return {
            "wanted": self._watcher.wanted,
            "error": self._watcher.error,
            "pending": self._backlog.rows(),
            "dropped": self._recorder.dropped,
            "process": os.getpid(),
        }
