"""The Open Inference Protocol's REST wire form: JSON, and raw little-endian tensors behind it, into values and back.

    {"id"?, "inputs": [{"name", "datatype", "shape", "data" | "parameters": {"binary_data_size": n}}],
     "outputs"?: [{"name", "parameters"?: {"binary_data": true}}], "parameters"?: {"binary_data_output": true}}

With the header Inference-Header-Content-Length the JSON has that many bytes and the binary tensors follow in their
order, nothing between or after them. A BYTES element is a 4-byte length and so many bytes. Of a key given twice the
last counts, as in JSON parsers mostly. Keys that the protocol does not name are passed over, as it asks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from lakeloop.lakehouse.errors import Invalid
from lakeloop.ray_jobs.serving.asgi import FORMAT, Header, Reply
from lakeloop.ray_jobs.serving.limits import check_tensors
from lakeloop.ray_jobs.serving.tensors import (
    BYTES,
    DATATYPES,
    NUMPY,
    Data,
    InferRequest,
    InferResponse,
    Tensor,
    count_of,
)

HEADER = b"inference-header-content-length"
BINARY: Header = (b"content-type", b"application/octet-stream")
LENGTH = struct.Struct("<I")
JSON_TYPES: Mapping[str, frozenset[type]] = {
    "BOOL": frozenset({bool}),
    BYTES: frozenset({str, type(None)}),
    **{name: frozenset({int}) for name in NUMPY if "INT" in name},
    **{name: frozenset({int, float, type(None)}) for name in NUMPY if name.startswith("FP")},
}
"""What JSON values the elements of a datatype may be."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and which of its outputs are wanted in binary: those named, and else `binary`."""

    request: InferRequest
    named: Mapping[str, bool]
    binary: bool

    def is_binary(self, output: str) -> bool:
        return self.named.get(output, self.binary)


def split(body: bytes, header: bytes | None) -> tuple[bytes, bytes]:
    """The JSON of a body and what is behind it. Invalid for a header that is no length within the body."""
    if header is None:
        return body, b""
    if not header.isdigit() or len(header) > 10 or int(header) > len(body):
        said = header[:20].decode("latin-1")
        raise Invalid(
            f"Inference-Header-Content-Length is {said!r}, the body has {len(body)} bytes",
            todo="send the length of the JSON before the binary tensors",
        )
    return body[: int(header)], body[int(header) :]


def read_request(record: Mapping[str, Any], binary: bytes) -> Asked:
    """A request from its JSON and the binary part behind it; Invalid says what is wrong."""
    inputs = record["inputs"]
    if not isinstance(inputs, list) or not inputs:
        raise Invalid("'inputs' is not a list of tensors", todo="send at least one")
    check_tensors(len(inputs))
    tensors, place = [], 0
    for one in inputs:
        tensor, place = _tensor(one, binary, place)
        tensors.append(tensor)
    if place != len(binary):
        raise Invalid(f"{len(binary) - place} bytes are left behind the binary tensors", todo="see binary_data_size")
    named, parameters = _wanted(record.get("outputs")), _parameters(record, "the request")
    request = InferRequest(tuple(tensors), _id(record.get("id")), tuple(named), parameters)
    binary_output = parameters.get("binary_data_output", False)
    chosen = {name: one for name, one in named.items() if one is not None}
    return Asked(request, chosen, binary_output is True)


def _id(given: Any) -> str:
    if given is None:
        return ""
    if not isinstance(given, str):
        raise Invalid("'id' is not a text", todo="leave it out to have one made")
    return given


def _parameters(one: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = one.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise Invalid(f"the parameters of {what} are not an object")
    return parameters


def _wanted(outputs: Any) -> Mapping[str, bool | None]:
    """Which outputs are asked for, and what each says of being binary."""
    if outputs is None:
        return {}
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise Invalid("'outputs' is not a list of objects", todo='send [{"name": "prediction"}], or leave it out')
    wanted: dict[str, bool | None] = {}
    for one in outputs:
        name = one.get("name")
        if not isinstance(name, str):
            raise Invalid("an output has no name")
        parameters = _parameters(one, f"the output {name}")
        if parameters.get("classification"):
            raise Invalid("classification is not an extension that is spoken here", todo="ask for `decision`")
        binary = parameters.get("binary_data")
        wanted[name] = binary if isinstance(binary, bool) else None
    return wanted


def _tensor(one: Any, binary: bytes, place: int) -> tuple[Tensor, int]:
    """A tensor, and where the binary part goes on behind it."""
    if not isinstance(one, dict):
        raise Invalid("a tensor is not an object", todo='send {"name", "datatype", "shape", "data"}')
    name, datatype, shape = one.get("name"), one.get("datatype"), one.get("shape")
    if not isinstance(name, str) or not name:
        raise Invalid("a tensor has no name")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise Invalid(f"the tensor {name} has datatype {datatype!r}", todo=f"datatypes are {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Invalid(f"the shape of {name} is not a list of whole numbers")
    count = count_of(name, shape)
    parameters = _parameters(one, f"the tensor {name}")
    if "shared_memory_region" in parameters:
        raise Invalid("shared memory is not an extension that is spoken here", todo="send the data in the request")
    size = parameters.get("binary_data_size")
    if (size is None) == ("data" not in one):
        raise Invalid(f"the tensor {name} needs either 'data' or 'binary_data_size'")
    if size is None:
        return Tensor(name, datatype, tuple(shape), _of_json(name, datatype, shape, count, one["data"])), place
    if type(size) is not int or not 0 <= size <= len(binary) - place:
        raise Invalid(f"binary_data_size of {name} is {size!r}, {len(binary) - place} bytes are there")
    data = of_binary(name, datatype, count, binary[place : place + size])
    return Tensor(name, datatype, tuple(shape), data), place + size


def _of_json(name: str, datatype: str, shape: Sequence[int], count: int, data: Any) -> Data:
    flat = _flat(name, shape, count, data)
    strange = set(map(type, flat)) - JSON_TYPES[datatype]
    if strange:
        raise Invalid(f"the tensor {name} is {datatype}, but has a value of JSON type {strange.pop().__name__}")
    if datatype == BYTES:
        return flat
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, NUMPY[datatype])
    except OverflowError:
        raise Invalid(f"the tensor {name} has a value beyond {datatype}") from None


def _flat(name: str, shape: Sequence[int], count: int, given: Any) -> list[Any]:
    """JSON data, given flat or nested as its shape says."""
    if not isinstance(given, list):
        raise Invalid(f"the data of {name} is not a list")
    data: list[Any] = given
    nested = len(shape) > 1 and len(data) == shape[0] and bool(data) and type(data[0]) is list
    for size in shape[1:] if nested else ():
        if not all(type(part) is list and len(part) == size for part in data):
            raise Invalid(f"the data of {name} does not have the shape {list(shape)}")
        data = list(chain.from_iterable(data))
    if len(data) != count:
        raise Invalid(f"the tensor {name} of shape {list(shape)} has {len(data)} values")
    return data


def of_binary(name: str, datatype: str, count: int, data: bytes) -> Data:
    """`count` values out of a tensor's bytes, here as in gRPC's raw contents. Invalid if they are not so many."""
    if datatype == BYTES:
        return _texts(name, count, data)
    kind = NUMPY[datatype]
    if len(data) != count * kind.itemsize:
        raise Invalid(f"the tensor {name} needs {count * kind.itemsize} bytes of {datatype}, not {len(data)}")
    if datatype == "BOOL":
        return np.frombuffer(data, np.uint8).astype(np.bool_)
    return np.frombuffer(data, kind)


def _texts(name: str, count: int, data: bytes) -> list[bytes]:
    if (same := _of_one_length(count, data)) is not None:
        return same
    texts, place, end = [], 0, len(data)
    unpack = LENGTH.unpack_from
    while place + 4 <= end:
        start = place + 4
        place = start + unpack(data, place)[0]
        texts.append(data[start:place])
    if place != end or len(texts) != count:
        raise Invalid(f"the bytes of {name} are not {count} texts with their lengths before them")
    return texts


def _of_one_length(count: int, data: bytes) -> list[bytes] | None:
    """The texts where all have one length, as codes and moments do: twice as fast as one by one."""
    stride, rest = divmod(len(data), count or 1)
    if rest or stride < 4 or count < 2:
        return None
    lengths = np.frombuffer(data, np.uint8).reshape(count, stride)[:, :4]
    if not np.array_equal(lengths, np.broadcast_to(np.frombuffer(LENGTH.pack(stride - 4), np.uint8), (count, 4))):
        return None
    return [data[place + 4 : place + stride] for place in range(0, len(data), stride)]


def write_response(response: InferResponse, asked: Asked) -> Reply:
    """JSON, and the tensors that were asked for in binary behind it."""
    parts, described = [], []
    for tensor in response.outputs:
        said: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if asked.is_binary(tensor.name):
            parts.append(to_binary(tensor))
            said["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            said["data"] = _json(tensor)
        described.append(said)
    head = orjson.dumps(
        {
            "model_name": response.model,
            "model_version": response.version,
            "id": response.id,
            "parameters": response.parameters,
            "outputs": described,
        },
        option=FORMAT,
    )
    rows = response.outputs[0].shape[0]
    if not parts:
        return Reply(200, head, rows=rows)
    return Reply(200, b"".join([head, *parts]), ((HEADER, b"%d" % len(head)),), BINARY, rows)


def _json(tensor: Tensor) -> Any:
    if isinstance(tensor.data, np.ndarray):
        return tensor.data
    return [one.decode() if isinstance(one, bytes) else one for one in tensor.data]


def to_binary(tensor: Tensor) -> bytes:
    """A tensor's bytes: row-major, little-endian; texts each behind its length in four bytes, null as an empty one."""
    if isinstance(tensor.data, np.ndarray):
        return tensor.data.astype(NUMPY[tensor.datatype], copy=False).tobytes()
    texts = [one.encode() if isinstance(one, str) else one or b"" for one in tensor.data]
    return b"".join(part for text in texts for part in (LENGTH.pack(len(text)), text))
