"""The caller's trace: its id in a W3C `traceparent` header, for the log of what is answered within."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar

HEADER = b"traceparent"
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
TRACE: ContextVar[str | None] = ContextVar("trace", default=None)
"""Of the request that this task answers. A server gives each request a task, and a thread inherits it."""


def follow(headers: Mapping[bytes, bytes]) -> None:
    """Set the trace of this task from a request's headers: none without one, for a function's requests share a context
    and pipelined ones inherit it."""
    TRACE.set(trace_of(headers[HEADER]) if HEADER in headers else None)


def trace_of(traceparent: bytes) -> str | None:
    """The trace's id; None where this is none, which must not fail a request."""
    found = TRACEPARENT.fullmatch(traceparent)
    return found[1].decode() if found and found[1].strip(b"0") else None
