"""A table whose log or files are damaged: an error of ours that names the table and the way out, however it is read;
what is whole beside it still answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from lakeloop.lakehouse.errors import Corrupt, LakeloopError
from lakeloop.lakehouse.lake import Lake

LOG = "tables/p/t/_delta_log"


def commit(number: int) -> str:
    return f"{LOG}/{number:020d}.json"


def cut(lake: Lake, key: str, keep: float) -> None:
    data = lake.store.get(key)
    lake.store.put(key, data[: int(len(data) * keep)])


def parquet(lake: Lake) -> str:
    return next(entry.key for entry in lake.store.list("tables/p/t/") if entry.key.endswith(".parquet"))


def checkpointed(lake: Lake) -> None:
    table = lake.table("p/t")
    assert table is not None
    table.checkpoint()


def garbage_checkpoint(lake: Lake) -> None:
    checkpointed(lake)
    lake.store.put(f"{LOG}/{3:020d}.checkpoint.parquet", b"garbage" * 100)


DAMAGES: dict[str, Callable[[Lake], None]] = {
    "the newest commit is cut off": lambda lake: cut(lake, commit(3), 0.5),
    "a commit in the middle is cut off": lambda lake: cut(lake, commit(2), 0.5),
    "the first commit is cut off": lambda lake: cut(lake, commit(0), 0.5),
    "a commit is no JSON": lambda lake: lake.store.put(commit(2), b"\x00\xff garbage"),
    "a commit is missing": lambda lake: lake.store.delete([commit(2)]),
    "the first commit is missing": lambda lake: lake.store.delete([commit(0)]),
    "the checkpoint is garbage": garbage_checkpoint,
    "a file is missing": lambda lake: lake.store.delete([parquet(lake)]),
    "a file is garbage": lambda lake: lake.store.put(parquet(lake), b"garbage" * 100),
    "a file is cut off": lambda lake: cut(lake, parquet(lake), 0.9),
    "a file is empty": lambda lake: lake.store.put(parquet(lake), b""),
}


@pytest.fixture
def damaged(folder_lake: Lake, request: pytest.FixtureRequest) -> Lake:
    table = folder_lake.tables.open_or_create("p/t", pa.schema({"n": pa.int64()}))
    for number in range(3):
        table.append(pa.table({"n": list(range(number * 10, number * 10 + 10))}))
    folder_lake.tables.open_or_create("p/whole", pa.schema({"n": pa.int64()})).append(pa.table({"n": [1]}))
    return folder_lake


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_corrupt_by_name_and_stops_nothing_else(damaged: Lake, damage: str) -> None:
    assert damaged.sql("select sum(n)::int as n from p.t").to_pylist() == [{"n": 435}]
    DAMAGES[damage](damaged)
    for sql in ("select sum(n) as n from p.t", "select * from p.t order by n", "select * from p.t where n > 1"):
        with pytest.raises(Corrupt) as error:
            damaged.sql(sql)
        assert "p/t" in str(error.value)
        assert error.value.todo
        assert len(str(error.value).splitlines()) == 2
        assert len(str(error.value)) < 600
        for noise in ("delta_kernel::", "Traceback", "<unknown>", "ParsedLogPath", "LINE 1", "delta_scan"):
            assert noise not in str(error.value)
    assert damaged.sql("select n from p.whole").to_pylist() == [{"n": 1}]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_corrupt_to_whoever_opens_it(damaged: Lake, damage: str) -> None:
    DAMAGES[damage](damaged)

    def read() -> None:
        table = damaged.table("p/t")
        assert table is not None
        table.rows()

    with pytest.raises(LakeloopError) as error:
        read()
    assert isinstance(error.value, Corrupt)
    assert len(str(error.value).splitlines()) == 2


def test_a_hint_at_the_checkpoint_that_is_garbage_costs_nothing(damaged: Lake) -> None:
    checkpointed(damaged)
    damaged.store.put(f"{LOG}/_last_checkpoint", b"garbage")
    assert damaged.sql("select sum(n)::int as n from p.t").to_pylist() == [{"n": 435}]


def test_an_earlier_version_of_a_table_whose_newest_commit_is_damaged_is_still_read(damaged: Lake) -> None:
    """As the error says, by leaving away what came after."""
    newest = Path(damaged.url) / commit(3)
    cut(damaged, commit(3), 0.5)
    newest.unlink()
    assert damaged.sql("select sum(n)::int as n from p.t").to_pylist() == [{"n": 190}]


def test_a_journal_whose_table_is_damaged_is_corrupt_and_loses_no_segment(folder_lake: Lake) -> None:
    folder_lake.record("events", [{"kind": "a", "key": "1"}])
    folder_lake.journal("events").fold(grace_s=-1)
    folder_lake.record("events", [{"kind": "a", "key": "2"}])
    key = f"tables/lakeloop/events/_delta_log/{1:020d}.json"
    whole = folder_lake.store.get(key)
    cut(folder_lake, key, 0.5)
    before = [entry.key for entry in folder_lake.store.list("inbox/")]
    for call in (lambda: folder_lake.sql("from events"), lambda: folder_lake.journal("events").fold(grace_s=-1)):
        with pytest.raises(Corrupt, match="lakeloop/events"):
            call()
    assert [entry.key for entry in folder_lake.store.list("inbox/")] == before
    folder_lake.store.put(key, whole)
    assert folder_lake.sql("select key from events order by key").to_pylist() == [{"key": "1"}, {"key": "2"}]
