"""A replica in this process: what it does beside answering."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from lakeloop.lakehouse.lake import Lake
from lakeloop.ray_jobs.serving.replica import Replica, ReplicaApp
from lakeloop.ray_jobs.serving.write_ahead import sealed_pieces
from lakeloop.tests.prices import EXAMPLE, price_model

THREADS = 40


def test_what_is_logged_is_sealed_while_a_slow_model_has_all_threads(folder_lake: Lake, tmp_path: Path) -> None:
    price_model(folder_lake)
    app, free = ReplicaApp(Replica(folder_lake.url, "shop", "price", tmp_path / "logs")), threading.Event()

    async def ask() -> list[Path]:
        app.start()
        slow = [asyncio.create_task(asyncio.to_thread(free.wait)) for _ in range(THREADS)]
        await asyncio.sleep(1.5)  # the folder would be measured meanwhile
        await app.inference.rows([EXAMPLE], "r", None, 0.0)
        await asyncio.sleep(1.5)
        found = sealed_pieces(tmp_path / "logs")
        free.set()
        await asyncio.gather(*slow)
        await asyncio.to_thread(app.close)
        return found

    assert len(asyncio.run(ask())) == 1
