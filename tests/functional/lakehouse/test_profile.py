"""Profiles of sources with known answers, and how old a source is."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.profile_source import ColumnProfile, Profile, freshness, profile_source
from lakeloop.infra.cli.sources import bars
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.query.profiling import BINS, edges

HEAD = 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n'


def elsewhere(folder: Path, columns: dict[str, str], top: str = "timeless = true\n") -> Project:
    read = f'read = {{ kind = "parquet", uri = "{folder}" }}'
    declared = "".join(f'{name} = "{kind}"\n' for name, kind in columns.items())
    return parse_project(
        {"lakeloop.toml": HEAD, "sources/things.toml": f'owner = "crm"\n{read}\n{top}[columns]\n{declared}'}
    )


def profiled(
    lake: Lake, tmp_path: Path, rows: pa.Table, columns: dict[str, str], top: str = "timeless = true\n"
) -> Profile:
    (tmp_path / "things").mkdir(exist_ok=True)
    pq.write_table(rows, tmp_path / "things" / "a.parquet")
    project = elsewhere(tmp_path / "things", columns, top)
    applied.publish(lake, project, code_version="1")
    return profile_source(lake, project, "things")


def column(found: Profile, name: str) -> ColumnProfile:
    return next(one for one in found.columns if one.name == name)


def test_numbers_have_their_ends_mean_spread_quantiles_and_histogram(folder_lake: Lake, tmp_path: Path) -> None:
    values = list(range(1601))
    rows = pa.table({"n": pa.array([*values, None], pa.int64()), "x": [value / 16 for value in values] + [None]})
    found = profiled(folder_lake, tmp_path, rows, {"n": "int64?", "x": "float64?"})
    n, x = column(found, "n"), column(found, "x")
    assert (found.rows, n.rows, n.nulls, n.min, n.max, n.mean) == (1602, 1602, 1, 0, 1600, 800)
    assert (x.min, x.max, x.mean) == (0, 100, 50)
    assert n.std == pytest.approx(np.std(values, ddof=1))
    assert x.quantiles == pytest.approx((5, 25, 50, 75, 95), abs=0.5)
    assert n.histogram == (101, *[100] * (BINS - 1))
    assert n.distinct == pytest.approx(1601, rel=0.2)
    assert (n.wrong, x.wrong) == ((), ())


def test_edges_end_at_the_greatest_value_itself() -> None:
    for low, high in ((0.1, 0.3), (-7.0, 1e15 / 3), (5e-324, 1.0)):
        found = edges(low, high)
        assert (len(found), found[-1], sorted(found)) == (BINS, high, found)
    assert edges(-1, 2, whole=True) == [-1, 0, 1, 2]
    assert len(edges(0, 100, whole=True)) == BINS


def test_texts_and_truth_have_their_most_frequent_values(folder_lake: Lake, tmp_path: Path) -> None:
    texts = ["it's"] * 5 + ["b"] * 3 + ["", " c ", "d", "e"] + [None]
    rows = pa.table({"s": texts, "t": [True] * 9 + [False] * 4})
    found = profiled(folder_lake, tmp_path, rows, {"s": "string?", "t": "bool"})
    s = column(found, "s")
    assert (s.top[:2], s.nulls, s.distinct) == ((("it's", 5), ("b", 3)), 1, 6)
    assert s.wrong == ("1 begin or end with a space",)
    assert column(found, "t").top == ((True, 9), (False, 4))


def test_values_that_no_statistics_can_hold_break_none(folder_lake: Lake, tmp_path: Path) -> None:
    odd = [math.nan, math.inf, -math.inf, 1e308, 1e308, 1.0, 3.0]
    rows = pa.table({"x": odd, "only": [math.nan] * 7, "big": pa.array([2**63 - 1, -(2**63)] + [0] * 5, pa.int64())})
    found = profiled(folder_lake, tmp_path, rows, {"x": "float64", "only": "float64", "big": "int64"})
    x = column(found, "x")
    assert (x.mean, x.std, x.wrong) == (2, math.sqrt(2), ("5 not finite",))
    assert column(found, "only").wrong == ("the same value in every row", "7 not finite")
    assert sum(column(found, "big").histogram) == 7
    assert (column(found, "big").min, column(found, "big").max) == (-(2**63), 2**63 - 1)


def test_what_looks_wrong_is_told(folder_lake: Lake, tmp_path: Path) -> None:
    rows = pa.table(
        {"id": [1, 1, 2, 3], "nothing": pa.nulls(4, pa.string()), "same": ["a"] * 4, "must": ["x", None, "y", "z"]}
    )
    kinds = {"id": "int64", "nothing": "string?", "same": "string", "must": "string"}
    found = profiled(folder_lake, tmp_path, rows, kinds, 'timeless = true\nkey = ["id"]\n')
    assert {one.name: one.wrong for one in found.columns} == {
        "id": (),
        "nothing": ("all null",),
        "same": ("the same value in every row",),
        "must": ("1 null, which is not declared",),
    }
    assert (found.repeated_keys, found.repeated_rows) == (1, 2)
    assert found.wrong == ("1 keys come more than once, in 2 rows",)


def test_values_at_an_end_of_the_range_and_beyond_it_are_counted(folder_lake: Lake) -> None:
    source = (
        'owner = "crm"\nread = { kind = "landing", format = "csv" }\ntimeless = true\non_error = "warn"\n[columns]\n'
        'x = { type = "int64", range = [0, 9] }\n'
    )
    project = parse_project({"lakeloop.toml": HEAD, "sources/things.toml": source})
    applied.publish(folder_lake, project, code_version="1")
    land(
        folder_lake, project, "things", "a.csv", b"x\n" + b"9\n" * 40 + b"".join(b"%d\n" % n for n in (*range(9), 100))
    )
    ingest_data(folder_lake, project)
    found = profile_source(folder_lake, project, "things")
    assert column(found, "x").wrong == ("1 outside of the range", "80% are 9, an end of the range")


def test_days_are_counted_and_those_that_are_missing_told(folder_lake: Lake, tmp_path: Path) -> None:
    days = [date(2026, 1, n) for n in (1, 1, 2, 3, 5, 6, 7)] + [date(2999, 1, 1)]
    rows = pa.table({"day": pa.array(days, pa.date32())})
    found = profiled(folder_lake, tmp_path, rows.slice(0, 7), {"day": "date"}, 'event_time = "day"\nlag = "0s"\n')
    assert found.days[:2] == ((date(2026, 1, 1), 2), (date(2026, 1, 2), 1))
    assert found.wrong == ("1 of 7 days have no row: 2026-01-04",)
    assert (column(found, "day").min, column(found, "day").max) == (date(2026, 1, 1), date(2026, 1, 7))
    assert sum(column(found, "day").histogram) == 7
    found = profiled(folder_lake, tmp_path, rows, {"day": "date"}, 'event_time = "day"\nlag = "0s"\n')
    assert found.wrong == ("1 rows have an event time in the future",)


def test_a_table_without_rows_has_a_profile_too(folder_lake: Lake, tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("s", pa.string()), ("t", pa.timestamp("us")), ("l", pa.list_(pa.int64()))])
    kinds = {"id": "int64", "s": "string", "t": "timestamp", "l": "list<int64>"}
    found = profiled(folder_lake, tmp_path, schema.empty_table(), kinds, 'key = ["id"]\nevent_time = "t"\nlag = "0s"\n')
    assert (found.rows, found.wrong, [one.wrong for one in found.columns]) == (0, (), [()] * 4)
    with pytest.raises(NotFound, match="no source 'other'"):
        profile_source(folder_lake, elsewhere(tmp_path / "things", kinds), "other")


def test_of_a_key_that_comes_again_only_the_row_that_counts_is_profiled(folder_lake: Lake) -> None:
    source = (
        'owner = "crm"\nread = { kind = "landing", format = "csv" }\ntimeless = true\nkey = ["id"]\nrows = "latest"\n'
        '[columns]\nid = "int64"\nx = "int64"\n'
    )
    project = parse_project({"lakeloop.toml": HEAD, "sources/things.toml": source})
    applied.publish(folder_lake, project, code_version="1")
    for name, data in (("a.csv", b"id,x\n1,5\n2,6\n"), ("b.csv", b"id,x\n1,9\n")):
        land(folder_lake, project, "things", name, data)
        ingest_data(folder_lake, project)
    found = profile_source(folder_lake, project, "things")
    assert (found.rows, column(found, "x").max, column(found, "x").min, found.wrong) == (2, 9, 6, ())


def test_bars_show_every_bin_that_holds_anything() -> None:
    assert bars([0, 1, 500, 1000]) == " ▁▄█"
    assert bars([]) == ""


def test_freshness_is_the_last_change_and_the_newest_event_of_every_source(lake: Lake, tmp_path: Path) -> None:
    def source(read: str, lag: str = 'lag = "0s"\n') -> str:
        return f'owner = "crm"\nread = {read}\nevent_time = "day"\n{lag}[columns]\nday = "date"\n'

    rows = pa.table({"day": pa.array([date(2026, 3, 1), date(2026, 3, 2)], pa.date32())})
    (tmp_path / "files").mkdir()
    pq.write_table(rows, tmp_path / "files" / "a.parquet")
    write_deltalake(str(tmp_path / "delta"), rows)
    files: dict[str, Any] = {
        "lakeloop.toml": HEAD,
        "sources/landed.toml": source('{ kind = "landing", format = "csv" }', ""),
        "sources/never.toml": source('{ kind = "landing", format = "csv" }', ""),
        "sources/files.toml": source(f'{{ kind = "parquet", uri = "{tmp_path}/files" }}'),
        "sources/delta.toml": source(f'{{ kind = "delta", uri = "{tmp_path}/delta" }}'),
        "sources/gone.toml": source(f'{{ kind = "delta", uri = "{tmp_path}/gone" }}'),
    }
    project = parse_project(files)
    applied.publish(lake, project, code_version="1")
    land(lake, project, "landed", "a.csv", b"day\n2026-02-01\n")
    ingest_data(lake, project)
    found = {one.source: one for one in freshness(lake, project)}
    newest = {name: one.newest_event.date() if one.newest_event else None for name, one in found.items()}
    march = date(2026, 3, 2)
    assert newest == {"landed": date(2026, 2, 1), "never": None, "files": march, "delta": march, "gone": None}
    for name in ("landed", "files", "delta"):
        changed = found[name].changed_at
        assert changed is not None
        assert abs(datetime.now(UTC) - changed) < timedelta(hours=1)
    assert found["never"].changed_at is None
    assert isinstance(found["gone"].problem, NotFound)
