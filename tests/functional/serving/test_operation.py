"""Several endpoints on a real cluster: one that fails, load that comes and goes, more than can be carried, tokens."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lakeloop.lakehouse import tokens
from lakeloop.lakehouse.lake import Lake, open_lake

pytestmark = pytest.mark.ray
UNLOADABLE = 13
REVOKED_WITHIN_S = 30
"""The promise is ten; here other things run, too. test_gate.py shows that one poll is enough."""
FIRST_ANSWER_WITHIN_S = 30
"""What is declared of an endpoint without a replica, on the busiest machine."""


def loader() -> Callable[..., Any]:
    """Loads a model that takes as many milliseconds a row (from 100 on: a call) as its version says, but not 13."""

    def load_scorer(lake: Any, project: str, model: str, version: int, snapshots: Any) -> Any:
        import numpy as np

        from lakeloop.lakehouse.errors import Corrupt
        from lakeloop.lakehouse.scoring.scorer import Scorer
        from lakeloop.lakehouse.scoring.signature import Input, Signature

        class Sleeping:
            def predict(self, model: float, matrix: Any) -> Any:
                time.sleep(model / 1000 * (len(matrix) if model < 100 else 1))
                return np.full(len(matrix), model)

        if version == UNLOADABLE_HERE:
            raise Corrupt("version 13 does not match its hash")
        inputs = (Input("share", "request", "float32", "number"),)
        signature = Signature("regression", inputs, example={"share": 1.0})
        return Scorer(signature, Sleeping(), float(version), None, {}, version)

    UNLOADABLE_HERE = UNLOADABLE  # noqa: N806 a worker cannot import this module

    def load(lake: Any, project: str, endpoint: str, revision: Any, previous: Any) -> Any:
        from lakeloop.ray_jobs.serving.loading import load_with

        return load_with(load_scorer, lake, project, endpoint, revision, previous)

    return load


def body(version: int) -> dict[str, Any]:
    arms = [{"version": version, "weight": 10_000, "name": "champion"}]
    return {"model": "m", "wanted": version, "arms": arms, "snapshots": {}}


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 when nothing did. `took_s` from the request's first byte."""

    status: int
    took_s: float
    body: dict[str, Any]
    headers: dict[str, str]


class Place:
    """The lake, what serves, and the words of the tests for both."""

    def __init__(self, lake: Lake, serving: Any, cluster: Any) -> None:
        self.lake, self.serving, self.cluster = lake, serving, cluster

    def ask(self, endpoint: str, path: str = "/infer", token: str = "") -> Answer:
        return Client(self.serving.endpoint_url(endpoint), token).ask(path)

    def promote(self, endpoint: str, version: int) -> None:
        documents = self.lake.documents
        documents.update(documents.get("endpoints", f"flights.{endpoint}"), body(version))

    def replicas(self, endpoint: str) -> int:
        from ray import serve

        status = serve.status().applications[f"flights-{endpoint}"].deployments["endpoint"]
        return int(status.replica_states.get("RUNNING", 0))

    def processes(self, endpoint: str) -> set[int]:
        return {self.ask(endpoint, "/state").body["process"] for _ in range(12)}


class Client:
    """One connection."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def ask(self, path: str = "/infer") -> Answer:
        began = time.perf_counter()
        try:
            if path == "/infer":
                self._connection.request("POST", self._path + path, '{"rows": [{"share": 1.0}]}', self._headers)
            else:
                self._connection.request("GET", self._path + path, headers=self._headers)
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(0, time.perf_counter() - began, {"error": repr(error)}, {})
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, time.perf_counter() - began, json.loads(data), found)

    def text(self, path: str) -> str:
        self._connection.request("GET", path)
        return self._connection.getresponse().read().decode()


class Load:
    """Requests from some connections, each without a pause, or with one."""

    def __init__(self, url: str, connections: int, pause_s: float = 0.0) -> None:
        self.answers: list[Answer] = []
        self._url, self._pause_s, self._ending = url, pause_s, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(connections)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        until = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= until)

    def _run(self) -> None:
        client = Client(self._url)
        while not self._ending.is_set():
            self.answers.append(client.ask())
            time.sleep(self._pause_s)


def wait_until(done: Callable[[], bool], within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    from lakeloop.ray_jobs.cluster import start_local

    folder = tmp_path_factory.mktemp("serving")
    lake = open_lake(str(folder / "lake"))
    for endpoint, version in {"steady": 1, "elastic": 50, "broken": UNLOADABLE, "slow": 99, "late": 600}.items():
        lake.documents.create("endpoints", f"flights.{endpoint}", body(version))
    with start_local(folder / "ray", serve=True) as cluster:
        from lakeloop.ray_jobs.serving.deployment import deploy
        from lakeloop.ray_jobs.serving.limits import Limits
        from lakeloop.ray_jobs.serving.policy import Policy, Scaling

        quickly = Scaling(
            in_flight=2, up_after_s=0.5, down_after_s=1, to_zero_after_s=1, look_back_s=1, report_every_s=0.5
        )
        policies = {
            "broken": Policy(starts=1),
            "elastic": Policy(0, 2, scaling=quickly),
            "slow": Policy(limits=Limits(timeout_s=2.0)),
            "late": Policy(limits=Limits(timeout_s=0.3)),
        }
        endpoints = ["steady", "elastic", "broken", "slow", "late", "absent"]
        logs = cluster.log_folder
        with deploy(lake.url, "flights", endpoints, log_folder=logs, policies=policies, load=loader()) as serving:
            yield Place(lake, serving, cluster)


def test_an_endpoint_that_does_not_start_is_said_and_keeps_no_other_from_serving(place: Place) -> None:
    assert set(place.serving.failed) == {"broken", "absent"}
    assert "does not match its hash" in place.serving.failed["broken"]
    assert "no endpoint 'absent'" in place.serving.failed["absent"]
    assert place.ask("steady").status == place.ask("slow").status == 200


@pytest.mark.slow
def test_a_failed_endpoint_serves_once_its_document_names_a_sound_version(place: Place) -> None:
    place.promote("broken", 1)
    place.serving.retry_failed(30)
    assert set(place.serving.failed) == {"absent"}
    wait_until(lambda: place.ask("broken").status == 200)


@pytest.mark.slow
def test_replicas_follow_the_load_up_down_and_to_zero_and_no_request_fails(place: Place) -> None:
    with Load(place.serving.endpoint_url("elastic"), connections=8) as load:
        wait_until(lambda: place.replicas("elastic") == 2)
        load.more(100)
    assert set(load.statuses) == {200}
    wait_until(lambda: place.replicas("elastic") == 0)
    first = place.ask("elastic")
    assert first.status == 200
    assert first.took_s < FIRST_ANSWER_WITHIN_S


@pytest.mark.slow
def test_code_scale_and_model_change_under_load_without_a_failed_request(place: Place) -> None:
    from lakeloop.ray_jobs.serving.policy import Policy

    old = place.processes("steady")
    with Load(place.serving.endpoint_url("steady"), connections=4) as load:
        load.more(100)
        place.serving.change("steady", Policy(2, 2))
        wait_until(lambda: place.replicas("steady") == 2)
        assert old <= place.processes("steady"), "a change of scale replaces no replica"
        place.promote("steady", 2)
        load.more(100)
        place.serving.change("steady", Policy(1, 1), code="another")
        wait_until(lambda: not old & place.processes("steady") and place.replicas("steady") == 1)
        load.more(100)
    assert set(load.statuses) == {200}, load.statuses
    versions = {answer.body["version"] for answer in load.answers}
    assert versions == {1, 2}


def test_more_load_than_can_be_carried_is_refused_at_once_and_what_is_accepted_stays_fast(place: Place) -> None:
    url = place.serving.endpoint_url("slow")
    with Load(url, connections=150, pause_s=0.1) as load:
        load.more(1500)
    accepted = [answer for answer in load.answers if answer.status == 200]
    refused = [answer for answer in load.answers if answer.status == 503]
    assert len(accepted) + len(refused) == len(load.answers), load.statuses
    assert len(accepted) > 50
    assert len(refused) > 50
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert all("too many requests" in answer.body["error"] for answer in refused)
    assert place.ask("slow").status == 200, "it recovers"


def test_an_answer_that_does_not_come_within_the_timeout_is_504_with_the_reason(place: Place) -> None:
    late = [place.ask("late") for _ in range(2)][-1]  # the first may be done in the event loop: nothing was known
    assert late.status == 504
    assert "within 0.3 s" in late.body["error"]


def test_a_token_is_asked_for_from_the_first_on_and_refused_when_it_is_revoked(place: Place) -> None:
    secret, _ = tokens.create(place.lake, "flights", "steady", "caller")
    wait_until(lambda: place.ask("steady").status == 401, REVOKED_WITHIN_S)
    refused = place.ask("steady")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.body == {"error": "the endpoint asks for a token"}
    assert place.ask("steady", "").status == place.ask("steady", "/state").status == 401
    assert place.ask("steady", "/ready").status == 200, "health asks for none"
    assert place.ask("steady", token=secret).status == place.ask("steady", "", token=secret).status == 200
    assert place.ask("steady", token=secret + "x").status == 401
    assert place.ask("elastic").status == 200, "another endpoint is not concerned"
    tokens.revoke(place.lake, "flights", "steady", "caller")
    wait_until(lambda: place.ask("steady", token=secret).status == 401, REVOKED_WITHIN_S)
    tokens.open_to_all(place.lake, "flights", "steady")
    wait_until(lambda: place.ask("steady").status == 200, REVOKED_WITHIN_S)
    kept = [path for path in Path(place.lake.url).rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    kept += [path for path in place.cluster.run.folder.rglob("*.log") if secret in path.read_text(errors="replace")]
    assert kept == [], "a token is neither in the lake nor in a log"


def test_metrics_count_every_request_of_every_endpoint_and_go_on_when_a_replica_ends(place: Place) -> None:
    def requests(endpoint: str) -> float:
        page = Client(place.serving.url)
        families = text_string_to_metric_families(page.text("/metrics"))
        return sum(
            one.value
            for family in families
            for one in family.samples
            if one.name == "lakeloop_requests_total" and one.labels["endpoint"] == endpoint
        )

    before = {name: requests(name) for name in ("steady", "slow")}
    for _ in range(20):
        place.ask("steady")
    place.ask("slow")
    assert requests("steady") == before["steady"] + 20
    assert requests("slow") == before["slow"] + 1
    os.kill(min(place.processes("steady")), signal.SIGKILL)
    wait_until(lambda: place.ask("steady").status == 200)
    assert requests("steady") > before["steady"] + 20


def test_the_proxy_listens_on_this_machine_only(place: Place) -> None:
    from lakeloop.ray_jobs.machine import naming

    commands = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in naming(place.cluster.run.folder)()}
    proxies = [pid for pid, command in commands.items() if command == "haproxy"]
    assert proxies
    addresses = {address for pid in proxies for address in listening(pid)}
    assert len(addresses) == 3, "HTTP, metrics, statistics"
    assert {address.split(":")[0] for address in addresses} == {"0100007F"}


def listening(pid: int) -> set[str]:
    """Addresses, as /proc writes them, that a process listens on by TCP."""
    sockets = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1])
    return found


def test_replicas_take_what_serve_sends_them_only_with_the_clusters_token(place: Place) -> None:
    import grpc

    def asked_without(port: int) -> grpc.StatusCode:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            try:
                call(b"", timeout=10)
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    ports = {address.split(":")[1] for address in listening(min(place.processes("steady")))}
    codes = {asked_without(int(port, 16)) for port in ports}
    assert grpc.StatusCode.UNAUTHENTICATED in codes
    assert grpc.StatusCode.OK not in codes


@pytest.mark.slow
def test_a_driver_without_the_clusters_token_is_refused(place: Place) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    script = f"import ray; ray.init(address={address!r}, logging_level=40, log_to_driver=False); print('in')"
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    stranger = subprocess.run(
        [sys.executable, "-c", script], env=known, capture_output=True, text=True, timeout=60, check=False
    )
    assert stranger.returncode != 0
    assert "in" not in stranger.stdout.split()
