"""The protocol's wire form by known bytes, written by hand after its documents, and what is refused."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.ray_jobs.serving.limits import TooLarge
from lakeloop.ray_jobs.serving.open_inference import read_request, split, write_response
from lakeloop.ray_jobs.serving.tensors import InferResponse


def tensor(**more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "INT32", "shape": [2], **more}


def read_one(one: Any, binary: bytes = b"") -> Any:
    (read,) = read_request({"inputs": [one]}, binary).request.inputs
    return read


BINARY = [
    ("BOOL", "01 00", [True, False]),
    ("INT8", "ff 7f", [-1, 127]),
    ("UINT8", "ff 00", [255, 0]),
    ("INT16", "fe ff 00 01", [-2, 256]),
    ("UINT16", "ff ff 01 00", [65535, 1]),
    ("INT32", "01 00 00 00 ff ff ff ff", [1, -1]),
    ("UINT32", "ff ff ff ff 00 00 00 80", [4294967295, 2147483648]),
    ("INT64", "00 00 00 00 00 00 00 80 01 00 00 00 00 00 00 00", [-(2**63), 1]),
    ("UINT64", "ff ff ff ff ff ff ff ff 02 00 00 00 00 00 00 00", [2**64 - 1, 2]),
    ("FP16", "00 3c 00 c0", [1.0, -2.0]),
    ("FP32", "00 00 c0 3f 00 00 80 ff", [1.5, -np.inf]),
    ("FP64", "00 00 00 00 00 00 f8 3f 00 00 00 00 00 00 00 c0", [1.5, -2.0]),
    ("BYTES", "03 00 00 00 45 57 52 02 00 00 00 c3 a9", [b"EWR", "é".encode()]),
]
"""Datatype, raw little-endian bytes, values. A BYTES element is a 4-byte length and its bytes."""


@pytest.mark.parametrize(("datatype", "raw", "values"), BINARY)
def test_raw_bytes_are_read_and_written(datatype: str, raw: str, values: list[Any]) -> None:
    data = bytes.fromhex(raw)
    read = read_one(tensor(datatype=datatype, parameters={"binary_data_size": len(data)}), data)
    assert list(read.data) == values
    asked = read_request({"inputs": [tensor(data=[1, 2])], "parameters": {"binary_data_output": True}}, b"")
    reply = write_response(InferResponse("m", "1", "r", (read,)), asked)
    head = int(dict(reply.headers)[b"inference-header-content-length"])
    assert reply.body[head:] == data
    assert orjson.loads(reply.body[:head])["outputs"][0]["parameters"] == {"binary_data_size": len(data)}


def test_too_many_rows_or_tensors_are_refused_before_their_values_are_looked_at() -> None:
    with pytest.raises(TooLarge, match="3,000,000 rows"):
        read_one(tensor(shape=[3_000_000], data=[]))
    with pytest.raises(TooLarge, match="10,001 tensors"):
        read_request({"inputs": [tensor(data=[])] * 10_001}, b"")


def test_a_tensor_of_a_million_dimensions_is_refused_before_they_are_multiplied() -> None:
    with pytest.raises(Invalid, match="x has 1,000,000 dimensions"):
        read_one(tensor(shape=[2**62] * 1_000_000, data=[1]))


@pytest.mark.parametrize("texts", [["a", "b"], ["", ""], ["abc"], ["ab", "cdef", ""], ["\3\0\0\0", "x"], ["é", "ab"]])
def test_texts_of_one_length_or_of_several_are_read(texts: list[str]) -> None:
    data = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    one = tensor(datatype="BYTES", shape=[len(texts)], parameters={"binary_data_size": len(data)})
    assert [text.decode() for text in read_one(one, data).data] == texts


def test_the_documents_example_is_read() -> None:
    """Open Inference Protocol, binary tensor data extension: two inputs of [2, 2] and [3], one output wanted raw."""
    head = (
        b'{"model_name":"mymodel","id":"42","inputs":[{"name":"input0","shape":[2,2],"datatype":"UINT32",'
        b'"parameters":{"binary_data_size":16}},{"name":"input1","shape":[3],"datatype":"BOOL",'
        b'"parameters":{"binary_data_size":3}}],"outputs":[{"name":"output0","parameters":{"binary_data":true}},'
        b'{"name":"output1"}]}'
    )
    data = bytes.fromhex("01 00 00 00 02 00 00 00 03 00 00 00 04 00 00 00 01 00 01")
    text, binary = split(head + data, b"%d" % len(head))
    asked = read_request(orjson.loads(text), binary)
    first, second = asked.request.inputs
    assert (first.shape, list(first.data), list(second.data)) == ((2, 2), [1, 2, 3, 4], [True, False, True])
    assert (asked.request.id, asked.request.outputs) == ("42", ("output0", "output1"))
    assert (asked.is_binary("output0"), asked.is_binary("output1")) == (True, False)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_json_may_be_flat_or_nested(data: Any) -> None:
    assert list(read_one(tensor(shape=[2, 3], data=data)).data) == [1, 2, 3, 4, 5, 6]
    cube = read_one(tensor(shape=[2, 1, 3], data=[[[1, 2, 3]], [[4, 5, 6]]]))
    assert list(cube.data) == [1, 2, 3, 4, 5, 6]


def test_null_is_a_missing_number_or_text() -> None:
    assert np.isnan(read_one(tensor(datatype="FP32", data=[None, 1])).data[0])
    assert read_one(tensor(datatype="BYTES", data=[None, "a"])).data == [None, "a"]


@pytest.mark.parametrize(
    ("one", "binary", "said"),
    [
        (7, b"", "not an object"),
        (tensor(), b"", "needs either"),
        (tensor(data=[1, 2], parameters={"binary_data_size": 8}), b"12345678", "needs either"),
        (tensor(data=[1, 2], name=""), b"", "no name"),
        (tensor(data=[1, 2], datatype="INT"), b"", "datatypes are BOOL"),
        (tensor(data=[1, 2], shape=[2.0]), b"", "not a list of whole numbers"),
        (tensor(data=[1, 2], shape=[-2]), b"", "not a list of whole numbers"),
        (tensor(data=[1, 2], shape=[True]), b"", "not a list of whole numbers"),
        (tensor(data=[1, 2], shape=2), b"", "not a list of whole numbers"),
        (tensor(data=[1]), b"", "has 1 values"),
        (tensor(data=[[1], [2, 3]], shape=[2, 2]), b"", "does not have the shape"),
        (tensor(data=[1, [2]]), b"", "JSON type list"),
        (tensor(data={"a": 1}), b"", "not a list"),
        (tensor(data=[1, 2.5]), b"", "JSON type float"),
        (tensor(data=[1, True]), b"", "JSON type bool"),
        (tensor(data=[1, None]), b"", "JSON type NoneType"),
        (tensor(data=[1, 2**31]), b"", "beyond INT32"),
        (tensor(data=[1, 0], datatype="BOOL"), b"", "JSON type int"),
        (tensor(data=["a", "b"]), b"", "JSON type str"),
        (tensor(data=[1, 2], parameters=[]), b"", "not an object"),
        (tensor(parameters={"binary_data_size": 9}), b"12345678", "8 bytes are there"),
        (tensor(parameters={"binary_data_size": -1}), b"12345678", "8 bytes are there"),
        (tensor(parameters={"binary_data_size": "8"}), b"12345678", "8 bytes are there"),
        (tensor(parameters={"binary_data_size": 4}), b"12345678", "needs 8 bytes"),
        (tensor(parameters={"binary_data_size": 8}), b"123456789", "1 bytes are left"),
        (tensor(parameters={"shared_memory_region": "r"}), b"", "shared memory"),
        (tensor(datatype="BYTES", parameters={"binary_data_size": 5}), b"\1\0\0\0a", "are not 2 texts"),
        (tensor(datatype="BYTES", parameters={"binary_data_size": 8}), b"\xff\xff\xff\xffabcd", "are not 2 texts"),
        (tensor(shape=[2, 2**62], parameters={"binary_data_size": 8}), b"12345678", "needs"),
        (tensor(shape=[2, 2**62], data=[1]), b"", "has 1 values"),
    ],
)
def test_a_wrong_tensor_is_refused_and_told_why(one: Any, binary: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        read_one(one, binary)


@pytest.mark.parametrize("header", [b"4", b"-1", b"1e1", b"", b"9" * 30, b"\xff"])
def test_a_header_that_is_no_length_within_the_body_is_refused(header: bytes) -> None:
    with pytest.raises(Invalid, match="Inference-Header-Content-Length"):
        split(b"{}", header)
    assert split(b"{}", b"2") == (b"{}", b"")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"id": 7}, "not a text"),
        ({"outputs": {}}, "not a list of objects"),
        ({"outputs": [7]}, "not a list of objects"),
        ({"outputs": [{}]}, "has no name"),
        ({"parameters": 7}, "not an object"),
        ({"inputs": []}, "at least one"),
        ({"inputs": {}}, "at least one"),
    ],
)
def test_a_wrong_request_is_refused_and_told_why(more: Any, said: str) -> None:
    with pytest.raises(Invalid) as error:
        read_request({"inputs": [tensor(data=[1, 2])], **more}, b"")
    assert said in str(error.value)
