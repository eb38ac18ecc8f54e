"""Batch predictions in this process: right, each row once, and the way out of what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from lakeloop.functions.build_features import build_features
from lakeloop.functions.forget_entity import forget_entity
from lakeloop.functions.roll_out import roll_out
from lakeloop.lakehouse import applied, endpoints
from lakeloop.lakehouse.batch import record
from lakeloop.lakehouse.batch.record import Batch
from lakeloop.lakehouse.batch.rows import FileRows, QueryRows, TableRows
from lakeloop.lakehouse.errors import Conflict, Invalid, LakeloopError, NotFound, Refused
from lakeloop.lakehouse.forgetting import Entity
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.pins import pins_of
from lakeloop.lakehouse.project import parse_project
from lakeloop.lakehouse.scoring.loading import load_scorer
from lakeloop.ray_jobs.batch_predict import in_process
from lakeloop.tests.functional.batch.conftest import EXAMPLES, Shop
from lakeloop.tests.orders import FILES, HOUR, NOON, expected


class Stopped(Exception):
    """What a test ends a batch with."""


def stopping_after(parts: int):
    """A `Compute` that breaks after so many parts."""

    def compute(lake: Lake, batch: Batch, numbers: Sequence[int]) -> Generator[tuple[int, pa.Table]]:
        for done, part in enumerate(in_process(lake, batch, numbers)):
            if done == parts:
                raise Stopped
            yield part

    return compute


def right(rows: range) -> list[tuple[str, float]]:
    return sorted((f"o{n}", expected(n)) for n in rows)


def test_a_batch_says_what_the_endpoint_says_of_each_row(shop: Shop) -> None:
    shop.orders.take(290, file="more.csv", start=10)
    shop.run(part_rows=70)
    there = endpoints.endpoint(shop.lake, "shop", "risk")
    assert there is not None
    scorer = load_scorer(shop.lake, "shop", "risk", 1, there.body["snapshots"])
    asked = shop.lake.sql(EXAMPLES.sql, project="shop").to_pylist()
    answers = scorer.answer(asked, NOON)
    assert shop.predictions() == sorted((answer.id, answer.prediction) for answer in answers) == right(range(300))


def test_a_row_names_its_keys_its_moment_its_version_and_its_batch(shop: Shop) -> None:
    done = shop.run(TableRows("orders"), keep=("note",), as_of=NOON)
    (row,) = shop.lake.sql("select * from shop.scored where number = 'o4'", project="shop").to_pylist()
    assert row["_part"].startswith(f"{row['_batch']}#")
    del row["_part"]
    assert row == {
        "number": "o4",
        "note": "note 4",
        "as_of": NOON,
        "prediction": 144.0,
        "decision": None,
        "model": "risk",
        "version": 1,
        "_batch": done.batch.id,
    }


def test_the_same_request_again_does_nothing_until_something_changed(shop: Shop) -> None:
    first = shop.run()
    assert (first.before, first.batch.rows, len(first.batch.parts)) == (0, 10, 4)
    second = shop.run()
    assert (second.batch.id, second.before) == (first.batch.id, 10)
    shop.orders.take(5, file="more.csv", start=10)
    third = shop.run()
    assert (third.batch.id[-2:], third.batch.rows) == ("-2", 15)
    assert shop.run(again=True).batch.id[-2:] == "-3"
    assert len(shop.predictions()) == 10 + 15 + 15


def test_what_a_batch_rests_on_is_written_down(shop: Shop) -> None:
    done = shop.run()
    (row,) = shop.lake.sql("select * from lakeloop.batches").to_pylist()
    assert (row["batch"], row["rows"], row["parts"], row["who"]) == (done.batch.id, 10, 4, "tester")
    assert (row["tables"], row["features"]) == ('{"shop/orders": 1}', '{"shop/spending": 1}')
    assert row["input"] == EXAMPLES.told


def test_a_batch_that_is_over_holds_nothing(shop: Shop) -> None:
    with pytest.raises(Stopped):
        shop.run(compute=stopping_after(1))
    assert [entry.key for entry in shop.lake.store.list("artifacts/batches/")]
    assert pins_of(shop.lake, "shop/spending")
    shop.run()
    assert not [entry.key for entry in shop.lake.store.list("artifacts/batches/")]
    assert not pins_of(shop.lake, "shop/spending")


def test_a_stopped_batch_goes_on_with_what_it_was_begun_with(shop: Shop) -> None:
    with pytest.raises(Stopped):
        shop.run(compute=stopping_after(2))
    shop.orders.take(5, file="more.csv", start=10)
    shop.orders.land("payments", "late.csv", f"customer,paid,total\nc1,{NOON.isoformat()},1000")
    build_features(shop.lake, shop.orders.project, as_of=NOON + 5 * HOUR)
    assert shop.orders.register("second") == 2
    done = shop.run()
    assert (done.before, done.batch.version) == (6, 1)
    assert shop.predictions() == right(range(10))


def test_an_abandoned_batch_leaves_no_row(shop: Shop) -> None:
    with pytest.raises(Stopped):
        shop.run(compute=stopping_after(2))
    shop.orders.take(5, file="more.csv", start=10)
    done = shop.run(again=True)
    assert done.batch.id.endswith("-2")
    assert shop.predictions() == right(range(15))


def test_who_works_at_an_abandoned_batch_is_told(shop: Shop) -> None:
    def compute(lake: Lake, batch: Batch, numbers: Sequence[int]) -> Generator[tuple[int, pa.Table]]:
        for part in in_process(lake, batch, numbers):
            if part[0] == 2:
                shop.run(again=True)
            yield part

    with pytest.raises(Conflict, match="abandoned"):
        shop.run(compute=compute)
    assert shop.predictions() == right(range(10))


def test_of_two_at_once_each_part_is_there_once(shop: Shop) -> None:
    failed: list[LakeloopError] = []

    def work() -> None:
        try:
            shop.run(part_rows=1, lake=open_lake(shop.lake.url, who="tester"))
        except LakeloopError as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert shop.predictions() == right(range(10))


def test_another_writer_of_the_output_takes_no_row_and_doubles_none(shop: Shop) -> None:
    def compute(lake: Lake, batch: Batch, numbers: Sequence[int]) -> Generator[tuple[int, pa.Table]]:
        for part in in_process(lake, batch, numbers):
            if part[0] == 1:
                shop.run(QueryRows(f"{EXAMPLES.sql} where amount < 2"))
            yield part

    shop.run(compute=compute)
    assert shop.predictions() == sorted([*right(range(10)), *right(range(2))])


def test_a_feature_that_the_rows_give_wins(shop: Shop) -> None:
    rows = QueryRows(
        "select number as id, timestamptz '2024-03-01 00:00:00Z' as as_of, customer, amount, 2.5 as total from orders"
    )
    shop.run(rows)
    assert shop.predictions() == sorted((f"o{n}", n + 25.0) for n in range(10))


def test_a_version_sees_the_views_it_was_trained_with(shop: Shop) -> None:
    doubled = {
        **FILES,
        "features/spending.sql": FILES["features/spending.sql"].replace("total from", "total * 2 as total from"),
    }
    shop.orders.project = parse_project(doubled)
    applied.publish(shop.lake, shop.orders.project, code_version="2")
    build_features(shop.lake, shop.orders.project, as_of=NOON + 5 * HOUR)
    roll_out(shop.lake, shop.orders.project)
    done = shop.run()
    assert done.batch.from_sources
    assert shop.predictions() == right(range(10))


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_file_is_scored_as_a_query_is(shop: Shop, tmp_path: Path, kind: str) -> None:
    rows = shop.lake.sql(EXAMPLES.sql, project="shop")
    path = tmp_path / f"rows.{kind}"
    match kind:
        case "parquet":
            pq.write_table(rows, path)
        case "csv":
            pyarrow.csv.write_csv(rows, path)
        case _:
            lines = [str({**row, "as_of": row["as_of"].isoformat()}).replace("'", '"') for row in rows.to_pylist()]
            path.write_text("\n".join(lines))
    shop.run(FileRows(path))
    assert shop.predictions() == right(range(10))
    assert shop.run(FileRows(path)).before == 10


def test_no_rows_make_an_empty_table(shop: Shop) -> None:
    assert shop.run(QueryRows(f"{EXAMPLES.sql} where amount < 0")).batch.parts == ()
    assert shop.predictions() == []


@pytest.mark.parametrize(
    ("sql", "keep", "said"),
    [
        (
            "select number as id, placed as as_of, customer, amount as amnt from orders",
            (),
            "did you mean its column 'amnt'",
        ),
        ("select customer, amount from orders", (), "nothing tells the rows apart"),
        (EXAMPLES.sql, ("nots",), "no column 'nots'"),
        ("select number as id, 'much' as amount, customer from orders", (), "the model wants float64"),
        ("select number as id, 'noon' as as_of, customer, amount from orders", (), "as_of is string"),
        ("select number as id, customer, amount, 1 as version from orders", ("version",), "that the batch makes"),
        ("select * from nothing", (), 'no table "nothing"'),
        ("select * from read_csv('/etc/passwd')", (), "may not be used"),
    ],
)
def test_wrong_rows_are_told_before_anything_is_scored(shop: Shop, sql: str, keep: tuple[str, ...], said: str) -> None:
    with pytest.raises(Invalid, match=said.replace("(", r"\(")):
        shop.run(QueryRows(sql), keep=keep)
    assert record.newest(shop.lake, shop.request(QueryRows(sql), keep=keep)) is None


def test_an_output_that_holds_other_things_is_refused(shop: Shop) -> None:
    with pytest.raises(Refused, match="orders is a source"):
        shop.run(output="orders")
    shop.lake.tables.open_or_create("shop/other", pa.schema([("n", pa.int64())]))
    with pytest.raises(Refused, match="holds what no batch made"):
        shop.run(output="other")


def test_a_model_or_version_that_is_not_there_is_named(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no version 9"):
        shop.run(version=9)
    with pytest.raises(NotFound, match="no file"):
        FileRows(tmp_path / "none.csv").told  # noqa: B018


def test_the_rows_of_a_batch_under_way_forget_too(shop: Shop) -> None:
    with pytest.raises(Stopped):
        shop.run(compute=stopping_after(1))
    forgotten = forget_entity(shop.lake, Entity({"customer": "c4"}))
    assert "part of a batch" in {held.kind for held in forgotten.done}
    assert shop.run().before == 3
    assert shop.predictions() == sorted((f"o{n}", expected(n)) for n in range(10) if n != 4)
