"""A journal with very many segments: what a query asks of the store, what is kept of it and for how long, who wakes the
fold, and what a fold takes at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pyarrow as pa
import pytest

from lakeloop.functions.sweep import news, sweep
from lakeloop.lakehouse import events, journal, keys
from lakeloop.lakehouse.compaction import compact
from lakeloop.lakehouse.journal import LOOK_EVERY, WAKE_AT
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.segments import KEPT, Kept, encoded, united
from lakeloop.lakehouse.store import Entry
from lakeloop.lakehouse.testing import FaultyStore

NAME = "numbers"


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


def fill(lake: Lake, count: int, first: int = 0) -> None:
    """Segments of one row, put past the journal: as quickly as a test wants them."""
    for number in range(first, first + count):
        lake.store.put(keys.segment(NAME, f"s{number:06d}"), encoded(numbers(number)))


def held(lake: Lake) -> list[int]:
    rows = lake.journal(NAME).read()
    return [] if rows is None else sorted(rows.column("n").to_pylist())


def counted(lake: Lake) -> tuple[Lake, FaultyStore]:
    store = FaultyStore(lake.store)
    return Lake(store, "tester"), store


# -- what is asked of the store, and what is kept ---


def test_a_query_gets_each_segment_once_and_a_second_one_only_lists(lake: Lake) -> None:
    lake.journal(NAME).append(numbers(99), "first")
    lake.journal(NAME).fold()
    fill(lake, 40)
    asking, store = counted(lake)
    for turn in range(3):
        assert held(asking) == [*range(40), 99]
        gets = [call for call in store.calls if call.startswith("get inbox/")]
        lists = [call for call in store.calls if call.startswith("list inbox/")]
        tombstones = [call for call in store.calls if call.startswith("list docs/forgotten/")]
        assert (len(gets), len(lists), len(tombstones)) == (40, turn + 1, turn + 1)
    fill(lake, 1, first=40)
    assert held(asking) == [*range(41), 99]
    assert len([call for call in store.calls if call.startswith("get inbox/")]) == 41


def test_a_segment_that_was_deleted_or_written_anew_is_not_answered_from_what_is_kept(lake: Lake) -> None:
    """As `lake forget` does it, in whatever process."""
    fill(lake, 3)
    assert held(lake) == [0, 1, 2]
    other = open_lake(lake.url, who="another")
    other.store.delete([keys.segment(NAME, "s000001")])
    assert held(lake) == [0, 2]
    other.store.put(keys.segment(NAME, "s000002"), encoded(numbers(7)))
    assert held(lake) == [0, 7]


def test_what_is_kept_of_a_lake_can_be_dropped(folder_lake: Lake) -> None:
    fill(folder_lake, 3)
    held(folder_lake)
    asking, store = counted(folder_lake)
    assert held(asking) == [0, 1, 2]
    assert not [call for call in store.calls if call.startswith("get")]
    KEPT.forget(folder_lake.url)
    assert held(asking) == [0, 1, 2]
    assert len([call for call in store.calls if call.startswith("get")]) == 3


def test_what_is_kept_is_bounded_and_the_longest_unused_goes_first() -> None:
    kept: Kept[str] = Kept(limit=100)

    def entry(name: str, size: int = 40, tag: str = "t") -> Entry:
        return Entry(name, size, 0.0, tag)

    for name in ("a", "b"):
        kept.put("lake", entry(name), name)
    assert kept.get("lake", entry("a")) == "a"
    kept.put("lake", entry("c"), "c")
    assert [kept.get("lake", entry(name)) for name in "abc"] == ["a", None, "c"]
    assert kept.bytes == 80
    kept.put("lake", entry("c", 10), "c2")
    assert kept.bytes == 50
    kept.put("lake", entry("huge", 101), "huge")
    kept.put("lake", entry("untagged", 1, ""), "untagged")
    assert kept.get("lake", entry("huge", 101)) is None
    assert kept.get("lake", entry("untagged", 1, "")) is None
    assert kept.get("another", entry("a")) is None
    assert kept.get("lake", entry("a", 40, "other")) is None
    kept.forget("lake")
    assert kept.bytes == 0


def test_a_fold_keeps_nothing(folder_lake: Lake) -> None:
    fill(folder_lake, 3)
    before = KEPT.bytes
    folder_lake.journal(NAME).fold()
    assert KEPT.bytes == before


# -- segments of one schema are joined before they are cast, and mean what they mean one by one ---

SHAPES: tuple[dict[str, list[object]], ...] = (
    {"n": [1]},
    {"n": [1], "word": ["a"]},
    {"n": [1], "word": [None]},
    {"n": [1.5]},
    {"n": [None]},
    {"n": ["text"]},
    {"n": [True], "word": ["b"]},
    {"word": ["c"]},
)


def test_segments_of_any_shapes_are_joined_as_they_are_one_by_one(folder_lake: Lake) -> None:
    """Against the sum of single segments, each judged by the table and by those before it."""
    for first in range(len(SHAPES)):
        for second in range(len(SHAPES)):
            parts = [pa.table(SHAPES[index]) for index in (first, second, first, second)]
            names = ["a", "b", "c", "d"]
            rows, unusable = united(names, parts, pa.schema([]))
            schema, alone = pa.schema([]), []
            for name, part in zip(names, parts, strict=True):
                single, _ = united([name], [part], schema)
                if single is not None:
                    schema = pa.unify_schemas([schema, single.schema], promote_options="permissive")
                    alone.append(single)
            wanted = pa.concat_tables(alone, promote_options="permissive")
            assert rows is not None
            key = [("_segment", "ascending")]
            assert rows.sort_by(key).to_pylist() == wanted.sort_by(key).to_pylist(), (first, second)
            assert sorted([*unusable, *rows.column("_segment").to_pylist()]) == names


# -- who wakes the fold ---


def waking(lake: Lake) -> list[str]:
    return [key for key in events.pending(lake) if "fold-" in key]


def test_a_reader_of_a_thousand_segments_wakes_the_sweep_which_folds_them(folder_lake: Lake) -> None:
    fill(folder_lake, WAKE_AT - 1)
    assert folder_lake.sql("select 1").num_rows == 1
    folder_lake.journal(NAME).snapshot()
    assert waking(folder_lake) == []
    fill(folder_lake, 1, first=WAKE_AT - 1)
    folder_lake.journal(NAME).snapshot()
    assert waking(folder_lake) == [f"{keys.EVENTS}fold-{NAME}"]
    assert news(folder_lake) == {f"{keys.EVENTS}fold-{NAME}"}
    swept = sweep(folder_lake, lambda *_args, **_more: None)  # type: ignore[arg-type,return-value]
    assert ("rows folded", WAKE_AT) in [(one.what, one.count) for one in swept.done["maintain_lake"]]
    table = folder_lake.table(f"lakeloop/{NAME}")
    assert table is not None
    assert sorted(table.rows().column("n").to_pylist()) == list(range(WAKE_AT))
    assert waking(folder_lake) == []
    folder_lake.journal(NAME).snapshot()  # folded, and still in the inbox for their grace
    assert waking(folder_lake) == []


def test_a_writer_looks_now_and_then_and_wakes_the_sweep(folder_lake: Lake) -> None:
    fill(folder_lake, WAKE_AT)
    writing, store = counted(folder_lake)
    for number in range(LOOK_EVERY):
        assert waking(folder_lake) == []
        writing.journal(NAME).append(numbers(number), f"w{number:06d}")
    assert waking(folder_lake) == [f"{keys.EVENTS}fold-{NAME}"]
    assert len([call for call in store.calls if call.startswith("list")]) == 1


def test_an_event_that_cannot_be_put_is_no_failure_of_an_append_or_a_read(folder_lake: Lake) -> None:
    from lakeloop.lakehouse.errors import Denied

    class NoEvents(FaultyStore):
        def put(self, key: str, body: object, *, if_absent: bool = False) -> None:
            if key.startswith(keys.EVENTS):
                raise Denied("no permission for events/")
            super().put(key, body, if_absent=if_absent)  # type: ignore[arg-type]

    fill(folder_lake, WAKE_AT)
    lake = Lake(NoEvents(folder_lake.store), "tester")
    for number in range(LOOK_EVERY):
        lake.journal(NAME).append(numbers(number), f"w{number:06d}")
    assert len(held(lake)) == WAKE_AT + LOOK_EVERY


# -- what a fold takes at once ---


@pytest.mark.parametrize("limits", [{"FOLD_SEGMENTS": 7}, {"FOLD_BYTES": 3000}])
def test_a_fold_of_much_is_several_commits_each_of_bounded_size(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(journal, name, value)
    at_once: list[int] = []
    read = journal.read_segments
    monkeypatch.setattr(
        journal, "read_segments", lambda store, entries, keep: at_once.append(len(entries)) or read(store, entries)
    )
    fill(folder_lake, 20)
    folder_lake.store.put(keys.segment(NAME, "s000010x"), b"broken")
    assert folder_lake.journal(NAME).fold() == 20
    assert len(at_once) > 2
    assert max(at_once) <= 7
    table = folder_lake.table(f"lakeloop/{NAME}")
    assert table is not None
    assert table.version == len(at_once)
    assert held(folder_lake) == list(range(20))


def test_a_fold_that_is_overtaken_between_its_commits_moves_no_row_twice(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FOLD_SEGMENTS", 5)
    fill(folder_lake, 20)
    read, other = journal.read_segments, folder_lake.journal(NAME)
    turns: list[int] = []

    def overtaken(store: object, entries: list[Entry], *, keep: bool = True) -> list[pa.Table | None]:
        turns.append(len(entries))
        if len(turns) == 2:
            other.fold()
        return read(store, entries, keep=keep)  # type: ignore[arg-type]

    monkeypatch.setattr(journal, "read_segments", overtaken)
    assert folder_lake.journal(NAME).fold() == 5
    assert held(folder_lake) == list(range(20))
    table = folder_lake.table(f"lakeloop/{NAME}")
    assert table is not None
    assert sorted(table.rows().column("n").to_pylist()) == list(range(20))


def test_names_that_the_table_holds_are_found_among_very_many(folder_lake: Lake) -> None:
    """Files are pruned by the bounds of the names: those before them are not opened, so one of them may be gone."""
    table = folder_lake.tables.open_or_create("lakeloop/numbers", pa.schema({"n": pa.int64(), "_segment": pa.string()}))
    for part in range(4):
        names = [f"s{number:06d}" for number in range(part * 1000, part * 1000 + 1000)]
        table.append(pa.table({"n": range(1000), "_segment": names}))
    asked = [f"s{number:06d}" for number in range(3500, 13_500)]
    assert table.column("_segment", asked) == {f"s{number:06d}" for number in range(3500, 4000)}
    oldest = min(
        (entry for entry in folder_lake.store.list("tables/lakeloop/numbers/part")), key=lambda entry: -entry.age_s
    )
    folder_lake.store.delete([oldest.key])
    assert table.column("_segment", asked) == {f"s{number:06d}" for number in range(3500, 4000)}
    assert table.column("_segment", []) == set()


# -- real processes ---

WRITER = """
import sys
import pyarrow as pa
from lakeloop.lakehouse.lake import open_lake
url, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
lake = open_lake(url, who=writer)
sys.stdin.readline()
for number in range(count):
    rows = pa.table({"n": [number], "writer": [writer]})
    for _ in range(1 + number % 3):
        lake.journal("numbers").append(rows, f"{writer}-{number:04d}")
    if writer.startswith("fold") and number % 10 == 0:
        lake.journal("numbers").fold(grace_s=-1 if number % 20 else 60)
"""


def run_together(url: str, writers: list[str], count: int) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, name, str(count)], stdin=subprocess.PIPE, text=True)
        for name in writers
    ]
    for process in running:
        process.communicate("go\n")
    assert [process.returncode for process in running] == [0] * len(writers)


@pytest.mark.parametrize("count", [pytest.param(40), pytest.param(400, marks=pytest.mark.slow)])
def test_many_processes_append_and_fold_at_once_and_each_row_is_there_once(lake: Lake, count: int) -> None:
    """Two of the four also fold, and delete what they find folded; every third append is sent once, twice, thrice."""
    count = count if lake.url.startswith("/") else count // 4
    writers = ["a", "b", "folds-a", "folds-b"]
    run_together(lake.url, writers, count)
    wanted = sorted((writer, number) for writer in writers for number in range(count))

    def found() -> list[tuple[str, int]]:
        rows = lake.journal(NAME).read()
        assert rows is not None
        return sorted((row["writer"], row["n"]) for row in rows.to_pylist())

    assert found() == wanted
    for _ in range(3):
        lake.journal(NAME).fold(grace_s=-1)
    assert found() == wanted
    table = lake.table(f"lakeloop/{NAME}")
    assert table is not None
    assert sorted((row["writer"], row["n"]) for row in table.rows().to_pylist()) == wanted


# -- after a year ---


def test_a_segment_that_comes_again_after_a_year_of_maintenance_is_recognised(lake: Lake) -> None:
    """The table alone remembers it: its log is checkpointed and cleaned, its files are compacted, the old ones gone."""
    from deltalake import DeltaTable

    for number in range(12):
        lake.journal(NAME).append(numbers(number), f"s{number:06d}")
        lake.journal(NAME).fold()
    lake.journal(NAME).fold(grace_s=-1)
    assert list(lake.store.list(keys.inbox(NAME))) == []
    table = lake.table(f"lakeloop/{NAME}")
    assert table is not None
    assert compact(lake.store, table) == 12
    table.checkpoint()
    location = lake.store.location()
    delta = DeltaTable(lake.tables.uri(f"lakeloop/{NAME}"), storage_options=dict(location.options))
    delta.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    lake.store.delete(
        [entry.key for entry in lake.store.list(f"{keys.table(f'lakeloop/{NAME}')}/_delta_log/0") if is_old(entry)]
    )
    for number in (0, 5, 11):
        lake.journal(NAME).append(numbers(number), f"s{number:06d}")
    lake.journal(NAME).append(numbers(12), "s000012")
    assert held(lake) == list(range(13))
    assert lake.journal(NAME).fold(grace_s=-1) == 1
    lake.journal(NAME).fold(grace_s=-1)
    assert held(lake) == list(range(13))
    assert list(lake.store.list(keys.inbox(NAME))) == []


def is_old(entry: Entry) -> bool:
    """A commit that the checkpoint (version 13) covers."""
    name = entry.key.rsplit("/", 1)[1]
    return name.endswith(".json") and int(name[:20]) < 13


BACKWARDS: tuple[Callable[[list[int]], list[int]], ...] = (lambda order: order[::-1], lambda order: order[1::2] + order)


@pytest.mark.parametrize("order", BACKWARDS)
def test_segments_that_come_in_another_order_and_again_are_read_once(
    folder_lake: Lake, order: Callable[[list[int]], list[int]]
) -> None:
    for turn, number in enumerate(order(list(range(20)))):
        folder_lake.journal(NAME).append(numbers(number), f"s{number:06d}")
        if turn % 4 == 0:
            folder_lake.journal(NAME).fold(grace_s=-1)
    assert held(folder_lake) == list(range(20))
