"""The servers that `bench_serving` asks, each in a process of its own: ours, and others with the same model.

    python -m tests.benchmarks.serving_peers NAME FOLDER PORT

FOLDER holds `model.txt` (LightGBM) and lightgbm itself below `packages`. Ends with the process that is its parent's
standard input: when that closes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("a", "b", "c", "d", "e", "f")
ROW = dict.fromkeys(NAMES, 0.25)


def model_at(folder: str) -> Any:
    """One row costs the same in each server: LightGBM's own predict with one thread."""
    sys.path.insert(0, str(Path(folder, "packages")))
    import lightgbm

    return lightgbm.Booster(model_file=str(Path(folder, "model.txt")))


def fastapi_app(folder: str) -> Any:
    """What a good engineer writes in ten minutes: the body is validated by pydantic, the handler is async."""
    import numpy as np
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Row(BaseModel):
        a: float
        b: float
        c: float
        d: float
        e: float
        f: float

    class Body(BaseModel):
        rows: list[Row]

    booster, app = model_at(folder), FastAPI()

    async def infer(body: Body) -> dict[str, list[float]]:
        values = np.array([[getattr(row, name) for name in NAMES] for row in body.rows])
        return {"predictions": booster.predict(values, num_threads=1).tolist()}

    infer.__annotations__ = {"body": Body, "return": dict[str, list[float]]}  # names of a function, not of the module
    app.post("/infer")(infer)
    return app


def raw_app(folder: str) -> Any:
    """An ASGI function with nothing but the model: what is left of the server's own speed."""
    import numpy as np
    import orjson

    booster = model_at(folder)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await _live(receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        rows = orjson.loads(body)["rows"]
        values = np.array([[row[name] for name in NAMES] for row in rows])
        answer = orjson.dumps({"predictions": booster.predict(values, num_threads=1).tolist()})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


async def _live(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def uvicorn_of(build: Callable[[str], Any]) -> Callable[[str, int], None]:
    def run(folder: str, port: int) -> None:
        import uvicorn

        uvicorn.run(build(folder), port=port, log_level="warning", access_log=False)

    return run


def ray_of(build: Callable[[str], Any], *, haproxy: bool) -> Callable[[str, int], None]:
    """On Ray Serve with one replica, in its HAProxy mode or as it is by default."""

    def run(folder: str, port: int) -> None:
        import ray
        from ray import serve

        from lakeloop.ray_jobs.cluster import start_local

        with start_local(Path(folder, "ray"), serve=haproxy):
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            deployment = serve.deployment(serve.ingress(lambda: build(folder))(type("Bench", (), {}))).options(
                ray_actor_options={"num_cpus": 0.5}, **({"max_ongoing_requests": 256} if haproxy else {})
            )
            serve.run(deployment.bind(), name="bench", route_prefix="/")
            _wait()
            serve.shutdown()
            ray.shutdown()

    return run


def scorer_loader(folder: str) -> Callable[..., Any]:
    """Loads every version as the same model behind the product's own scorer, with ranges to check."""

    def load_scorer(lake: Any, project: str, model: str, version: int, snapshots: Any) -> Any:
        import sys as system

        system.path.insert(0, folder + "/packages")
        import lightgbm

        from lakeloop.lakehouse.scoring.scorer import Scorer
        from lakeloop.lakehouse.scoring.signature import Input, Signature

        class Booster:
            def predict(self, model: Any, matrix: Any) -> Any:
                return model.predict(matrix.values, num_threads=1)

        inputs = tuple(
            Input(name, "request", "float64", "number", range=(-1000.0, 1000.0), nullable=False)
            for name in ("a", "b", "c", "d", "e", "f")
        )
        example = dict.fromkeys(("a", "b", "c", "d", "e", "f"), 0.25)
        signature = Signature("binary", inputs, (), ("false", "true"), "true", example=example)
        booster = lightgbm.Booster(model_file=folder + "/model.txt")
        return Scorer(signature, Booster(), booster, None, {}, version)

    def load(lake: Any, project: str, endpoint: str, revision: Any, previous: Any) -> Any:
        from lakeloop.ray_jobs.serving.loading import load_with

        return load_with(load_scorer, lake, project, endpoint, revision, previous)

    return load


def ours(folder: str, port: int) -> None:
    """`lakeloop serve` with everything on: validation, two arms, the log, the shipper, the watcher."""
    from lakeloop.lakehouse.lake import open_lake
    from lakeloop.ray_jobs.cluster import start_local
    from lakeloop.ray_jobs.serving.deployment import deploy

    lake = open_lake(f"{folder}/lake")
    if lake.documents.latest("endpoints", "bench.m") is None:
        arms = [{"name": "champion", "version": 1, "weight": 9_000}, {"name": "canary", "version": 2, "weight": 1_000}]
        lake.documents.create("endpoints", "bench.m", {"model": "m", "wanted": 1, "arms": arms, "snapshots": {}})
    with (
        start_local(Path(folder, "ray"), serve=True) as cluster,
        deploy(lake.url, "bench", ["m"], log_folder=cluster.log_folder, port=port, load=scorer_loader(folder)),
    ):
        _wait()


def _wait() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


SERVERS: dict[str, Callable[[str, int], None]] = {
    "ours": ours,
    "fastapi": uvicorn_of(fastapi_app),
    "raw": uvicorn_of(raw_app),
    "ray fastapi": ray_of(fastapi_app, haproxy=True),
    "ray raw": ray_of(raw_app, haproxy=True),
    "ray defaults": ray_of(fastapi_app, haproxy=False),
}


def _end_with_parent() -> None:
    """A server that blocks ends when its standard input does."""
    import threading

    def watch() -> None:
        sys.stdin.read()
        time.sleep(5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    name, folder, port = sys.argv[1:]
    if not name.startswith("ray") and name != "ours":
        _end_with_parent()
    SERVERS[name](folder, int(port))
