"""`"name@3"` and `"name@2026-11-24T10:00Z"`: what a name said then, for everything that has versions."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import Invalid, LakeloopError, NotFound
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.tables import committed_at

pytestmark = pytest.mark.slow_on_s3
SOURCE = """owner = "ops"
read = { kind = "landing", format = "csv" }
key = ["id"]
event_time = "day"
rows = "ROWS"
[columns]
id = "int64"
day = "date"
price = "float64?"
"""
VIEW = """-- owner: crm
-- entity: id
-- event_time: day
-- lag: 1h
-- refresh: 1h
select id, day, price from latest
"""


def shop() -> Project:
    files = {"lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n'}
    for rows in ("latest", "append", "replace"):
        files[f"sources/{rows}.toml"] = SOURCE.replace("ROWS", rows)
    return parse_project(files)


@pytest.fixture
def sold(lake: Lake) -> Lake:
    """Three ingests: prices of items, the second of which mends the first."""
    applied.publish(lake, shop(), code_version="1", why="begin")
    for source in shop().sources:
        for number, rows in enumerate(("1,2026-01-01,1\n2,2026-01-01,2", "1,2026-01-01,10", "3,2026-01-03,3"), 1):
            land(lake, shop(), source, f"{number}.csv", f"id,day,price\n{rows}\n".encode())
            ingest_data(lake, shop())
    return lake


def prices(lake: Lake, name: str) -> dict[int, float]:
    rows = lake.sql(f"select id, price from {name} order by id, price").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows), rows
    return {row["id"]: row["price"] for row in rows}


def versions(lake: Lake, table: str) -> list[int]:
    """The versions that hold rows, oldest first: the first one makes the table."""
    found = lake.table(table)
    assert found is not None
    return [one["version"] for one in reversed(found.facts()) if one["version"] and one.get("operation") == "WRITE"]


def test_a_source_at_a_version_is_what_it_said_then_by_its_own_rule(sold: Lake) -> None:
    first, second, third = versions(sold, "shop/latest")
    assert prices(sold, f'"latest@{first}"') == {1: 1.0, 2: 2.0}
    assert prices(sold, f'"latest@{second}"') == {1: 10.0, 2: 2.0}
    assert prices(sold, f'"latest@{third}"') == prices(sold, "latest") == {1: 10.0, 2: 2.0, 3: 3.0}
    assert prices(sold, f'shop."latest@{first}"') == prices(sold, f'"shop.latest@{first}"') == {1: 1.0, 2: 2.0}
    assert prices(sold, f'"replace@{versions(sold, "shop/replace")[1]}"') == {1: 10.0}
    counted = sold.sql(f'select count(*) as n from "append@{versions(sold, "shop/append")[1]}"').to_pylist()
    assert counted == [{"n": 3}]
    assert sold.sql(f'select * from "latest@{first}" limit 0').column_names == ["id", "day", "price"]


def test_a_history_at_a_version_has_every_row_that_had_come_and_where_from(sold: Lake) -> None:
    second = versions(sold, "shop/latest")[1]
    rows = sold.sql(f'select id, price, _line from "latest_history@{second}" order by price').to_pylist()
    assert [(row["id"], row["price"], row["_line"]) for row in rows] == [(1, 1.0, 1), (2, 2.0, 2), (1, 10.0, 1)]


def test_two_versions_stand_beside_each_other_in_one_query(sold: Lake) -> None:
    first, second, _ = versions(sold, "shop/latest")
    rows = sold.sql(
        f'select id, a.price as before, b.price as after from "latest@{first}" a join "latest@{second}" b using (id) '
        "where a.price <> b.price"
    ).to_pylist()
    assert rows == [{"id": 1, "before": 1.0, "after": 10.0}]


def moment(lake: Lake, name: str, version: int) -> datetime:
    """When a version was committed."""
    table = lake.table(name)
    assert table is not None
    return next(committed_at(commit) for commit in table.facts() if commit["version"] == version)


def spelled(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def test_a_moment_names_the_newest_version_that_was_committed_by_then(sold: Lake) -> None:
    numbers = versions(sold, "shop/latest")
    times = [moment(sold, "shop/latest", number) for number in numbers]
    assert times == sorted(times)
    for number, at in zip(numbers, times, strict=True):
        assert prices(sold, f'"latest@{spelled(at)}"') == prices(sold, f'"latest@{number}"')
        before = sold.tables.open("shop/latest", at=at - timedelta(milliseconds=1))
        assert before is not None
        assert before.version < number
    assert prices(sold, '"latest@2999-01-01"') == prices(sold, "latest")
    assert prices(sold, '"latest@2999-01-01T10:00"') == prices(sold, 'shop."latest@2999-01-01T10:00:00.5+02:00"')
    with pytest.raises(NotFound, match="nothing is known of shop/latest at 1999"):
        sold.sql('from "latest@1999-01-01"')


def test_a_moment_means_the_same_in_a_copy_of_the_lake(folder_lake: Lake, tmp_path: Path) -> None:
    """Whatever times the copied files have."""
    at = []
    table = folder_lake.tables.open_or_create("p/t", pa.schema({"n": pa.int64()}))
    for number in range(3):
        table.append(pa.table({"n": [number]}))
        at.append(moment(folder_lake, "p/t", table.version))
    shutil.copytree(folder_lake.url, tmp_path / "copy")
    for file in (tmp_path / "copy").rglob("*.json"):
        os.utime(file, (1e9, 1e9))
    copied = open_lake(str(tmp_path / "copy"), who="another")
    assert [copied.sql(f'select n from p."t@{spelled(one)}"').num_rows for one in at] == [1, 2, 3]


def test_a_version_that_is_not_there_says_which_is(sold: Lake) -> None:
    for name in ('"latest@99"', '"latest_history@99"', 'shop."latest@99"'):
        with pytest.raises(NotFound, match=r"has no version 99 \(the newest is version 3"):
            sold.sql(f"from {name}")
    for text in ("x", "", "-1", "1.5", "2026-13-01", "٣"):
        with pytest.raises(Invalid):
            sold.sql(f'from "latest@{text}"')


def test_what_is_computed_from_several_tables_has_no_version(sold: Lake) -> None:
    for name in ("predictions", "predictions_labelled", "lakeloop.predictions"):
        with pytest.raises(Invalid, match="has no version"):
            sold.sql(f'from {name.replace("predictions", chr(34) + "predictions", 1)}@1"')


def test_a_journal_at_a_version_is_what_was_folded_by_then(lake: Lake) -> None:
    def record(run: str, status: str, minute: int) -> None:
        lake.record("runs", [{"run": run, "status": status, "logged_at": datetime(2026, 1, 1, 0, minute, tzinfo=UTC)}])

    record("r1", "open", 0)
    lake.journal("runs").fold()
    first = lake.table("lakeloop/runs")
    assert first is not None
    record("r1", "won", 1)
    record("r2", "open", 2)
    lake.journal("runs").fold()
    second = lake.table("lakeloop/runs")
    assert second is not None
    record("r3", "open", 3)

    def runs(name: str) -> dict[str, str]:
        return {row["run"]: row["status"] for row in lake.sql(f"select run, status from {name}").to_pylist()}

    assert runs("runs") == {"r1": "won", "r2": "open", "r3": "open"}
    assert runs(f'"runs@{second.version}"') == runs(f'lakeloop."runs@{second.version}"') == {"r1": "won", "r2": "open"}
    assert runs(f'"runs@{first.version}"') == {"r1": "open"}
    assert lake.sql(f'from "runs_log@{second.version}"').num_rows == 3
    at = moment(lake, "lakeloop/runs", first.version)
    assert runs(f'"runs@{spelled(at)}"') == {"r1": "open"}
    with pytest.raises(NotFound):
        lake.sql('from "alerts@1"')


def test_documents_at_a_moment_are_the_revisions_that_were_made_by_then(folder_lake: Lake) -> None:
    times = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(3)]
    clock = iter(times)
    lake = Lake(folder_lake.store, "ada", lambda: next(clock))
    one = lake.documents.create("models", "m", {"n": 1}, "first")
    lake.documents.update(one, {"n": 2}, "better")
    lake.documents.create("pins", "p", {})
    rows = lake.sql("select * from lakeloop.documents order by kind, id, revision").to_pylist()
    assert [(r["kind"], r["id"], r["revision"], r["previous"], r["changed_at"], r["who"], r["why"]) for r in rows] == [
        ("models", "m", 1, None, times[0], "ada", "first"),
        ("models", "m", 2, 1, times[1], "ada", "better"),
        ("pins", "p", 1, None, times[2], "ada", ""),
    ]
    assert [json.loads(row["body"]) for row in rows] == [{"n": 1}, {"n": 2}, {}]
    then = lake.sql(f'select id, revision from "documents@{spelled(times[1])}" order by revision').to_pylist()
    assert then == [{"id": "m", "revision": 1}, {"id": "m", "revision": 2}]
    with pytest.raises(Invalid, match="revision"):
        lake.sql('from "documents@1"')


def test_every_delta_table_of_the_lake_can_be_asked_by_its_folders_names(lake: Lake) -> None:
    table = lake.tables.open_or_create("scores/january", pa.schema({"n": pa.int64()}))
    table.append(pa.table({"n": [1]}))
    table.append(pa.table({"n": [2]}))
    assert lake.sql("select sum(n)::int as n from scores.january").to_pylist() == [{"n": 3}]
    assert lake.sql('select n from scores."january@1"').to_pylist() == [{"n": 1}]
    for name in ("scores.february", "january", '"..".january', '"scores/january".x', 'scores."../scores/january"'):
        with pytest.raises(LakeloopError):
            lake.sql(f"from {name}")


def test_models_whose_names_differ_by_a_dot_and_a_line_keep_their_predictions(folder_lake: Lake) -> None:
    for project, model, count in (("a", "b_c", 2), ("a_b", "c", 3)):
        rows = {
            "project": [project] * count,
            "model": [model] * count,
            "prediction_id": [f"{project}{number}" for number in range(count)],
            "logged_at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * count, pa.timestamp("us", "UTC")),
        }
        folder_lake.journal(f"predictions.{project}.{model}").append(pa.table(rows), "s")
    asked = "select project, model, count(*) as n from lakeloop.predictions group by all order by all"
    assert [tuple(row.values()) for row in folder_lake.sql(asked).to_pylist()] == [("a", "b_c", 2), ("a_b", "c", 3)]


def test_tables_whose_names_differ_by_a_dot_and_a_line_lack_their_own_columns(folder_lake: Lake) -> None:
    """Each has less than its source says, so that each is read through a name of its own."""
    one, other = (
        parse_project(
            {
                "lakeloop.toml": f'name = "{name}"\ngoal = "Sell"\nowner = "crm"\n',
                f"sources/{source}.toml": SOURCE.replace("ROWS", "append"),
            }
        )
        for name, source in (("a", "b_c"), ("a_b", "c"))
    )
    for project, table, number in ((one, "a/b_c", 1), (other, "a_b/c", 2)):
        applied.publish(folder_lake, project, code_version="1")
        rows = pa.table({"id": [number], "day": pa.array([datetime(2026, 1, 1)], pa.date32())})
        folder_lake.tables.open_or_create(table, rows.schema).append(rows)
    asked = "select id, price from a.b_c union all select id, price from a_b.c order by id"
    assert [tuple(row.values()) for row in folder_lake.sql(asked).to_pylist()] == [(1, None), (2, None)]
