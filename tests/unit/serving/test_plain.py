"""The app of a plain server's worker: several endpoints side by side, of which one cannot be opened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakeloop.lakehouse.errors import Corrupt, Unavailable
from lakeloop.lakehouse.lake import Lake
from lakeloop.ray_jobs.serving.loading import load_with
from lakeloop.ray_jobs.serving.plain import serve_plain
from lakeloop.ray_jobs.serving.plain_worker import PlainApp
from lakeloop.ray_jobs.serving.replica import Replica
from lakeloop.ray_jobs.serving.write_ahead import pending

BODY = {"model": "m", "wanted": 1, "arms": [{"name": "champion", "version": 1, "weight": 10_000}], "snapshots": {}}


class Client:
    """An app between its start and its end."""

    def __init__(self, app: PlainApp) -> None:
        self._app = app
        self._lifespan: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> Client:
        self._started: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.create_task(self._app({"type": "lifespan"}, self._lifespan.get, self._started.put))
        await self._lifespan.put({"type": "lifespan.startup"})
        assert (await self._started.get())["type"] == "lifespan.startup.complete"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._lifespan.put({"type": "lifespan.shutdown"})
        await self._task

    async def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode() if body else b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        method = "POST" if body else "GET"
        await self._app({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.fixture
def replica(folder_lake: Lake, tmp_path: Path, scorer: Callable[..., Any]) -> Replica:
    for name in ("good", "bad"):
        folder_lake.documents.create("endpoints", f"flights.{name}", BODY)

    def load(lake: Lake, project: str, endpoint: str, revision: Any, previous: Any) -> Any:
        if endpoint == "bad" and not (tmp_path / "mended").exists():
            raise Corrupt("its bytes do not match their hash")
        return load_with(lambda _l, _p, _m, version, _s: scorer(version), lake, project, endpoint, revision, previous)

    return Replica(folder_lake.url, "flights", "good", tmp_path / "logs", load)


def test_an_endpoint_that_cannot_be_opened_keeps_no_other_from_answering(
    replica: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakeloop.ray_jobs.serving.plain_worker.RETRY_S", 0.05)

    async def story() -> None:
        async with Client(PlainApp([replica, replace(replica, endpoint="bad")])) as client:
            rows = {"rows": [{"share": 0.5}]}
            status, answer = await client.ask("/v2/models/good/infer", rows)
            assert (status, answer["rows"][0]["prediction"]) == (200, 0.5)
            status, answer = await client.ask("/v2/models/bad/infer", rows)
            assert (status, "do not match their hash" in answer["error"]) == (503, True)
            assert (await client.ask("/v2/health/ready"))[0] == 503
            (tmp_path / "mended").touch()
            while (await client.ask("/v2/health/ready"))[0] != 200:
                await asyncio.sleep(0.01)
            assert (await client.ask("/v2/models/bad/infer", rows))[0] == 200

    asyncio.run(story())
    assert pending(replica.log_folder) == 2


def test_a_port_that_is_taken_is_said(replica: Replica) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Unavailable, match="cannot listen on"):
        serve_plain([replica], port=taken.getsockname()[1])
