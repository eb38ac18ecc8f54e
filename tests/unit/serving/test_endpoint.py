"""The endpoint's HTTP face, called as an ASGI server would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pytest

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.asgi import BODY_BYTES
from lakeloop.ray_jobs.serving.endpoint import Endpoint
from lakeloop.ray_jobs.serving.inference import ROWS_INLINE, Inference
from lakeloop.ray_jobs.serving.limits import MOST_ROWS
from lakeloop.ray_jobs.serving.write_ahead import Logged, Shape

ROW = {"share": 0.75, "origin": "EWR"}


@dataclass
class Caller:
    """An endpoint and what it logged."""

    loaded: Loaded
    now: datetime
    logged: list[tuple[Shape, Logged]] = field(default_factory=list)
    full: bool = False
    sent: list[MutableMapping[str, Any]] = field(default_factory=list)
    counted: list[tuple[int, int]] = field(default_factory=list)

    def append(self, shape: Shape, request: Logged) -> None:
        if self.full:
            raise Unavailable("the prediction could not be logged (no space left)")
        assert not self.sent, "logged after the answer began"
        self.logged.append((shape, request))

    def call(self, method: str, path: str, body: Any = b"", chunks: int = 1) -> tuple[int, Any]:
        inference = Inference(
            "flights",
            "late",
            loaded=lambda: self.loaded,
            append=self.append,
            state=lambda: {"pending": 0},
            clock=lambda: self.now,
            count=lambda status, rows, seconds: self.counted.append((status, rows)),
        )
        endpoint = Endpoint(inference)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        size = max(1, -(-len(data) // chunks))
        parts = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        messages = iter(
            [{"type": "http.request", "body": part, "more_body": at < len(parts) - 1} for at, part in enumerate(parts)]
        )

        async def receive() -> MutableMapping[str, Any]:
            return next(messages)

        async def send(message: MutableMapping[str, Any]) -> None:
            self.sent.append(message)

        self.sent = []
        root = "/v2/models/late"
        scope = {"type": "http", "method": method, "path": root + path, "root_path": root, "headers": []}
        asyncio.run(endpoint(scope, receive, send))
        return self.sent[0]["status"], json.loads(self.sent[1]["body"])

    def infer(self, *rows: Any, **more: Any) -> tuple[int, Any]:
        return self.call("POST", "/infer", {"rows": list(rows), **more})


@pytest.fixture
def caller(loaded: Callable[..., Loaded], now: datetime) -> Caller:
    return Caller(loaded(), now)


def test_an_answer_names_prediction_version_revision_ages_and_what_was_absent(caller: Caller) -> None:
    status, answer = caller.infer({**ROW, "id": "UA-1"}, {"share": 0.1, "origin": "JFK"}, id="r1")
    assert status == 200
    assert (answer["id"], answer["model"], answer["version"], answer["revision"]) == ("r1", "late", 3, 5)
    assert answer["rows"][0] == {
        "id": "UA-1",
        "prediction": 0.75,
        "decision": True,
        "as_of": "2026-05-01T12:00:00Z",
        "ages": {"weather": 3600.0},
        "absent": [],
    }
    assert (answer["rows"][1]["ages"], answer["rows"][1]["absent"]) == ({"weather": None}, ["temp"])


def test_rows_are_logged_before_the_answer_begins(caller: Caller) -> None:
    caller.infer({**ROW, "temp": 3}, ROW, id="r1")
    ((shape, logged),) = caller.logged
    assert shape == Shape("flights", "late", (("share", "float32"), ("origin", "category"), ("temp", "float64")))
    assert (logged.request_id, logged.version, logged.arm, logged.revision) == ("r1", 3, "champion", 5)
    assert [row["given"] for row in logged.rows] == [["temp"], []]
    assert logged.rows[1]["inputs"] == {"share": 0.75, "origin": "EWR", "temp": 7.5}
    assert logged.rows[0]["decision"] == "true"
    assert logged.latency_ms > 0


def test_a_log_that_cannot_be_written_is_503_and_no_answer(caller: Caller) -> None:
    caller.full = True
    status, answer = caller.infer(ROW)
    assert status == 503
    assert "could not be logged" in answer["error"]


def test_a_request_without_an_id_gets_one_of_its_own(caller: Caller) -> None:
    ids = {caller.infer(ROW)[1]["id"] for _ in range(20)}
    assert len(ids) == 20


def test_as_of_of_a_row_is_answered_and_logged(caller: Caller) -> None:
    answer = caller.infer({**ROW, "as_of": "2013-07-01T12:30Z"})[1]
    assert answer["rows"][0]["as_of"] == "2013-07-01T12:30:00Z"
    assert caller.logged[0][1].rows[0]["as_of"].year == 2013


def test_a_multiclass_answer_logs_the_class_its_probability_and_all_scores(multiclass: Loaded, now: datetime) -> None:
    caller = Caller(multiclass, now)
    answer = caller.infer({"share": 0.25})[1]["rows"][0]
    assert (answer["decision"], answer["prediction"]) == ("b", [0.25, 0.75])
    row = caller.logged[0][1].rows[0]
    assert (row["decision"], row["prediction"], row["scores"]) == ("b", 0.75, [0.25, 0.75])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        ({}, "'rows' is not a list"),
        ({"rows": []}, "at least one row"),
        ({"rows": [1]}, "row 0 is not an object"),
        ({"row": [ROW]}, "did you mean 'rows'"),
        ({"rows": [ROW], "id": 7}, "'id' is not a text"),
        ({"rows": [ROW, {"share": 2}]}, "row 1: share: 2 is out of range; allowed is 0 to 1"),
        ({"rows": [{"origin": "EWR"}]}, "share is missing"),
        ({"rows": [{**ROW, "orgin": "EWR"}]}, "did you mean 'origin'"),
    ],
)
def test_a_wrong_request_is_400_and_says_what_is_allowed(caller: Caller, body: Any, said: str) -> None:
    status, answer = caller.call("POST", "/infer", body)
    assert status == 400
    assert said in answer["error"]
    assert caller.logged == []


def test_all_faults_of_a_request_are_told(caller: Caller) -> None:
    said = caller.infer({"share": 2}, {"share": "x"})[1]["error"]
    assert "row 0" in said
    assert "row 1" in said


def test_too_many_rows_and_too_large_a_body_are_413(caller: Caller) -> None:
    assert caller.infer(*[ROW] * (MOST_ROWS + 1))[0] == 413
    assert caller.call("POST", "/infer", b" " * (BODY_BYTES + 1), chunks=64)[0] == 413
    assert caller.logged == []


def test_a_body_in_many_chunks_is_put_together(caller: Caller) -> None:
    assert caller.call("POST", "/infer", {"rows": [ROW] * 50}, chunks=20)[0] == 200


def test_unknown_paths_are_404_and_wrong_methods_405(caller: Caller) -> None:
    assert caller.call("GET", "/versions/3/nothing")[0] == 404
    assert caller.call("GET", "/infer")[0] == 405
    assert (b"allow", b"POST") in caller.sent[0]["headers"]
    assert caller.call("POST", "/ready")[0] == 405


def test_health_metadata_and_state_are_told(caller: Caller) -> None:
    assert caller.call("GET", "/ready") == (200, {"name": "late", "live": True, "ready": True})
    assert caller.call("GET", "/live")[0] == 200
    metadata = caller.call("GET", "")[1]
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("late", ["3"], "lakeloop")
    assert metadata["inputs"][0] == {
        "name": "share",
        "datatype": "FP32",
        "shape": [-1],
        "parameters": {"type": "float32", "role": "request", "optional": False, "range": [0, 1]},
    }
    assert [one["name"] for one in metadata["outputs"]] == ["prediction", "decision"]
    state = caller.call("GET", "/state")[1]
    assert (state["revision"], state["arms"][0]["version"], state["pending"]) == (5, 3, 0)


def test_a_model_that_breaks_is_500_with_an_error_and_nothing_is_logged(caller: Caller, loaded: Any) -> None:
    class Broken:
        def answer(self, rows: Any, now: Any, marks: Any = None) -> Any:
            raise ZeroDivisionError

    caller.loaded = Loaded("late", 5, (Arm("champion", 3, 10_000, Broken()),))  # type: ignore[arg-type]
    status, answer = caller.infer(ROW)
    assert status == 500
    assert set(answer) == {"error"}
    assert caller.logged == []


def test_health_is_answered_while_many_rows_are_scored(loaded: Callable[..., Loaded], now: datetime) -> None:
    import threading

    released, entered = threading.Event(), threading.Event()
    whole = loaded().champion.scorer

    class Slow:
        signature = whole.signature

        def answer(self, rows: Any, at: datetime, marks: list[float]) -> Any:
            entered.set()
            assert released.wait(30)
            return whole.answer(rows, at, marks)

    serving = Loaded("late", 5, (Arm("champion", 3, 10_000, Slow()),))  # type: ignore[arg-type]
    endpoint = Endpoint(
        Inference("flights", "late", loaded=lambda: serving, append=lambda *_: None, state=dict, clock=lambda: now)
    )

    async def one(method: str, path: str, body: bytes) -> int:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await endpoint({"method": method, "path": path, "headers": []}, receive, send)
        return int(sent[0]["status"])

    async def both() -> tuple[int, int]:
        body = json.dumps({"rows": [ROW] * (ROWS_INLINE + 1)}).encode()
        scoring = asyncio.create_task(one("POST", "/infer", body))
        while not entered.is_set() and not scoring.done():
            await asyncio.sleep(0.001)
        health = await one("GET", "/ready", b"")
        released.set()
        return health, await scoring

    assert asyncio.run(both()) == (200, 200)


def test_every_request_for_an_inference_is_counted_by_its_status_and_rows(caller: Caller) -> None:
    caller.infer(ROW, ROW)
    caller.infer({"share": 2})
    caller.call("GET", "/infer")
    caller.call("GET", "/ready")
    assert caller.counted == [(200, 2), (400, 0), (405, 0)]


class SecondColumn:
    """Two classes, of which it gives a column, as `predict_proba(X)[:, 1]` does; three as a transposed array."""

    def predict(self, model: Any, matrix: Matrix) -> np.ndarray:
        share = matrix.values[:, 0].astype(float)
        return np.stack([1 - share, share], axis=1)[:, 1] if model == "two" else np.stack([share, share, share]).T


@pytest.mark.parametrize(("model", "problem"), [("two", "binary"), ("three", "multiclass")])
def test_a_model_may_give_a_view_of_its_array(now: datetime, model: str, problem: Any) -> None:
    inputs = (Input("share", "request", "float64", "number"),)
    classes = ("false", "true") if model == "two" else ("a", "b", "c")
    signature = Signature(problem, inputs, classes=classes, positive="true" if model == "two" else "")
    arm = Arm("champion", 1, 10_000, Scorer(signature, SecondColumn(), model, None, {}, 1))
    caller = Caller(Loaded("late", 1, (arm,)), now)
    share = {"name": "share", "datatype": "FP64", "shape": [2], "data": [0.25, 0.75]}
    status, answer = caller.call("POST", "/infer", {"inputs": [share]})
    assert status == 200, answer
    wanted = [0.25, 0.75] if model == "two" else [0.25] * 3 + [0.75] * 3
    assert answer["outputs"][0]["data"] == wanted
    assert orjson.loads(caller.logged[0][1].line())["n"] == 2
