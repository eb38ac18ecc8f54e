"""A store in this process's memory, for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from lakeloop.lakehouse.errors import AlreadyExists, Invalid, NotFound
from lakeloop.lakehouse.keys import check_key
from lakeloop.lakehouse.store.port import Entry, Location


class MemoryStore:
    """Objects in a dict; safe for threads."""

    def __init__(self, name: str = "") -> None:
        self.url = f"memory://{name}"
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def location(self) -> Location:
        raise Invalid("a lake in memory has no tables", todo="use a folder or s3://bucket/prefix")

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        try:
            return self._objects[check_key(key)][0][start:stop]
        except KeyError:
            raise NotFound(f"no object {key}", where=self.url) from None

    def put(self, key: str, body: bytes | BinaryIO, *, if_absent: bool = False) -> None:
        data = body if isinstance(body, bytes) else body.read()
        with self._lock:
            if if_absent and check_key(key) in self._objects:
                raise AlreadyExists(f"{key} is taken", where=self.url)
            self._objects[check_key(key)] = (data, time.time())

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[Entry]:
        with self._lock:
            objects = sorted(self._objects.items(), key=lambda item: item[0].encode())
        found: dict[str, Entry] = {}
        for key, (data, written) in objects:
            if not key.startswith(prefix):
                continue
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            entry = (
                Entry(key[: end + 1], 0, 0.0)
                if end >= 0
                else Entry(key, len(data), max(0.0, time.time() - written), f"{id(data)}-{written}")
            )
            if entry.key.encode() > after.encode():
                found.setdefault(entry.key, entry)
        yield from list(found.values())[:limit]

    def delete(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._objects.pop(check_key(key), None)
