"""Journals: each row once, whoever folds, reads, repeats or comes late; what cannot be read stops nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import Conflict, Invalid
from lakeloop.lakehouse.journal import Journal, segment_name
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.store import Entry
from lakeloop.lakehouse.store.folder import FolderStore
from lakeloop.lakehouse.tables import Table

NAME = "numbers"


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


def held(lake: Lake, *, drop_null: bool = False) -> list[int]:
    rows = lake.journal(NAME).read()
    if rows is None:
        return []
    column = rows.column("n")
    return sorted((column.drop_null() if drop_null else column).to_pylist())


def waiting(lake: Lake) -> list[str]:
    return [entry.key.rsplit("/", 1)[1] for entry in lake.journal(NAME).waiting()]


def test_a_journal_without_rows_reads_as_none(lake: Lake) -> None:
    assert lake.journal(NAME).read() is None
    assert lake.journal(NAME).fold() == 0
    lake.journal(NAME).append(numbers(), "empty")
    assert (lake.journal(NAME).read(), waiting(lake)) == (None, [])


def test_rows_are_read_before_and_after_a_fold_with_their_segment(lake: Lake) -> None:
    journal = lake.journal(NAME)
    journal.append(numbers(1, 2), "a")
    journal.append(numbers(3), "b")
    assert held(lake) == [1, 2, 3]
    assert journal.fold() == 3
    journal.append(numbers(4), "c")
    assert held(lake) == [1, 2, 3, 4]
    rows = journal.read()
    assert rows is not None
    assert dict(zip(rows.column("n").to_pylist(), rows.column("_segment").to_pylist(), strict=True)) == {
        1: "a",
        2: "a",
        3: "b",
        4: "c",
    }


def test_a_fold_keeps_segments_for_the_grace_and_then_deletes_them(lake: Lake) -> None:
    journal = lake.journal(NAME)
    journal.append(numbers(1), "a")
    assert journal.fold(grace_s=-1) == 1
    assert waiting(lake) == ["a"]  # folded just now: somebody may be reading it
    assert journal.fold() == 0
    assert waiting(lake) == ["a"]  # younger than the grace
    assert journal.fold(grace_s=-1) == 0
    assert waiting(lake) == []
    assert held(lake) == [1]


def test_the_same_segment_again_is_one(lake: Lake) -> None:
    journal = lake.journal(NAME)
    for _ in range(2):
        journal.append(numbers(1), "a")
    journal.fold()
    journal.append(numbers(1), "a")
    assert held(lake) == [1]


def test_a_segment_that_comes_again_after_it_was_folded_and_deleted_is_recognised(lake: Lake) -> None:
    journal = lake.journal(NAME)
    journal.append(numbers(1), "a")
    journal.fold()
    journal.fold(grace_s=-1)
    assert waiting(lake) == []
    journal.append(numbers(1), "a")
    assert held(lake) == [1]
    assert journal.fold(grace_s=-1) == 0
    assert (held(lake), waiting(lake)) == ([1], [])


def test_columns_may_come_and_go(lake: Lake) -> None:
    journal = lake.journal(NAME)
    journal.append(numbers(1), "a")
    journal.append(pa.table({"n": [2], "word": ["two"]}), "b")
    journal.fold()
    journal.append(pa.table({"n": [3], "truth": [True]}), "c")
    journal.append(numbers(4), "d")
    assert held(lake) == [1, 2, 3, 4]
    journal.fold()
    rows = journal.read()
    assert rows is not None
    assert sorted(rows.drop_columns("_segment").to_pylist(), key=lambda row: row["n"]) == [
        {"n": 1, "word": None, "truth": None},
        {"n": 2, "word": "two", "truth": None},
        {"n": 3, "word": None, "truth": True},
        {"n": 4, "word": None, "truth": None},
    ]


def test_reals_after_whole_numbers_lose_nothing(folder_lake: Lake) -> None:
    journal = folder_lake.journal(NAME)
    journal.append(numbers(1), "a")
    journal.fold()
    journal.append(pa.table({"n": [1.5]}), "b")
    journal.append(pa.table({"n": pa.nulls(1)}), "c")
    assert journal.fold() == 2
    rows = journal.read()
    assert rows is not None
    assert rows.column("n").drop_null().sort().to_pylist() == [1.0, 1.5]
    assert rows.num_rows == 3


@pytest.mark.parametrize("damage", [b"", b"garbage", b"ARROW1\0\0 and then nothing"])
def test_a_segment_that_cannot_be_read_goes_to_quarantine_and_stops_nothing(lake: Lake, damage: bytes) -> None:
    journal = lake.journal(NAME)
    journal.append(numbers(1), "a")
    lake.store.put(keys.segment(NAME, "b"), damage)
    journal.append(numbers(2), "c")
    assert held(lake) == [1, 2]
    assert journal.fold() == 2
    assert held(lake) == [1, 2]
    assert waiting(lake) == ["a", "c"]
    assert lake.store.get(f"{keys.QUARANTINED_SEGMENTS}{NAME}/b") == damage


def test_a_segment_cut_off_in_its_middle_goes_to_quarantine(folder_lake: Lake) -> None:
    journal = folder_lake.journal(NAME)
    journal.append(numbers(*range(1000)), "a")
    whole = folder_lake.store.get(keys.segment(NAME, "a"))
    for cut in range(0, len(whole), 97):
        folder_lake.store.put(keys.segment(NAME, f"cut-{cut:06d}"), whole[:cut])
    assert held(folder_lake) == list(range(1000))
    assert journal.fold() == 1000
    assert waiting(folder_lake) == ["a"]


def test_a_segment_whose_types_contradict_the_others_goes_to_quarantine(folder_lake: Lake) -> None:
    journal = folder_lake.journal(NAME)
    journal.append(numbers(1), "a")
    journal.append(pa.table({"n": ["text"]}), "b")
    assert held(folder_lake) == [1]
    assert journal.fold() == 1
    journal.append(pa.table({"n": ["more"]}), "c")
    journal.append(numbers(2), "d")
    assert journal.fold() == 1
    assert held(folder_lake) == [1, 2]
    quarantined = [entry.key.rsplit("/", 1)[1] for entry in folder_lake.store.list(keys.QUARANTINED_SEGMENTS)]
    assert quarantined == ["b", "c"]


@pytest.mark.parametrize("name", ["", "a/b", "a b", "ä"])
def test_a_name_that_is_no_segment_is_refused(folder_lake: Lake, name: str) -> None:
    with pytest.raises(Invalid, match="cannot be a segment"):
        folder_lake.journal(NAME).append(numbers(1), name)


def test_rows_may_not_bring_a_segment_of_their_own(folder_lake: Lake) -> None:
    with pytest.raises(Invalid):
        folder_lake.journal(NAME).append(pa.table({"_segment": ["x"]}), "a")


def test_segments_sort_by_time_and_differ_by_writer_and_number() -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    names = [segment_name("z", 2, early), segment_name("z", 10, early), segment_name("a", 1, late)]
    assert names == sorted(names)
    assert len({*names, segment_name("y", 2, early)}) == 4


def test_of_folds_that_race_each_row_is_folded_once(lake: Lake) -> None:
    for number in range(12):
        lake.journal(NAME).append(numbers(number), f"s{number:02d}")
    with ThreadPoolExecutor(4) as pool:
        moved = list(pool.map(lambda _: lake.journal(NAME).fold(), range(4)))
    assert sum(moved) == 12
    assert held(lake) == list(range(12))
    table = lake.table(f"lakeloop/{NAME}")
    assert table is not None
    assert sorted(table.rows().column("n").to_pylist()) == list(range(12))


class SlowTables:
    """Opens a table as it was before `meanwhile` ran: a fold by another between our LIST and our look at the table, or
    after it."""

    def __init__(self, lake: Lake, meanwhile: list[Journal], *, before: bool) -> None:
        self._lake, self._meanwhile, self._before = lake, meanwhile, before

    def _others(self) -> None:
        while self._meanwhile:
            journal = self._meanwhile.pop()
            journal.fold()
            journal.fold(grace_s=-1)

    def open(self, name: str) -> Table | None:
        if self._before:
            self._others()
        table = self._lake.tables.open(name)
        self._others()
        return table

    def open_or_create(self, name: str, schema: pa.Schema) -> Table:
        return self._lake.tables.open_or_create(name, schema)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("folded", [True, False])
def test_a_fold_and_a_read_beside_a_whole_fold_of_another_see_each_row_once(
    folder_lake: Lake, before: bool, folded: bool
) -> None:
    theirs = folder_lake.journal(NAME)
    if folded:
        theirs.append(numbers(0), "0")
        theirs.fold()
    theirs.append(numbers(1), "a")
    theirs.append(numbers(2), "b")
    expected = [0, 1, 2] if folded else [1, 2]
    read = Journal(folder_lake.store, SlowTables(folder_lake, [theirs], before=before), NAME).read()
    assert read is not None
    assert sorted(read.column("n").to_pylist()) == expected
    theirs.append(numbers(3), "c")
    assert Journal(folder_lake.store, SlowTables(folder_lake, [theirs], before=before), NAME).fold() in (0, 1)
    assert held(folder_lake) == [*expected, 3]


class CommittedMeanwhile(SlowTables):
    """Opens a table, and another commits to it before ours: a fold that began earlier, with fewer segments."""

    def open(self, name: str) -> Table | None:
        table, theirs = self._lake.tables.open(name), self._lake.tables.open(name)
        assert theirs is not None
        theirs.append(pa.table({"n": [1], "_segment": ["a"]}))
        return table


def test_a_fold_that_loses_the_race_moves_and_deletes_nothing(folder_lake: Lake) -> None:
    journal = folder_lake.journal(NAME)
    journal.append(numbers(0), "0")
    journal.fold()
    journal.append(numbers(1), "a")
    journal.append(numbers(2), "b")
    loser = Journal(folder_lake.store, CommittedMeanwhile(folder_lake, [], before=True), NAME)
    assert loser.fold(grace_s=-1) == 0
    assert held(folder_lake) == [0, 1, 2]
    assert journal.fold(grace_s=-1) == 1
    assert held(folder_lake) == [0, 1, 2]


@pytest.mark.parametrize("folded", [True, False])
def test_reals_that_would_cost_a_whole_number_go_to_quarantine_and_stop_nothing(
    folder_lake: Lake, folded: bool
) -> None:
    journal, large = folder_lake.journal(NAME), 2**53 + 1
    journal.append(numbers(large), "a")
    if folded:
        journal.fold()
    journal.append(pa.table({"n": [1.5]}), "b")
    journal.append(pa.table({"n": pa.nulls(1, pa.float64())}), "c")
    journal.append(numbers(5), "d")
    assert len(held(folder_lake, drop_null=True)) == (3 if folded else 2)  # shown until it is set aside
    assert journal.fold() == (2 if folded else 3)
    assert held(folder_lake, drop_null=True) == [5, large]
    assert [entry.key for entry in folder_lake.store.list("quarantine/")] == [f"{keys.QUARANTINED_SEGMENTS}{NAME}/b"]
    journal.append(numbers(6), "e")
    assert journal.fold() == 1


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize(
    "odd", [{"N": [7]}, {"n": [7], "N": [8]}, {"n": [7], "_Segment": ["x"]}, {"n": [7], "x": [1], "X": [None]}]
)
def test_columns_called_alike_but_for_case_go_to_quarantine_and_stop_nothing(
    folder_lake: Lake, folded: bool, odd: dict[str, list[object]]
) -> None:
    journal = folder_lake.journal(NAME)
    journal.append(numbers(1), "a")
    if folded:
        journal.fold()
    journal.append(pa.table(odd), "b")
    journal.append(numbers(2), "c")
    assert held(folder_lake) == [1, 2]
    assert journal.fold() == (1 if folded else 2)
    assert held(folder_lake) == [1, 2]
    assert [entry.key for entry in folder_lake.store.list("quarantine/")] == [f"{keys.QUARANTINED_SEGMENTS}{NAME}/b"]


class EverChanging(FolderStore):
    """Lists a segment that is gone when it is fetched, each time another: a reader that can never keep up."""

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[Entry]:
        yield Entry(f"{prefix}gone", 1, 0.0)


def test_a_reader_that_cannot_keep_up_says_so(folder_lake: Lake) -> None:
    store = EverChanging(folder_lake.store.root)  # type: ignore[attr-defined]
    with pytest.raises(Conflict, match="folded faster"):
        Journal(store, folder_lake.tables, NAME).read()


def test_rows_recorded_by_a_lake_have_their_columns_and_a_segment_each(lake: Lake) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    lake.record("events", [{"kind": "a", "key": "1", "logged_at": at}])
    lake.record("events", [{"kind": "b", "key": "2"}])
    lake.record("events", [])
    lake.record("events", [{"kind": "c", "key": "3"}], "fixed")
    lake.record("events", [{"kind": "c", "key": "3"}], "fixed")
    rows = lake.sql(
        "select kind, logged_at, count(distinct _segment) over () as segments from lakeloop.events order by kind"
    ).to_pylist()
    assert [(row["kind"], row["segments"]) for row in rows] == [("a", 3), ("b", 3), ("c", 3)]
    assert rows[0]["logged_at"] == at
