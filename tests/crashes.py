"""A crash at each HTTP request: what boto3, delta-rs and DuckDB send, not only what goes through our store.

A process that ends at its k-th request leaves behind what the requests before it did, and of that one either nothing
or all without having heard of it. So from the k-th on every request is answered with 403, which no client repeats.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import pytest

from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.store.s3 import S3Store
from lakeloop.tests.proxies import DENY, Proxy

MOST_REQUESTS = 500
When = Literal["before", "after"]


@dataclass
class Crash:
    """Decides for a proxy. `passed` names each request that was made until the crash."""

    at: int
    when: When
    passed: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def happened(self) -> bool:
        return len(self.passed) >= self.at

    def __call__(self, method: str, path: str, number: int) -> int:
        with self._lock:
            if self.happened:
                return 403
            self.passed.append(f"{method} {path}")
            if not self.happened:
                return 0
            return DENY if self.when == "after" else 403


class Lakes:
    """Lakes in one bucket, as they are seen through an endpoint; what they give to other engines goes there too."""

    def __init__(self, bucket: str, endpoint: str) -> None:
        self._bucket = bucket
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("AWS_ENDPOINT_URL", endpoint)
            self._client = S3Store(bucket, "")._client  # the costly part of opening one

    def __call__(self, prefix: str) -> Lake:
        return Lake(S3Store(self._bucket, prefix, client=self._client), "tester")


@contextmanager
def crashing(proxy: Proxy, crash: Crash) -> Iterator[None]:
    proxy.answer = crash
    try:
        yield
    finally:
        proxy.answer = lambda method, path, number: 0


def crashes(
    proxy: Proxy, bucket: str, prepare: Callable[[Lake], object], work: Callable[[Lake], object]
) -> Iterator[tuple[Lake, str]]:
    """The lake, as one reads it beside the proxy, after `work` crashed at each of its requests, before it took effect
    and after; and the name of that request. Ends when the work is done before its k-th request.

    `prepare` is called once: each turn begins with a copy of what it left.
    """
    beside, through = Lakes(bucket, proxy.target), Lakes(bucket, proxy.url)
    prepare(beside("template"))
    template = {entry.key: beside("template").store.get(entry.key) for entry in beside("template").store.list()}
    for when in ("before", "after"):
        for at in range(1, MOST_REQUESTS):
            crash, lake = Crash(at, when), beside(f"{when}-{at}")
            for key, data in template.items():
                lake.store.put(key, data)
            with crashing(proxy, crash):
                try:
                    work(through(f"{when}-{at}"))
                except LakeloopError:
                    assert crash.happened
            if not crash.happened:
                assert at > 1
                break
            yield lake, f"{when} request {at}: {crash.passed[-1]}"
        else:
            raise AssertionError(f"more than {MOST_REQUESTS} requests")
