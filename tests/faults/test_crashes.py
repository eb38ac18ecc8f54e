"""Crash sweeps: for each k, before and after, the k-th call to the store fails. A reader sees the old state or the new;
a second run completes it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.maintain_lake import vacuum
from lakeloop.functions.retry_quarantined import retry_quarantined
from lakeloop.lakehouse.artifacts import Artifacts
from lakeloop.lakehouse.documents import Documents
from lakeloop.lakehouse.errors import AlreadyExists, LakeloopError, NotFound, Unavailable, Unknown
from lakeloop.lakehouse.journal import Journal
from lakeloop.lakehouse.lake import Lake, open_lake, utc_now
from lakeloop.lakehouse.pins import find_pin, hold, pin_of
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.store import Store
from lakeloop.lakehouse.tables import Table, Tables
from lakeloop.lakehouse.testing import FaultyStore, When, lost_answer

TIMES: tuple[When, ...] = ("before", "after")
MOST_CALLS = 200
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def sweep(
    prepare: Callable[[], Store], work: Callable[[Store], object], error: Callable[[], LakeloopError]
) -> Iterator[tuple[Store, str]]:
    """The store after each single failure, and the name of the call that failed; ends when the work is done before the
    k-th call."""
    for when in TIMES:
        for fail_at in range(1, MOST_CALLS):
            store = prepare()
            faulty = FaultyStore(store, fail_at, when, error())
            try:
                work(faulty)
            except LakeloopError as raised:
                if raised.what != error().what and not isinstance(raised, NotFound | AlreadyExists):
                    raise
            if not faulty.failed:
                assert fail_at > 1
                break
            yield store, f"{when} call {fail_at}: {faulty.calls[-1]}"
        else:
            raise AssertionError(f"more than {MOST_CALLS} calls")


def unavailable() -> LakeloopError:
    return Unavailable("made to fail")


ERRORS = pytest.mark.parametrize("error", [unavailable, lost_answer])


@pytest.fixture
def places(tmp_path: Path) -> Callable[[], str]:
    """A new folder for each turn of a sweep."""
    made: list[str] = []

    def place() -> str:
        made.append(str(tmp_path / f"lake-{len(made)}"))
        return made[-1]

    return place


def opened(url: str) -> Store:
    return open_lake(url).store


@ERRORS
def test_an_update_of_a_document_is_whole_or_not_there(
    places: Callable[[], str], error: Callable[[], LakeloopError]
) -> None:
    def documents(store: Store) -> Documents:
        return Documents(store, utc_now, "tester")

    def prepare() -> Store:
        store = opened(places())
        documents(store).create("models", "m", {"n": 1})
        return store

    def work(store: Store) -> None:
        current = documents(store).get("models", "m")
        if current.body["n"] == 1:
            documents(store).update(current, {"n": 2})

    failures = 0
    for store, failure in sweep(prepare, work, error):
        failures += 1
        assert documents(store).get("models", "m").body["n"] in (1, 2), failure
        work(store)
        assert [revision.body["n"] for revision in documents(store).history("models", "m")] == [2, 1], failure
    assert failures >= 6


@ERRORS
def test_a_fold_moves_each_row_once(places: Callable[[], str], error: Callable[[], LakeloopError]) -> None:
    def journal(store: Store) -> Journal:
        return Journal(store, Tables(store.location()), "numbers")

    def prepare() -> Store:
        store = opened(places())
        for number in range(2):
            journal(store).append(pa.table({"n": [number]}), f"old-{number}")
        journal(store).fold()
        journal(store).append(pa.table({"n": [2]}), "new")
        store.put("inbox/numbers/zz-broken", b"not a segment")
        return store

    def read(store: Store) -> list[int]:
        rows = journal(store).read()
        assert rows is not None
        return sorted(rows.column("n").to_pylist())

    for store, failure in sweep(prepare, lambda store: journal(store).fold(grace_s=-1), error):
        assert read(store) == [0, 1, 2], failure
        for _ in range(3):
            journal(store).fold(grace_s=-1)
        assert read(store) == [0, 1, 2], failure
        assert [entry.key for entry in store.list("inbox/")] == [], failure
        assert store.get("quarantine/inbox/numbers/zz-broken") == b"not a segment", failure


@ERRORS
def test_an_artifact_is_whole_or_not_there(
    places: Callable[[], str], error: Callable[[], LakeloopError], tmp_path: Path
) -> None:
    files = {"model.json": b"{}" * 1000, "code/train.py": b"pass"}
    for name, data in files.items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_bytes(data)
    for store, failure in sweep(
        lambda: opened(places()), lambda store: Artifacts(store).put_folder("models", "m", tmp_path / "model"), error
    ):
        for entry in store.list("artifacts/"):
            assert Artifacts(store).get(entry.key, entry.key.rsplit("/", 1)[1]) in files.values(), failure
        kept = Artifacts(store).put_folder("models", "m", tmp_path / "model")
        assert {one.name: Artifacts(store).get(one.key, one.sha256) for one in kept} == files, failure


def test_a_vacuum_deletes_only_what_nobody_may_read(places: Callable[[], str]) -> None:
    def table(store: Store, version: int | None = None) -> Table:
        found = Tables(store.location()).open("team/numbers", version=version)
        assert found is not None
        return found

    def prepare() -> Store:
        lake = open_lake(places())
        made = lake.tables.open_or_create("team/numbers", pa.schema([("n", pa.int64())]))
        for number in range(3):
            made.append(pa.table({"n": [number]}))
        hold(lake, pin_of(table(lake.store, 2)), "run-1")
        made.overwrite(pa.table({"n": [9]}))
        return lake.store

    def state(store: Store) -> tuple[list[int], int, list[str]]:
        pin = find_pin(Lake(store), "team/numbers", 2)
        there = {entry.key.rsplit("/", 1)[1] for entry in store.list("tables/team/numbers/part-")}
        return (
            table(store).rows().column("n").to_pylist(),
            len(there),
            [f.path for f in pin.files if f.path not in there],
        )

    def work(store: Store) -> None:
        vacuum(Lake(store), "team/numbers", retention=timedelta(0))

    failures = 0
    for store, failure in sweep(prepare, work, unavailable):
        failures += 1
        assert state(store) in (([9], 4, []), ([9], 3, [])), failure
        work(store)
        assert state(store) == ([9], 3, []), failure
    assert failures >= 8


def test_an_owner_is_deleted_and_others_lose_nothing_while_they_write(folder_lake: Lake) -> None:
    artifacts, body = folder_lake.artifacts, b"the same bytes"
    stop = Event()

    def write(owner: str) -> int:
        count = 0
        while not stop.is_set() or count < 20:
            kept = artifacts.put("runs", owner, "model", body)
            if owner != "gone":
                assert artifacts.get(kept.key, kept.sha256) == body
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, owner) for owner in ("gone", "stays", "gone-too")]
        tries = deleted = 0
        while (tries < 200 or not deleted) and not writing[0].done():
            deleted += artifacts.delete("runs", "gone")
            tries += 1
        stop.set()
        assert min(future.result() for future in writing) >= 20
    artifacts.delete("runs", "gone")
    assert [entry.key.split("/")[2] for entry in folder_lake.store.list("artifacts/runs/")] == ["gone-too", "stays"]
    assert artifacts.delete("runs", "gone") == 0


def test_a_deletion_of_an_owner_is_completed_by_the_next(places: Callable[[], str]) -> None:
    def prepare() -> Store:
        store = opened(places())
        for owner in ("gone", "stays"):
            Artifacts(store).put("runs", owner, "a", b"1")
            Artifacts(store).put("runs", owner, "b", b"2")
        return store

    for store, failure in sweep(prepare, lambda store: Artifacts(store).delete("runs", "gone"), unavailable):
        Artifacts(store).delete("runs", "gone")
        assert {entry.key.split("/")[2] for entry in store.list("artifacts/")} == {"stays"}, failure


PROJECT = {
    "lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n',
    "sources/sales.toml": """\
owner = "crm"
read = { kind = "landing", format = "csv" }
key = ["id"]
event_time = "day"
[columns]
id = "int64"
day = "date"
price = "float64"
""",
}
SALES = b"id,day,price\n1,2026-01-01,1.5\n2,2026-01-02,dear\n3,2026-01-03,2.5\n4\n"


def shop() -> Project:
    return parse_project(PROJECT)


def state(lake: Lake) -> dict[str, Any]:
    def rows(sql: str) -> list[Any]:
        return [tuple(row.values()) for row in lake.sql(sql, project="").to_pylist()]

    table = lake.table("shop/sales")
    return {
        "rows": sorted(table.rows().column("id").to_pylist()) if table else [],
        "quarantine": rows("select line from lakeloop.quarantine order by line"),
        "ingestions": rows("select rows, quarantined from lakeloop.ingestions"),
        "landing": [entry.key for entry in lake.store.list("landing/")],
        "raw": [lake.store.get(entry.key) for entry in lake.store.list("raw/")],
    }


def test_an_ingest_is_completed_by_the_next_with_each_row_once(places: Callable[[], str]) -> None:
    def prepare() -> Store:
        lake = open_lake(places())
        land(lake, shop(), "sales", "a.csv", SALES)
        return lake.store

    done = {"rows": [1, 3], "quarantine": [(2,), (4,)], "ingestions": [(2, 2)], "landing": [], "raw": [SALES]}
    failures = 0
    for store, failure in sweep(
        prepare, lambda store: ingest_data(Lake(store, "tester", lambda: NOON), shop()), unavailable
    ):
        failures += 1
        table = Lake(store).table("shop/sales")
        seen = sorted(table.rows().column("id").to_pylist()) if table else []
        assert seen in ([], [1, 3]), failure
        assert (
            store.get("landing/shop/sales/a.csv") == SALES or seen == [1, 3]
            if [*store.list("landing/")]
            else seen == [1, 3]
        ), failure
        ingest_data(Lake(store, "another", lambda: NOON), shop())
        assert state(Lake(store)) == done, failure
        ingest_data(Lake(store, "another", lambda: NOON), shop())
        assert state(Lake(store)) == done, failure
    assert failures >= 12


class Crash(Exception):
    """The process ends here."""


@pytest.mark.parametrize("when", TIMES)
def test_an_ingest_that_dies_around_its_commit_is_completed_by_the_next(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch, when: When
) -> None:
    append = Table.append

    def dies(table: Table, rows: pa.Table, **facts: Any) -> int:
        if when == "after":
            append(table, rows, **facts)
        raise Crash

    land(folder_lake, shop(), "sales", "a.csv", SALES)
    with monkeypatch.context() as patched:
        patched.setattr(Table, "append", dies)
        with pytest.raises(Crash):
            ingest_data(folder_lake, shop())
    table = folder_lake.table("shop/sales")
    assert table is not None
    assert sorted(table.rows().column("id").to_pylist()) == ([1, 3] if when == "after" else [])
    ingest_data(folder_lake, shop())
    assert state(folder_lake) == {
        "rows": [1, 3],
        "quarantine": [(2,), (4,)],
        "ingestions": [(2, 2)],
        "landing": [],
        "raw": [SALES],
    }


def test_a_commit_whose_answer_was_lost_is_found_by_looking(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Table.append

    def deaf(table: Table, rows: pa.Table, **facts: Any) -> int:
        append(table, rows, **facts)
        raise Unknown("the commit may or may not have happened")

    land(folder_lake, shop(), "sales", "a.csv", SALES)
    with monkeypatch.context() as patched:
        patched.setattr(Table, "append", deaf)
        with pytest.raises(Unknown):
            ingest_data(folder_lake, shop())
    assert [(one.rows, one.already) for one in ingest_data(folder_lake, shop())] == [(0, True)]
    assert state(folder_lake)["rows"] == [1, 3]


def priced(most: int) -> Project:
    source = PROJECT["sources/sales.toml"].replace('"float64"', f'{{ type = "float64", range = [0, {most}] }}')
    return parse_project({**PROJECT, "sources/sales.toml": source})


@pytest.mark.slow
def test_a_retry_out_of_quarantine_takes_each_row_in_once(places: Callable[[], str]) -> None:
    """Decided, landed and ingested: wherever it stops, the next retry and ingest complete it, with what came since."""
    strict, loose = priced(10), priced(100)

    def prepare() -> Store:
        lake = Lake(open_lake(places()).store, "tester", lambda: NOON)
        land(lake, strict, "sales", "a.csv", SALES.replace(b"dear", b"50") + b"5,2026-01-05,60\n")
        ingest_data(lake, strict)
        return lake.store

    def work(store: Store) -> None:
        lake = Lake(store, "tester", lambda: NOON)
        retry_quarantined(lake, "shop", "sales")
        ingest_data(lake, loose)

    failures = 0
    for store, failure in sweep(prepare, work, unavailable):
        failures += 1
        lake = Lake(store, "another", lambda: NOON)
        land(lake, strict, "sales", "b.csv", b"id,day,price\n6,2026-01-06,70\n")
        ingest_data(lake, strict if failures % 2 else loose)
        for _ in range(2):
            work(store)
            rows = lake.sql("select id from sales order by id", project=loose)  # type: ignore[arg-type]
            assert rows.column("id").to_pylist() == [1, 2, 3, 5, 6], failure
            left = lake.sql("select line from lakeloop.quarantine_state where state = 'open'").to_pylist()
            assert left == [{"line": 4}], failure
            assert [*store.list("landing/")] == [], failure
    assert failures >= 12
