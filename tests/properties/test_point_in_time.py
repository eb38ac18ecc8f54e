"""The point-in-time join against a brute-force oracle in Python, and the online snapshot against the join."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeloop.functions.build_features import online_rows
from lakeloop.lakehouse.features.online import EPOCH, EVENT, FROM, Header, Lookup
from lakeloop.lakehouse.features.point_in_time import (
    empty_window_row,
    microseconds,
    plain_join,
    window_columns,
    window_join,
)
from lakeloop.lakehouse.project.definitions import FeatureView, WindowFeature, Windows
from lakeloop.lakehouse.query.session import Session

START = datetime(2013, 7, 1, tzinfo=UTC)
MINUTES = st.integers(0, 240)
KEYS = st.sampled_from(["a", "b", None])
ROWS = st.lists(st.tuples(KEYS, MINUTES, st.integers(0, 90), st.one_of(st.none(), st.integers(-5, 5))), max_size=25)
ASKED = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), MINUTES), min_size=1, max_size=12)
FEATURES = (
    WindowFeature("n", "count"),
    WindowFeature("seen", "count", "v"),
    WindowFeature("total", "sum", "v"),
    WindowFeature("low", "min", "v"),
    WindowFeature("high", "max", "v", "v < 3"),
    WindowFeature("kinds", "count_distinct", "v"),
    WindowFeature("mean", "avg", "v::double"),
)


def minute(value: int) -> datetime:
    return START + timedelta(minutes=value)


def ceil(value: int, step: int) -> int:
    return -(-value // step) * step


def rows_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    stamp = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "k": pa.array([r[0] for r in rows], pa.string()),
            "t": pa.array([minute(r[1]) for r in rows], stamp),
            "known": pa.array([minute(r[1] + r[2]) for r in rows], stamp),
            "v": pa.array([r[3] for r in rows], pa.int64()),
        }
    )


def spine_table(asked: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table(
        {
            "_row": pa.array(range(len(asked)), pa.int64()),
            "_t": pa.array([microseconds(minute(m) - EPOCH) for _, m in asked], pa.int64()),
            "k": pa.array([k for k, _ in asked], pa.string()),
        }
    )


def view(refresh: int, **options: Any) -> FeatureView:
    return FeatureView("x", "me", ("k",), "t", "", "x.sql", refresh=timedelta(minutes=refresh), **options)


def ask(build: Any, rows: list[tuple[Any, ...]], asked: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    with Session(None, lambda _name: None, threads=1) as session:
        session.register("r", rows_table(rows))
        session.register("s", spine_table(asked))
        return session.run(f"select * from ({build('r', 's')}) order by _row").to_pylist()


@settings(max_examples=120, deadline=None)
@given(
    rows=ROWS,
    asked=ASKED,
    refresh=st.sampled_from([1, 5, 60]),
    ttl=st.sampled_from([None, 30, 120]),
    lag=st.sampled_from([None, 0, 10]),
)
def test_a_plain_view_answers_with_the_newest_row_that_was_visible(rows, asked, refresh, ttl, lag):  # type: ignore[no-untyped-def]
    options = {"known_at": "known"} if lag is None else {"lag": timedelta(minutes=lag)}
    definition = view(refresh, ttl=None if ttl is None else timedelta(minutes=ttl), **options)
    got = ask(lambda r, s: plain_join(definition, r, s, ["v"]), rows, asked)
    for (key, at), answer in zip(asked, got, strict=True):
        seen = [
            r
            for r in rows
            if key is not None and r[0] == key and ceil(max(r[1], r[1] + (r[2] if lag is None else lag)), refresh) <= at
        ]
        newest = max((r[1] for r in seen), default=None)
        if newest is None or (ttl is not None and at - newest > ttl):
            assert answer["v"] is None
            assert answer["_event"] is None
        else:
            assert answer["_event"] == microseconds(minute(newest) - EPOCH)
            assert answer["v"] in {r[3] for r in seen if r[1] == newest}


@settings(max_examples=120, deadline=None)
@given(rows=ROWS, asked=ASKED, refresh=st.sampled_from([1, 5, 60]), lag=st.sampled_from([None, 0, 10]))
def test_a_windowed_view_aggregates_the_events_known_in_the_window(rows, asked, refresh, lag):  # type: ignore[no-untyped-def]
    over = {"45m": timedelta(minutes=45), "2h": timedelta(hours=2)}
    options = {"known_at": "known"} if lag is None else {"lag": timedelta(minutes=lag)}
    definition = view(refresh, windows=Windows(over, FEATURES), **options)
    got = ask(lambda r, s: window_join(definition, r, s), rows, asked)
    for (key, at), answer in zip(asked, got, strict=True):
        moment = at // refresh * refresh
        for text, length in over.items():
            inside = [
                r
                for r in rows
                if r[0] == key
                and moment - length.seconds // 60 < r[1] <= moment
                and r[1] + (r[2] if lag is None else lag) <= moment
            ]
            values = [r[3] for r in inside if r[3] is not None]
            small = [v for v in values if v < 3]
            expected = {
                "n": len(inside),
                "seen": len(values),
                "total": sum(values) if values else None,
                "low": min(values, default=None),
                "high": max(small, default=None),
                "kinds": len(set(values)),
                "mean": sum(values) / len(values) if values else None,
            }
            found = {name: answer[f"{name}_{text}"] for name in expected}
            if expected["mean"] is not None:
                assert abs(found.pop("mean") - expected.pop("mean")) < 1e-9
            assert found == expected


@settings(max_examples=80, deadline=None)
@given(
    rows=ROWS,
    asked=ASKED,
    refresh=st.sampled_from([1, 5, 60]),
    windowed=st.booleans(),
    lag=st.sampled_from([0, 10]),
    start=st.integers(0, 120),
)
def test_the_online_snapshot_answers_like_the_offline_join(rows, asked, refresh, windowed, lag, start):  # type: ignore[no-untyped-def]
    rows = [r for r in rows if r[0] is not None]
    asked = [(k, m) for k, m in asked if m >= start and k is not None] or [("a", 240)]
    over = {"45m": timedelta(minutes=45), "2h": timedelta(hours=2)}
    definition = view(
        refresh,
        lag=timedelta(minutes=lag),
        ttl=None if windowed else timedelta(minutes=100),
        windows=Windows(over, FEATURES) if windowed else None,
    )
    names = window_columns(definition) if windowed else ["v"]
    offline = ask(
        lambda r, s: window_join(definition, r, s) if windowed else plain_join(definition, r, s, ["v"]), rows, asked
    )
    start_us = microseconds(minute(start) - EPOCH)
    with Session(None, lambda _name: None, threads=1) as session:
        table = rows_table(rows).drop_columns(["known"])
        lines = online_rows(session, definition, table, start_us)
    assert lines.column_names == ["k", FROM, EVENT, *names]
    ttl_us = microseconds(definition.ttl) if definition.ttl else None
    lookup = Lookup(
        Header("p", "x", "1", ("k",), start_us, ttl_us, empty_window_row(definition) if windowed else None), lines
    )
    for (key, at), expected in zip(asked, offline, strict=True):
        values, _ = lookup.at((key,), minute(at))
        assert (values or dict.fromkeys(names)) == {name: expected[name] for name in names}
