"""How tensors and a model's signature map to each other, both ways, and how the protocol's metadata tells it.

An input is a tensor of its name, of shape [n] or [n, 1]; `id` and `as_of` may come beside them. Numbers may be of any
numeric datatype; categories and texts are BYTES (whole numbers where the categories are); a moment is BYTES in ISO 8601
or a number since 1970, read as in a row: seconds, ms, µs or ns by its size. Where each input is a number and a column
of the model's matrix, one tensor [n, k] of any name may hold them all, in the signature's order. NaN (null in JSON) is
a missing value; a tensor that is not there is looked up, derived, or its default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.columns import decoded, plain
from lakeloop.lakehouse.scoring.rows import Fault, read_moment
from lakeloop.ray_jobs.serving.tensors import BYTES, Data, Tensor

if TYPE_CHECKING:
    from lakeloop.lakehouse.scoring.scorer import Decision
    from lakeloop.lakehouse.scoring.signature import Input, Signature

ON_REQUEST = ("id", "as_of", "ages", "absent")
"""Outputs that are given when they are asked for, all BYTES: `ages` and `absent` are JSON, row by row."""


@dataclass(frozen=True, slots=True)
class Given:
    """A request's columns by input, of `count` values each; `ids` and `moments` where it gives them."""

    count: int
    columns: Mapping[str, Data]
    ids: Sequence[str | None] | None = None
    moments: Sequence[datetime | None] | None = None

    def rows(self) -> list[Mapping[str, Any]]:
        """The same as flat rows."""
        columns = {name: _values(data) for name, data in self.columns.items()}
        if self.ids is not None:
            columns["id"] = list(self.ids)
        if self.moments is not None:
            columns["as_of"] = list(self.moments)
        names = tuple(columns)
        return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@dataclass(frozen=True, slots=True)
class Answered:
    """What the rows of a request got, each by its place; `moments` is one where it is the same for all."""

    predictions: NDArray[np.float64]
    decisions: Sequence[Decision]
    moments: datetime | Sequence[datetime]
    ids: Sequence[str | None] | None = None
    ages: Sequence[Mapping[str, Any]] = field(default=())
    absent: Sequence[Sequence[str]] = field(default=())


def given_of(tensors: Sequence[Tensor], signature: Signature) -> Given:
    """A request's tensors as columns. Invalid for shapes and names that do not fit; values are not looked at yet."""
    if not tensors:
        raise Invalid("the request has no inputs", todo="send a tensor per input")
    if len(tensors) == 1 and (matrix := _matrix(tensors[0], signature)) is not None:
        return matrix
    count, columns = tensors[0].shape[0] if tensors[0].shape else 0, {}
    for tensor in tensors:
        if not count or tensor.shape not in ((count,), (count, 1)):
            raise Invalid(
                f"the tensor {tensor.name} has shape {list(tensor.shape)}",
                todo="send [n] or [n, 1], with the same n of at least 1 for all",
            )
        if tensor.name in columns:
            raise Invalid(f"two tensors are named {tensor.name}", todo="send each input once")
        columns[tensor.name] = tensor.data
    ids, moments = columns.pop("id", None), columns.pop("as_of", None)
    if not columns:
        raise Invalid("the request has no inputs", todo="send a tensor per input")
    return Given(count, columns, None if ids is None else _ids(ids), None if moments is None else _moments(moments))


def _matrix(tensor: Tensor, signature: Signature) -> Given | None:
    """All columns in one tensor, where the signature and the tensor are so."""
    names = [one.name for one in signature.columns]
    if len(tensor.shape) != 2 or tensor.shape[1] != len(names) or tensor.name in names or not tensor.shape[0]:
        return None
    if not isinstance(tensor.data, np.ndarray) or not takes_matrix(signature):
        return None
    columns = np.ascontiguousarray(tensor.data.reshape(tensor.shape).T)
    return Given(tensor.shape[0], dict(zip(names, columns, strict=True)))


def takes_matrix(signature: Signature) -> bool:
    """Whether one tensor may hold all inputs."""
    return all(one.column and one.kind in ("number", "integer", "bool") for one in signature.inputs)


def _values(data: Data) -> list[Any]:
    return [plain(value) for value in data.tolist()] if isinstance(data, np.ndarray) else decoded(data, {})


def _ids(data: Data) -> list[str | None]:
    return [None if value is None else str(value) for value in _values(data)]


def _moments(data: Data) -> list[datetime | None]:
    moments: list[datetime | None] = []
    for place, value in enumerate(_values(data)):
        try:
            moments.append(None if value is None else read_moment(value))
        except Fault as fault:
            raise Invalid(f"row {place}: as_of: {fault}") from None
    return moments


def output_names(wanted: Sequence[str], signature: Signature) -> Sequence[str]:
    """The outputs to give. Invalid for one that there is not."""
    usual = [one["name"] for one in outputs_of(signature)]
    for name in wanted:
        if name not in usual and name not in ON_REQUEST:
            raise Invalid(f"there is no output {name!r}", todo=f"outputs are {', '.join((*usual, *ON_REQUEST))}")
    return wanted or usual


def outputs(names: Sequence[str], answered: Answered, signature: Signature) -> tuple[Tensor, ...]:
    return tuple(_output(name, answered, signature) for name in names)


def _output(name: str, answered: Answered, signature: Signature) -> Tensor:
    count = (len(answered.predictions),)
    match name:
        case "prediction":
            predictions = answered.predictions
            return Tensor(name, "FP64", predictions.shape, predictions.reshape(-1))
        case "decision" if signature.problem == "binary":
            return Tensor(name, "BOOL", count, np.array(answered.decisions, np.bool_))
        case "decision":
            return Tensor(name, BYTES, count, [str(one) for one in answered.decisions])
        case "id":
            return Tensor(name, BYTES, count, [one or "" for one in answered.ids or [""] * count[0]])
        case "as_of":
            moments = answered.moments
            each = [moments] * count[0] if isinstance(moments, datetime) else moments
            return Tensor(name, BYTES, count, [one.isoformat().replace("+00:00", "Z") for one in each])
        case "ages":
            return Tensor(name, BYTES, count, [orjson.dumps(one) for one in answered.ages or [{}] * count[0]])
        case _:
            return Tensor(name, BYTES, count, [orjson.dumps(one) for one in answered.absent or [[]] * count[0]])


def datatype_of(one: Input) -> str:
    """The protocol's datatype of an input."""
    match one.kind:
        case "category" | "string" | "timestamp":
            return BYTES
        case "bool":
            return "BOOL"
        case "integer":
            return one.type.rstrip("?").upper() if one.type.startswith(("int", "uint")) else "INT64"
        case "number":
            return "FP32" if one.type.startswith("float32") else "FP64"


def metadata_of(signature: Signature) -> Mapping[str, Any]:
    """Inputs, outputs and parameters as the protocol's metadata names them."""
    parameters = {
        "problem": signature.problem,
        "classes": signature.classes,
        "matrix": takes_matrix(signature),
        "example": signature.example,
    }
    inputs = [described(one) for one in signature.inputs]
    return {"inputs": inputs, "outputs": outputs_of(signature), "parameters": parameters}


def described(one: Input) -> Mapping[str, Any]:
    """An input; `parameters` says what the protocol has no word for."""
    optional = one.role != "request" or one.nullable or one.default is not None
    parameters: dict[str, Any] = {"type": one.type, "role": one.role, "optional": optional}
    if one.range is not None:
        parameters["range"] = [end if math.isfinite(end) else None for end in one.range]
    if one.values or (one.unseen == "error" and one.categories):
        parameters["values"] = one.values or one.categories
    if one.default is not None:
        parameters["default"] = one.default
    return {"name": one.name, "datatype": datatype_of(one), "shape": [-1], "parameters": parameters}


def outputs_of(signature: Signature) -> list[Mapping[str, Any]]:
    """The outputs an endpoint gives when none is asked for."""
    shape = [-1, len(signature.classes)] if signature.problem == "multiclass" else [-1]
    prediction = {"name": "prediction", "datatype": "FP64", "shape": shape}
    match signature.problem:
        case "binary":
            return [prediction, {"name": "decision", "datatype": "BOOL", "shape": [-1]}]
        case "multiclass":
            return [prediction, {"name": "decision", "datatype": BYTES, "shape": [-1]}]
        case "regression":
            return [prediction]
