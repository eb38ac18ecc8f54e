"""Tables: of two writers from one version one wins, whatever both do; types are kept; columns may be added."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from lakeloop.lakehouse.compaction import compact
from lakeloop.lakehouse.errors import Conflict, Corrupt, Invalid, NotFound, Refused, Unknown
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.stored import stored, stored_type
from lakeloop.lakehouse.tables import Table

if TYPE_CHECKING:
    from lakeloop.tests.functional.lakehouse.conftest import Proxy

DROP = -1
NAME = "team/numbers"


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


def made(lake: Lake, *values: int) -> Table:
    table = lake.tables.open_or_create(NAME, numbers().schema)
    if values:
        table.append(numbers(*values))
    return table


def held(lake: Lake) -> list[int]:
    table = lake.table(NAME)
    assert table is not None
    return sorted(table.rows().column("n").to_pylist())


def opened(lake: Lake) -> Table:
    table = lake.table(NAME)
    assert table is not None
    return table


Write = Callable[[Table, pa.Table], int]
WRITES: dict[str, Write] = {"append": Table.append, "overwrite": Table.overwrite}


def test_a_table_that_is_not_there_is_none(lake: Lake) -> None:
    assert lake.table(NAME) is None


@pytest.mark.parametrize("second", WRITES)
@pytest.mark.parametrize("first", WRITES)
def test_a_second_commit_from_one_version_is_a_conflict(lake: Lake, first: str, second: str) -> None:
    made(lake, 1)
    one, other = opened(lake), opened(lake)
    WRITES[first](one, numbers(2))
    for _ in range(2):  # a refused handle stays refused
        with pytest.raises(Conflict, match="newer version"):
            WRITES[second](other, numbers(3))
    assert held(lake) == ([1, 2] if first == "append" else [2])


@pytest.mark.parametrize("second", WRITES)
@pytest.mark.parametrize("first", WRITES)
def test_of_two_first_writes_into_an_empty_table_one_wins(lake: Lake, first: str, second: str) -> None:
    made(lake)
    one, other = opened(lake), opened(lake)
    WRITES[first](one, numbers(1))
    with pytest.raises(Conflict):
        WRITES[second](other, numbers(2))
    assert held(lake) == [1]


def test_one_handle_writes_in_sequence(lake: Lake) -> None:
    table = made(lake)
    versions = [
        table.append(numbers(1)),
        table.append(numbers(2)),
        table.overwrite(numbers(3)),
        table.append(numbers(4)),
    ]
    assert versions == [1, 2, 3, 4]
    assert table.version == 4
    assert held(lake) == [3, 4]


def test_a_stale_handle_is_refused_after_a_checkpoint_and_a_compaction(lake: Lake) -> None:
    made(lake, 1)
    stale = opened(lake)
    table = opened(lake)
    table.append(numbers(2))
    table.append(numbers(3))
    assert compact(lake.store, table) == 3
    table.checkpoint()
    with pytest.raises(Conflict):
        stale.append(numbers(9))
    opened(lake).append(numbers(4))
    assert held(lake) == [1, 2, 3, 4]


CHANGES: dict[str, Callable[[Lake, Table], object]] = {
    "append": lambda lake, table: table.append(numbers(3)),
    "overwrite": lambda lake, table: table.overwrite(numbers(1, 2, 3)),
    "retype": lambda lake, table: table.retype({"n": pa.float64()}),
    "remove": lambda lake, table: table.remove("n = 2"),
    "compact": lambda lake, table: compact(lake.store, table),
}
AFTER = {"append": [1, 2, 3], "overwrite": [1, 2, 3], "retype": [1, 2], "remove": [1], "compact": [1, 2]}


@pytest.mark.parametrize(
    ("first", "second"), [("compact", one) for one in CHANGES] + [(one, "compact") for one in CHANGES]
)
def test_a_compaction_is_a_commit_like_any_other(lake: Lake, first: str, second: str) -> None:
    made(lake, 1).append(numbers(2))
    one, other = opened(lake), opened(lake)
    CHANGES[first](lake, one)
    with pytest.raises(Conflict):
        CHANGES[second](lake, other)
    assert held(lake) == AFTER[first]
    CHANGES[second](lake, opened(lake))
    assert held(lake) == AFTER[second] if first == "compact" else AFTER[first]


def test_a_compaction_keeps_rows_columns_and_statistics_and_leaves_large_files(lake: Lake) -> None:
    table = made(lake, 1)
    table.append(pa.table({"n": [2, None], "word": ["two", "é" * 50], "at": [datetime(2026, 1, 1, tzinfo=UTC)] * 2}))
    table.append(numbers(3))
    before = opened(lake).rows().sort_by("n")
    assert compact(lake.store, table) == 3
    assert (opened(lake).version, table.version, len(table.files)) == (4, 4, 1)
    assert opened(lake).rows().sort_by("n").select(before.column_names) == before
    assert (table.data_files()[0].rows, table.newest("at")) == (4, datetime(2026, 1, 1, tzinfo=UTC))
    assert compact(lake.store, table) == 0
    assert table.append(numbers(4)) == 5


def test_every_column_has_statistics_also_the_last_of_many(folder_lake: Lake) -> None:
    wide = pa.table({**{f"c{number}": [number] for number in range(60)}, "_file": ["a"]})
    table = folder_lake.tables.open_or_create(NAME, wide.schema)
    table.append(wide)
    table.append(wide.set_column(60, "_file", pa.array(["b"])))
    compact(folder_lake.store, table)
    table.append(wide.set_column(60, "_file", pa.array(["c"])))
    found = pa.table(opened(folder_lake)._delta.get_add_actions(flatten=True))
    assert sorted(found.column("max._file").to_pylist()) == ["b", "c"]


def test_writers_that_race_and_decide_again_double_and_lose_nothing(folder_lake: Lake) -> None:
    made(folder_lake)

    def write(number: int) -> None:
        while True:
            try:
                opened(folder_lake).append(numbers(number))
                return
            except Conflict:
                if number in held(folder_lake):  # an answer that was lost would look like this
                    return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(12)))
    assert held(folder_lake) == list(range(12))


def test_everybody_who_makes_a_table_gets_the_same_one(lake: Lake) -> None:
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: lake.tables.open_or_create(NAME, numbers().schema), range(4)))
    assert [table.version for table in tables] == [0] * 4
    outcomes = []
    for number, table in enumerate(tables):
        try:
            outcomes.append(table.append(numbers(number)))
        except Conflict:
            outcomes.append(0)
    assert outcomes == [1, 0, 0, 0]
    assert held(lake) == [0]


def test_a_column_that_comes_later_is_null_before(lake: Lake) -> None:
    table = made(lake, 1)
    table.append(pa.table({"n": [2], "word": ["two"]}))
    table.append(numbers(3))
    rows = opened(lake).rows().sort_by("n")
    assert rows.to_pydict() == {"n": [1, 2, 3], "word": [None, "two", None]}


def test_a_handle_from_before_a_new_column_is_refused_like_any_other(lake: Lake) -> None:
    made(lake, 1)
    stale = opened(lake)
    opened(lake).append(pa.table({"n": [2], "word": ["two"]}))
    with pytest.raises(Conflict):
        stale.append(numbers(3))


def test_reals_widen_a_column_of_whole_numbers_and_nothing_is_cut_off(lake: Lake) -> None:
    table = made(lake, 1, 2)
    table.append(pa.table({"n": [1.5], "word": ["x"]}), facts={"file": "f"})
    assert sorted(opened(lake).rows().column("n").to_pylist()) == [1.0, 1.5, 2.0]
    assert opened(lake).schema.field("n").type == pa.float64()
    newest, before = opened(lake).facts(2)
    assert (newest["file"], before["lakeloop.retyped"]) == ("f", "n")


def test_whole_numbers_fit_a_column_of_reals(lake: Lake) -> None:
    table = lake.tables.open_or_create(NAME, pa.schema([("n", pa.float64())]))
    table.append(numbers(3))
    assert opened(lake).rows().to_pydict() == {"n": [3.0]}


@pytest.mark.parametrize(
    "values",
    [pa.array(["x"]), pa.array([True]), pa.array([date(2026, 1, 1)]), pa.array([[1]])],
    ids=["text", "truth", "date", "list"],
)
def test_another_type_is_refused_and_names_the_column(folder_lake: Lake, values: pa.Array) -> None:
    table = made(folder_lake, 1)
    with pytest.raises(Invalid, match="the column n holds int64"):
        table.append(pa.table({"n": values}))
    assert held(folder_lake) == [1]


def test_a_column_gets_another_type_in_one_commit_and_no_value_is_lost(lake: Lake) -> None:
    table = made(lake, 1, 2)
    table.append(pa.table({"n": [3], "word": ["4.5"]}))
    assert table.retype({"n": pa.string(), "word": pa.float64()}) == 3
    assert opened(lake).rows().sort_by("n").to_pydict() == {"n": ["1", "2", "3"], "word": [None, None, 4.5]}
    stale = opened(lake)
    table.append(pa.table({"n": ["x"]}))
    with pytest.raises(Conflict):
        stale.retype({"word": pa.string()})
    with pytest.raises(Invalid, match="n cannot become int64"):
        opened(lake).retype({"n": pa.int64()})
    assert (opened(lake).version, opened(lake).rows().num_rows) == (4, 4)


def test_a_stream_that_breaks_commits_nothing_and_its_error_is_told(lake: Lake) -> None:
    table = made(lake, 1)

    def breaking() -> Iterator[pa.RecordBatch]:
        yield numbers(2).to_batches()[0]
        raise Refused("no more", todo="stop")

    for write in WRITES.values():
        with pytest.raises(Refused, match="no more"):
            write(table, pa.RecordBatchReader.from_batches(numbers().schema, breaking()))
    assert (opened(lake).version, held(lake)) == (1, [1])


def test_rows_are_removed_by_a_condition_in_one_commit(lake: Lake) -> None:
    table = made(lake, 1, 2)
    table.append(numbers(3))
    stale = opened(lake)
    assert table.remove("n = 2") == 1
    assert held(lake) == [1, 3]
    with pytest.raises(Conflict):
        stale.remove("n = 1")
    with pytest.raises(Conflict):
        stale.append(numbers(9))
    assert (opened(lake).remove("n = 7"), held(lake)) == (0, [1, 3])


def test_older_versions_are_opened_by_number_and_by_time(lake: Lake) -> None:
    table = made(lake, 1)
    time.sleep(0.02)
    between = datetime.now(UTC)
    time.sleep(0.02)
    table.append(numbers(2))

    def rows(**asked: Any) -> list[int]:
        found = lake.tables.open(NAME, **asked)
        assert found is not None
        return sorted(found.rows().column("n").to_pylist())

    assert [rows(version=n) for n in range(3)] == [[], [1], [1, 2]]
    assert (rows(at=between), rows(at=datetime(2100, 1, 1, tzinfo=UTC))) == ([1], [1, 2])
    with pytest.raises(NotFound, match="has no version 3 \\(the newest is version 2\\)"):
        rows(version=3)
    with pytest.raises(NotFound, match="nothing is known of team/numbers at 2000"):
        rows(at=datetime(2000, 1, 1, tzinfo=UTC))
    assert lake.tables.open("team/nothing", version=1) is None


def put_once(lake: Lake, number: int) -> None:
    """How every writer of ours works: open, look, write with that handle; after any doubt once more."""
    for _ in range(5):
        table = opened(lake)
        if number in table.rows().column("n").to_pylist():
            return
        with contextlib.suppress(Conflict, Unknown):
            table.append(numbers(number))
    raise AssertionError("never")


@pytest.mark.parametrize("status", [DROP, 403, 500, 409, 412])
@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_a_commit_whose_answer_is_lost_or_wrong_is_there_once(
    bucket: str, proxy: Proxy, suffix: str, status: int
) -> None:
    lake = open_lake(f"s3://{bucket}/lake", who="tester")
    made(lake, 1)
    seen: list[str] = []

    def first(method: str, path: str, number: int) -> int:
        if method != "PUT" or not path.endswith(suffix) or len(seen) >= 1:
            return 0
        seen.append(path)
        return status

    proxy.answer = first
    put_once(lake, 2)
    assert (len(seen), held(lake)) == (1, [1, 2])
    assert sum(opened(lake).rows().column("n").to_pylist()) == 3


def test_a_writer_that_may_not_delete_works_past_a_checkpoint_with_old_log_entries(
    bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.target)
    lake = open_lake(f"s3://{bucket}/lake", who="tester")
    table = made(lake, 1)
    table._delta.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    for number in range(2, 5):
        opened(lake).append(numbers(number))
    opened(lake).checkpoint()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    lake = open_lake(f"s3://{bucket}/lake", who="a role without Delete")
    proxy.answer = lambda method, path, number: 403 if method in ("DELETE", "POST") else 0
    for number in range(5, 15):
        opened(lake).append(numbers(number))
    assert held(lake) == list(range(1, 15))
    assert not [call for call in proxy.seen if call.startswith(("DELETE", "POST"))]


def test_a_column_without_values_has_the_type_that_is_there(folder_lake: Lake) -> None:
    made(folder_lake, 1).append(pa.table({"n": pa.nulls(2), "m": pa.array([1, None])}))
    assert opened(folder_lake).rows().column("n").null_count == 2
    assert opened(folder_lake).schema.field("n").type == pa.int64()


def test_an_overwrite_may_change_columns_and_types(folder_lake: Lake) -> None:
    made(folder_lake, 1).overwrite(pa.table({"n": ["text"], "more": [True]}))
    assert opened(folder_lake).rows().to_pydict() == {"n": ["text"], "more": [True]}


def test_values_are_found_in_a_column_and_only_files_that_may_hold_them_are_read(folder_lake: Lake) -> None:
    table = folder_lake.tables.open_or_create(NAME, pa.schema([("word", pa.string())]))
    for word in ("apple", "melon", "zebra"):
        table.append(pa.table({"word": [word, word]}))
    assert table.column("word", ["melon", "nothing", "zebra"]) == {"melon", "zebra"}
    assert table.column("word", []) == set()
    assert table.column("none", ["apple"]) == set()
    for (
        uri
    ) in table.files:  # statistics say that only one file can hold a melon: the others are not even there any more
        from pathlib import Path

        path = Path(uri.removeprefix("file://"))
        if b"melon" not in path.read_bytes():
            path.unlink()
    assert table.column("word", ["melon"]) == {"melon"}


def test_facts_of_a_commit_are_kept(folder_lake: Lake) -> None:
    table = made(folder_lake)
    table.append(numbers(1), facts={"file": "a.csv"})
    assert opened(folder_lake).facts(1)[0]["file"] == "a.csv"


def test_a_damaged_log_is_corrupt_and_says_what_to_do(folder_lake: Lake) -> None:
    from pathlib import Path

    made(folder_lake, 1)
    (Path(folder_lake.url) / "tables" / NAME / "_delta_log" / "00000000000000000001.json").write_text("{")
    with pytest.raises(Corrupt, match=NAME) as error:
        folder_lake.table(NAME)
    assert error.value.todo


def test_types_are_stored_as_the_design_says() -> None:
    for kind, expected in (
        (pa.int8(), pa.int64()),
        (pa.uint32(), pa.int64()),
        (pa.float32(), pa.float64()),
        (pa.decimal128(9, 2), pa.float64()),
        (pa.large_string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.date64(), pa.date32()),
        (pa.timestamp("ns"), pa.timestamp("us", "UTC")),
        (pa.bool_(), pa.bool_()),
        (pa.large_list(pa.int16()), pa.list_(pa.int64())),
        (pa.list_(pa.timestamp("s")), pa.list_(pa.timestamp("us", "UTC"))),
    ):
        assert stored_type(kind) == expected, kind


def test_values_come_back_as_they_were_stored(lake: Lake) -> None:
    moment = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
    rows = stored(
        pa.table(
            {
                "whole": pa.array([7, None], pa.uint8()),
                "real": pa.array([0.1, None], pa.float32()),
                "money": pa.array([Decimal("1.25"), None], pa.decimal128(9, 2)),
                "truth": pa.array([True, None]),
                "day": pa.array([date(1969, 12, 31), None], pa.date64()),
                "at": pa.array([moment, None], pa.timestamp("us", "Europe/Berlin")),
                "naive": pa.array([datetime(2026, 1, 1, 5), None], pa.timestamp("ms")),
                "word": pa.array(["é\0\n'\"", None]).dictionary_encode(),
                "list": pa.array([[1, None], None], pa.list_(pa.int16())),
            }
        )
    )
    lake.tables.open_or_create(NAME, rows.schema).append(rows)
    found = opened(lake).rows().to_pylist()
    assert found[0] == {
        "whole": 7,
        "real": pytest.approx(0.1, abs=1e-8),
        "money": 1.25,
        "truth": True,
        "day": date(1969, 12, 31),
        "at": moment,
        "naive": datetime(2026, 1, 1, 5, tzinfo=UTC),
        "word": "é\0\n'\"",
        "list": [1, None],
    }
    assert set(found[1].values()) == {None}


def test_times_finer_than_a_microsecond_are_cut_not_refused() -> None:
    assert stored(pa.table({"at": pa.array([1_999], pa.timestamp("ns"))})).column("at").cast(
        pa.int64()
    ).to_pylist() == [1]
