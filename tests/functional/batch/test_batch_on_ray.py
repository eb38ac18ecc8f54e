"""Batches on a real cluster: workers that die, errors that come back, and the command as a person calls it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakeloop.infra.cli.batch import output_table, parse_model, rows_of
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.ray_jobs.batch_predict import on_ray
from lakeloop.tests.functional.batch.conftest import EXAMPLES, Shop
from lakeloop.tests.functional.test_command_line import command_in
from lakeloop.tests.orders import CODE_TEXT, FILES, Orders, expected

pytestmark = pytest.mark.ray
DIES_ONCE = """
import os, pathlib
def once():
    mark = pathlib.Path({mark!r})
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from lakeloop.ray_jobs.cluster import start_local

    with start_local(tmp_path_factory.mktemp("ray"), cpus=2):
        yield


def with_code(lake: Lake, text: str) -> Shop:
    """The shop with a model whose file says something else."""
    orders = Orders(lake)
    orders.take(10)
    orders.register(code=text)
    return Shop(orders)


def right() -> list[tuple[str, float]]:
    return sorted((f"o{n}", expected(n)) for n in range(10))


@pytest.mark.usefixtures("cluster")
def test_parts_are_scored_by_workers_and_a_dead_one_costs_none(folder_lake: Lake, tmp_path: Path) -> None:
    dying = DIES_ONCE.format(mark=str(tmp_path / "died"))
    shop = with_code(folder_lake, dying + CODE_TEXT.replace("    return (X", "    once()\n    return (X"))
    shop.run(compute=on_ray)
    assert (tmp_path / "died").exists()
    assert shop.predictions() == right()


@pytest.mark.usefixtures("cluster")
def test_what_a_model_raises_comes_back_in_words_and_the_batch_goes_on_from_there(folder_lake: Lake) -> None:
    broken = CODE_TEXT.replace("    return (X", "    assert (X['amount'] < 6).all(), 'too much'\n    return (X")
    shop = with_code(folder_lake, broken)
    with pytest.raises(Invalid, match="AssertionError: too much"):
        shop.run(compute=on_ray)
    with pytest.raises(Invalid, match="too much"):
        shop.run(compute=on_ray)
    assert set(shop.predictions()) <= set(right())
    shop.orders.register("mended")
    assert shop.run(compute=on_ray, again=True).batch.version == 2
    assert shop.predictions() == right()


@pytest.mark.usefixtures("cluster")
def test_whoever_stops_a_batch_leaves_no_task_behind_and_the_next_goes_on_from_there(
    folder_lake: Lake, tmp_path: Path
) -> None:
    import ray

    waits = f"""
import os, pathlib, time
def hold(X):
    while (X["amount"] > 5).any() and not pathlib.Path({str(tmp_path / "go")!r}).exists():
        time.sleep(0.05)
"""
    held = CODE_TEXT.replace("    return (X", "    hold(X)\n    return (X")
    shop = with_code(folder_lake, waits + held)

    def stop(done: int, rows: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.run(compute=on_ray, watch=stop)
    until = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < until:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == 2, "the part that waits was ended"
    assert 0 < len(shop.predictions()) < 10
    (tmp_path / "go").touch()
    shop.run(compute=on_ray)
    assert shop.predictions() == right()


def test_the_command_tells_what_it_did_and_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    lake = open_lake(str(folder / ".lake"), who="tester")
    orders = Orders(lake)
    orders.take(10)
    orders.register()
    run = command_in(folder)
    said = run("batch-predict", "risk", "--sql", EXAMPLES.sql, "--output", "scored", "--json")
    assert said.code == 0, said.err
    done = json.loads(said.out)
    assert (done["rows"], done["version"], done["output"]) == (10, 1, "shop.scored")
    assert Shop(orders).predictions() == right()
    again = run("batch-predict", "risk", "--sql", EXAMPLES.sql, "--output", "scored")
    assert "done before" in again.out
    refused = run("batch-predict", "risky", "--input", "orders", "--output", "scored")
    assert (refused.code, "name one of: risk" in refused.err) == (1, True)


def test_what_is_asked_wrongly_is_told_before_the_lake_is_asked() -> None:
    with pytest.raises(Invalid, match="--input TABLE"):
        rows_of(None, None, None)
    with pytest.raises(Invalid, match="--input TABLE"):
        rows_of("orders", "select 1", None)
    with pytest.raises(Invalid, match="risk@3"):
        parse_model("risk@x")
    with pytest.raises(Invalid, match="--output scored"):
        output_table("shop", "")
    with pytest.raises(Invalid, match="cannot be the name of a table"):
        output_table("shop", "other.scored")
    assert parse_model("risk@12") == ("risk", 12)
    assert output_table("shop", "shop.scored") == output_table("shop", "scored") == "shop/scored"
