"""The front on a real cluster of this machine: two endpoints side by side over one port of HTTP and one of gRPC."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http
from tritonclient.utils import InferenceServerException

from lakeloop.lakehouse.lake import open_lake
from lakeloop.ray_jobs.machine import naming

pytestmark = pytest.mark.ray
ENDPOINTS = {"late": 3, "early": 7}
PROCESS = "ray::ServeReplica:front:"


def loader() -> Callable[..., Any]:
    """Loads a model that answers its version times its input. Local functions travel to workers by value."""

    def load_scorer(lake: Any, project: str, model: str, version: int, snapshots: Any) -> Any:
        from lakeloop.lakehouse.scoring.scorer import Scorer
        from lakeloop.lakehouse.scoring.signature import Input, Signature

        class Times:
            def predict(self, model: float, matrix: Any) -> Any:
                return matrix.values[:, 0] * model

        inputs = (Input("share", "request", "float64", "number", nullable=False),)
        signature = Signature("regression", inputs, example={"share": 1.0})
        return Scorer(signature, Times(), float(version), None, {}, version)

    def load(lake: Any, project: str, endpoint: str, revision: Any, previous: Any) -> Any:
        from lakeloop.ray_jobs.serving.loading import load_with

        return load_with(load_scorer, lake, project, endpoint, revision, previous)

    return load


class Place:
    """What serves, and where the front's process is."""

    def __init__(self, lake: Any, serving: Any, cluster: Any) -> None:
        self.lake, self.serving, self._cluster = lake, serving, cluster

    def get(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(self.serving.url + path, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(self.serving.url + path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def process(self) -> int:
        """The front's."""
        pids = naming(self._cluster.run.folder)()
        (found,) = (pid for pid in pids if PROCESS in Path(f"/proc/{pid}/cmdline").read_text())
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    from lakeloop.ray_jobs.cluster import start_local

    folder = tmp_path_factory.mktemp("front")
    lake = open_lake(str(folder / "lake"))
    for name, version in ENDPOINTS.items():
        arms = [{"version": version, "weight": 10_000, "name": "champion"}]
        body = {"model": name, "wanted": version, "arms": arms, "snapshots": {}}
        lake.documents.create("endpoints", f"flights.{name}", body)
    with start_local(folder / "ray", serve=True) as cluster:
        from lakeloop.ray_jobs.serving.deployment import deploy

        logs = cluster.log_folder
        with deploy(lake.url, "flights", list(ENDPOINTS), log_folder=logs, grpc_port=0, load=loader()) as serving:
            yield Place(lake, serving, cluster)


def share(client: Any, value: float) -> Any:
    one = client.InferInput("share", [1], "FP64")
    one.set_data_from_numpy(np.array([value]))
    return [one]


def test_stock_clients_ask_two_endpoints_over_one_port_of_grpc_and_one_of_http(place: Place) -> None:
    with (
        triton_grpc.InferenceServerClient(place.serving.grpc_address) as by_grpc,
        triton_http.InferenceServerClient(place.serving.url.removeprefix("http://")) as by_http,
    ):
        for client, module in ((by_grpc, triton_grpc), (by_http, triton_http)):
            assert client.is_server_live()
            assert client.is_server_ready()
            for name, version in ENDPOINTS.items():
                assert client.is_model_ready(name)
                assert client.is_model_ready(name, str(version))
                answer = client.infer(name, share(module, 0.5), request_id=f"{module.__name__}-{name}")
                assert answer.as_numpy("prediction").tolist() == [0.5 * version]
            with pytest.raises(InferenceServerException, match="there is no model 'nobody'"):
                client.infer("nobody", share(module, 0.5))
        assert by_grpc.get_server_metadata().name == by_http.get_server_metadata()["name"] == "lakeloop"
        assert list(by_grpc.get_model_metadata("late").versions) == ["3"]
    assert place.serving.drain(60)
    for name in ENDPOINTS:
        logged = place.lake.journal(f"predictions.flights.{name}").read()
        assert logged is not None
        asked = [one for one in logged["request_id"].to_pylist() if "triton" in one]
        assert sorted(asked) == [f"tritonclient.grpc-{name}", f"tritonclient.http-{name}"]


def test_the_root_answers_for_all_endpoints(place: Place) -> None:
    assert json.loads(place.get("/v2/models")[1]) == {"models": ["early", "late"]}
    assert place.post("/v1/models/late:predict", {"instances": [{"share": 2}]})["predictions"] == [6.0]
    assert place.get("/v1/models/nobody")[0] == 404
    document = json.loads(place.get("/openapi.json")[1])
    assert {f"/v2/models/{name}/infer" for name in ENDPOINTS} <= document["paths"].keys()
    assert place.get("/docs")[0] == 200
    assert b'lakeloop_replicas{endpoint="late"} 1' in place.get("/metrics")[1]


def wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


def test_a_killed_front_comes_back_by_itself_on_the_same_ports(place: Place) -> None:
    def answers() -> bool:
        with triton_grpc.InferenceServerClient(place.serving.grpc_address) as client:
            try:
                return bool(client.infer("late", share(triton_grpc, 1.0)).as_numpy("prediction").tolist() == [3])
            except InferenceServerException:
                return False

    assert answers()
    killed = place.process()
    os.kill(killed, signal.SIGKILL)
    wait_until(answers)
    wait_until(lambda: place.get("/v2/health/ready")[0] == 200)
    assert place.process() != killed


class Load:
    """Requests by gRPC without a pause from four callers; what was answered, and what failed."""

    def __init__(self, address: str) -> None:
        self.answered: list[str] = []
        self.failed: list[str] = []
        self._address, self._ending = address, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        until = len(self.answered) + count
        wait_until(lambda: len(self.answered) >= until or bool(self.failed))

    def _run(self, caller: int) -> None:
        number = 0
        with triton_grpc.InferenceServerClient(self._address) as client:
            while not self._ending.is_set():
                number += 1
                name = f"load-{caller}-{number}"
                try:
                    client.infer("late", share(triton_grpc, 0.5), request_id=name)
                    self.answered.append(name)
                except InferenceServerException as error:
                    self.failed.append(f"{name}: {error}")


@pytest.mark.slow
def test_no_call_fails_while_replicas_come_are_replaced_and_go(place: Place) -> None:
    from lakeloop.ray_jobs.serving.policy import Policy

    with Load(place.serving.grpc_address) as load:
        for policy, code in ((Policy(2, 2), ""), (Policy(2, 2), "other"), (Policy(1, 1), "other")):
            load.more(300)
            place.serving.change("late", policy, code=code)
            load.more(300)
    assert load.failed == []
    assert place.serving.drain(60)
    logged = place.lake.journal("predictions.flights.late").read()
    assert logged is not None
    counted = Counter(logged["request_id"].to_pylist())
    assert {name: counted[name] for name in load.answered} == dict.fromkeys(load.answered, 1)


def test_ready_is_false_while_an_endpoint_has_no_replica_and_the_others_go_on(place: Place) -> None:
    from ray import serve

    from lakeloop.ray_jobs.serving.deployment import run_applications

    serve.delete("flights-early")
    wait_until(lambda: place.get("/v2/health/ready")[0] == 503)
    assert json.loads(place.get("/v2/health/ready")[1]) == {"live": True, "ready": False}
    with grpc.insecure_channel(place.serving.grpc_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        asked = [health.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("", "early", "late")]
        status = health_pb2.HealthCheckResponse
        assert asked == [status.NOT_SERVING, status.NOT_SERVING, status.SERVING]
    with triton_grpc.InferenceServerClient(place.serving.grpc_address) as client:
        assert not client.is_server_ready()
        assert not client.is_model_ready("early")
        with pytest.raises(InferenceServerException, match="no replica answers") as failed:
            client.infer("early", share(triton_grpc, 1.0))
        assert "UNAVAILABLE" in failed.value.status()
        assert client.infer("late", share(triton_grpc, 1.0)).as_numpy("prediction").tolist() == [3]
    run_applications([place.serving.deployed["early"]])
    wait_until(lambda: place.get("/v2/health/ready")[0] == 200)
