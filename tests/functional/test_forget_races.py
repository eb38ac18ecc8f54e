"""Writers at work while somebody is forgotten: what they read before cannot bring the rows back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lakeloop.functions.build_features import build_features
from lakeloop.functions.forget_entity import forget_entity
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied, pins
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.forgetting import Entity
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.tables import Table
from tests.functional.forgetting import DAY, START, World, tellers

VALUE = "cust-7f3a9c-SECRET"
ENTITY = Entity({"customer_id": VALUE})


@pytest.fixture
def world(folder_lake: Lake) -> World:
    world = World(folder_lake, "string", VALUE)
    applied.publish(world.lake, world.project(), code_version="1")
    return world


@pytest.fixture
def forgotten_before(monkeypatch: pytest.MonkeyPatch, world: World) -> Callable[[str], None]:
    """Somebody forgets the customer, from beginning to end, just before the next commit of this kind."""

    def arm(method: str) -> None:
        real = getattr(Table, method)

        def later(table: Table, rows: Any, **more: Any) -> Any:
            monkeypatch.setattr(Table, method, real)
            forget_entity(world.lake, ENTITY)
            return real(table, rows, **more)

        monkeypatch.setattr(Table, method, later)

    return arm


def only_unnamed_files(lake: Lake) -> None:
    """A commit that is refused leaves the file it wrote: no version names it, and vacuum or the next `forget` deletes
    it."""
    for key in tellers(lake, VALUE):
        _, project, name, path = key.split("/")
        table = lake.table(f"{project}/{name}")
        assert table is not None
        assert path not in {file.path for file in table.data_files()}
    assert forget_entity(lake, ENTITY).left == ()
    assert tellers(lake, VALUE) == []


@pytest.mark.parametrize("there", ["no table", "others' rows", "the customer's rows"])
def test_an_ingest_that_read_the_file_before(world: World, forgotten_before: Callable[[str], None], there: str) -> None:
    lake, project = world.lake, world.project()
    if there != "no table":
        orders = world.orders(0).decode()
        kept = orders if there == "the customer's rows" else "\n".join(x for x in orders.split("\n") if VALUE not in x)
        land(lake, project, "orders", "first.csv", kept.encode())
        ingest_data(lake, project)
    land(lake, project, "orders", "second.csv", world.orders(100, wrong=True))
    forgotten_before("append")
    ingest_data(lake, project)
    table = lake.table("shop/orders")
    assert table is not None
    names = table.rows().column("customer_id").to_pylist()
    assert VALUE not in names
    assert names.count("cust-0003") == (2 if there == "no table" else 4)
    for _ in range(2):
        lake.journal("quarantine").fold(grace_s=-1)
    only_unnamed_files(lake)


def test_a_fold_that_read_the_segment_before(world: World, forgotten_before: Callable[[str], None]) -> None:
    land(world.lake, world.project(), "orders", "first.csv", world.orders(0))
    ingest_data(world.lake, world.project())
    world.predictions("log-1", 0)
    forgotten_before("append")
    journal = world.lake.journal("predictions.shop.buys")
    journal.fold()
    journal.fold()
    rows = journal.read()
    assert rows is not None
    ids = [str(one).split("/")[0] for one in rows.column("id").to_pylist()]
    assert ids.count(VALUE) == 0
    assert ids.count("cust-0003") == 2
    only_unnamed_files(world.lake)


def test_a_build_that_read_its_inputs_before(world: World, forgotten_before: Callable[[str], None]) -> None:
    lake, project = world.lake, world.project()
    for number, name in enumerate(("first.csv", "second.csv")):
        land(lake, project, "orders", name, world.orders(100 * number))
        ingest_data(lake, project)
        if not number:
            build_features(lake, project, as_of=START + DAY)
    forgotten_before("overwrite")
    build_features(lake, project, as_of=START + 2 * DAY)
    build_features(lake, project, as_of=START + 2 * DAY)
    table = lake.table("shop/spend")
    assert table is not None
    names = table.rows().column("customer_id").to_pylist()
    assert (names.count(VALUE), names.count("cust-0003")) == (0, 4)
    only_unnamed_files(lake)


def test_a_run_that_asked_for_the_rows_before_gets_none(world: World) -> None:
    lake, project = world.lake, world.project()
    land(lake, project, "orders", "first.csv", world.orders(0))
    ingest_data(lake, project)
    table = lake.table("shop/orders")
    assert table is not None
    pin = pins.pin_of(table)
    forget_entity(lake, ENTITY)
    with pytest.raises(LakeloopError, match="are gone"):
        pins.hold(lake, pin, "run-1")
