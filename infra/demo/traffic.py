"""The callers of the demo: every flight of a day asked over HTTP, one request each, by a few callers at once.

Nothing is sent again: a request that is not answered with 200 is a dropped one, and is counted.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

CALLERS = 8
TIMEOUT_S = 30.0
STATION_EVERY = 10
"""Every tenth caller sends the visibility and wind that the tower just read, in place of what the store knows."""


class Traffic:
    """One day's requests.

    `slow` makes the callers pause between requests until `fast`; `finish` waits for the last answer.
    """

    def __init__(self, url: str, rows: Sequence[dict[str, Any]]) -> None:
        parts = urlsplit(url)
        self._host, self._path = parts.netloc, f"{parts.path}/infer"
        self._rows: Iterator[dict[str, Any]] = iter(rows)
        self._lock, self._pause_s = threading.Lock(), 0.0
        self.versions: Counter[int] = Counter()
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._call, name=f"caller-{number}", daemon=True) for number in range(CALLERS)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def answered(self) -> int:
        return sum(self.versions.values())

    def slow(self, per_second: float) -> None:
        """About this many requests a second from all callers together."""
        self._pause_s = CALLERS / per_second

    def fast(self) -> None:
        self._pause_s = 0.0

    def finish(self) -> None:
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        connection = HTTPConnection(self._host, timeout=TIMEOUT_S)
        while True:
            with self._lock:
                row = next(self._rows, None)
            if row is None:
                connection.close()
                return
            problem = self._send(connection, row)
            if problem:
                with self._lock:
                    self.failures.append(problem)
            if self._pause_s:
                time.sleep(self._pause_s)

    def _send(self, connection: HTTPConnection, row: dict[str, Any]) -> str:
        try:
            connection.request("POST", self._path, json.dumps({"id": row["id"], "rows": [row]}))
            answer = connection.getresponse()
            body = answer.read()
        except (HTTPException, OSError) as error:
            connection.close()  # the next request opens it anew
            return f"{type(error).__name__}: {error}"
        if answer.status != 200:
            return f"{answer.status}: {body[:200].decode(errors='replace')}"
        with self._lock:
            self.versions[int(json.loads(body)["version"])] += 1
        return ""


def request_rows(table: Any, station: Sequence[str] = ("visib", "wind_speed")) -> list[dict[str, Any]]:
    """Requests as callers send them: by keys, and every tenth with the station's own readings in the row."""
    rows = []
    for number, row in enumerate(table.to_pylist()):
        sent = {name: value for name, value in row.items() if name not in station}
        if number % STATION_EVERY == 0:
            sent |= {name: row[name] for name in station if row[name] is not None}
        rows.append({name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in sent.items()})
    return rows
