"""Requests per second and latency of the same model behind several servers, turn by turn on this machine.

Each server is started alone, warmed, and asked by `wrk` (Debian's package of that name) over 1 and 16 connections, one
JSON row a request. Ours runs with everything on. MLflow and BentoML come into venvs below build/, once.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakeloop.ray_jobs.machine import free_ports
from tests.benchmarks.serving_peers import NAMES, ROW
from tests.benchmarks.timing import report

ROOT = Path(__file__).parents[2]
SECONDS, ROUNDS = 6, 2
LIGHTGBM = "lightgbm==4.7.0"
PEERS = {
    "mlflow": ("mlflow", "lightgbm==4.7.0"),
    "bentoml": ("bentoml", "lightgbm==4.7.0", "numpy"),
}
ROWS = json.dumps({"rows": [ROW]})
FRAME = json.dumps({"dataframe_split": {"columns": list(NAMES), "data": [list(ROW.values())]}})
ASKED = {  # path and body
    "ours": ("/v2/models/m/infer", ROWS),
    "mlflow": ("/invocations", FRAME),
    "bentoml": ("/infer", ROWS),
}
UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True, slots=True)
class Figure:
    """What wrk saw: answers a second, and latencies in ms."""

    rate: float
    p50: float
    p99: float


def main() -> None:
    if shutil.which("wrk") is None:
        sys.stderr.write("bench_serving: wrk is not installed (apt-get install wrk); left out\n")
        return
    with tempfile.TemporaryDirectory(prefix="ll") as folder:
        prepare(Path(folder))
        names = ["ours", "fastapi", "raw", "ray fastapi", "ray raw", "ray defaults", *PEERS]
        rounds = [{name: measured(name, folder) for name in names} for _ in range(ROUNDS)]
    at_1, at_16 = ({name: median([one[name][n] for one in rounds]) for name in names} for n in (0, 1))
    aims = {
        "ray fastapi": (1.4, "at least 1.4", "FastAPI in Ray Serve's HAProxy mode"),
        "fastapi": (0.75, "at least 0.75", "bare FastAPI and uvicorn, nothing else on"),
        "raw": (0, "", "a bare ASGI function on uvicorn, nothing else on"),
        "ray raw": (0, "", "a bare ASGI function in Ray Serve's HAProxy mode"),
        "ray defaults": (12, "at least 12", "FastAPI in Ray Serve as it is by default"),
        "mlflow": (6, "at least 6", "MLflow's scoring server"),
        "bentoml": (4, "at least 4", "BentoML"),
    }
    for name, (_, aim, words) in aims.items():
        a, b = at_16[name], at_16["ours"]
        report("one-row requests over 16 connections, everything on", f"{b.rate:,.0f}/s", f"{a.rate:,.0f}/s, {words}",
               b.rate / a.rate, aim)  # fmt: skip
    a, b = at_1["ray raw"], at_1["ours"]
    report("one-row requests over 1 connection: p50", f"{b.p50:.2f} ms", f"{a.p50:.2f} ms, a bare ASGI function in "
           "HAProxy mode", b.p50 / a.p50, "at most 0.5 ms")  # fmt: skip
    report("one-row requests over 1 connection: p99", f"{b.p99:.2f} ms", f"{a.p99:.2f} ms, a bare ASGI function in "
           "HAProxy mode", b.p99 / a.p99, "at most 1.3")  # fmt: skip


def median(figures: list[Figure]) -> Figure:
    return Figure(*(statistics.median(getattr(one, name) for one in figures) for name in ("rate", "p50", "p99")))


def prepare(folder: Path) -> None:
    """The model, and LightGBM for who has no venv of its own."""
    packages = ROOT / "build" / "lightgbm"
    if not packages.exists():
        pip(sys.executable, "--target", str(packages), "--no-deps", LIGHTGBM)
    (folder / "packages").symlink_to(packages)
    sys.path.insert(0, str(packages))
    import lightgbm
    import numpy as np

    random = np.random.default_rng(1)
    inputs = random.normal(size=(5000, len(NAMES)))
    labels = (inputs[:, 0] + inputs[:, 1] * inputs[:, 2] > 0).astype(int)
    params: dict[str, Any] = {"objective": "binary", "num_leaves": 31, "verbose": -1, "num_threads": 1, "seed": 1}
    lightgbm.train(params, lightgbm.Dataset(inputs, labels), 100).save_model(str(folder / "model.txt"))


def pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def python_of(peer: str) -> str:
    """The Python of a venv that has a peer's packages."""
    place = ROOT / "build" / f"{peer}-serving"
    if not (place / "ready").exists():
        sys.stderr.write(f"installing {peer} into build/{peer}-serving (once)\n")
        venv.create(place, with_pip=True, clear=True)
        pip(str(place / "bin" / "python"), *PEERS[peer])
        (place / "ready").touch()
    return str(place / "bin" / "python")


def measured(name: str, folder: str) -> tuple[Figure, Figure]:
    """Over 1 connection and over 16."""
    path, body = ASKED.get(name, ("/infer", ROWS))
    (port,) = free_ports(1)
    with serving(name, folder, port):
        url = f"http://127.0.0.1:{port}{path}"
        wait_for(url, body)
        ask(url, body, 16, 2)
        return ask(url, body, 1, SECONDS), ask(url, body, 16, SECONDS)


@contextmanager
def serving(name: str, folder: str, port: int) -> Iterator[None]:
    if name in PEERS:
        command = [python_of(name), str(Path(__file__).with_name(f"{name}_server.py")), folder, str(port)]
    else:
        command = [sys.executable, "-m", "tests.benchmarks.serving_peers", name, folder, str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT)
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url: str, body: str) -> None:
    until = time.monotonic() + 120
    request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                json.load(answer)
                return
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() > until:
                raise TimeoutError(f"{url} does not answer") from error
            time.sleep(0.2)


def ask(
    url: str, body: str | bytes, connections: int, seconds: float, headers: Mapping[str, str] | None = None
) -> Figure:
    """RuntimeError when an answer was no success."""
    given = {"Content-Type": "application/json"} if isinstance(body, str) else dict(headers or {})
    with tempfile.TemporaryDirectory() as place:
        sent, script = Path(place, "body"), Path(place, "ask.lua")
        sent.write_bytes(body.encode() if isinstance(body, str) else body)
        lines = [f"wrk.headers['{name}'] = '{value}'" for name, value in given.items()]
        reads = f"local file = io.open('{sent}', 'rb')\nwrk.body = file:read('*all')\n"
        script.write_text("\n".join(["wrk.method = 'POST'", *lines, reads]))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise RuntimeError(said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None, said
    return Figure(float(rate[1]), _latency(said, "50%"), _latency(said, "99%"))


def _latency(said: str, share: str) -> float:
    found = re.search(rf"{share}\s+([\d.]+)(us|ms|s)\b", said)
    assert found is not None, said
    return float(found[1]) * UNIT_MS[found[2]]


if __name__ == "__main__":
    main()
