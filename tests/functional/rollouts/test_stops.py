"""A stepper that is stopped at any of its writes: what it decided stands, and the next one does what should follow."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lakeloop.functions.roll_out import roll_out
from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.testing import FaultyStore, When
from lakeloop.tests.functional.rollouts.conftest import World
from lakeloop.tests.functional.rollouts.test_rollouts import begin


def stopped(world: World, place: Path, fail_at: int, when: When) -> tuple[Lake, FaultyStore]:
    """A copy of the lake after a step in which one call failed."""
    shutil.copytree(world.folder / "lake", place)
    whole = open_lake(str(place), who="stepper", clock=world.clock)
    faulty = FaultyStore(whole.store, fail_at, when)
    with suppress(LakeloopError):
        roll_out(replace(whole, store=faulty), world.project)
    return whole, faulty


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_return_that_is_stopped_at_any_write_is_made_good(world: World, tmp_path: Path, when: When) -> None:
    begin(world, share=5000)
    world.behaviour[2] = lambda clicks: clicks["no such key"]  # type: ignore[call-overload,no-any-return]
    world.send(40)
    _, dry = stopped(world, tmp_path / "dry", 0, when)
    puts = [number for number, call in enumerate(dry.calls, 1) if call.startswith("put")]
    assert len(puts) >= 4  # the document, the alert, two statuses
    for fail_at in puts:
        lake, faulty = stopped(world, tmp_path / f"{fail_at}", fail_at, when)
        assert faulty.failed
        roll_out(lake, world.project)
        there = endpoints.endpoint(lake, "shop", "buys")
        assert there is not None
        assert [(arm["version"], arm["weight"]) for arm in there.body["arms"]] == [(1, 10_000)]
        assert (there.body["wanted"], there.body["barred"]) == (1, [2])
        status = [registry.version(lake, "shop", "buys", number).body["status"] for number in (1, 2)]
        assert status == ["champion", "barred"], dry.calls[fail_at - 1]
        alerts = lake.sql("select alert, status from lakeloop.alerts_log").to_pylist()
        assert [one["status"] for one in alerts] == ["open"]
