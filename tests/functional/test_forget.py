"""`lakeloop lake forget`: not one byte of the lake tells the customer any more, and nothing that comes late brings them
back."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from lakeloop.functions.build_features import build_features
from lakeloop.functions.forget_entity import find_entity, forget_entity
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.maintain_lake import maintain_lake, maintain_table, table_names
from lakeloop.infra.cli.app import app
from lakeloop.lakehouse import applied, endpoints, forgetting, pins, registry, runs
from lakeloop.lakehouse.errors import Invalid, LakeloopError
from lakeloop.lakehouse.features.online import open_snapshot
from lakeloop.lakehouse.features.training_set import training_table
from lakeloop.lakehouse.forgetting import Entity
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.query.session import Files, Session
from lakeloop.lakehouse.scoring.loading import SIGNATURE
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.ray_jobs.dag import TaskEvent, run_tasks
from lakeloop.ray_jobs.training import _Steps
from tests.functional.forgetting import AS_OF, DAY, START, World, tellers

VALUE = "cust-7f3a9c-SECRET"
ENTITY = Entity({"customer_id": VALUE})
CASES = pytest.mark.parametrize(("kind", "value"), [("string", VALUE), ("int64", "90210473")])
PLACES = {"artifacts", "docs", "inbox", "landing", "online", "quarantine", "raw", "tables"}


def counted(world: World) -> dict[str, Counter[str]]:
    """How many rows everybody else has in each table of the lake."""
    found = {}
    for name in table_names(world.lake):
        table = world.lake.table(name)
        assert table is not None
        rows = table.rows()
        column = "customer_id" if "customer_id" in rows.column_names else "id" if "id" in rows.column_names else ""
        if column:
            names = [str(one).split("/")[0] for one in rows.column(column).to_pylist()]
            found[name] = Counter(name for name in names if name != world.value)
    return found


@pytest.mark.parametrize("place", ["folder_lake", pytest.param("s3_lake", marks=pytest.mark.slow)])
@CASES
def test_no_byte_of_the_lake_tells_a_forgotten_customer(
    request: pytest.FixtureRequest, place: str, kind: str, value: str
) -> None:
    lake: Lake = request.getfixturevalue(place)
    world = World(lake, kind, value)
    run = world.fill()
    entity = Entity({"customer_id": value})
    before = tellers(lake, world.typed)
    assert {key.split("/")[0] for key in before} == PLACES
    for ending in (".checkpoint.parquet", "0001.json", ".csv.gz", ".jsonl.zip", ".arrow"):
        assert any(key.endswith(ending) for key in before), ending
    others = counted(world)
    assert {one.kind for one in find_entity(lake, entity)} >= {"table", "journal", "raw file", "online snapshot"}
    assert tellers(lake, world.typed) == before

    done = forget_entity(lake, entity, why=f"customer_id={value} asked by letter")
    assert done.left == ()
    assert tellers(lake, world.typed) == []
    now = counted(world)
    now["shop/orders"] -= Counter(dict.fromkeys(world.others, 2))  # what lay in landing/ was ingested
    now["lakeloop/predictions.shop.buys"] -= Counter(dict.fromkeys(world.others, 2))  # and the segment folded
    assert now == others
    assert "rows forgotten" in runs.redaction(lake, run)


@pytest.mark.parametrize("place", ["folder_lake", pytest.param("s3_lake", marks=pytest.mark.slow)])
@CASES
def test_nothing_brings_a_forgotten_customer_back(
    request: pytest.FixtureRequest, place: str, kind: str, value: str
) -> None:
    world = World(request.getfixturevalue(place), kind, value)
    lake, entity = world.lake, Entity({"customer_id": value})
    world.fill()
    forget_entity(lake, entity)
    come_back(world)
    assert tellers(lake, world.typed) == []
    assert find_entity(lake, entity) == []
    again = forget_entity(lake, entity)
    assert (again.done, again.left) == ((), ())


@pytest.fixture
def s3_lake(bucket: str) -> Lake:
    return open_lake(f"s3://{bucket}/some/prefix", who="tester")


def come_back(world: World) -> None:
    """Everything once more, and every way to older states."""
    lake, project = world.lake, world.project()
    world.arrive()
    land(lake, project, "orders", "late.csv", world.orders(400, wrong=True))
    ingest_data(lake, project)
    world.predictions("log-2", 100)
    world.predictions("late", 100)
    assert world.value not in str(lake.sql("select * from lakeloop.predictions").to_pylist())
    maintain_lake(lake, fold_at=1)
    lake.journal("predictions.shop.buys").fold(grace_s=-1)
    build_features(lake, project, as_of=START + 3 * DAY)
    for name in table_names(lake):
        maintain_table(lake, name, now=True)
        newest = lake.table(name)
        assert newest is not None
        assert all(world.value not in as_it_was(lake, name, version) for version in range(newest.version + 1))
        for pin in pins.pins_of(lake, name):
            assert pinned(lake, pin)


def as_it_was(lake: Lake, name: str, version: int) -> str:
    """All rows of an older version; nothing when its files or its log are gone."""
    with suppress(LakeloopError, OSError):
        table = lake.tables.open(name, version=version)
        assert table is not None
        return str(table.rows().to_pylist())
    return ""


def pinned(lake: Lake, pin: pins.Pin) -> list[dict[str, object]]:
    with Session(lake.store.location(), {"t": Files(pin.uris(lake), pin.columns)}.get) as session:
        return session.run("select * from t").to_pylist()


@pytest.fixture
def world(folder_lake: Lake) -> World:
    return World(folder_lake, "string", VALUE)


def test_a_run_is_made_again_without_the_rows(world: World) -> None:
    run, lake = world.fill(), world.lake
    forget_entity(lake, ENTITY)
    opened = runs.get_run(lake, run)
    steps = _Steps(lake, opened, lambda event: None)
    events: list[TaskEvent] = []
    done = run_tasks(lake, opened, steps.tasks()[:3], events.append)
    assert [event.task for event in events if event.status == "reused"] == ["pull"]
    kept = done["split"]["table"]
    rows = pq.read_table(pa.BufferReader(lake.artifacts.get(kept["key"], kept["sha256"])))
    assert rows.num_rows == 2 * 2 * len(world.others)
    wanted = {name: pins.find_pin(lake, name, version) for name, version in done["pull"]["versions"].items()}
    again, _ = training_table(lake, world.project(), "buys", opened.as_of, wanted)
    assert sorted(again.column("id").to_pylist()) == sorted(rows.column("id").to_pylist())
    scores = registry.version(lake, "shop", "buys", 1).body["artifacts"][0]
    assert pq.read_table(pa.BufferReader(lake.artifacts.get(scores["key"], scores["sha256"]))).num_rows == rows.num_rows
    assert tellers(lake, VALUE) == []


def test_an_endpoint_is_given_a_snapshot_without_the_customer(world: World) -> None:
    world.fill()
    forget_entity(world.lake, ENTITY)
    served = endpoints.endpoint(world.lake, "shop", "buys")
    assert served is not None
    lookup = open_snapshot(world.lake, *(served.body["snapshots"]["spend"][name] for name in ("key", "sha256")))
    assert lookup.at((VALUE,), AS_OF) == (None, None)
    assert lookup.at(("cust-0001",), AS_OF)[0] == {"price": 14.5}


def test_what_does_not_hold_the_customer_is_left_alone(world: World) -> None:
    world.fill()
    table = world.lake.tables.open_or_create("other/things", pa.schema([("thing", pa.string())]))
    table.append(pa.table({"thing": ["a"]}))
    world.lake.store.put("raw/other/things/2026-01-01/x/things.csv", b"thing\na\n")
    before = {e.key: world.lake.store.get(e.key) for e in world.lake.store.list() if "/other/things/" in e.key}
    forget_entity(world.lake, ENTITY)
    assert {e.key: world.lake.store.get(e.key) for e in world.lake.store.list() if "/other/things/" in e.key} == before


def test_what_a_model_has_learnt_is_named_and_stays(world: World) -> None:
    lake = world.lake
    world.fill()
    learnt = Signature(
        "binary", (Input("customer_id", "request", "category", "category", values=(VALUE,)),), (), ("0", "1"), "1"
    )
    kept = lake.artifacts.put("runs", "other", SIGNATURE, learnt.to_bytes())
    registry.register(lake, "shop", "buys", "other", {"artifacts": [kept.to_json()], "metrics": [], "lineage": {}})
    done = forget_entity(lake, ENTITY)
    assert [one.cannot for one in done.left] == [
        "version 2 of shop.buys has learnt the value (signature.json): "
        "retrain it without the rows, then retire this version"
    ]
    assert tellers(lake, VALUE) == [kept.key]


def test_an_entity_of_two_columns_is_told_by_both(world: World) -> None:
    lake = world.lake
    world.fill()
    found = forget_entity(lake, Entity({"customer_id": VALUE, "order_id": "o112"}))
    assert found.left == ()
    table = lake.table("shop/orders")
    assert table is not None
    rows = table.rows().to_pylist()
    ours = sorted(row["order_id"] for row in rows if row["customer_id"] == VALUE)
    assert ours == ["o12", "o125", "o212", "o225", "o25"]
    land(lake, world.project(), "orders", "again.csv", world.orders(100))
    [again] = [one for one in ingest_data(lake, world.project()) if one.file == "again.csv"]
    assert (again.rows, again.forgotten) == (25, 1)


def test_the_same_file_is_known_again_by_the_bytes_it_landed_with(world: World) -> None:
    lake, project = world.lake, world.project()
    applied.publish(lake, project, code_version="1")
    land(lake, project, "orders", "first.csv", world.orders(0))
    ingest_data(lake, project)
    forget_entity(lake, ENTITY)
    for _ in range(2):
        land(lake, project, "orders", "first.csv", world.orders(0))
        land(lake, project, "orders", "new.csv", world.orders(100))
        ingest_data(lake, project)
    table = lake.table("shop/orders")
    assert table is not None
    assert Counter(table.rows().column("customer_id").to_pylist()) == dict.fromkeys(world.others, 4)


def test_the_command_asks_and_says_what_it_did(world: World) -> None:
    trained = world.fill()
    run = CliRunner()

    def said(*words: str, answer: str = "", noun: str = "lake", verb: str = "forget") -> Result:
        return run.invoke(app, [noun, verb, *words, "--lake", world.lake.url], input=answer)

    wrong = said("costumer_id=1")
    assert isinstance(wrong.exception, Invalid)
    assert "did you mean customer_id" in str(wrong.exception)
    assert isinstance(said("customer_id").exception, Invalid)
    before = tellers(world.lake, VALUE)
    refused = said(f"customer_id={VALUE}", answer="n\n")
    assert refused.exit_code == 1
    assert "raw file" in refused.output
    assert tellers(world.lake, VALUE) == before
    done = said(f"customer_id={VALUE}", "--yes", "--json", "--quiet")
    assert done.exit_code == 0
    kinds = {json.loads(line)["kind"] for line in done.stdout.splitlines() if line.startswith("{")}
    assert {"table", "journal", "raw file", "artifact of a run", "online snapshot"} <= kinds
    assert tellers(world.lake, VALUE) == []
    assert "4 rows forgotten" in said(trained, noun="runs", verb="show").output
    with pytest.raises(LakeloopError, match="forgotten"):
        world.lake.sql('select * from "shop.orders@2"')


@pytest.mark.parametrize("columns", [("customer_id",), ("customer_id", "plan")])
def test_predictions_that_hold_a_private_column_as_a_hash_are_found_and_go(
    folder_lake: Lake, columns: tuple[str, ...]
) -> None:
    lake, journal = folder_lake, folder_lake.journal("predictions.shop.buys")
    applied.publish(lake, World(lake, "string", VALUE).project(), code_version="1")
    key = forgetting.secret(lake.store)
    names = [VALUE, "cust-0001", "cust-0002"]

    def log(segment: str) -> None:
        hashes = [forgetting.hashed(key, "customer_id", name) for name in names]
        rows = {"prediction_id": [f"{segment}#{n}" for n in range(3)], "id": ["a", "b", "c"], "plan": ["gold"] * 3}
        journal.append(pa.table({**rows, "customer_id_hash": hashes, "logged_at": [START] * 3}), segment)

    log("log-1")
    journal.fold()
    log("log-2")
    entity = Entity({name: {"customer_id": VALUE, "plan": "gold"}[name] for name in columns})
    if len(columns) == 1:
        assert sum(one.rows for one in find_entity(lake, entity) if one.kind == "journal") >= 1
    assert forget_entity(lake, entity).left == ()
    rows = journal.read()
    assert rows is not None
    assert Counter(rows["id"].to_pylist()) == {"b": 2, "c": 2}
    if len(columns) == 1:  # what comes late is told by one private column only
        log("late")
        journal.fold(grace_s=-1)
        rows = journal.read()
        assert rows is not None
        assert Counter(rows["id"].to_pylist()) == {"b": 3, "c": 3}
