"""Bodies: put together, bounded in size and in time, inflated within bounds."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import MutableMapping
from typing import Any

import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.ray_jobs.serving.asgi import BODY_BYTES, TooSlow, UnknownEncoding, failed, read_body
from lakeloop.ray_jobs.serving.limits import TooLarge


def read(*parts: bytes, headers: Any = (), pause_s: float = 0.0, timeout_s: float = 30.0) -> bytes:
    """What is read of a body that comes in these parts, with a pause before each."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False

    async def receive() -> MutableMapping[str, Any]:
        if pause_s:
            await asyncio.sleep(pause_s)
        return messages.pop(0)

    return asyncio.run(read_body(dict(headers), receive, timeout_s=timeout_s))


@pytest.mark.parametrize("pause_s", [0, 0.001])
def test_a_body_is_put_together_whether_it_is_there_or_comes_later(pause_s: float) -> None:
    assert read(b"abc", pause_s=pause_s) == b"abc"
    assert read(b"a", b"", b"bc", pause_s=pause_s) == b"abc"


def test_a_body_that_does_not_come_is_given_up() -> None:
    ended = []

    async def receive() -> MutableMapping[str, Any]:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)
        raise AssertionError

    with pytest.raises(TooSlow):
        asyncio.run(read_body({}, receive, timeout_s=0.01))
    assert ended == [True]


def test_a_body_that_drips_is_given_up() -> None:
    with pytest.raises(TooSlow):
        read(*[b"x"] * 1000, pause_s=0.005, timeout_s=0.05)


def test_a_cancelled_read_ends_what_it_waited_for() -> None:
    ended = []

    async def receive() -> MutableMapping[str, Any]:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)
        raise AssertionError

    async def cancelled() -> None:
        reading = asyncio.create_task(read_body({}, receive))
        await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(cancelled())
    assert ended == [True]


def test_a_body_is_refused_as_soon_as_it_is_too_large() -> None:
    with pytest.raises(TooLarge):
        read(b"", headers=[(b"content-length", b"%d" % (BODY_BYTES + 1))])
    parts = [b"x" * (1 << 20)] * 40
    with pytest.raises(TooLarge):
        read(*parts)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [(b"gzip", gzip.compress), (b"GZIP", gzip.compress), (b"deflate", zlib.compress), (b"identity", bytes)],
)
def test_a_compressed_body_is_inflated(encoding: bytes, packed: Any) -> None:
    assert read(packed(b"abc" * 100), headers=[(b"content-encoding", encoding)]) == b"abc" * 100


def test_a_compressed_body_is_bounded_by_what_it_inflates_to() -> None:
    bomb = gzip.compress(bytes(BODY_BYTES * 2))
    assert len(bomb) < 1 << 20
    with pytest.raises(TooLarge):
        read(bomb, headers=[(b"content-encoding", b"gzip")])


def test_what_is_not_what_its_encoding_says_is_refused() -> None:
    for data in (b"abc", gzip.compress(b"abc" * 100)[:-9], b""):
        with pytest.raises(Invalid):
            read(data, headers=[(b"content-encoding", b"gzip")])
    with pytest.raises(UnknownEncoding):
        read(b"abc", headers=[(b"content-encoding", b"br")])


def test_replies_close_the_connection_where_the_body_was_not_read() -> None:
    assert (failed(TooLarge("x")).status, failed(TooSlow("x")).status, failed(UnknownEncoding("x")).status) == (
        413,
        408,
        415,
    )
    assert (b"connection", b"close") in failed(TooLarge("x")).headers
