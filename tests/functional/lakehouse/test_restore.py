"""A restore is one more commit: nothing is taken back, and what cannot be restored is told before anything is done."""

from __future__ import annotations

import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.restore_table import plan_restore, restore_table
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import Conflict, Corrupt, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project, parse_project

VIEW = """-- /// feature-view
-- owner = "crm"
-- entity = []
-- event_time = "day"
-- ///
select day, 1 as n from sales
"""


def shop(columns: str = "") -> Project:
    source = 'owner = "crm"\nread = { kind = "landing", format = "csv" }\nevent_time = "day"\n[columns]\n'
    return parse_project(
        {
            "lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n',
            "sources/sales.toml": f'{source}id = "int64"\nday = "date"\n{columns}',
            "features/days.sql": VIEW,
        }
    )


def ingest(lake: Lake, number: int, project: Project | None = None, more: str = "") -> None:
    header = "id,day" + (",more" if more else "")
    line = f"{number},2026-01-0{number}" + (f",{more}" if more else "")
    land(lake, project or shop(), "sales", f"{number}.csv", f"{header}\n{line}\n".encode())
    ingest_data(lake, project or shop())


def ids(lake: Lake, version: int | None = None) -> list[int]:
    table = lake.tables.open("shop/sales", version=version)
    assert table is not None
    return sorted(table.rows().column("id").to_pylist())


@pytest.fixture
def sold(lake: Lake) -> Lake:
    """Two files in a table, each a version."""
    applied.publish(lake, shop(), code_version="1")
    for number in (1, 2):
        ingest(lake, number)
    return lake


def test_a_restored_table_has_the_old_rows_and_columns_and_every_version_in_between(sold: Lake) -> None:
    wider = shop('more = "string?"\n')
    ingest(sold, 3, wider, "x")
    plan = plan_restore(sold, "shop/sales", version=1)
    assert (plan.rows_now, plan.rows_then, plan.columns_lost) == (3, 1, ("more",))
    assert restore_table(sold, plan, why="wrong files") == 4
    assert (ids(sold), ids(sold, 3)) == ([1], [1, 2, 3])
    table = sold.table("shop/sales")
    assert table is not None
    assert table.facts(1)[0]["lakeloop.who"] == "tester"
    ingest(sold, 2)
    assert ids(sold) == [1, 2], "a file whose rows went is taken in again when it is landed again"


def test_a_restore_that_lost_a_race_changes_nothing(sold: Lake) -> None:
    plan = plan_restore(sold, "shop/sales", version=1)
    ingest(sold, 3)
    with pytest.raises(Conflict):
        restore_table(sold, plan)
    assert ids(sold) == [1, 2, 3]


def test_a_version_whose_files_are_gone_is_not_restored(sold: Lake) -> None:
    plan = plan_restore(sold, "shop/sales", version=1)
    restore_table(sold, plan)
    gone = set(sold.tables.open("shop/sales", version=2).data_files()) - set(plan.then.data_files())  # type: ignore[union-attr]
    sold.store.delete(f"tables/shop/sales/{file.path}" for file in gone)
    with pytest.raises(Corrupt, match="1 files of version 2 of shop/sales are gone"):
        plan_restore(sold, "shop/sales", version=2)
    assert ids(sold) == [1]


def test_what_is_computed_or_only_appended_is_not_restored(sold: Lake) -> None:
    with pytest.raises(Refused, match="is computed from its sources"):
        plan_restore(sold, "shop/days", version=0)
    with pytest.raises(Refused, match="is a journal"):
        plan_restore(sold, "lakeloop/ingestions", version=0)
