"""Wild messages to ModelInfer: whatever comes, the answer is an answer or says what was wrong with the request."""

from __future__ import annotations

import random
import resource
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from lakeloop.ray_jobs.serving.grpc_server import SERVICE
from lakeloop.ray_jobs.serving.inference_messages import FIELDS
from tests.functional.serving.grpc_place import Served

INFER = f"/{SERVICE}/ModelInfer"
TOLD = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
NAMES = ("share", "share", "origin", "seats", "late", "id", "as_of", "prediction", "", "ü" * 40, "\0", "a" * 5000)
DATATYPES = (*FIELDS, "FP16", "BF16", "", "fp32")
TEXTS = (b"EWR", b"JFK", b"", b"\xff\xfe", b"2026-05-01T00:00:00Z", b"9" * 400, b"nan", b"\0" * 9)
NUMBERS = (0, 1, -1, 0.5, 0.25, 1e308, -1e308, float("nan"), float("inf"), 2**31, -(2**63), 2**64 - 1, 7)


class Silent(Served):
    """Keeps nothing of what it answers."""

    def _append(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def infer() -> Iterator[Any]:
    with Silent() as served, grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        yield channel.unary_unary(INFER)


def wild(choose: random.Random) -> bytes:
    """A message's bytes: right in most of its parts, wrong in some; now and then torn or changed."""
    if choose.random() < 0.05:
        return choose.randbytes(choose.randrange(60))
    message = service_pb2.ModelInferRequest(model_name=choose.choice(("late", "late", "late", "kind", "nobody", "../")))
    message.model_version = choose.choice(("", "", "", "3", "4", "5", "x", "9" * 30))
    message.id = choose.choice(("", "", "r1", "ü", "i" * 300))
    count = choose.choice((1, 1, 2, 3, 20))
    raw = choose.random() < 0.5
    for name in choose.sample(NAMES, choose.choice((0, 1, 2, 4))) or ("share",):
        add_tensor(choose, message, name, count, raw=raw)
    if choose.random() < 0.2:
        message.outputs.add(name=choose.choice(("prediction", "decision", "decision", "nothing", "")))
    if choose.random() < 0.2:
        message.parameters[choose.choice(NAMES)].CopyFrom(
            service_pb2.InferParameter(int64_param=choose.getrandbits(62))
        )
    if choose.random() < 0.05:
        message.raw_input_contents.append(choose.randbytes(9))
    return torn(choose, message.SerializeToString()) if choose.random() < 0.2 else message.SerializeToString()


def add_tensor(choose: random.Random, message: Any, name: str, count: int, *, raw: bool) -> None:
    usual = {"share": "FP64", "origin": "BYTES", "seats": "INT32", "late": "BOOL"}.get(name, "BYTES")
    datatype = usual if choose.random() < 0.8 else choose.choice(DATATYPES)
    shapes = ([count], [count], [count], [count, 1], [], [0], [-1], [2**62, 2**62], [1, count, 1], [count + 1])
    one = message.inputs.add(name=name, datatype=datatype, shape=choose.choice(shapes))
    if raw:
        message.raw_input_contents.append(raw_of(choose, datatype, count))
    field = FIELDS.get(datatype if choose.random() < 0.95 else choose.choice(DATATYPES))
    if field and (not raw or choose.random() < 0.02):
        for _ in range(count):
            fill(choose, getattr(one.contents, field), field)


def fill(choose: random.Random, values: Any, field: str) -> None:
    given = choose.choice(TEXTS) if field == "bytes_contents" else choose.choice(NUMBERS)
    try:
        values.append(bool(given) if field == "bool_contents" else given)
    except (TypeError, ValueError, OverflowError):  # no value of this field's type
        values.append(1)


def raw_of(choose: random.Random, datatype: str, count: int) -> bytes:
    if datatype == "BYTES":
        texts = [choose.choice(TEXTS) for _ in range(count)]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    size = {"BOOL": 1, "INT32": 4, "FP32": 4, "FP16": 2, "UINT8": 1, "INT8": 1}.get(datatype, 8)
    return choose.randbytes(size * count) if choose.random() < 0.9 else choose.randbytes(choose.randrange(40))


def torn(choose: random.Random, body: bytes) -> bytes:
    if choose.random() < 0.5 or not body:
        return body[: choose.randrange(len(body) + 1)]
    changed = bytearray(body)
    for _ in range(choose.randrange(1, 4)):
        changed[choose.randrange(len(changed))] = choose.randrange(256)
    return bytes(changed)


def code_of(call: Any) -> grpc.StatusCode:
    error = call.exception(timeout=60)
    return grpc.StatusCode.OK if error is None else error.code()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_a_wild_message_is_answered_or_told_what_is_wrong(infer: Any, choose: random.Random) -> None:
    body = wild(choose)
    assert code_of(infer.future(body)) in TOLD


@given(body=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_answered_or_told_what_is_wrong(infer: Any, body: bytes) -> None:
    assert code_of(infer.future(body)) in TOLD


@pytest.mark.slow
def test_a_hundred_thousand_wild_messages_leave_no_crash_and_no_growth(infer: Any) -> None:
    choose, codes, grown = random.Random(7), Counter[grpc.StatusCode](), 0
    for round_of in range(1000):
        bodies = [wild(choose) for _ in range(100)]
        for body, call in [(body, infer.future(body)) for body in bodies]:
            code = code_of(call)
            codes[code] += 1
            assert code in TOLD, body
        if round_of == 100:
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(dict(codes))  # noqa: T201 the counts are what this campaign shows
    assert codes.total() == 100_000
    assert codes[grpc.StatusCode.OK] > 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown < 64 << 10
