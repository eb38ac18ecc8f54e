"""Tensors of the Open Inference Protocol V2 as values: what a transport reads requests into, and writes answers from.

A tensor's data is flat, in row-major order: a numpy array of the datatype's own type, or for BYTES a list of texts or
bytes (UTF-8), where None is a missing value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Invalid
from lakeloop.ray_jobs.serving.limits import check_count

NUMPY: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The protocol's datatypes of a fixed size; the other is BYTES."""
BYTES = "BYTES"
DATATYPES = (*NUMPY, BYTES)
MOST_DIMENSIONS = 32

Texts: TypeAlias = Sequence[str | bytes | None]
Data: TypeAlias = "NDArray[Any] | Texts"
Parameter: TypeAlias = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor. The product of `shape` is the length of `data`."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Data


def count_of(name: str, shape: Sequence[int]) -> int:
    """How many values a tensor of this shape has. Invalid for more dimensions than there can be, for the product of a
    million lengths takes hours; TooLarge for too many rows, before one of its values is looked at."""
    if len(shape) > MOST_DIMENSIONS:
        raise Invalid(f"the tensor {name} has {len(shape):,} dimensions", todo=f"the most is {MOST_DIMENSIONS}")
    check_count(shape[0] if shape else 0)
    return math.prod(shape)


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a caller asks. `id` empty: one is made. `outputs` empty: prediction and decision."""

    inputs: tuple[Tensor, ...]
    id: str = ""
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InferResponse:
    """What it gets. `model` is the name it asked by, `version` the version of the arm that answered."""

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
