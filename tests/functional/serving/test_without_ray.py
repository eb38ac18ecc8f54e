"""Serving where Ray is not installed: a plain server whose processes are killed, and a function's first call."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.ray_jobs.serving.plain import PlainServing, serve_plain
from lakeloop.ray_jobs.serving.replica import Replica
from lakeloop.ray_jobs.serving.shipper import ship
from lakeloop.tests.prices import EXAMPLE, price_model

ABSENT = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(fullname)
sys.meta_path.insert(0, Absent())
"""
FUNCTION = """
import json, sys
from lakeloop.ray_jobs.serving.function import handler
for line in sys.stdin:
    print(json.dumps(handler(json.loads(line))), flush=True)
"""


@pytest.fixture
def without(tmp_path: Path) -> Any:
    """The environment of a process in which packages cannot be imported."""

    def make(*packages: str, **variables: str) -> dict[str, str]:
        folder = tmp_path / "absent"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(ABSENT.format(packages=packages))
        return {**os.environ, "PYTHONPATH": str(folder), **variables}

    return make


def event(request_id: str) -> str:
    body = json.dumps({"rows": [EXAMPLE], "id": request_id})
    http = {"method": "POST"}
    return json.dumps(
        {"rawPath": "/v2/models/price/infer", "headers": {}, "requestContext": {"http": http}, "body": body}
    )


def test_a_function_answers_where_only_what_its_model_needs_is_installed(bucket: str, without: Any) -> None:
    lake = open_lake(f"s3://{bucket}/some/prefix")
    price_model(lake)
    variables = {"LAKELOOP_LAKE": lake.url, "LAKELOOP_PROJECT": "shop"}
    environment = without("ray", "uvicorn", "duckdb", "deltalake", "pandas", "sklearn", **variables)
    done = subprocess.run(
        [sys.executable, "-c", FUNCTION],
        input=f"{event('a')}\n{event('b')}\n",
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["statusCode"] for one in answers] == [200, 200], done.stderr
    rows = lake.journal("predictions.shop.price").read()
    assert rows is not None
    assert sorted(rows["request_id"].to_pylist()) == ["a", "b"]


class Place:
    """A lake with an endpoint, and the server before it."""

    def __init__(self, lake: Lake, serving: PlainServing, folder: Path) -> None:
        self.lake, self.serving, self.folder = lake, serving, folder

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.serving.url + path, timeout=30) as answer:
            return json.load(answer)

    def logged(self) -> Counter[str]:
        until = time.monotonic() + 60
        while self.serving.pending() and time.monotonic() < until:
            time.sleep(0.05)
        rows = self.lake.journal("predictions.shop.price").read()
        assert rows is not None
        return Counter(rows["request_id"].to_pylist())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("plain")
    lake = open_lake(str(folder / "lake"), who="tester")
    price_model(lake)
    with serve_plain([Replica(lake.url, "shop", "price", folder / "logs")], grpc_port=0, workers=2) as serving:
        yield Place(lake, serving, folder)


class Load:
    """Requests without a pause; what was answered, and what was not."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = urlsplit(url), name
        self.answered: list[str] = []
        self.lost: list[str] = []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        connection = None
        for count in range(100_000):
            if self._ending.is_set():
                return
            request_id = f"{self.name}-{number}-{count}"
            connection = connection or http.client.HTTPConnection(self.url.hostname or "", self.url.port, timeout=60)
            try:
                body = json.dumps({"rows": [EXAMPLE], "id": request_id})
                connection.request("POST", "/v2/models/price/infer", body)
                answer = connection.getresponse()
                answer.read()
                (self.answered if answer.status == 200 else self.lost).append(request_id)
            except (OSError, http.client.HTTPException):
                self.lost.append(request_id)
                connection = None


def test_the_root_and_the_endpoint_answer(place: Place) -> None:
    assert place.get("/v2/health/ready") == {"live": True, "ready": True}
    assert place.get("/v2/models/price")["versions"][-1:] == ["1"]
    with urllib.request.urlopen(f"{place.serving.url}/metrics", timeout=30) as answer:
        assert b"lakeloop_requests_total" in answer.read()


def test_grpc_answers_as_http_does_and_a_taken_port_is_told(place: Place) -> None:
    pytest.importorskip("tritonclient.grpc")
    from tritonclient import grpc as triton

    inputs = [triton.InferInput(name, [1], "FP64") for name in EXAMPLE]
    for one, value in zip(inputs, EXAMPLE.values(), strict=True):
        one.set_data_from_numpy(np.array([value]))
    asked = urllib.request.Request(
        f"{place.serving.url}/v2/models/price/infer", json.dumps({"rows": [EXAMPLE]}).encode(), method="POST"
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        by_http = json.load(answer)["rows"][0]["prediction"]
    with triton.InferenceServerClient(place.serving.grpc_address) as client:
        assert client.is_server_ready()
        answered = client.infer("price", inputs, request_id="by-grpc")
        assert answered.as_numpy("prediction").tolist() == [by_http]
        with pytest.raises(triton.InferenceServerException, match="there is no model 'prise'"):
            client.infer("prise", inputs)
    taken = int(place.serving.grpc_address.rpartition(":")[2])
    with pytest.raises(Unavailable, match="gRPC cannot listen"):
        serve_plain([Replica(place.lake.url, "shop", "price", place.folder / "others")], grpc_port=taken)
    assert place.logged()["by-grpc"] == 1


def test_a_server_that_cannot_start_ends_with_its_gateway(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file, where a folder should be")
    script = f"""
from pathlib import Path
from lakeloop.ray_jobs.serving.plain import serve_plain
from lakeloop.ray_jobs.serving.plain_grpc import PlainGrpc
from lakeloop.ray_jobs.serving.replica import Replica
if __name__ == "__main__":
    PlainGrpc("127.0.0.1", 1, 0)  # which nobody stops
    serve_plain([Replica("{tmp_path}/lake", "shop", "price", Path("{tmp_path}/logs"))], grpc_port=0)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, "logs" in ended.stderr) == (1, True)


def test_a_promotion_is_followed_by_every_worker(place: Place) -> None:
    version = price_model(place.lake, rounds=5, run="r2")
    until = time.monotonic() + 60
    seen: set[int] = set()
    while time.monotonic() < until and seen != set(place.serving.processes):
        state = place.get("/v2/models/price/state")
        if state["arms"][0]["version"] == version:
            seen.add(state["process"])
    assert seen == set(place.serving.processes)


def test_a_killed_worker_is_replaced_and_what_it_answered_is_logged_once(place: Place) -> None:
    with Load(place.serving.url, "kill") as load:
        for _ in range(2):
            time.sleep(0.5)
            os.kill(place.serving.processes[0], signal.SIGKILL)
            place.serving.wait_ready()
        time.sleep(0.5)
    assert len(load.answered) > 50
    logged = place.logged()
    assert [one for one in load.answered if logged[one] != 1] == []
    until = time.monotonic() + 60
    while len(place.serving.processes) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(place.serving.processes) == 2


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


SERVER = """
import sys, time
from pathlib import Path
from lakeloop.ray_jobs.serving.plain import serve_plain
from lakeloop.ray_jobs.serving.replica import Replica
if __name__ == "__main__":
    serving = serve_plain([Replica(sys.argv[1], "shop", "price", Path(sys.argv[2]))])
    serving._shipper.close()  # so that something is left to ship
    print(serving.url, *serving.processes, flush=True)
    time.sleep(600)
"""


def test_a_killed_server_leaves_no_worker_and_the_next_ships_what_it_answered(
    folder_lake: Lake, tmp_path: Path
) -> None:
    price_model(folder_lake)
    logs, script = tmp_path / "logs", tmp_path / "server.py"
    script.write_text(SERVER)
    command = [sys.executable, str(script), folder_lake.url, str(logs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, worker = server.stdout.readline().split()
        body = json.dumps({"rows": [EXAMPLE], "id": "one"}).encode()
        asked = urllib.request.Request(f"{url}/v2/models/price/infer", body, method="POST")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert answer.status == 200
        server.kill()
    until = time.monotonic() + 60
    while lives(int(worker)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not lives(int(worker))
    assert ship(logs, folder_lake.journal).rows == 1
    assert ship(logs, folder_lake.journal).rows == 0


def test_the_command_serves_until_sigterm_and_ships_before_it_ends(tmp_path: Path, without: Any) -> None:
    from lakeloop.tests.orders import FILES, Orders

    folder = tmp_path / "shop"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    lake = open_lake(str(folder / ".lake"), who="tester")
    Orders(lake).register()
    broken = {"model": "other", "wanted": 9, "arms": [{"name": "champion", "version": 9, "weight": 10_000}]}
    lake.documents.create("endpoints", "shop.other", {**broken, "barred": [], "snapshots": {}})
    command = [str(Path(sys.executable).with_name("lakeloop")), "serve", "risk", "other", "--plain", "--port", "0"]
    environment = without("ray", "grpc", LAKELOOP_STATE_DIR=str(tmp_path / "state"))
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        row = {"customer": "c1", "amount": 2.0, "as_of": "2024-03-01T16:00:00Z"}
        asked = urllib.request.Request(url, json.dumps({"rows": [row], "id": "one"}).encode(), method="POST")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert json.load(answer)["rows"][0]["prediction"] == 2 + 10 * 2 + 100
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(60) == 0
    rows = lake.journal("predictions.shop.risk").read()
    assert rows is not None
    assert rows["request_id"].to_pylist() == ["one"]
