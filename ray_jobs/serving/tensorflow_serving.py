"""TensorFlow Serving's REST predict as a second, thin face: its JSON into our rows and tensors, and back.

    {"instances": [{input: value}, …]}    rows, answered by {"predictions": [{"prediction", "decision"}, …]}
    {"instances": [[…], …]}               rows of the matrix, where every input is a number
    {"inputs": {input: [value, …]}}       columns, answered by {"outputs": {"prediction": […], "decision": […]}}
    {"inputs": [[…], …]}                  the matrix

A model with one output (a regression) answers its bare values, as TensorFlow Serving does. `signature_name` is passed
over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lakeloop.lakehouse.errors import Invalid
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.limits import check_count, check_tensors
from lakeloop.ray_jobs.serving.tensors import BYTES, NUMPY, InferRequest, InferResponse, Tensor

SEND = 'send {"instances": [{…}]} or {"inputs": {input: […]}}'


async def predict(inference: Inference, record: Mapping[str, Any], version: str | None, began: float) -> dict[str, Any]:
    """The answer to a predict request, as JSON's values. Invalid says what is wrong."""
    instances, columns = record.get("instances"), record.get("inputs")
    if (instances is None) == (columns is None):
        raise Invalid("a predict request has either 'instances' or 'inputs'", todo=SEND)
    if columns is not None:
        named = columns.items() if isinstance(columns, dict) else ()
        check_tensors(len(named))
        tensors = [_column(name, values) for name, values in named] or [_matrix(columns)]
        return {"outputs": _columns_of(await inference.infer(InferRequest(tuple(tensors)), version))}
    if not isinstance(instances, list) or not instances:
        raise Invalid("'instances' is not a list with at least one row", todo=SEND)
    check_count(len(instances))
    if not all(isinstance(row, dict) for row in instances):
        return {"predictions": _rows_of(await inference.infer(InferRequest((_matrix(instances),)), version))}
    answer = await inference.rows(instances, "", version, began)
    return {"predictions": [_public(row) for row in answer["rows"]]}


def status(metadata: Mapping[str, Any], version: str | None) -> dict[str, Any]:
    """The status of a model's versions; `name` and `ready` are what KServe's first protocol asks for."""
    versions = metadata["versions"] if version is None else [version]
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    told = [{"version": one, **available} for one in versions]
    return {"model_version_status": told, "name": metadata["name"], "ready": True}


def _public(row: Mapping[str, Any]) -> Any:
    if row["decision"] is None:
        return row["prediction"]
    return {"prediction": row["prediction"], "decision": row["decision"]}


def _column(name: str, values: Any) -> Tensor:
    """A column of [n] or [n, 1] JSON values, as the datatype that they are of."""
    if not isinstance(values, list) or not values:
        raise Invalid(f"the input {name[:200]!r} is not a list with at least one value", todo=SEND)
    check_count(len(values))
    if all(isinstance(value, list) and len(value) == 1 for value in values):
        values = [value[0] for value in values]
    kinds = set(map(type, values)) - {type(None)}
    shape = (len(values),)
    if kinds <= {str}:
        return Tensor(name, BYTES, shape, values)
    if kinds == {bool} and None not in values:
        return Tensor(name, "BOOL", shape, np.array(values, NUMPY["BOOL"]))
    return _numbers(name, values, kinds)


def _numbers(name: str, values: Sequence[Any], kinds: set[type]) -> Tensor:
    if not kinds <= {int, float}:
        raise Invalid(f"the values of {name[:200]!r} are not all texts, bools or numbers", todo=SEND)
    whole = None not in values and kinds == {int} and -(2**63) <= min(values) <= max(values) < 2**63
    datatype = "INT64" if whole else "FP64"
    return Tensor(name, datatype, (len(values),), np.array(values, NUMPY[datatype]))


def _matrix(rows: Any) -> Tensor:
    """Rows of numbers (or numbers alone, of one input) as one tensor."""
    if not isinstance(rows, list) or not rows:
        raise Invalid("the request has no rows", todo=SEND)
    check_count(len(rows))
    rows = [row if isinstance(row, list) else [row] for row in rows]
    flat = [value for row in rows for value in row]
    if len(flat) != len(rows) * len(rows[0]):
        raise Invalid("the rows have different lengths", todo=SEND)
    if not set(map(type, flat)) <= {int, float, type(None)}:
        raise Invalid("a row holds more than numbers", todo='send {"instances": [{input: value}]}')
    return Tensor("instances", "FP64", (len(rows), len(rows[0])), np.array(flat, np.float64))


def _columns_of(response: InferResponse) -> Any:
    columns = {one.name: _listed(one) for one in response.outputs}
    return columns if len(columns) > 1 else columns["prediction"]


def _rows_of(response: InferResponse) -> list[Any]:
    columns = {one.name: _listed(one) for one in response.outputs}
    if len(columns) == 1:
        return list(columns["prediction"])
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _listed(tensor: Tensor) -> list[Any]:
    if isinstance(tensor.data, np.ndarray):
        return list(tensor.data.reshape(tensor.shape).tolist())
    return [one.decode() if isinstance(one, bytes) else one for one in tensor.data]
