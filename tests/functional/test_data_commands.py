"""`sources`, `quarantine` and `tables` as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakeloop.tests.functional.test_command_line import HEADER, Run, command_in, project_in, rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return project_in(tmp_path)


@pytest.fixture
def run(folder: Path) -> Run:
    run = command_in(folder)
    assert run("apply").code == 0
    return run


def lines(run: Run, *arguments: str) -> list[dict[str, Any]]:
    said = run(*arguments, "--json")
    assert said.code == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def changed(folder: Path, before: str, after: str) -> None:
    path = folder / "sources" / "customers.toml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def ingested(run: Run, folder: Path, text: str, name: str = "c.csv") -> None:
    (folder / name).write_text(HEADER + text)
    assert run("ingest", "customers", name).code == 0


WRONG = "1,2024-01-31,pro,5,true\n2,2024-01-31,pro,5000,\n3,2024-01-31,pro,many,\n4,2024-01-31\n"


def test_after_a_rule_was_loosened_and_applied_a_retry_takes_the_rows_in(run: Run, folder: Path) -> None:
    ingested(run, folder, WRONG)
    assert [(one["rule"], one["rows"]) for one in lines(run, "quarantine", "list")] == [
        ("logins", 2),
        ("broken line", 1),
    ]
    changed(folder, "[0, 1000]", "[0, 9000]")
    not_applied = run("quarantine", "retry", "customers", "--why", "they log in more")
    assert "not applied yet" in not_applied.err
    assert run("apply").code == 0
    (done,) = lines(run, "quarantine", "retry", "customers", "--why", "they log in more")
    assert (done["went_in"], done["wrong_again"]) == (1, 1)
    assert lines(run, "query", "select customer_id, logins from customers order by 1") == [
        {"customer_id": 1, "logins": 5},
        {"customer_id": 2, "logins": 5000},
    ]
    shown = lines(run, "quarantine", "show", "customers")
    assert [one["reason"] for one in shown] == [
        "logins: many is not an int32",
        "broken line: 2 values where the header has 5",
    ]
    every = lines(run, "quarantine", "show", "customers", "--all")
    assert {(one["state"], one["why"]) for one in every} == {("open", None), ("retried", "they log in more")}
    (again,) = lines(run, "quarantine", "retry", "customers")
    assert (again["went_in"], again["wrong_again"]) == (0, 1)


def test_a_drop_asks_first_and_says_what_it_gives_up(run: Run, folder: Path) -> None:
    ingested(run, folder, WRONG)
    (folder / "broken.csv").write_text("customer_id\n1\n")
    assert run("ingest", "customers", "broken.csv").code == 2
    asked = run("quarantine", "drop", "customers", "--why", "test data")
    assert (asked.code, "3 rows of customers will be given up, and 1 files deleted" in asked.err) == (3, True)
    assert "say --yes" in asked.err
    assert sum(one["rows"] or 0 for one in lines(run, "quarantine", "list")) == 3
    assert run("quarantine", "drop", "customers", "--why", "test data", "--yes").code == 0
    assert run("quarantine", "list").out.strip() == "nothing is in quarantine"
    assert [one["state"] for one in lines(run, "quarantine", "list", "--all")] == ["dropped", "dropped"]
    assert run("quarantine", "drop", "customers", "--yes").out.strip() == "nothing of customers is in quarantine"
    assert run("quarantine", "retry", "custmers").code == 2


def test_a_table_is_restored_as_a_new_version_after_saying_what_changes(run: Run, folder: Path) -> None:
    ingested(run, folder, rows(3).removeprefix(HEADER))
    ingested(run, folder, "9,2024-01-31,pro,5,true\n", "more.csv")
    shown = lines(run, "tables", "show", "customers")[0]
    assert (shown["version"], shown["rows"], shown["files"], shown["column_types"]["logins"]) == (2, 19, 2, "BIGINT")
    asked = run("tables", "restore", "customers", "--version", "1")
    assert asked.code == 3
    assert "shop/customers has 19 rows in version 2; it will have the 18 rows of version 1" in asked.err
    assert lines(run, "tables", "show", "customers")[0]["version"] == 2
    (done,) = lines(run, "tables", "restore", "customers", "--version", "1", "--yes", "--why", "a wrong file")
    assert (done["version"], done["rows"]) == (3, 18)
    assert lines(run, "query", "select count(*) as n from customers") == [{"n": 18}]
    newest = lines(run, "tables", "history", "customers")[0]
    assert (newest["version"], "rows of version 1" in newest["note"], "why a wrong file" in newest["note"]) == (
        3,
        True,
        True,
    )
    (back,) = lines(run, "tables", "restore", "customers", "--version", "2", "--yes")
    assert (back["version"], back["rows"]) == (4, 19)
    assert lines(run, "query", 'select count(*) as n from "customers@3"') == [{"n": 18}]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["customers"], 2, "a restore needs a version"),
        (["customers", "--version", "7"], 1, "no version 7"),
        (["customers", "--version", "1"], 3, "version 1 is the newest"),
        (["customers", "--at", "2001-01-01"], 1, ""),
        (["lakeloop/ingestions", "--version", "0"], 3, "is a journal"),
        (["nothing", "--version", "0"], 1, "there is no table"),
    ],
)
def test_a_restore_that_cannot_be_is_told(
    run: Run, folder: Path, arguments: list[str], code: int, message: str
) -> None:
    ingested(run, folder, "9,2024-01-31,pro,5,true\n")
    said = run("tables", "restore", *arguments, "--yes")
    assert (said.code, message in said.err) == (code, True), said.err


def test_sources_are_profiled_and_their_age_is_told_also_of_a_table_elsewhere(run: Run, folder: Path) -> None:
    uri = str(folder.parent / "plans")
    write_deltalake(uri, pa.table({"plan": ["pro", "free", "pro"], "price": [10.0, 0.0, 10.0]}))
    (folder / "sources" / "plans.toml").write_text(
        f'owner = "crm"\nread = {{ kind = "delta", uri = "{uri}" }}\nkey = ["plan"]\ntimeless = true\n[columns]\n'
        'plan = "string"\nprice = "float64"\n'
    )
    assert run("apply").code == 0
    ingested(run, folder, rows(3).removeprefix(HEADER))
    joined = "select count(*) as n from customers join plans using (plan)"
    assert lines(run, "query", joined) == [{"n": 30}]
    profile = run("sources", "profile", "plans").out
    assert "plans: 3 rows, 2 columns" in profile
    assert "pro 67%, free 33%" in profile
    assert "looks wrong: 1 keys come more than once, in 2 rows" in profile
    (whole,) = lines(run, "sources", "profile", "customers")
    assert (whole["rows"], len(whole["columns"])) == (18, 5)
    assert "rows per day" in run("sources", "profile", "customers").out
    assert "read in place: delta, version 0 of" in run("sources", "show", "plans").out
    assert {one["source"]: one["read"] for one in lines(run, "sources", "list")} == {
        "customers": "csv",
        "plans": f"delta {uri}",
    }
    fresh = {one["source"]: one for one in lines(run, "sources", "freshness")}
    assert (fresh["plans"]["changed"], fresh["customers"]["changed"]) == ("just now", "just now")
    assert fresh["customers"]["newest_event"].startswith("2024-06-30")
    (folder.parent / "plans").rename(folder.parent / "moved")
    gone = run("sources", "freshness")
    assert (gone.code, "there is no Delta table at" in gone.err, "customers" in gone.out) == (1, True, True)
