"""`lakeloop predictions list | show`: every answer can be explained, from its inputs to who approved its model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lakeloop.functions.gate_model import promote
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.infra.cli.app import app
from lakeloop.lakehouse import applied, endpoints, forgetting, registry
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.prediction_log import LogPolicy
from lakeloop.lakehouse.project import parse_project
from lakeloop.lakehouse.scoring.loading import SIGNATURE
from lakeloop.lakehouse.scoring.signature import Input, Signature, ViewUse
from lakeloop.ray_jobs.serving.arms import Loaded
from lakeloop.ray_jobs.serving.recorder import Recorder
from lakeloop.ray_jobs.serving.shipper import ship
from lakeloop.ray_jobs.serving.write_ahead import Logged, Shape, WriteAhead
from tests.functional.functions.conftest import FILES, START

AT = datetime(2024, 3, 5, 12, tzinfo=UTC)
INPUTS = (
    Input("clicks", "request", "float32", "number"),
    Input("customer", "request", "string", "string", column=False),
    Input("spend", "feature", "float64", "number"),
    Input("visits", "feature", "float64", "number"),
)
VIEWS = (ViewUse("habits", "habits", "v1", (("customer", "customer"),), (("spend", "spend"), ("visits", "visits"))),)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def shop(folder_lake: Lake, tmp_path: Path) -> Lake:
    """A version that waited for its approval, has it, and answered two rows, of whom one has its label."""
    lake = folder_lake
    project = parse_project(FILES)
    applied.publish(lake, project, code_version="abc123")
    signature = Signature("binary", INPUTS, VIEWS, ("false", "true"), "true", threshold=0.4)
    kept = lake.artifacts.put("runs", "run-1", SIGNATURE, signature.to_bytes())
    lineage = {"tables": {"shop/visits": 7}, "views": {"habits": "v1"}, "code_version": "abc123"}
    body = {"artifacts": [kept.to_json()], "metrics": [], "lineage": lineage, "params": {"depth": 3}}
    registry.register(lake, "shop", "buys", "run-1", {**body, "run": "run-1", "model_hash": "h" * 64})
    registry.set_status(lake, "shop", "buys", 1, "waiting", "approval by model-owner")
    promote(replace(lake, who="ada"), "shop", "buys", 1, expected=None, why="good enough", by_hand=True)
    there = endpoints.endpoint(lake, "shop", "buys")
    assert there is not None
    serving = endpoints.serve(lake, there, 1, {"habits": {"version": 12, "key": "k", "sha256": "s"}}, "champion")

    key = forgetting.secret(lake.store)
    policy = LogPolicy(sample=0.999999, hash=frozenset(["customer"]))
    writer = WriteAhead(tmp_path / "log")
    recorder = Recorder(writer, lambda: Loaded("buys", serving.number, (), log=policy, log_key=key))
    rows = [row("o1", given=["spend"]), row("o2", absent=["visits"])]
    logged = Logged("req-1", AT, "buys", 1, "champion", serving.number, 1.25, rows)
    logged = replace(logged, parts_ms=(0.25, 0.5, 0.5), feature_versions={"habits": 12}, trace_id=TRACE)
    recorder.append(Shape("shop", "buys", tuple((one.name, one.type) for one in INPUTS)), logged)
    writer.close()
    ship(tmp_path / "log", lake.journal)
    land(lake, project, "visits", "v.csv", f"id,seen,clicks,bought,known\no1,{START},3,true,{AT}\n".encode())
    ingest_data(lake, project)
    return lake


def row(name: str, **given: Any) -> dict[str, Any]:
    said = {"id": name, "as_of": AT, "prediction": 0.75, "decision": "true", "scores": None, "ages": {"habits": 600.0}}
    inputs = {"clicks": 3.0, "customer": "c-17", "spend": 9.5, "visits": None}
    return {**said, "absent": [], "given": [], "inputs": inputs, **given}


@pytest.fixture
def run(shop: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["predictions", *words, "--lake", shop.url])


def test_an_answer_is_explained_from_its_inputs_to_who_approved_its_model(run: Any, shop: Lake) -> None:
    ended = run("show", "req-1#0", "--json")
    assert ended.exit_code == 0, ended.output
    why = json.loads(ended.stdout)
    answer, model = why["answer"], why["model"]
    assert (answer["id"], answer["prediction"], answer["decision"], answer["threshold"]) == ("o1", 0.75, "true", 0.4)
    assert (answer["label"], answer["label_known_at"][:16].replace("T", " ")) == (True, "2024-03-05 12:00")
    assert [answer[name] for name in ("latency_ms", "read_ms", "lookup_ms", "predict_ms")] == [1.25, 0.25, 0.5, 0.5]
    assert (answer["trace_id"], answer["sample_rate"]) == (TRACE, 0.999999)
    hashed = forgetting.hashed(forgetting.secret(shop.store), "customer", "c-17")
    assert why["inputs"] == {
        "clicks": {"value": 3.0, "from": "the caller"},
        "customer": {"value": hashed, "from": "the caller, as a hash"},
        "spend": {"value": 9.5, "from": "the caller"},
        "visits": {"value": None, "from": "the online store"},
    }
    assert (why["ages_s"], why["feature_versions"]) == ({"habits": 600.0}, {"habits": 12})
    assert (model["version"], model["arm"], model["run"]) == (1, "champion", "run-1")
    assert (model["promoted_by"], model["because"], model["approved_by"]) == ("ada", "good enough", "ada")
    assert (why["lineage"]["code_version"], why["lineage"]["tables"]) == ("abc123", {"shop/visits": 7})
    assert why["parameters"] == {"depth": 3}


def test_an_id_of_a_row_or_a_request_finds_an_answer_and_a_person_reads_it_in_four_parts(run: Any) -> None:
    by_row = run("show", "o2")
    assert by_row.exit_code == 0, by_row.output
    for part in ("the answer", "what the model saw", "who answered, and why it may", "what it was made from"):
        assert part in by_row.stdout
    for word in ("absent", "10 min old, snapshot of version 12", "approved by", "ada", TRACE, "0.25", "abc123"):
        assert word in by_row.stdout, word
    assert json.loads(run("show", "req-1", "--json").stdout)["answer"]["prediction_id"] == "req-1#0"


def test_what_is_not_logged_is_said_to_be_so_with_the_way_out(run: Any) -> None:
    ended = run("show", "nobody")
    assert isinstance(ended.exception, NotFound)
    assert "no prediction 'nobody' is logged" in str(ended.exception)
    assert "predictions list" in ended.exception.todo
    listed = run("list", "buys", "--json")
    assert [json.loads(line)["prediction_id"] for line in listed.stdout.splitlines()] == ["req-1#0", "req-1#1"]
