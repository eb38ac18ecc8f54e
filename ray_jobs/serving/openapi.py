"""OpenAPI 3.1 of a server, from the metadata of its endpoints: what may be sent to each, with its own example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lakeloop.ray_jobs.serving.tensors import DATATYPES

NUMBERS = {"FP32": "number", "FP64": "number", "BOOL": "boolean", "BYTES": "string"}
Json = dict[str, Any]


def openapi(endpoints: Sequence[Mapping[str, Any]], version: str) -> Json:
    """The document. `endpoints` is the protocol's metadata of each."""
    paths: Json = {
        "/v2": get("about the server", {"name": {"type": "string"}, "version": {"type": "string"}}),
        "/v2/health/live": get("the process answers", {"live": {"type": "boolean"}}),
        "/v2/health/ready": get("requests are welcome; 503 when not", {"ready": {"type": "boolean"}}),
    }
    for one in endpoints:
        paths |= _paths(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lakeloop endpoints", "version": version},
        "paths": paths,
        "components": {"schemas": {**SCHEMAS, **{f"{one['name']}Row": _row(one) for one in endpoints}}},
    }


def get(summary: str, properties: Json) -> Json:
    """A path that is read."""
    return {"get": {"summary": summary, "responses": {"200": _json({"type": "object", "properties": properties})}}}


def _paths(one: Mapping[str, Any]) -> Json:
    name = str(one["name"])
    at, version = f"/v2/models/{name}", _parameter(one["versions"])
    described = {"name": {"type": "string"}, "versions": {"type": "array", "items": {"type": "string"}}}
    return {
        at: get(f"what {name} takes and gives", described),
        f"{at}/ready": get(f"{name} answers", {"ready": {"type": "boolean"}}),
        f"{at}/infer": {"post": _infer(one)},
        f"{at}/versions/{{version}}": {**get(f"one version of {name}", described), "parameters": [version]},
        f"{at}/versions/{{version}}/ready": {
            **get(f"one version of {name} answers", {"ready": {"type": "boolean"}}),
            "parameters": [version],
        },
        f"{at}/versions/{{version}}/infer": {"post": _infer(one), "parameters": [version]},
        f"/v1/models/{name}:predict": {"post": _predict(one)},
    }


def _parameter(versions: Sequence[str]) -> Json:
    schema = {"type": "string", "examples": list(versions)}
    return {"name": "version", "in": "path", "required": True, "schema": schema}


def _infer(one: Mapping[str, Any]) -> Json:
    rows = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 200},
            "rows": {"type": "array", "minItems": 1, "items": {"$ref": f"#/components/schemas/{one['name']}Row"}},
        },
    }
    content = _content({"oneOf": [rows, _ref("InferRequest")]})
    content["application/json"]["examples"] = {
        "rows": {"value": {"rows": [dict(one["parameters"]["example"])]}},
        "tensors": {"value": {"inputs": _tensors(one)}},
    }
    answers = {"oneOf": [_ref("RowsResponse"), _ref("InferResponse")]}
    return {
        "summary": f"ask {one['name']}",
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _json(answers), **FAILURES},
    }


def _predict(one: Mapping[str, Any]) -> Json:
    content = _content({"type": "object"})
    content["application/json"]["examples"] = {
        "instances": {"value": {"instances": [dict(one["parameters"]["example"])]}}
    }
    return {
        "summary": f"ask {one['name']} as TensorFlow Serving would be",
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _json({"type": "object"}), **FAILURES},
    }


def _row(one: Mapping[str, Any]) -> Json:
    """A flat row's schema."""
    own = {"id": {"type": "string"}, "as_of": {"type": ["string", "number"], "description": "default: now"}}
    required = [each["name"] for each in one["inputs"] if not each["parameters"]["optional"]]
    properties = {each["name"]: _value(each) for each in one["inputs"]} | own
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


def _value(one: Mapping[str, Any]) -> Json:
    parameters = one["parameters"]
    kind = NUMBERS.get(one["datatype"], "integer")
    types = [kind, "number"] if parameters["type"].startswith("timestamp") else [kind]
    schema: Json = {
        "type": [*types, "null"] if parameters["optional"] else types if len(types) > 1 else kind,
        "description": f"{parameters['role']}, {parameters['type']}",
    }
    for name, end in zip(("minimum", "maximum"), parameters.get("range", ()), strict=False):
        if end is not None:
            schema[name] = end
    if "values" in parameters:
        schema["examples"] = list(parameters["values"])[:20]
    if "default" in parameters:
        schema["default"] = parameters["default"]
    return schema


def _tensors(one: Mapping[str, Any]) -> list[Json]:
    """The example row as tensors; what it leaves out is left out."""
    example = one["parameters"]["example"]
    return [
        {"name": each["name"], "datatype": each["datatype"], "shape": [1], "data": [example[each["name"]]]}
        for each in one["inputs"]
        if example.get(each["name"]) is not None
    ]


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _json(schema: Json) -> Json:
    return {"description": "answered", "content": _content(schema)}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


ERROR = {"description": 'the reason, in {"error": …}', "content": _content(_ref("Error"))}
FAILURES = dict.fromkeys(("400", "404", "405", "408", "413", "415", "503"), ERROR)
TENSOR: Json = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"enum": list(DATATYPES)},
        "shape": _array({"type": "integer", "minimum": 0}),
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}
SCHEMAS: Json = {
    "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 200},
            "inputs": {**_array(TENSOR), "minItems": 1},
            "outputs": _array({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}),
            "parameters": {"type": "object"},
        },
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "model_version", "id", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": _array(TENSOR),
        },
    },
    "RowsResponse": {
        "type": "object",
        "required": ["id", "model", "version", "revision", "rows"],
        "properties": {
            "id": {"type": "string"},
            "model": {"type": "string"},
            "version": {"type": "integer"},
            "revision": {"type": "integer"},
            "rows": _array(
                {
                    "type": "object",
                    "properties": {
                        "id": {"type": ["string", "null"]},
                        "prediction": {"type": ["number", "array", "null"]},
                        "decision": {"type": ["boolean", "string", "null"]},
                        "as_of": {"type": "string", "format": "date-time"},
                        "ages": {"type": "object", "description": "seconds from the values of each view to as_of"},
                        "absent": _array({"type": "string"}),
                    },
                }
            ),
        },
    },
}
