"""Malformed requests over the whole ASGI app: each is answered, none with a 5xx, none is logged unless it is answered.

A request is a sound one of some form that was damaged in one to four places: values and keys of its JSON, its bytes,
its headers, its path or method. Hypothesis chooses and shrinks.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import gzip
import resource
import struct
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.endpoint import Endpoint
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.server import Server

HEADER = b"inference-header-content-length"
CAMPAIGN = 100_000
ROUND = 5_000


@dataclass
class Request:
    method: str
    path: str
    record: Any
    binary: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)

    def body(self) -> tuple[bytes, dict[bytes, bytes]]:
        text = self.record if isinstance(self.record, bytes) else orjson.dumps(self.record)
        if not self.binary:
            return text, self.headers
        return text + self.binary, {HEADER: b"%d" % len(text), **self.headers}


FLIGHT = {"share": 0.5, "origin": "EWR", "night": True, "due": "2026-05-01T12:00Z", "note": "é", "temp": 1.5}


def tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def raw(name: str, datatype: str, data: bytes, count: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [count], "parameters": {"binary_data_size": len(data)}}


def sound() -> list[Request]:
    """Requests that are answered with 200, of every form."""
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"EWR", b"JFK"))
    shares = np.array([0.25, 0.75], np.float32).tobytes()
    json_tensors = [tensor("share", "FP32", [0.5, 1]), tensor("origin", "BYTES", ["EWR", None])]
    typed = [raw("share", "FP32", shares, 2), raw("origin", "BYTES", texts, 2)]
    matrix = {"name": "x", "datatype": "FP64", "shape": [2, 3], "data": [[1, 2, 3], [4, 5.5, 6]]}
    outputs = [{"name": "prediction", "parameters": {"binary_data": True}}, {"name": "absent"}]
    return [
        Request("POST", "/v2/models/late/infer", {"rows": [FLIGHT, {"share": 1, "as_of": 1.7e9}], "id": "r1"}),
        Request("POST", "/v2/models/late/infer", {"inputs": json_tensors, "outputs": outputs, "id": "r2"}),
        Request("POST", "/v2/models/late/versions/3/infer", {"inputs": typed, "outputs": outputs}, shares + texts),
        Request("POST", "/v2/models/kind/infer", {"inputs": typed}, shares + texts),
        Request("POST", "/v2/models/sum/infer", {"inputs": [matrix], "parameters": {"binary_data_output": True}}),
        Request("POST", "/v1/models/late:predict", {"instances": [FLIGHT, FLIGHT]}),
        Request("POST", "/v1/models/sum/versions/1:predict", {"inputs": {"a": [1, 2], "b": [1.5, None]}}),
        Request("POST", "/v1/models/sum:predict", {"instances": [[1, 2, 3]]}),
        *[Request("GET", path, b"") for path in ("/v2", "/v2/health/ready", "/v2/models/late/ready", "/openapi.json")],
    ]


values = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64 - 1, 1e308, -1e-308, 0.1, 10**9]),
    st.sampled_from(["", "EWR", "FP32", "BYTES", "INT8", "share", "1", "\0", "\ud7ff", "x" * 300, "2026-13-01", "id"]),
    st.text(max_size=8),
    st.lists(st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=2), st.floats(-2, 2)), max_size=4),
    st.sampled_from([{}, {"a": 1}, [[]], [[1], [2]], [{}], {"binary_data_size": 3}, {"name": "x"}, [1] * 50]),
)
# fmt: off
KEYS = [
    "rows", "inputs", "outputs", "id", "instances", "name", "datatype", "shape", "data", "parameters", "as_of",
    "binary_data_size", "binary_data", "binary_data_output", "share", "origin", "temp", "a", "", "\0"
]
PATHS = [
    "/v2/models/late/infer", "/v2/models/late/versions/3/infer", "/v2/models/late/versions/4/infer",
    "/v2/models/x/infer", "//", "/v2/models//infer", "/v2/models/late//infer", "/v2/models/late/versions/",
    "/v1/models/:predict", "/v1/models/", "/v1/models/late:predict", "/v1/models/late/versions/3:predict",
    "/v1/models/sum", "/v2/models/late/\0"
]
# fmt: on
keys, paths = st.sampled_from(KEYS), st.sampled_from(PATHS)
headers = st.tuples(
    st.sampled_from([HEADER, b"content-encoding", b"content-length", b"content-type", b"accept-encoding"]),
    st.one_of(
        st.sampled_from([b"0", b"1", b"10", b"-1", b"99999999", b"9" * 40, b"gzip", b"deflate", b"br", b"\xff", b""]),
        st.just(b"application/x-protobuf"),
        st.binary(max_size=6),
    ),
)


def places(record: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [at]
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        found += places(value, (*at, key))
    return found


def put(record: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    whole = record
    for key in at[:-1]:
        record = record[key]
    record[at[-1]] = value
    return whole


def damage_json(draw: Any, record: Any) -> Any:
    """One place changed, removed, moved, added to, or said again many times."""
    at = draw(st.sampled_from(places(record)))
    there = record
    for key in at:
        there = there[key]
    value = copy.deepcopy(draw(values))  # what is drawn may be the strategy's own
    match draw(st.integers(0, 4)):
        case 0 if at:
            parent = record
            for key in at[:-1]:
                parent = parent[key]
            del parent[at[-1]]
            return record
        case 1 if isinstance(there, dict):
            there[draw(keys)] = value
            return record
        case 2 if isinstance(there, list):
            there.extend([value] * draw(st.integers(1, 3)))
            return record
        case 3:
            return put(record, at, [copy.deepcopy(there)] * draw(st.integers(1, 3)))
        case _:
            return put(record, at, value)


def damage_bytes(draw: Any, data: bytes) -> bytes:
    """Cut, a byte changed, bytes put in, or nested far too deep."""
    at = draw(st.integers(0, len(data)))
    match draw(st.integers(0, 3)):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
        case 2:
            return (
                data[:at]
                + draw(st.sampled_from([b"[" * 3000, b'{"a":' * 2000, b"NaN", b"1e999", b"\xff", b"\0"]))
                + data[at:]
            )
        case _:
            return data[at:]


@st.composite
def damaged(draw: Any) -> Any:
    """A method, a path, headers and a body."""
    request = copy.deepcopy(draw(st.sampled_from(sound())))
    compress = False
    for _ in range(draw(st.integers(1, 4))):
        match draw(st.integers(0, 9)):
            case 0:
                request.path = draw(paths)
            case 1:
                request.method = draw(st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "BREW"]))
            case 2:
                name, value = draw(headers)
                request.headers[name] = value
            case 3:
                request.binary = damage_bytes(draw, request.binary)
            case 4:
                compress = True
            case 5:
                body, _ = request.body()
                request.record, request.binary = damage_bytes(draw, body), b""
            case _ if not isinstance(request.record, bytes):
                request.record = damage_json(draw, request.record)
    body, said = request.body()
    if compress:
        body, said = gzip.compress(body, 1), {**said, b"content-encoding": b"gzip"}
        body = damage_bytes(draw, body) if draw(st.booleans()) else body
    return request.method, request.path, list(said.items()), body


class Asked:
    """The app, called as an ASGI server would; what it answered, and what it logged."""

    def __init__(self, scorers: dict[str, Any]) -> None:
        self.logged: list[int] = []
        self.statuses: Counter[int] = Counter()
        endpoints = {name: Endpoint(self._inference(name, scorer)) for name, scorer in scorers.items()}
        self._app = Server(lambda: endpoints)
        self._loop = asyncio.new_event_loop()

    def _inference(self, name: str, scorer: Any) -> Inference:
        loaded = Loaded(name, 5, (Arm("champion", scorer.version, 10_000, scorer),))

        def append(shape: Any, request: Any) -> None:
            request.line()
            self.logged.append(1)

        clock = lambda: datetime(2026, 5, 1, 12, tzinfo=UTC)  # noqa: E731
        return Inference("flights", name, loaded=lambda: loaded, append=append, state=dict, clock=clock)

    def ask(self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[int, bytes]:
        messages = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return messages.pop(0)

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        self.logged.clear()
        self._loop.run_until_complete(self._app(scope, receive, send))
        start, end = sent
        self.statuses[start["status"]] += 1
        return start["status"], end["body"]

    def check(self, request: tuple[str, str, list[tuple[bytes, bytes]], bytes]) -> None:
        """Ask, and hold the app to what it promises."""
        status, body = self.ask(*request)
        method, path = request[:2]
        assert status in (200, 400, 404, 405, 413, 415), body
        if status != 200:
            assert set(orjson.loads(body)) == {"error"}
        asks = method == "POST" and path.endswith(("/infer", ":predict"))
        assert len(self.logged) == (status == 200 and asks)


@pytest.fixture(scope="module")
def asked(scorers: dict[str, Any]) -> Asked:
    return Asked(scorers)


def test_the_requests_that_are_damaged_are_sound(asked: Asked) -> None:
    for request in sound():
        body, headers = request.body()
        status, answer = asked.ask(request.method, request.path, list(headers.items()), body)
        assert status == 200, answer


@given(request=damaged())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_request_is_answered_and_never_with_a_5xx(asked: Asked, request: Any) -> None:
    asked.check(request)


@pytest.mark.slow
def test_a_hundred_thousand_damaged_requests(asked: Asked) -> None:
    """No 5xx, no crash, no growth of memory after the first rounds. Prints what was answered."""
    sizes = []
    asked.statuses.clear()
    for number in range(CAMPAIGN // ROUND):

        @seed(number)
        @given(request=damaged())
        @settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def campaign(request: Any) -> None:
            asked.check(request)

        campaign()
        gc.collect()
        sizes.append(resident_mib())
    print(f"\n{sum(asked.statuses.values()):,} requests: {dict(sorted(asked.statuses.items()))}; MiB {sizes}")  # noqa: T201
    assert sum(asked.statuses.values()) >= CAMPAIGN
    assert sizes[-1] < sizes[len(sizes) // 4] + 64


def resident_mib() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20
