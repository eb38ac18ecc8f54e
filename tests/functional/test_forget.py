"""`lakeloop lake forget`: not one byte of the lake tells the customer any more, and nothing that comes late brings them
back."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest

from lakeloop.functions.build_features import build_features
from lakeloop.functions.forget_entity import find_entity, forget_entity
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.maintain_lake import maintain_lake, maintain_table, table_names
from lakeloop.lakehouse import endpoints, pins, registry, runs
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.features.online import open_snapshot
from lakeloop.lakehouse.forgetting import Entity
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.query.session import Files, Session
from tests.functional.forgetting import START, DAY, World, tellers

CASES = pytest.mark.parametrize(("kind", "value"), [("string", "cust-7f3a9c-SECRET"), ("int64", "90210473")])
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


@CASES
def test_no_byte_of_the_lake_tells_a_forgotten_customer(lake: Lake, kind: str, value: str) -> None:
    world = World(lake, kind, value)
    run = world.fill()
    entity = Entity({"customer_id": value})
    before = tellers(lake, world.typed)
    assert {key.split("/")[0] for key in before} == PLACES
    others = counted(world)

    assert {one.kind for one in find_entity(lake, entity)} >= {"table", "journal", "raw file", "online snapshot"}
    assert tellers(lake, world.typed) == before
    done = forget_entity(lake, entity, why="asked by letter")
    assert done.left == ()
    assert tellers(lake, world.typed) == []
    now = counted(world)
    now["shop/orders"] -= Counter(dict.fromkeys(world.others, 2))  # what lay in landing/ was ingested
    now["lakeloop/predictions.shop.buys"] -= Counter(dict.fromkeys(world.others, 2))  # and the segment folded
    assert now == others

    assert "rows forgotten" in runs.redaction(lake, run)
    assert find_entity(lake, entity) == []
    come_back(world)
    assert tellers(lake, world.typed) == []
    again = forget_entity(lake, entity)
    assert (again.done, again.left) == ((), ())


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
        for version in range(newest.version + 1):
            try:
                old = lake.tables.open(name, version=version)
                assert old is not None
                assert world.value not in str(old.rows().to_pylist())
            except (LakeloopError, OSError) as error:
                assert isinstance(error, LakeloopError) or "not found" in str(error).lower() or "No such" in str(error)
        for pin in pins.pins_of(lake, name):
            assert pinned(lake, pin)


def pinned(lake: Lake, pin: pins.Pin) -> list[dict[str, object]]:
    with Session(lake.store.location(), {"t": Files(pin.uris(lake), pin.columns)}.get) as session:
        return session.run("select * from t").to_pylist()
