"""Requests and answers as the protobuf messages of Open Inference: what gRPC carries, and what /infer takes as a body.

A request's values come typed (one field per datatype) or raw; the answer goes back in the same way. FP16 has no typed
field. Every fault of a message is Invalid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Invalid
from lakeloop.ray_jobs.serving.limits import check_tensors
from lakeloop.ray_jobs.serving.open_inference import of_binary, to_binary
from lakeloop.ray_jobs.serving.protos import Messages, read_proto
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

MEDIA_TYPE = "application/x-protobuf"
MESSAGES = Messages(read_proto(Path(__file__).with_name("open_inference.proto")))
SERVICE = f"{MESSAGES.package}.GRPCInferenceService"
ModelInferRequest = MESSAGES["ModelInferRequest"]
ModelInferResponse = MESSAGES["ModelInferResponse"]
FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""The typed field of each datatype that has one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was sent: `raw` says in which way to answer."""

    model: str
    version: str
    request: InferRequest
    raw: bool


def read_message(kind: Any, body: bytes) -> Any:
    """A message from its bytes. Invalid when they are none."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Invalid(
            f"the body is no {kind.DESCRIPTOR.full_name} ({error})", todo="send the protocol's message"
        ) from None


def read_request(body: bytes) -> Asked:
    """The request in a ModelInferRequest's bytes, every tensor's length checked against its shape."""
    message = read_message(ModelInferRequest, body)
    check_tensors(len(message.inputs))
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise Invalid(
            f"{len(raw)} raw contents for {len(message.inputs)} inputs", todo="send one for each input, or none at all"
        )
    inputs = tuple(_tensor(one, raw[place] if raw else None) for place, one in enumerate(message.inputs))
    outputs = tuple(one.name for one in message.outputs)
    request = InferRequest(inputs, message.id, outputs, _parameters(message.parameters))
    return Asked(message.model_name, message.model_version, request, bool(raw))


def write_answer(answer: InferResponse, *, raw: bool) -> bytes:
    """A ModelInferResponse's bytes. `raw`: its values as raw contents, else typed."""
    message = ModelInferResponse(model_name=answer.model, model_version=answer.version, id=answer.id)
    for name, value in answer.parameters.items():
        setattr(message.parameters[name], _parameter_field(value), value)
    for tensor in answer.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            message.raw_output_contents.append(to_binary(tensor))
        else:
            getattr(output.contents, FIELDS[tensor.datatype]).extend(_typed(tensor))
    return bytes(message.SerializeToString())


def _tensor(message: Any, raw: bytes | None) -> Tensor:
    name, datatype, shape = message.name, message.datatype, tuple(message.shape)
    if datatype not in DATATYPES:
        raise Invalid(f"the tensor {name} has no known datatype ({datatype!r})", todo=f"known: {', '.join(DATATYPES)}")
    if any(length < 0 for length in shape):
        raise Invalid(f"the tensor {name} has shape {list(shape)}", todo="a length is 0 or more")
    count = count_of(name, shape)
    if raw is None:
        return Tensor(name, datatype, shape, _read_typed(name, datatype, count, message.contents))
    if message.HasField("contents"):
        raise Invalid(f"the tensor {name} comes twice, typed and raw", todo="send one of them")
    return Tensor(name, datatype, shape, of_binary(name, datatype, count, raw))


def _read_typed(name: str, datatype: str, count: int, contents: Any) -> Data:
    field = FIELDS.get(datatype)
    if field is None:
        raise Invalid(f"the tensor {name} is {datatype}, which has no typed contents", todo="send raw_input_contents")
    others = [other.name for other, _ in contents.ListFields() if other.name != field]
    if others:
        raise Invalid(f"the tensor {name} is {datatype} and its contents are {others[0]}", todo=f"fill {field} alone")
    values = getattr(contents, field)
    if len(values) != count:
        raise Invalid(f"the tensor {name} has {len(values)} values where its shape says {count}")
    if datatype == BYTES:
        return list(values)
    kind = NUMPY[datatype]
    if kind.kind in "iu" and kind.itemsize < 4:
        return _narrowed(name, datatype, np.fromiter(values, np.int64, count))
    return np.fromiter(values, kind, count)


def _narrowed(name: str, datatype: str, values: NDArray[np.int64]) -> NDArray[Any]:
    bounds = np.iinfo(NUMPY[datatype])
    wrong = np.flatnonzero((values < bounds.min) | (values > bounds.max))
    if len(wrong):
        raise Invalid(f"the tensor {name} holds {values[wrong[0]]}, which is no {datatype}")
    return values.astype(NUMPY[datatype])


def _typed(tensor: Tensor) -> Iterable[Any]:
    if isinstance(tensor.data, np.ndarray):
        return tensor.data.tolist()  # type: ignore[no-any-return]
    return map(_encoded, tensor.data)


def _encoded(text: str | bytes | None) -> bytes:
    return text.encode() if isinstance(text, str) else text or b""


def _parameters(messages: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    chosen = {name: (message, message.WhichOneof("parameter_choice")) for name, message in messages.items()}
    return {name: getattr(message, field) for name, (message, field) in chosen.items() if field}


def _parameter_field(value: bool | int | float | str) -> str:
    match value:
        case bool():
            return "bool_param"
        case int():
            return "int64_param"
        case float():
            return "double_param"
        case str():
            return "string_param"
