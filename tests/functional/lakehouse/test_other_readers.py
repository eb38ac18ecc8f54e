"""A table of ours, read by readers nobody here wrote: Polars, delta-rs (as Arrow and by DataFusion) and DuckDB see the
same rows, at every version."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder

from lakeloop.lakehouse.column_types import stored
from lakeloop.lakehouse.compaction import compact
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.query.session import Session, Stored

pytestmark = pytest.mark.slow_on_s3
NAME = "team/things"
Row = dict[str, Any]
Read = Callable[[Lake, int], pa.Table]


def by_delta_rs(lake: Lake, version: int) -> pa.Table:
    return _delta(lake, version).to_pyarrow_table()


def by_datafusion(lake: Lake, version: int) -> pa.Table:
    return pa.table(QueryBuilder().register("t", _delta(lake, version)).execute("select * from t").read_all())


def by_polars(lake: Lake, version: int) -> pa.Table:
    options = {**lake.store.location().options}
    return pl.read_delta(lake.tables.uri(NAME), version=version, storage_options=options).to_arrow()


def by_lazy_polars(lake: Lake, version: int) -> pa.Table:
    options = {**lake.store.location().options}
    lazy = pl.scan_delta(lake.tables.uri(NAME), version=version, storage_options=options)
    return lazy.filter(pl.col("id") >= 0).collect().to_arrow()


def by_duckdb(lake: Lake, version: int) -> pa.Table:
    with Session(lake.store.location(), lambda _name: Stored(lake.tables.uri(NAME), version)) as session:
        return session.run("select * from t")


READERS: dict[str, Read] = {
    "delta-rs": by_delta_rs,
    "DataFusion": by_datafusion,
    "Polars": by_polars,
    "lazy Polars": by_lazy_polars,
    "DuckDB": by_duckdb,
}


def _delta(lake: Lake, version: int) -> DeltaTable:
    return DeltaTable(lake.tables.uri(NAME), version=version, storage_options={**lake.store.location().options})


def seen(table: pa.Table) -> list[Row]:
    """The rows in the types we store, by id. Order of columns is nobody's promise."""
    rows: list[Row] = stored(table).to_pylist()
    return sorted(rows, key=lambda row: row["id"])


def row(number: int) -> Row:
    """Each column also without a value, and with the least friendly ones."""
    return {
        "id": number,
        "whole": [None, -(2**63), 2**63 - 1, 0][number % 4],
        "real": [None, 0.1, float("inf"), -0.0, 5e-324][number % 5],
        "word": [None, "", "日本 é\u0301 \U0001f680", "a'b\"c\\d\n\te\0f"][number % 4],
        "truth": [None, True, False][number % 3],
        "day": [None, date(1969, 12, 31), date(2024, 2, 29), date(9999, 12, 31)][number % 4],
        "at": [None, datetime(1900, 1, 1, tzinfo=UTC), datetime(2026, 3, 29, 1, 30, 0, 123456, UTC)][number % 3],
        "list": [None, [], [1, None, -3], [2**40]][number % 4],
        "words": [None, ["", None, "é"], ["x"] * 3][number % 3],
    }


SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "whole": pa.int64(),
        "real": pa.float64(),
        "word": pa.string(),
        "truth": pa.bool_(),
        "day": pa.date32(),
        "at": pa.timestamp("us", "UTC"),
        "list": pa.list_(pa.int64()),
        "words": pa.list_(pa.string()),
    }
)


def rows(*numbers: int) -> pa.Table:
    return pa.Table.from_pylist([row(number) for number in numbers], schema=SCHEMA)


def evolve(lake: Lake) -> dict[int, list[Row]]:
    """A table with a life behind it; what every version of it holds."""
    table = lake.tables.open_or_create(NAME, SCHEMA)
    held: dict[int, list[Row]] = {0: []}

    def note(version: int, found: list[Row]) -> list[Row]:
        held[version] = found
        return found

    now = note(table.append(rows(*range(10))), [row(number) for number in range(10)])
    now = note(table.append(rows(10, 11, 12)), now + [row(number) for number in (10, 11, 12)])
    later = rows(13, 14).append_column("later", pa.array(["é", None]))
    added = [{**row(13), "later": "é"}, {**row(14), "later": None}]
    now = note(table.append(later), [{**one, "later": None} for one in now] + added)
    assert compact(lake.store, table) == 3
    note(table.version, now)
    table.checkpoint()
    wider = pa.table({"id": [15], "whole": pa.array([0.5], pa.float64())})
    small = [one for one in now if one["whole"] is None or abs(one["whole"]) < 2**53]
    overwritten = table.overwrite(pa.Table.from_pylist(small, schema=table.schema))
    note(overwritten, small)
    empty = dict.fromkeys([*SCHEMA.names, "later"])
    now = [{**one, "whole": None if one["whole"] is None else float(one["whole"])} for one in small]
    grown = table.append(wider)
    for version in range(overwritten + 1, grown):  # the column in its new type, before the new rows
        note(version, now)
    now = note(grown, [*now, {**empty, "id": 15, "whole": 0.5}])
    note(table.append(rows(20, 24)), [*now, *({**row(n), "later": None} for n in (20, 24))])
    return held


@pytest.fixture
def grown(lake: Lake) -> tuple[Lake, dict[int, list[Row]]]:
    return lake, evolve(lake)


def test_every_reader_sees_every_version_alike(grown: tuple[Lake, dict[int, list[Row]]]) -> None:
    lake, held = grown
    assert sorted(held) == list(range(max(held) + 1))
    for version, expected in held.items():
        for name, read in READERS.items():
            assert seen(read(lake, version)) == expected, (name, version)


def test_every_reader_sees_the_types_that_are_stored(grown: tuple[Lake, dict[int, list[Row]]]) -> None:
    lake, held = grown
    wanted = {**{field.name: field.type for field in SCHEMA}, "whole": pa.float64(), "later": pa.string()}
    for name, read in READERS.items():
        schema = stored(read(lake, max(held))).schema
        assert {field.name: field.type for field in schema} == wanted, name
        assert str(read(lake, max(held)).schema.field("at").type.tz) == "UTC", name


def test_what_deltas_own_readers_count_is_what_sql_counts(grown: tuple[Lake, dict[int, list[Row]]]) -> None:
    lake, held = grown
    newest = max(held)
    question = "select count(*) as n, sum(real) as s, min(day) as d from t where real > 0 and real < 1"
    with Session(lake.store.location(), lambda _name: Stored(lake.tables.uri(NAME), newest)) as session:
        ours = session.run(question).to_pylist()
    theirs = pa.table(QueryBuilder().register("t", _delta(lake, newest)).execute(question).read_all()).to_pylist()
    few = pl.scan_delta(
        lake.tables.uri(NAME), version=newest, storage_options={**lake.store.location().options}
    ).filter((pl.col("real") > 0) & (pl.col("real") < 1))
    polars = few.select(n=pl.len(), s=pl.col("real").sum(), d=pl.col("day").min()).collect().to_dicts()
    expected = [one for one in held[newest] if one["real"] is not None and 0 < one["real"] < 1]
    assert ours == theirs == polars
    assert ours[0]["n"] == len(expected) > 0
