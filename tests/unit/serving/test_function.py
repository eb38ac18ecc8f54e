"""The function: events in, answers out, each logged before it leaves; endpoints that are followed without a thread."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lakeloop.lakehouse import tokens
from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.prediction_log import LogPolicy
from lakeloop.lakehouse.testing import FaultyStore
from lakeloop.ray_jobs.serving.function import Endpoints, Function, request_of
from lakeloop.ray_jobs.serving.loading import load_with

ROW = {"share": 0.75, "origin": "EWR", "id": "a"}


def event(path: str, body: Any = None, *, method: str = "", stage: str = "$default", **headers: str) -> dict[str, Any]:
    """As a function URL sends it."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "requestContext": {"http": {"method": method or ("POST" if raw else "GET"), "path": path}, "stage": stage},
        "body": base64.b64encode(raw).decode() if isinstance(body, bytes) else raw.decode(),
        "isBase64Encoded": isinstance(body, bytes),
    }


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lake(folder_lake: Lake) -> Lake:
    folder_lake.documents.create("endpoints", "flights.late", body(3))
    return folder_lake


def body(version: int) -> dict[str, Any]:
    arms = [{"name": "champion", "version": version, "weight": 10_000}]
    return {"model": "late", "wanted": version, "arms": arms, "snapshots": {}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made(scorer: Callable[..., Any], clock: Clock) -> Callable[[Lake], Function]:
    """A function over a lake, whose versions are the scorer of the tests."""

    def load(lake: Lake, project: str, endpoint: str, revision: Any, previous: Any) -> Any:
        return load_with(lambda _l, _p, _m, version, _s: scorer(version), lake, project, endpoint, revision, previous)

    return lambda lake: Function(Endpoints(lake, "flights", load=load, follow_s=2, monotonic=clock))


def said(answer: dict[str, Any]) -> Any:
    return json.loads(answer["body"])


def logged(lake: Lake) -> list[dict[str, Any]]:
    rows = lake.journal("predictions.flights.late").read()
    return [] if rows is None else rows.to_pylist()


def test_an_event_is_answered_and_its_rows_are_in_the_lake_before(lake: Lake, made: Callable[[Lake], Function]) -> None:
    answer = made(lake).handle(event("/v2/models/late/infer", {"rows": [ROW], "id": "r1"}))
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    assert answer["headers"]["content-type"] == "application/json"
    assert (said(answer)["version"], said(answer)["rows"][0]["prediction"]) == (3, 0.75)
    (row,) = logged(lake)
    assert (row["prediction_id"], row["prediction"], row["temp"]) == ("r1#0", 0.75, 7.5)


def test_a_body_in_base64_and_tensors_in_binary_go_both_ways(lake: Lake, made: Callable[[Lake], Function]) -> None:
    inputs = [
        {"name": "share", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
        {"name": "origin", "datatype": "BYTES", "shape": [2], "data": ["EWR", "JFK"]},
        {"name": "temp", "datatype": "FP64", "shape": [2], "data": [1.0, 2.0]},
    ]
    outputs = [{"name": "prediction", "parameters": {"binary_data": True}}]
    header = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    raw = header + np.array([0.25, 0.5], np.float32).tobytes()
    length = {"inference_header_content_length": str(len(header))}
    answer = made(lake).handle(event("/v2/models/late/infer", raw, **length))
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, True), answer
    data = base64.b64decode(answer["body"])
    head = int(answer["headers"]["inference-header-content-length"])
    assert json.loads(data[:head])["outputs"][0]["name"] == "prediction"
    assert len(logged(lake)) == 2


def test_the_servers_own_paths_answer_too(lake: Lake, made: Callable[[Lake], Function]) -> None:
    function = made(lake)
    assert said(function.handle(event("/v2/health/ready"))) == {"live": True, "ready": True}
    assert said(function.handle(event("/prod/v2/models/late", stage="prod")))["versions"] == ["3"]
    unknown = function.handle(event("/v2/models/later/infer", {"rows": [ROW]}))
    assert (unknown["statusCode"], "late" in said(unknown)["error"]) == (404, True)
    assert function.handle(event("/v2/models/../infer", {"rows": [ROW]}))["statusCode"] == 404


def test_an_endpoint_with_tokens_asks_for_one_and_a_revoked_one_opens_nothing(
    lake: Lake, made: Callable[[Lake], Function], clock: Clock
) -> None:
    secret, _ = tokens.create(lake, "flights", "late", "app")
    function = made(lake)
    asked = event("/v2/models/late/infer", {"rows": [ROW]})
    allowed = {**asked, "headers": {"Authorization": f"Bearer {secret}"}}
    assert function.handle(asked)["statusCode"] == 401
    assert function.handle(allowed)["statusCode"] == 200
    tokens.revoke(lake, "flights", "late", "app")
    clock.now += 3
    assert function.handle(allowed)["statusCode"] == 401
    assert len(logged(lake)) == 1


def test_an_event_of_another_kind_is_refused_in_words(lake: Lake, made: Callable[[Lake], Function]) -> None:
    for wrong in ({}, {"Records": []}, event("/v2") | {"isBase64Encoded": True, "body": "%"}):
        answer = made(lake).handle(wrong)
        assert answer["statusCode"] == 400
        assert "payload format 2.0" in said(answer)["error"]


def test_a_promotion_is_followed_once_the_last_look_is_old(
    lake: Lake, made: Callable[[Lake], Function], clock: Clock
) -> None:
    function, ask = made(lake), event("/v2/models/late/infer", {"rows": [ROW]})
    assert said(function.handle(ask))["version"] == 3
    lake.documents.update(lake.documents.get("endpoints", "flights.late"), body(4))
    clock.now = 1.9
    assert said(function.handle(ask))["version"] == 3
    clock.now = 2.0
    assert said(function.handle(ask))["version"] == 4


def test_without_its_log_there_is_no_answer_and_a_repeat_counts_once(
    lake: Lake, made: Callable[[Lake], Function]
) -> None:
    ask = event("/v2/models/late/infer", {"rows": [ROW], "id": "r1"})
    counted = FaultyStore(lake.store)
    assert made(Lake(counted, "tester")).handle(ask)["statusCode"] == 200
    last = len(counted.calls)
    assert counted.calls[-1].startswith("put inbox/")
    faulty = FaultyStore(lake.store, last, "after", Unavailable("made to fail"))
    function = made(Lake(faulty, "tester"))
    refused = function.handle(ask)
    assert refused["statusCode"] == 503
    assert "could not be logged" in said(refused)["error"]
    assert function.handle(ask)["statusCode"] == 200
    assert {row["prediction_id"] for row in logged(lake)} == {"r1#0"}


def test_an_endpoint_that_cannot_be_loaded_says_why_and_is_tried_again(
    lake: Lake, made: Callable[[Lake], Function]
) -> None:
    faulty = FaultyStore(lake.store, 2, "before", Unavailable("made to fail"))
    function = made(Lake(faulty, "tester"))
    ask = event("/v2/models/late/infer", {"rows": [ROW]})
    refused = function.handle(ask)
    assert (refused["statusCode"], "made to fail" in said(refused)["error"]) == (503, True)
    assert function.handle(ask)["statusCode"] == 200


def test_paths_are_decoded_and_headers_are_bytes() -> None:
    scope, raw = request_of(event("/v2/models/a%20b", b"\x00", Content_Type="x"))
    assert (scope["path"], raw, scope["headers"]) == ("/v2/models/a b", b"\x00", [(b"content-type", b"x")])


def test_what_the_endpoint_keeps_private_is_not_logged(lake: Lake, made: Callable[[Lake], Function]) -> None:
    there = lake.documents.get("endpoints", "flights.late")
    lake.documents.update(there, {**body(3), "log": LogPolicy(drop=frozenset({"origin"})).to_json()})
    assert made(lake).handle(event("/v2/models/late/infer", {"rows": [ROW]}))["statusCode"] == 200
    (row,) = logged(lake)
    assert "origin" not in row
    assert row["share"] == 0.75


def test_a_request_without_a_trace_has_not_that_of_the_one_before(lake: Lake, made: Callable[[Lake], Function]) -> None:
    function, trace = made(lake), "4bf92f3577b34da6a3ce929d0e0e4736"
    traced = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    assert function.handle(event("/v2/models/late/infer", {"rows": [ROW], "id": "a"}, **traced))["statusCode"] == 200
    assert function.handle(event("/v2/models/late/infer", {"rows": [ROW], "id": "b"}))["statusCode"] == 200
    assert {row["request_id"]: row["trace_id"] for row in logged(lake)} == {"a": trace, "b": None}
