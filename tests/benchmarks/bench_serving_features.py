"""What each feature of an endpoint costs, and what binary tensors save: our app on a plain server, asked by `wrk`.

Each line is the same server with one thing left out or added, turn by turn with the server that has everything.
"""

from __future__ import annotations

import json
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lakeloop.ray_jobs.machine import free_ports
from tests.benchmarks.bench_serving import ROOT, ask, median, prepare, wait_for
from tests.benchmarks.serving_peers import NAMES, ROW
from tests.benchmarks.timing import report

SECONDS, ROUNDS, ROWS = 4, 3, 1000
SHIP = """
import os, sys
from pathlib import Path
from lakeloop.lakehouse.lake import open_lake
from lakeloop.ray_jobs.serving.shipper import Shipper
os.nice(10)
shipper = Shipper(Path(sys.argv[2]), open_lake(sys.argv[1]).journal)
sys.stdin.read()
shipper.close()
"""
"""In a process of its own, as it is on Ray and beside the workers of a plain server."""
ARMS = [{"name": "champion", "version": 1, "weight": 9_000}, {"name": "canary", "version": 2, "weight": 1_000}]
ONE_ARM = [{"name": "champion", "version": 1, "weight": 10_000}]


@dataclass(frozen=True, slots=True)
class Variant:
    """A server: its endpoint's document, whether inputs have ranges, and whether two are looked up by key."""

    words: str
    arms: list[dict[str, Any]] = field(default_factory=lambda: ARMS)
    sample: float = 1.0
    checks: bool = True
    looks_up: bool = False


VARIANTS = {
    "everything": Variant(""),
    "no log": Variant("without the log", sample=0.0),
    "one arm": Variant("without the split in two arms", arms=ONE_ARM),
    "no checks": Variant("without ranges and required values", checks=False),
    "look-up": Variant("with a look-up of two features by key", looks_up=True),
}


def loader(folder: str, variant: Variant) -> Callable[..., Any]:
    def load_scorer(lake: Any, project: str, model: str, version: int, snapshots: Any) -> Any:
        sys.path.insert(0, folder + "/packages")
        import lightgbm

        from lakeloop.lakehouse.scoring.scorer import Scorer
        from lakeloop.lakehouse.scoring.signature import Input, Signature, ViewUse

        class Booster:
            def predict(self, model: Any, matrix: Any) -> Any:
                return model.predict(matrix.values, num_threads=1)

        class Weather:
            def at(self, key: Any, as_of: Any) -> Any:
                return {"e": 0.25, "f": 0.25}, as_of

        def one(name: str) -> Input:
            role = "feature" if variant.looks_up and name in "ef" else "request"
            required = variant.checks and role == "request"
            return Input(name, role, "float64", "number", range=(-1e3, 1e3) if required else None,
                         nullable=not required)  # fmt: skip

        views = (ViewUse("weather", "weather", "v1", (("a", "a"),), (("e", "e"), ("f", "f"))),)
        signature = Signature("binary", tuple(map(one, NAMES)), views if variant.looks_up else (),
                              ("false", "true"), "true", example=dict(ROW))  # fmt: skip
        booster = lightgbm.Booster(model_file=folder + "/model.txt")
        return Scorer(signature, Booster(), booster, None, {"weather": Weather()}, version)

    def load(lake: Any, project: str, endpoint: str, revision: Any, previous: Any) -> Any:
        from lakeloop.ray_jobs.serving.loading import load_with

        return load_with(load_scorer, lake, project, endpoint, revision, previous)

    return load


def serve(folder: str, name: str, port: int) -> None:
    """Until standard input ends."""
    import threading

    import uvicorn

    from lakeloop.lakehouse.lake import open_lake
    from lakeloop.lakehouse.prediction_log import LogPolicy
    from lakeloop.ray_jobs.serving.plain_worker import PlainApp
    from lakeloop.ray_jobs.serving.replica import Replica

    variant = VARIANTS[name]
    with tempfile.TemporaryDirectory() as place:
        lake = open_lake(f"{place}/lake")
        log = LogPolicy(sample=variant.sample).to_json()
        body = {"model": "m", "wanted": 1, "arms": variant.arms, "snapshots": {}, "log": log}
        lake.documents.create("endpoints", "bench.m", body)
        app = PlainApp([Replica(lake.url, "bench", "m", Path(place, "log"), loader(folder, variant))])
        server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="on", log_level="warning", access_log=False))
        shipper = subprocess.Popen([sys.executable, "-c", SHIP, lake.url, f"{place}/log"], stdin=subprocess.PIPE)

        def end() -> None:
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=end, daemon=True).start()
        server.run()
        shipper.communicate()


@contextmanager
def serving(folder: str, name: str) -> Iterator[str]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "tests.benchmarks.bench_serving_features", folder, name, str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
    url = f"http://127.0.0.1:{port}/v2/models/m/infer"
    try:
        wait_for(url, body_of(VARIANTS[name]))
        yield url
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def body_of(variant: Variant) -> str:
    return json.dumps({"rows": [{k: v for k, v in ROW.items() if not (variant.looks_up and k in "ef")}]})


def rate(folder: str, name: str) -> float:
    with serving(folder, name) as url:
        ask(url, body_of(VARIANTS[name]), 16, 1)
        return ask(url, body_of(VARIANTS[name]), 16, SECONDS).rate


def features(folder: str) -> None:
    rounds = [{name: rate(folder, name) for name in VARIANTS} for _ in range(ROUNDS)]
    middle = {name: statistics.median(one[name] for one in rounds) for name in VARIANTS}
    whole = middle.pop("everything")
    for name, other in middle.items():
        aim = "at least 0.95" if name == "no log" else ""
        report("one-row requests over 16 connections on a plain server, everything on", f"{whole:,.0f}/s",
               f"{other:,.0f}/s, {VARIANTS[name].words}", whole / other, aim)  # fmt: skip


def binary(folder: str) -> None:
    """1,000 rows in one request, as tensors in binary and as JSON rows."""
    values = [float(n % 7) for n in range(ROWS)]
    tensors = [{"name": name, "datatype": "FP64", "shape": [ROWS], "parameters": {"binary_data_size": 8 * ROWS}}
               for name in NAMES]  # fmt: skip
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    packed = header.encode() + struct.pack(f"<{ROWS}d", *values) * len(NAMES)
    texts = json.dumps({"rows": [dict.fromkeys(NAMES, value) for value in values]}).encode()
    sent = [(packed, {"Inference-Header-Content-Length": str(len(header))}), (texts, {})]
    with serving(folder, "one arm") as url:
        rounds = [[ask(url, body, 4, SECONDS, headers) for body, headers in sent] for _ in range(ROUNDS)]
    a, b = (median([one[n] for one in rounds]).rate * ROWS for n in (0, 1))
    report(f"rows in requests of {ROWS:,}, binary tensors", f"{a:,.0f}/s", f"{b:,.0f}/s, JSON rows", a / b,
           "at least 10")  # fmt: skip


def main() -> None:
    if len(sys.argv) == 4:
        serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
        return
    if shutil.which("wrk") is None:
        sys.stderr.write("bench_serving_features: wrk is not installed (apt-get install wrk); left out\n")
        return
    with tempfile.TemporaryDirectory(prefix="ll") as folder:
        prepare(Path(folder))
        features(folder)
        binary(folder)


if __name__ == "__main__":
    main()
