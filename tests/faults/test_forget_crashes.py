"""`forget` that fails at any call to the store: a reader sees each table as it was or as it will be, and the next call
completes it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lakeloop.functions.build_features import build_features
from lakeloop.functions.forget_entity import forget_entity
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied, forgetting, pins
from lakeloop.lakehouse.errors import LakeloopError, Unavailable
from lakeloop.lakehouse.forgetting import Entity
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.testing import FaultyStore, When, lost_answer
from tests.functional.forgetting import DAY, START, World, tellers

VALUE = "cust-7f3a9c-SECRET"
ENTITY = Entity({"customer_id": VALUE})
TABLES = ("shop/orders", "shop/spend", "lakeloop/predictions.shop.buys")


def unavailable() -> LakeloopError:
    return Unavailable("made to fail")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with one of each kind of place, made once."""
    folder = tmp_path_factory.mktemp("filled") / "lake"
    world = World(open_lake(str(folder), who="tester"), "string", VALUE)
    lake, project = world.lake, world.project()
    applied.publish(lake, project, code_version="1")
    land(lake, project, "orders", "first.csv", world.orders(0, wrong=True))
    ingest_data(lake, project, ["orders"])
    build_features(lake, project, as_of=START + DAY)
    table = lake.table("shop/orders")
    assert table is not None
    pins.hold(lake, pins.pin_of(table), "somebody")
    table.checkpoint()
    world.predictions("log-1", 0)
    land(lake, project, "orders", "waiting.csv", world.orders(300))
    lake.documents.create("stuck", "ingest.shop", {"error": f"no plan for {VALUE}"})
    return folder


def seen(lake: Lake) -> dict[str, Counter[str]]:
    found = {}
    for name in TABLES:
        if name.startswith("lakeloop/"):
            rows = lake.journal(name.removeprefix("lakeloop/")).read()
        else:
            table = lake.table(name)
            rows = table.rows() if table is not None else None
        assert rows is not None
        column = "customer_id" if "customer_id" in rows.column_names else "id"
        found[name] = Counter(str(one).split("/")[0] for one in rows.column(column).to_pylist())
    return found


def swept(filled: Path, place: Path, error: Callable[[], LakeloopError], when: When, step: int) -> int:
    """How many failures were survived; every `step`-th call is made to fail."""
    whole = seen(open_lake(str(filled)))
    for fail_at in range(1, 2000, step):
        folder = place / f"{when}-{fail_at}"
        shutil.copytree(filled, folder)
        lake = open_lake(str(folder), who="tester")
        faulty = FaultyStore(lake.store, fail_at, when, error())
        try:
            forget_entity(Lake(faulty, "tester"), ENTITY)
        except LakeloopError:
            if not faulty.failed:
                raise
        if not faulty.failed:
            return fail_at // step
        told = f"{when} call {fail_at}: {faulty.calls[-1]}"
        for name, counts in seen(lake).items():
            old, more = whole[name], 2 if name == "shop/orders" else 0  # what waited may be ingested by now
            others = {who: count for who, count in old.items() if who != VALUE}
            here = {who: count for who, count in counts.items() if who != VALUE}
            assert here in (others, {who: count + more for who, count in others.items()}), told
            assert counts[VALUE] in (0, old[VALUE]), told
        done = forget_entity(lake, ENTITY)
        assert done.left == (), told
        assert tellers(lake, VALUE) == [], told
        assert all(counts[VALUE] == 0 for counts in seen(lake).values()), told
        assert seen(lake)["shop/orders"] == {
            who: count + 2 for who, count in whole["shop/orders"].items() if who != VALUE
        }, told
        assert forgetting.load(lake.store).entities, told
        shutil.rmtree(folder)
    raise AssertionError("it never ended")


@pytest.mark.parametrize(
    ("when", "error"), [("after", lost_answer), pytest.param("before", unavailable, marks=pytest.mark.slow)]
)
def test_a_forget_that_fails_now_and_then_is_completed_by_the_next(
    filled: Path, tmp_path: Path, when: When, error: Callable[[], LakeloopError]
) -> None:
    assert swept(filled, tmp_path, error, when, 29) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [unavailable, lost_answer])
def test_a_forget_that_fails_at_any_call_is_completed_by_the_next(
    filled: Path, tmp_path: Path, when: When, error: Callable[[], LakeloopError]
) -> None:
    assert swept(filled, tmp_path, error, when, 1) >= 100
