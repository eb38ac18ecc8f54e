"""Endpoints with known answers behind a real HTTP server of this process, with a real log."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Input, Signature, ViewUse

KSERVE = "0.21.0"
HOME = Path(__file__).parents[3] / "build" / f"kserve-{KSERVE}"
KNOWN = datetime(2026, 5, 1, 11, tzinfo=UTC)
NUMBERS = (
    Input("a", "request", "float32", "number"),
    Input("b", "request", "float64", "number"),
    Input("seats", "request", "int16", "integer", range=(0, 900)),
)
FLIGHT = (
    Input("share", "request", "float32", "number", range=(0, 1), nullable=False),
    Input("origin", "request", "category", "category", categories=("EWR", "JFK")),
    Input("night", "request", "bool", "bool"),
    Input("due", "request", "timestamp", "timestamp", column=False),
    Input("note", "request", "string", "string", column=False),
    Input("temp", "feature", "float64", "number"),
)
WEATHER = (ViewUse("weather", "weather", "v1", (("origin", "origin"),), (("temp", "temp"),)),)


class Sum:
    """The sum of what is there."""

    def predict(self, model: Any, matrix: Matrix) -> Any:
        return np.nansum(matrix.values.astype(np.float64), axis=1)


class First:
    """The first input."""

    def predict(self, model: Any, matrix: Matrix) -> Any:
        return matrix.values[:, 0].astype(np.float64)


class Thirds:
    """Three classes by the first input."""

    def predict(self, model: Any, matrix: Matrix) -> Any:
        share = matrix.values[:, 0].astype(np.float64)
        return np.stack([share, (1 - share) / 3, (1 - share) * 2 / 3], axis=1)


class KnownTemperature:
    """A view that knows one key."""

    def at(self, key: tuple[Any, ...], as_of: datetime) -> tuple[dict[str, Any] | None, datetime | None]:
        return ({"temp": 7.5}, KNOWN) if key == ("EWR",) else (None, None)


def known_scorers() -> dict[str, Scorer]:
    late = {"share": 0.5, "origin": "EWR", "night": False, "due": "2026-05-01T12:00:00Z", "note": "x", "temp": 1.0}
    lookups = {"weather": KnownTemperature()}
    binary = Signature("binary", FLIGHT, WEATHER, ("false", "true"), "true", example=late)
    several = Signature("multiclass", FLIGHT[:2], classes=("a", "b", "c"), example={"share": 0.5, "origin": "EWR"})
    numbers = Signature("regression", NUMBERS, example={"a": 1.0, "b": 2.0, "seats": 3})
    return {
        "sum": Scorer(numbers, Sum(), None, None, {}, 1),
        "late": Scorer(binary, First(), None, None, lookups, 3),
        "kind": Scorer(several, Thirds(), None, None, {}, 2),
    }


@dataclass(frozen=True, slots=True)
class Serves:
    """Where the server listens, and where its endpoints log."""

    host: str
    port: int
    logs: Path

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def logged(self, endpoint: str) -> list[dict[str, Any]]:
        """The rows an endpoint has logged so far, as its journal would have them."""
        from lakeloop.ray_jobs.serving.prediction_rows import prediction_table
        from lakeloop.ray_jobs.serving.write_ahead import read_piece, sealed_pieces

        folder = self.logs / endpoint
        pieces = [read_piece(path) for path in [*sealed_pieces(folder), *sorted(folder.glob("*.jsonl"))]]
        return [row for piece in pieces for row in prediction_table(piece).to_pylist()]


@contextmanager
def serve(logs: Path) -> Iterator[Serves]:
    """The endpoints on a free port, until the end."""
    import uvicorn

    from lakeloop.ray_jobs.serving.arms import Arm, Loaded
    from lakeloop.ray_jobs.serving.endpoint import Endpoint
    from lakeloop.ray_jobs.serving.inference import Inference
    from lakeloop.ray_jobs.serving.server import Server
    from lakeloop.ray_jobs.serving.write_ahead import WriteAhead

    def endpoint(name: str, scorer: Scorer) -> Endpoint:
        loaded = Loaded(name, 5, (Arm("champion", scorer.version, 10_000, scorer),))
        log = WriteAhead(logs / name, piece_age_s=1e9)
        inference = Inference(
            "flights",
            name,
            loaded=lambda: loaded,
            append=log.append,
            state=dict,
            clock=lambda: datetime.now(UTC),
        )
        return Endpoint(inference)

    endpoints = {name: endpoint(name, scorer) for name, scorer in known_scorers().items()}
    config = uvicorn.Config(Server(lambda: endpoints), port=0, log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield Serves(host, port, logs)
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def serves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serves]:
    with serve(tmp_path_factory.mktemp("logs")) as there:
        yield there


@pytest.fixture(scope="module")
def scorers() -> dict[str, Scorer]:
    return known_scorers()


@pytest.fixture(scope="session")
def kserve() -> Path:
    """An interpreter that has kserve's client, whose requirements conflict with ours. Made once."""
    HOME.parent.mkdir(exist_ok=True)
    with open(f"{HOME}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (HOME / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
            install = [str(HOME / "bin/python"), "-m", "pip", "install", "-q", f"kserve=={KSERVE}"]
            made = subprocess.run(install, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"kserve {KSERVE} cannot be installed here: {made.stderr.strip().splitlines()[-1]}")
            (HOME / "ready").touch()
    return HOME / "bin/python"
