"""Aggregates over windows are parsed without being fooled by what stands in quotes, and put back into SQL."""

from __future__ import annotations

import pytest

from lakeloop.lakehouse.project.definitions import WindowFeature
from lakeloop.lakehouse.project.window_features import aggregate_sql, parse_window_feature

SOUND = {
    "count(*)": (("count", "", ""), "count(*)"),
    "avg(late::int)": (("avg", "late::int", ""), "avg(late::int)"),
    "Sum( a + b )": (("sum", "a + b", ""), "sum(a + b)"),
    "count(*) filter (where late)": (("count", "", "late"), "count(*) filter (where late)"),
    "max(x) FILTER ( WHERE a in (1, 2) and b = ')' )": (
        ("max", "x", "a in (1, 2) and b = ')'"),
        "max(x) filter (where a in (1, 2) and b = ')')",
    ),
    "count_distinct(dest)": (("count_distinct", "dest", ""), "count(distinct dest)"),
    "count(distinct dest)": (("count_distinct", "dest", ""), "count(distinct dest)"),
    "stddev(x)": (("stddev", "x", ""), "stddev_samp(x)"),
    "last(coalesce(x, 0))": (("last", "coalesce(x, 0)", ""), 'last(coalesce(x, 0) order by "at")'),
}


@pytest.mark.parametrize("text", SOUND)
def test_an_aggregate_is_taken_apart_and_put_together(text: str) -> None:
    parts, sql = SOUND[text]
    feature = parse_window_feature("f", text)
    assert (feature.aggregate, feature.expression, feature.where) == parts
    assert aggregate_sql(feature, "at") == sql


@pytest.mark.parametrize(
    "text",
    [
        *("", "late", "median(x)", "avg()", "avg(*)", "sum(x", "sum('x)", "avg(x) / 2", "avg(x) filter (x)"),
        *("avg(x); drop", "avg(distinct x)", "count(*) filter (where )", "avg(x) over ()"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_window_feature("f", text)


def test_a_feature_has_a_column_for_each_window() -> None:
    assert WindowFeature("landed", "count").column("24h") == "landed_24h"
