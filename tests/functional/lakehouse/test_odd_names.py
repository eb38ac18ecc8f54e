"""Names of tables, columns and folders are data: no spelling of one becomes SQL."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.lake import Lake, open_lake

TABLES = (
    "it's",
    "a'); drop view x; --",
    'double"quote',
    "select",
    "a b",
    "a;b",
    "a--b",
    "a#b",
    "ünï",
    "日本",
    "a+b",
    "a&b=c",
    "$(x)",
    "{f}",
    "%s",
    "UPPER",
)
COLUMNS = (
    "it's",
    'double"quote',
    "select",
    "from",
    "a b",
    "x; drop table t; --",
    "') or 1=1 --",
    "ünï",
    "日本",
    "a.b",
    "%s",
    "_line",
    "?",
    "$1",
    "*",
    "",
)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def write(lake: Lake, folder: str, rows: pa.Table) -> None:
    """A Delta table that some other tool put into the lake."""
    from deltalake import write_deltalake

    location = lake.store.location()
    if not location.options:
        Path(f"{location.uri}/tables/{folder}").mkdir(parents=True)
    write_deltalake(f"{location.uri}/tables/{folder}", rows, storage_options=dict(location.options))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_whose_name_is_no_identifier_is_read_by_it(folder_lake: Lake, name: str) -> None:
    write(folder_lake, f"other/{name}", pa.table({"n": [1, 2]}))
    assert folder_lake.sql(f"select sum(n)::int as n from other.{quoted(name)}").to_pylist() == [{"n": 3}]
    assert folder_lake.sql(f"select n from other.{quoted(name + '@0')} where n = 1").to_pylist() == [{"n": 1}]
    write(folder_lake, f"{name}/t", pa.table({"n": [3]}))
    assert folder_lake.sql(f"select n from {quoted(name)}.t").to_pylist() == [{"n": 3}]


def test_a_name_with_a_quote_is_read_on_s3_too(bucket: str) -> None:
    lake = open_lake(f"s3://{bucket}/it's", who="tester")
    write(lake, "other/it's", pa.table({"n": [1]}))
    assert lake.sql('select n from other."it\'s"').to_pylist() == [{"n": 1}]


def test_columns_with_any_name_are_columns(folder_lake: Lake) -> None:
    columns = [name for name in COLUMNS if name]
    write(folder_lake, "other/t", pa.table({name: [number] for number, name in enumerate(columns)}))
    found = folder_lake.sql("select * from other.t")
    assert found.to_pylist() == [{name: number for number, name in enumerate(columns)}]
    for number, name in enumerate(columns):
        assert folder_lake.sql(f"select {quoted(name)} as v from other.t").to_pylist() == [{"v": number}]


def test_rows_in_memory_may_have_columns_with_any_name(folder_lake: Lake) -> None:
    """A journal's segments may bring them; DuckDB has no column without a name."""
    rows = pa.table({name: [number] for number, name in enumerate(name for name in COLUMNS if name)})
    folder_lake.journal("odd").append(rows, "a")
    folder_lake.journal("odd").fold()
    folder_lake.journal("odd").append(rows, "b")
    read = folder_lake.journal("odd").read()
    assert read is not None
    assert read.drop_columns("_segment").to_pylist() == rows.to_pylist() * 2


@pytest.mark.parametrize("folder", ["ünï 日本", "日本", "it's", "a b", "100%", "a#b", 'q"q'])
def test_a_lake_lies_in_a_folder_with_any_name(tmp_path: Path, folder: str) -> None:
    lake = open_lake(str(tmp_path / folder / "lake"), who="tester")
    lake.record("events", [{"kind": "a", "key": "1"}])
    lake.journal("events").fold()
    lake.record("events", [{"kind": "a", "key": "2"}])
    assert lake.sql("select key from lakeloop.events order by key").to_pylist() == [{"key": "1"}, {"key": "2"}]


def test_a_folder_that_delta_would_take_for_another_is_refused(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "a%20b"), who="tester")
    lake.record("events", [{"kind": "a", "key": "1"}])
    for call in (lambda: lake.sql("from lakeloop.events"), lake.journal("events").fold, lambda: lake.table("p/t")):
        with pytest.raises(Invalid, match="%20"):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["a%20b"]


@pytest.mark.parametrize("name", ["x' or '1'='1", 'x" or "1"="1', "..", "a/b", "", " "])
def test_a_project_with_an_evil_name_is_none(folder_lake: Lake, name: str) -> None:
    from lakeloop.lakehouse.errors import LakeloopError

    with pytest.raises(LakeloopError):
        folder_lake.sql("from weather", project=name)
    with pytest.raises(Invalid):
        folder_lake.sql(f"from {quoted(name)}.weather")
