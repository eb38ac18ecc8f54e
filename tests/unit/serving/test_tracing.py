"""The trace of a caller, the parts of a latency and the snapshots that were read, as the log has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from lakeloop.ray_jobs.serving.arms import Loaded
from lakeloop.ray_jobs.serving.endpoint import Endpoint
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.tracing import trace_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-will-be-like", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        ("nonsense\xff", None),
        ("", None),
    ],
)
def test_a_trace_is_read_as_the_w3c_writes_it_and_nothing_else_is_one(header: str, trace: str | None) -> None:
    assert trace_of(header.encode("latin-1")) == trace


def test_a_logged_request_has_its_trace_its_snapshots_and_parts_that_add_up(
    loaded: Callable[..., Loaded], now: datetime
) -> None:
    serving = loaded()
    arm = replace(serving.arms[0], snapshots={"weather": {"version": 7, "key": "k", "sha256": "s"}})
    serving, logged = replace(serving, arms=(arm,)), list[Any]()
    inference = Inference(
        "flights",
        "late",
        loaded=lambda: serving,
        append=lambda shape, request: logged.append(request),
        state=dict,
        clock=lambda: now,
    )
    endpoint = Endpoint(inference)

    async def ask(*headers: tuple[bytes, bytes]) -> None:
        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b'{"rows": [{"share": 0.5, "origin": "EWR"}]}'}

        async def send(message: MutableMapping[str, Any]) -> None:
            assert message.get("status", 200) == 200

        await endpoint({"method": "POST", "path": "/infer", "headers": [*headers]}, receive, send)

    asyncio.run(ask((b"traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())))
    asyncio.run(ask())
    traced, other = logged
    assert (traced.trace_id, other.trace_id) == (TRACE, None)
    assert traced.feature_versions == {"weather": 7}
    assert all(part > 0 for part in traced.parts_ms)
    assert sum(traced.parts_ms) == pytest.approx(traced.latency_ms)
    assert b'"log_ms":' in traced.line()
