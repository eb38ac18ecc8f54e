"""Open Inference messages to requests and back: made with tritonclient's classes, which nobody here wrote."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as theirs
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from lakeloop.lakehouse.errors import Invalid
from lakeloop.ray_jobs.serving.inference_messages import FIELDS, read_request, write_answer
from lakeloop.ray_jobs.serving.limits import TooLarge
from lakeloop.ray_jobs.serving.open_inference import of_binary, to_binary
from lakeloop.ray_jobs.serving.tensors import NUMPY, InferResponse, Tensor

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP32": [0.5, -3.0],
    "FP64": [0.1, 1e300],
    "BYTES": ["Zürich".encode(), b""],
}


def asked(datatype: str, *, shape: list[int] | None = None, raw: bytes | None = None, **contents: Any) -> Any:
    message = theirs.ModelInferRequest(model_name="late", model_version="3", id="r1")
    one = message.inputs.add(name="x", datatype=datatype, shape=[2] if shape is None else shape)
    for field, values in contents.items():
        getattr(one.contents, field).extend(values)
    if raw is not None:
        message.raw_input_contents.append(raw)
    return message


def refused(message: Any) -> str:
    with pytest.raises(Invalid) as error:
        read_request(message if isinstance(message, bytes) else message.SerializeToString())
    return str(error.value)


@pytest.mark.parametrize("datatype", VALUES)
def test_typed_contents_of_every_datatype_come_out_as_they_were_sent(datatype: str) -> None:
    message = asked(datatype, **{FIELDS[datatype]: VALUES[datatype]})
    found = read_request(message.SerializeToString())
    assert (found.model, found.version, found.request.id, found.raw) == ("late", "3", "r1", False)
    (tensor,) = found.request.inputs
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", datatype, (2,))
    assert list(tensor.data) == VALUES[datatype]


@pytest.mark.parametrize("datatype", [*NUMPY, "BYTES"])
def test_raw_contents_of_every_datatype_come_out_as_they_were_sent(datatype: str) -> None:
    values = VALUES.get(datatype, [0.5, -2.0])
    if datatype == "BYTES":
        raw = serialize_byte_tensor(np.array(values, object)).item()
    else:
        raw = np.array(values, NUMPY[datatype]).tobytes()
    found = read_request(asked(datatype, raw=raw).SerializeToString())
    assert found.raw
    assert list(found.request.inputs[0].data) == values


def test_parameters_and_wanted_outputs_are_read() -> None:
    message = asked("FP64", fp64_contents=[1, 2])
    message.parameters["a"].int64_param = 4
    message.parameters["b"].string_param = "x"
    message.parameters["c"].bool_param = True
    message.parameters["d"].double_param = 0.5
    message.parameters["unset"].SetInParent()
    message.outputs.add(name="decision")
    request = read_request(message.SerializeToString()).request
    assert request.parameters == {"a": 4, "b": "x", "c": True, "d": 0.5}
    assert request.outputs == ("decision",)


def test_what_does_not_fit_its_shape_or_datatype_is_told() -> None:
    assert "no inference.ModelInferRequest" in refused(b"\xff\xff\xff")
    assert "1 values where its shape says 2" in refused(asked("FP64", fp64_contents=[1]))
    assert "its contents are fp32_contents" in refused(asked("FP64", fp32_contents=[1, 2]))
    assert "holds 256, which is no UINT8" in refused(asked("UINT8", uint_contents=[1, 256]))
    assert "holds -129, which is no INT8" in refused(asked("INT8", int_contents=[-129, 1]))
    assert "has no typed contents" in refused(asked("FP16", fp32_contents=[1, 2]))
    assert "no known datatype ('BF16')" in refused(asked("BF16", raw=b"1234"))
    assert "has shape [-1, -2]" in refused(asked("FP64", shape=[-1, -2], fp64_contents=[1, 2]))
    assert "needs 16 bytes of FP64, not 15" in refused(asked("FP64", raw=bytes(15)))
    assert "comes twice" in refused(asked("FP64", raw=bytes(16), fp64_contents=[1, 2]))
    assert "0 values where its shape says 9223372036854775808" in refused(asked("FP64", shape=[2, 2**62]))
    two = asked("FP64", raw=bytes(16))
    two.raw_input_contents.append(b"")
    assert "2 raw contents for 1 inputs" in refused(two)


@pytest.mark.parametrize("raw", [b"\x01", b"\x05\0\0\0abc", b"\xff\xff\xff\xffabc", struct.pack("<I", 1) + b"a\0"])
def test_texts_that_are_cut_short_are_told(raw: bytes) -> None:
    assert "are not 2 texts with their lengths" in refused(asked("BYTES", raw=raw))


def test_more_or_fewer_texts_than_the_shape_says_are_told() -> None:
    assert "are not 2 texts" in refused(asked("BYTES", raw=bytes(12)))


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_raw_texts_are_those_of_the_other_client(texts: list[bytes]) -> None:
    raw = to_binary(Tensor("x", "BYTES", (len(texts),), texts))
    if texts:
        assert raw == serialize_byte_tensor(np.array(texts, object)).item()
        assert list(deserialize_bytes_tensor(raw)) == texts
    assert of_binary("x", "BYTES", len(texts), raw) == texts


def answered(*, raw: bool) -> Any:
    outputs = (
        Tensor("prediction", "FP64", (2,), np.array([0.25, 0.5])),
        Tensor("decision", "BOOL", (2,), np.array([False, True])),
        Tensor("label", "BYTES", (2,), ["a", None]),
    )
    answer = InferResponse("late", "3", "r1", outputs, {"revision": 7, "sure": 0.5, "told": "x", "new": True})
    return theirs.ModelInferResponse.FromString(write_answer(answer, raw=raw))


def test_an_answer_goes_back_typed_or_raw() -> None:
    typed, raw = answered(raw=False), answered(raw=True)
    for message in (typed, raw):
        assert (message.model_name, message.model_version, message.id) == ("late", "3", "r1")
        assert [one.name for one in message.outputs] == ["prediction", "decision", "label"]
        assert [one.shape for one in message.outputs] == [[2]] * 3
        assert message.parameters["revision"].int64_param == 7
        assert message.parameters["sure"].double_param == 0.5
        assert message.parameters["told"].string_param == "x"
        assert message.parameters["new"].bool_param
    assert list(typed.outputs[0].contents.fp64_contents) == [0.25, 0.5]
    assert list(typed.outputs[1].contents.bool_contents) == [False, True]
    assert list(typed.outputs[2].contents.bytes_contents) == [b"a", b""]
    assert not typed.raw_output_contents
    assert raw.raw_output_contents[0] == np.array([0.25, 0.5]).tobytes()
    assert raw.raw_output_contents[1] == b"\0\1"
    assert raw.raw_output_contents[2] == b"\1\0\0\0a\0\0\0\0"
    assert not raw.outputs[0].HasField("contents")


def test_a_server_without_protobuf_says_that_it_does_not_read_it() -> None:
    script = """
import asyncio, sys
from types import SimpleNamespace
sys.modules["google.protobuf"] = None
from lakeloop.ray_jobs.serving.endpoint import PROTOBUF, Endpoint

async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}

endpoint = Endpoint(SimpleNamespace(name="late", count=lambda *_: None))
reply = asyncio.run(endpoint.reply("/infer", {"method": "POST", "path": "", "headers": [PROTOBUF]}, receive))
print(reply.status, reply.body.decode())
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == '415 {"error":"protobuf is not read here; send JSON"}\n'


def test_too_many_rows_or_tensors_are_refused_before_their_values_are_looked_at() -> None:
    with pytest.raises(TooLarge, match="3,000,000 rows"):
        read_request(asked("INT8", shape=[3_000_000]).SerializeToString())
    many = theirs.ModelInferRequest()
    for number in range(10_001):
        many.inputs.add(name=f"x{number}", datatype="FP64", shape=[1])
    with pytest.raises(TooLarge, match="10,001 tensors"):
        read_request(many.SerializeToString())


def test_a_tensor_of_many_dimensions_is_refused_before_they_are_multiplied() -> None:
    with pytest.raises(Invalid, match="x has 100,000 dimensions"):
        read_request(asked("FP64", shape=[2**62] * 100_000).SerializeToString())
