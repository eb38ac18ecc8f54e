"""Endpoints on Ray Serve: an application each under /v2/models/<endpoint>, and a shipper of prediction logs per node.

A replica holds the model, answers HTTP itself, follows its endpoint's documents and logs before it answers. The shipper
is an actor of its own that Ray starts again when it dies, so it outlives every replica. Endpoints start side by side,
and one that does not keeps no other from serving.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray import serve

from lakeloop.lakehouse.endpoints import endpoint as endpoint_document
from lakeloop.lakehouse.errors import NotFound, Refused, Unavailable
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.ray_jobs.cluster import output_to
from lakeloop.ray_jobs.machine import free_ports
from lakeloop.ray_jobs.serving.arms import wanted_arms
from lakeloop.ray_jobs.serving.asgi import ASGIApp
from lakeloop.ray_jobs.serving.counts import clear
from lakeloop.ray_jobs.serving.front import Front
from lakeloop.ray_jobs.serving.loading import LoadEndpoint, load_endpoint
from lakeloop.ray_jobs.serving.metrics import metrics_folder
from lakeloop.ray_jobs.serving.policy import Policy, code_version
from lakeloop.ray_jobs.serving.readiness import wait_ready, wait_running
from lakeloop.ray_jobs.serving.replica import Replica, ReplicaApp
from lakeloop.ray_jobs.serving.shipper import Shipper

READY_S = 120.0
DRAIN_S = 30.0
NAMESPACE = "lakeloop"


@dataclass(slots=True)
class Serving:
    """Endpoints that were deployed on this process's cluster. `failed` says of some why they do not serve."""

    url: str
    project: str
    endpoints: tuple[str, ...]
    shipper: Any
    deployed: Mapping[str, Deployed]
    front: Front
    failed: dict[str, str] = field(default_factory=dict)

    def change(self, endpoint: str, policy: Policy, *, code: str = "", ready_s: float = READY_S) -> None:
        """Run an endpoint by another policy, or another code: new replicas answer before the old ones end.

        Unavailable when they do not come up; the old ones go on answering then.
        """
        before = self.deployed[endpoint]
        target = Deployed(replace(before.replica, limits=policy.limits), policy, code or before.code)
        run_applications([target])
        reason = wait_running([target], ready_s).get(endpoint)
        if reason:
            raise Unavailable(
                f"the endpoint {endpoint} is not changed: {reason}", todo="see the reason, then try again"
            )
        self.deployed = {**self.deployed, endpoint: target}

    def retry_failed(self, ready_s: float = READY_S) -> None:
        """Start the endpoints that failed once more; `failed` says afterwards which still do."""
        replicas = {name: self.deployed[name].replica for name in self.failed}
        refused = {
            name: str(error)
            for name, replica in replicas.items()
            if (error := nothing_to_serve(open_lake(replica.lake_url), self.project, name))
        }
        again = [
            replace(self.deployed[name], tries=self.deployed[name].tries + 1) for name in replicas.keys() - refused
        ]
        if again:
            self.deployed = {**self.deployed, **{target.name: target for target in again}}
            run_applications(again)
        self.failed = refused | wait_running(again, ready_s)

    def endpoint_url(self, endpoint: str) -> str:
        return f"{self.url}/v2/models/{endpoint}"

    @property
    def grpc_address(self) -> str:
        """Where gRPC listens; empty when it does not."""
        return f"{self.front.host}:{self.front.grpc_port}" if self.front.grpc_port is not None else ""

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
        for name in (self.front.application, *(application(self.project, endpoint) for endpoint in self.endpoints)):
            serve.delete(name)
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
    policies: Mapping[str, Policy] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    grpc_port: int | None = None,
    load: LoadEndpoint = load_endpoint,
    code: str = "",
    ready_s: float = READY_S,
) -> Serving:
    """Serve endpoints on the cluster this process is connected to, and wait until each answers.

    A port of 0 is any free one; without a `grpc_port` there is HTTP alone.
    An endpoint without a policy has one replica. What does not start is in `failed`. When none does, the first one's
    error is raised: NotFound or Refused for one without a document or a champion, Unavailable for one whose replica
    does not come up.
    """
    lake = open_lake(lake_url)
    refused = {name: error for name in endpoints if (error := nothing_to_serve(lake, project, name))}
    if len(refused) == len(endpoints):
        raise next(iter(refused.values()), NotFound("no endpoint is named", todo="name one"))
    clear(metrics_folder(log_folder))
    port = port or free_ports(1)[0]
    grpc_port = free_ports(1)[0] if grpc_port == 0 else grpc_port
    start_serve(host, port)
    policies, code = policies or {}, code or code_version()
    deployed = {}
    for name in endpoints:
        policy = policies.get(name, Policy())
        replica = Replica(lake_url, project, name, log_folder, load, policy.limits)
        deployed[name] = Deployed(replica, policy, code)
    failed = {name: str(error) for name, error in refused.items()}
    asleep = frozenset(name for name, one in deployed.items() if one.policy.least == 0)
    front = Front(tuple(endpoints), asleep, log_folder, host, port, grpc_port)
    shipper = start_shipper(lake_url, log_folder)
    serving = Serving(f"http://{host}:{port}", project, tuple(endpoints), shipper, deployed, front, failed)
    try:
        targets = [one for name, one in deployed.items() if name not in refused]
        run_applications([*targets, front])
        serving.failed |= wait_ready(serving.url, [*targets, front], ready_s)
        if front.name in serving.failed:
            raise Unavailable(f"the front does not start: {serving.failed[front.name]}", todo="choose other ports")
        if len(serving.failed) == len(endpoints):
            name, reason = next(reversed(serving.failed.items()))
            raise Unavailable(f"the endpoint {name} does not start: {reason}", todo="see the reason, then deploy again")
    except BaseException:
        serving.shutdown()
        raise
    return serving


def start_serve(host: str, port: int) -> None:
    """Serve with its HTTP proxy; nothing when it runs already."""
    serve.start(
        proxy_location="EveryNode",
        http_options={"host": host, "port": port},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )


def nothing_to_serve(lake: Lake, project: str, endpoint: str) -> NotFound | Refused | None:
    """Why the endpoint cannot be served yet, if it cannot."""
    found = endpoint_document(lake, project, endpoint)
    if found is None:
        todo = f"train a model first: lakeloop train {endpoint}"
        return NotFound(f"{project} has no endpoint {endpoint!r}", where=lake.url, todo=todo)
    try:
        wanted_arms(found.body, endpoint)
    except Refused as error:
        return error
    return None


def application(project: str, endpoint: str) -> str:
    return f"{project}-{endpoint}"


@dataclass(frozen=True, slots=True)
class Deployed:
    """What Serve is asked to run for one endpoint."""

    replica: Replica
    policy: Policy
    code: str
    tries: int = 1

    @property
    def name(self) -> str:
        return self.replica.endpoint

    @property
    def application(self) -> str:
        return application(self.replica.project, self.replica.endpoint)

    @property
    def route(self) -> str:
        return f"/v2/models/{self.replica.endpoint}"

    @property
    def ready_path(self) -> str:
        return f"{self.route}/ready"

    def target(self) -> serve.RunTarget:
        code = hashlib.sha256(f"{self.code}|{self.replica.limits}|{self.tries}".encode()).hexdigest()[:16]
        deployment = serve.deployment(serve.ingress(builder(self.replica))()).options(**self.policy.options(code))
        return serve.RunTarget(deployment.bind(), self.application, route_prefix=self.route)


def run_applications(targets: Sequence[Deployed | Front]) -> None:
    """Ask Serve for applications, or for changes of them; they come up in the background, side by side."""
    asked = [target.target() for target in targets]
    serve.run_many(asked, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def start_shipper(lake_url: str, log_folder: Path) -> Any:
    """The node's shipper of this folder to this lake: found if it runs already, else started."""
    node = ray.get_runtime_context().get_node_id()
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=4)(ShipperActor)
    mark = hashlib.sha256(f"{lake_url}|{log_folder}".encode()).hexdigest()[:12]
    name = f"shipper-{node[:12]}-{mark}"
    return actor.options(name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True).remote(
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


def builder(replica: Replica) -> Callable[[], ASGIApp]:
    """A function without arguments that makes a replica's app in the replica: what `serve.ingress` takes."""

    def build() -> ASGIApp:
        return ReplicaApp(replica)

    return build
