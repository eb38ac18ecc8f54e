"""Wild messages to ModelInfer: whatever comes, the answer is an answer or says what was wrong with the request."""

from __future__ import annotations

import random
import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from lakeloop.ray_jobs.serving.grpc_server import SERVICE
from lakeloop.ray_jobs.serving.inference_messages import FIELDS
from lakeloop.ray_jobs.serving.tensors import NUMPY
from tests.functional.serving.grpc_place import Served

INFER = f"/{SERVICE}/ModelInfer"
TOLD = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
RIGHT = ("origin", "seats", "late")
RIGHT_TYPES = {"share": "FP64", "origin": "BYTES", "seats": "INT32", "late": "BOOL"}
NAMES = ("origin", "seats", "late", "id", "as_of", "prediction", "", "ü" * 40, "\0", "a" * 5000)
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


class Wild:
    """Makes messages: right in most of their parts, wrong in some, each its own share; now and then torn or changed."""

    def __init__(self, choose: random.Random) -> None:
        self._choose, self._wildness = choose, choose.choice((0.02, 0.02, 0.3))

    def body(self) -> bytes:
        if self._is_wild() and self._is_wild():
            return self._choose.randbytes(self._choose.randrange(60))
        body = self._message().SerializeToString()
        return torn(self._choose, body) if self._is_wild() else body

    def _message(self) -> Any:
        message = service_pb2.ModelInferRequest(model_name=self._of("late", ("late", "kind", "nobody", "../")))
        message.model_version = self._of("", ("3", "4", "5", "x", "9" * 30))
        message.id = self._of("r1", ("", "ü", "i" * 300))
        count, raw = self._choose.choice((1, 1, 2, 3, 20)), self._choose.random() < 0.5
        for name in self._choose.sample(RIGHT, self._choose.randrange(4)):
            self._add_tensor(message, name, count, raw=raw)
        self._add_tensor(message, self._of("share", NAMES), count, raw=raw)
        if self._is_wild():
            message.outputs.add(name=self._of("decision", ("prediction", "nothing", "")))
        if self._is_wild():
            message.parameters[self._of("x", NAMES)].int64_param = self._choose.getrandbits(62)
        if self._is_wild():
            message.raw_input_contents.append(self._choose.randbytes(9))
        return message

    def _add_tensor(self, message: Any, name: str, count: int, *, raw: bool) -> None:
        datatype = self._of(RIGHT_TYPES.get(name, "BYTES"), DATATYPES)
        shape = self._of([count], ([count, 1], [], [0], [-1], [2**62, 2**62], [1, count, 1], [count + 1]))
        one = message.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw:
            message.raw_input_contents.append(self._raw(name, datatype, count))
        field = FIELDS.get(self._of(datatype, DATATYPES))
        if field and raw == self._is_wild():
            for _ in range(count):
                fill(getattr(one.contents, field), field, self._value(name, field == "bytes_contents"))

    def _raw(self, name: str, datatype: str, count: int) -> bytes:
        if datatype == "BYTES":
            texts = [self._value(name, True) for _ in range(count)]
            return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        if datatype == RIGHT_TYPES.get(name) and not self._is_wild():
            return np.zeros(count, NUMPY[datatype]).tobytes()
        return self._choose.randbytes(self._of(8 * count, (count, 2 * count, 4 * count, 7)))

    def _value(self, name: str, text: bool) -> Any:
        if text:
            return self._of(b"EWR", TEXTS)
        return self._of(1, NUMBERS)

    def _is_wild(self) -> bool:
        return self._choose.random() < self._wildness

    def _of(self, right: Any, wild: Sequence[Any]) -> Any:
        return self._choose.choice(wild) if self._is_wild() else right


def wild(choose: random.Random) -> bytes:
    return Wild(choose).body()


def fill(values: Any, field: str, given: Any) -> None:
    try:
        values.append(bool(given) if field == "bool_contents" else given)
    except (TypeError, ValueError, OverflowError):  # no value of this field's type
        values.append(1)


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
