"""What the gate asks of a person, and a sweep that meets what it cannot do."""

from __future__ import annotations

import pytest

from lakeloop.functions.gate_model import _must_wait
from lakeloop.functions.maintain_lake import CHECKPOINT_EVERY, maintain_lake, maintain_table
from lakeloop.functions.sweep import sweep
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import Conflict
from lakeloop.lakehouse.journal import Journal
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import parse_project
from lakeloop.tests.buying import FILES
from lakeloop.tests.functional.functions.conftest import START, Shop

PLACES = """
[environments.dev]
lake = ".lake"
[environments.prod]
lake = "s3://bucket/lake"
approve = ["model-owner"]
"""


@pytest.mark.parametrize(("environment", "hold"), [("dev", ""), ("prod", "approval by model-owner"), ("", "")])
def test_an_environment_may_ask_for_an_approval(folder_lake: Lake, environment: str, hold: str) -> None:
    project = parse_project({**FILES, "lakeloop.toml": FILES["lakeloop.toml"] + PLACES})
    applied.publish(folder_lake, project, code_version="test", environment=environment)
    assert _must_wait(folder_lake, project, project.models["buys"], 1) == hold


def test_another_environment_is_a_change_and_none_leaves_it_as_it_is(folder_lake: Lake) -> None:
    project = parse_project(FILES)
    changes = [
        applied.publish(folder_lake, project, code_version="test", environment=environment)[1]
        for environment in ("dev", "dev", None, "prod")
    ]
    assert changes == [True, False, False, True]


def test_a_project_that_cannot_be_read_stops_no_other(shop: Shop) -> None:
    body = {"files": {"lakeloop.toml": "what?"}, "hash": "0", "code_version": ""}
    shop.lake.documents.create(applied.KIND, "broken", body)
    swept = sweep(shop.lake, lambda _run: None, as_of=START)
    assert list(swept.failed) == ["load broken"]
    assert "roll_out" in swept.done


def test_a_table_has_a_checkpoint_however_its_versions_jump(folder_lake: Lake) -> None:
    import pyarrow as pa

    rows = pa.table({"x": [1]})
    table = folder_lake.tables.open_or_create("shop/things", rows.schema)
    for _ in range(CHECKPOINT_EVERY + 1):
        table.append(rows)
    assert [one.what for one in maintain_table(folder_lake, "shop/things")] == ["checkpoint at version"]
    assert maintain_table(folder_lake, "shop/things") == []


def test_a_journal_that_cannot_be_folded_stops_no_other(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    fold = Journal.fold

    def lost(journal: Journal) -> int:
        if journal.name != "events":
            raise Conflict(f"{journal.name} was overwritten meanwhile")
        return fold(journal)

    monkeypatch.setattr(Journal, "fold", lost)
    for name in ("alerts", "builds", "events"):
        folder_lake.journal(name).append(pa.table({"x": [1]}), "s")
    with pytest.raises(Conflict, match="alerts was overwritten"):
        maintain_lake(folder_lake, fold_at=1)
    table = folder_lake.table("lakeloop/events")
    assert table is not None
    assert table.rows().num_rows == 1
