"""The server's root over real HTTP: health, metadata, TensorFlow Serving's face, its page, and what is refused."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

FLIGHT = {"share": 0.75, "origin": "EWR", "night": True, "due": "2026-05-01T12:00Z", "note": "x"}


def ask(serves: Any, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON (or text) of a reply."""
    connection = http.client.HTTPConnection(serves.host, serves.port, timeout=30)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    is_json = reply.headers["content-type"] == "application/json" and method != "HEAD"
    return reply.status, json.loads(text) if is_json else text


def get(serves: Any, path: str) -> Any:
    status, body = ask(serves, "GET", path)
    assert status == 200, body
    return body


def test_the_root_tells_health_and_what_there_is(serves: Any) -> None:
    assert get(serves, "/v2")["name"] == "lakeloop"
    assert get(serves, "/v2/health/live") == {"live": True}
    assert get(serves, "/v2/health/ready") == {"live": True, "ready": True}
    assert get(serves, "/v2/models") == {"models": ["kind", "late", "sum"]}
    assert get(serves, "/v2/models/late/versions/3/ready")["version"] == "3"
    assert get(serves, "/v2/models/late")["inputs"][0]["parameters"]["range"] == [0, 1]
    assert ask(serves, "HEAD", "/v2/health/ready")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/late/nothing", 404),
        ("GET", "/v2/models/late/versions/9", 404),
        ("GET", "/v2/models/late/versions/9/ready", 404),
        ("GET", "/v2/models/late/versions/3/state", 404),
        ("POST", "/v2/models/late/versions/9/infer", 404),
        ("POST", "/v2/models/late/versions//infer", 404),
        ("POST", "/v2/models/late/x/infer", 404),
        ("POST", "/v1/models/late:classify", 404),
        ("GET", "/v1/models/other", 404),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/late", 405),
        ("GET", "/v2/models/late/infer", 405),
        ("GET", "/v1/models/late:predict", 405),
    ],
)
def test_what_is_not_there_is_told(serves: Any, method: str, path: str, status: int) -> None:
    body = {"rows": [FLIGHT]} if method == "POST" else None
    answered, said = ask(serves, method, path, body)
    assert (answered, set(said)) == (status, {"error"})


def test_a_row_and_its_tensors_get_the_same_answer(serves: Any) -> None:
    rows = ask(serves, "POST", "/v2/models/late/infer", {"rows": [FLIGHT]})[1]
    tensors = [
        {"name": "share", "datatype": "FP64", "shape": [1], "data": [0.75]},
        {"name": "origin", "datatype": "BYTES", "shape": [1, 1], "data": [["EWR"]]},
        {"name": "night", "datatype": "BOOL", "shape": [1], "data": [True]},
        {"name": "due", "datatype": "INT64", "shape": [1], "data": [1777636800000000]},
        {"name": "note", "datatype": "BYTES", "shape": [1], "data": [None]},
    ]
    status, answer = ask(serves, "POST", "/v2/models/late/versions/3/infer", {"inputs": tensors, "id": "r7"})
    assert (status, answer["model_name"], answer["model_version"], answer["id"]) == (200, "late", "3", "r7")
    prediction, decision = answer["outputs"]
    assert prediction == {"name": "prediction", "datatype": "FP64", "shape": [1], "data": [0.75]}
    assert decision == {"name": "decision", "datatype": "BOOL", "shape": [1], "data": [True]}
    assert (rows["rows"][0]["prediction"], rows["rows"][0]["decision"]) == (0.75, True)


def test_tensorflow_servings_rows_and_columns(serves: Any) -> None:
    late, total = "/v1/models/late:predict", "/v1/models/sum/versions/1:predict"
    expected = [{"prediction": 0.75, "decision": True}]
    assert ask(serves, "POST", late, {"instances": [FLIGHT]}) == (200, {"predictions": expected})
    columns = {name: [value] for name, value in FLIGHT.items()}
    assert ask(serves, "POST", late, {"inputs": columns, "signature_name": "serving_default"}) == (
        200,
        {"outputs": {"prediction": [0.75], "decision": [True]}},
    )
    named = {"a": [1, 2], "b": [[1.5], [None]], "seats": [1, 1]}
    assert ask(serves, "POST", total, {"inputs": named}) == (200, {"outputs": [3.5, 3.0]})
    assert ask(serves, "POST", total, {"inputs": [[1, 2, 3]]}) == (200, {"outputs": [6.0]})
    assert ask(serves, "POST", total, {"instances": [[1, 2, 3], [1, 1, 1]]}) == (200, {"predictions": [6.0, 3.0]})
    kind = ask(serves, "POST", "/v1/models/kind:predict", {"instances": [{"share": 1, "origin": "EWR"}]})[1]
    assert kind["predictions"] == [{"prediction": [1.0, 0.0, 0.0], "decision": "a"}]


def test_tensorflow_servings_status(serves: Any) -> None:
    one = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert get(serves, "/v1/models/sum")["model_version_status"] == [one]
    assert get(serves, "/v1/models/sum/versions/1")["model_version_status"] == [one]
    assert get(serves, "/v1/models/sum")["ready"] is True
    assert ask(serves, "GET", "/v1/models/sum/versions/2")[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": []},
        {"instances": [[1, 2]]},
        {"instances": [[1, 2, 3], [1]]},
        {"instances": [["a", "b", "c"]]},
        {"instances": 7},
        {"inputs": {}},
        {"inputs": {"a": 7}},
        {"inputs": {"a": [{}]}},
        {"inputs": {"a": [1, "x"]}},
        {"inputs": {"a": [1]}, "instances": [[1, 2, 3]]},
    ],
)
def test_a_wrong_predict_is_400(serves: Any, body: Any) -> None:
    status, said = ask(serves, "POST", "/v1/models/sum:predict", body)
    assert (status, set(said)) == (400, {"error"})


def test_the_openapi_document_is_valid_and_its_examples_are_answered(serves: Any) -> None:
    document = get(serves, "/openapi.json")
    validate(document)
    for name in ("kind", "late", "sum"):
        operation = document["paths"][f"/v2/models/{name}/infer"]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            schema = {**content["schema"], "components": document["components"]}
            jsonschema.validate(example["value"], schema, cls=jsonschema.Draft202012Validator)
            status, answer = ask(serves, "POST", f"/v2/models/{name}/infer", example["value"])
            assert status == 200, answer
            told = operation["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(answer, {**told, "components": document["components"]})
        example = document["paths"][f"/v1/models/{name}:predict"]["post"]["requestBody"]["content"]["application/json"]
        assert ask(serves, "POST", f"/v1/models/{name}:predict", example["examples"]["instances"]["value"])[0] == 200


def test_the_page_needs_nothing_from_elsewhere(serves: Any) -> None:
    page = get(serves, "/docs")
    assert "openapi.json" in page
    assert not any(loaded in page for loaded in ("src=", "@import", "url(", "<link"))


def test_a_header_longer_than_the_body_and_a_cut_body_are_400(serves: Any) -> None:
    path, body = "/v2/models/sum/infer", b'{"inputs": []}'
    for length in ("99", "x", "-1"):
        headers = {"Inference-Header-Content-Length": length}
        assert ask(serves, "POST", path, body, **headers)[0] == 400
    assert ask(serves, "POST", path, b"abc", **{"Content-Encoding": "gzip"})[0] == 400
    assert ask(serves, "POST", path, b"abc", **{"Content-Encoding": "br"})[0] == 415


def test_deep_json_is_400_and_of_a_key_given_twice_the_last_counts(serves: Any) -> None:
    path = "/v2/models/sum/infer"
    assert ask(serves, "POST", path, b'{"rows":' + b"[" * 100_000 + b"]" * 100_000 + b"}")[0] == 400
    twice = b'{"rows": [{"a": 1, "a": 2, "b": 1, "seats": 1}]}'
    assert ask(serves, "POST", path, twice)[1]["rows"][0]["prediction"] == 4.0
    assert ask(serves, "POST", path, b'{"rows": [{"a": NaN, "b": 1, "seats": 1}]}')[0] == 400


def raw(serves: Any, data: bytes) -> bytes:
    """What comes back on a plain connection until it is closed, or nothing more comes."""
    with socket.create_connection((serves.host, serves.port), timeout=30) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
            if b"}" in part:
                break
    return b"".join(parts)


def test_a_body_announced_as_a_gigabyte_is_refused_at_once(serves: Any) -> None:
    head = b"POST /v2/models/sum/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n{"
    reply = raw(serves, head)
    assert reply.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in reply


def test_a_chunked_body_and_one_that_is_expected_are_read(serves: Any) -> None:
    body = b'{"rows": [{"a": 1, "b": 1, "seats": 1}]}'
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    head = b"POST /v2/models/sum/infer HTTP/1.1\r\nHost: x\r\n"
    assert raw(serves, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).startswith(b"HTTP/1.1 200")
    expected = head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection((serves.host, serves.port), timeout=30) as connection:
        connection.sendall(expected)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
