"""The HTTP that every face of an endpoint shares: replies, errors, and reading a body within bounds.

A body may have at most 16 MiB, also after gzip or deflate, and must be whole after 30 seconds. What a connection costs
before its request's headers are read is the server's to bound, not an app's.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, MutableMapping
from types import coroutine
from typing import Any, NamedTuple, TypeAlias

import orjson

from lakeloop.lakehouse.errors import Invalid, LakeloopError, Unavailable
from lakeloop.ray_jobs.serving.inference import status_of
from lakeloop.ray_jobs.serving.limits import Overloaded, TooLarge

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = Mapping[bytes, bytes]
"""Of a request, by name in small letters; of a name given twice, the last."""

BODY_BYTES = 16 << 20
LONG = len(str(BODY_BYTES))
BODY_S = 30.0
FORMAT = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
JSON: Header = (b"content-type", b"application/json")
CLOSE: Header = (b"connection", b"close")
INFLATE = {b"gzip": 31, b"deflate": 47}
"""zlib's window bits by content encoding; 47 takes a zlib or a gzip header."""


class Reply(NamedTuple):
    """A status, a body of JSON unless `kind` says otherwise, and further headers; `rows` is how many were answered."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()
    kind: Header = JSON
    rows: int = 0


class TooSlow(Invalid):
    """The body did not come in time."""


class UnknownEncoding(Invalid):
    """The body is in an encoding that is not read."""


def success(body: Mapping[str, Any]) -> Reply:
    return Reply(200, orjson.dumps(body, option=FORMAT))


def failure(status: int, message: str, *headers: Header) -> Reply:
    return Reply(status, orjson.dumps({"error": message}), headers)


def not_allowed(path: str, method: str, allowed: str) -> Reply:
    return failure(405, f"{path or '/'} takes {allowed}, not {method}", (b"allow", allowed.encode()))


def failed(error: LakeloopError) -> Reply:
    """An error of the tree as its status and its words."""
    match error:
        case TooSlow():
            return failure(408, str(error), CLOSE)  # the rest of the body was not read
        case UnknownEncoding():
            return failure(415, str(error))
        case TooLarge():
            return failure(413, str(error), CLOSE)
        case Overloaded():
            return failure(503, str(error), (b"retry-after", b"%d" % error.retry_after_s))
        case Unavailable():
            return failure(status_of(error), str(error), (b"retry-after", b"1"))
        case _:
            return failure(status_of(error), str(error))


async def read_body(headers: Headers, receive: Receive, *, timeout_s: float = BODY_S) -> bytes:
    """The whole body, inflated. TooLarge as soon as it is known to be, TooSlow, UnknownEncoding, or Invalid."""
    length, encoding = headers.get(b"content-length", b""), headers.get(b"content-encoding")
    if len(length) >= LONG and length.isdigit() and int(length[:20]) > BODY_BYTES:
        raise too_large()
    reading = _whole(receive)
    try:
        waiting_for = reading.send(None)
    except StopIteration as done:  # all of it was there, as with most requests: no timer was needed
        body: bytes = done.value
    else:
        try:
            async with asyncio.timeout(timeout_s):
                body = await _go_on(reading, waiting_for)
        except TimeoutError:
            raise TooSlow(f"the body was not whole after {timeout_s:.0f} s", todo="send it faster") from None
    return inflated(body, encoding) if encoding and encoding != b"identity" else body


@coroutine
def _go_on(started: Coroutine[Any, Any, bytes], waiting_for: Any) -> Generator[Any, Any, bytes]:
    """Await a coroutine that has run as far as its first wait, for `waiting_for`."""
    try:
        yield waiting_for
        body: bytes = yield from started
        return body
    finally:
        started.close()


async def _whole(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("the caller left before the body was whole")
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_BYTES:
            raise too_large()
        more = message.get("more_body", False)
        if not more and not parts:
            return bytes(part)
        parts.append(part)
    return b"".join(parts)


def inflated(body: bytes, encoding: bytes) -> bytes:
    """A compressed body, at most as large as any may be."""
    bits = INFLATE.get(encoding.strip().lower())
    if bits is None:
        raise UnknownEncoding(f"content-encoding {encoding.decode('latin-1')!r} is not read", todo="send gzip, or none")
    inflate = zlib.decompressobj(bits)
    try:
        whole = inflate.decompress(body, BODY_BYTES + 1)
    except zlib.error as error:
        raise Invalid(f"the body is not what its content-encoding says ({error})") from error
    if len(whole) > BODY_BYTES:
        raise too_large()
    if not inflate.eof:
        raise Invalid("the compressed body was cut short")
    return whole


def too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {BODY_BYTES >> 20} MiB", todo="send fewer rows at once")


async def send_reply(reply: Reply, send: Send) -> None:
    headers = [reply.kind, (b"content-length", b"%d" % len(reply.body)), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
