"""A profile of a table, as SQL text: two passes over all rows, whatever the number of columns, and one over a sample.

Pure functions. The first pass gives counts, distinct values (approximate), ends and mean of every column; the second,
which needs the ends, a histogram of numbers and times, the spread, and how often the most frequent texts stand there;
quantiles are of at most about `SAMPLE` rows, for they cost more than all the rest. Names in the answers are
`<position of the column>_<what>`. Numbers that are not finite, or so large that a square would not be, are left out of
mean, spread, quantiles and histogram, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from lakeloop.lakehouse.query.quoting import literal, quoted

BINS = 16
TOP = 5
SAMPLE = 200_000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Kind: TypeAlias = Literal["number", "text", "time", "other"]
_LARGEST = 1e150


def kind_of(stored: str) -> Kind:
    """What can be said of a column of this stored type."""
    if stored in ("BIGINT", "DOUBLE"):
        return "number"
    if stored in ("VARCHAR", "BOOLEAN"):
        return "text"
    return "time" if stored in ("DATE", "TIMESTAMP WITH TIME ZONE") else "other"


def first_pass(relation: str, columns: Mapping[str, str], ranges: Mapping[str, tuple[float, float]]) -> str:
    """SQL: one row. `columns` are stored types by name; of `ranges`, what lies outside of them and at their ends."""
    parts = ["count(*) as total"]
    for at, (name, stored) in enumerate(columns.items()):
        value, kind = quoted(name), kind_of(stored)
        parts += [f"count({value}) as {at}_count", f"approx_count_distinct({value}) as {at}_distinct"]
        if kind == "number":
            parts += _of_number(at, value, stored, ranges.get(name))
        if kind == "time":
            parts += [f"min({value}) as {at}_min", f"max({value}) as {at}_max"]
        if kind == "text":
            parts += [f"approx_top_k({value}, {TOP}) as {at}_top"]
        if stored == "VARCHAR":
            parts += [f"min({value}) as {at}_min", f"max({value}) as {at}_max"]
            parts += [f"count(*) filter (where {value} <> trim({value})) as {at}_spaces"]
    return f"select {', '.join(_named(parts))} from {relation}"


def _of_number(at: int, value: str, stored: str, bounds: tuple[float, float] | None) -> list[str]:
    real = f" filter (where not isnan({value}))" if stored == "DOUBLE" else ""
    usable = f" filter (where abs({value}) < {_LARGEST})" if stored == "DOUBLE" else ""
    parts = [f"min({value}){real} as {at}_min", f"max({value}){real} as {at}_max", f"avg({value}){usable} as {at}_mean"]
    if stored == "DOUBLE":
        parts.append(f"count({value}) - count({value}){usable} as {at}_infinite")
    if bounds is not None:
        low, high = (f"'{one!r}'::DOUBLE" for one in bounds)
        parts += [f"count(*) filter (where {value} < {low} or {value} > {high}) as {at}_outside"]
        parts += [f"count(*) filter (where {value} = {low}) as {at}_low"]
        parts += [f"count(*) filter (where {value} = {high}) as {at}_high"]
    return parts


def second_pass(relation: str, columns: Mapping[str, str], first: Mapping[str, Any]) -> str:
    """SQL: one row, by what the first pass found; empty when no column has more to tell."""
    parts = []
    for at, (name, stored) in enumerate(columns.items()):
        value, kind = quoted(name), kind_of(stored)
        for place, text in enumerate(first.get(f"{at}_top") or ()):
            parts.append(f"count(*) filter (where {value} = {_spelled(text)}) as {at}_top{place}")
        scale = f"epoch_us({value}::timestamptz)::DOUBLE" if kind == "time" else f"{value}::DOUBLE"
        usable = f" filter (where abs({scale}) < {_LARGEST})" if first.get(f"{at}_infinite") else ""
        if ends := _ends(first, at, kind):
            ends_of_bins = edges(*ends, whole=stored == "BIGINT")
            parts.append(f"histogram({scale}, {ends_of_bins}){usable} as {at}_histogram")
        mean = first.get(f"{at}_mean")
        if mean is not None:
            parts.append(f"stddev_samp({scale} - {mean!r}){usable} as {at}_std")
    return f"select {', '.join(_named(parts))} from {relation}" if parts else ""


def quantiles(relation: str, columns: Mapping[str, str], first: Mapping[str, Any]) -> str:
    """SQL: one row, by what the first pass found; empty when there are no numbers."""
    total = first["total"]
    sample = f" using sample {100 * SAMPLE / total:.6f}% (bernoulli, 7)" if total > 2 * SAMPLE else ""
    parts = [
        f"approx_quantile({quoted(name)}, {list(QUANTILES)}) filter (where abs({quoted(name)}::DOUBLE) < {_LARGEST}) "
        f"as {at}_quantiles"
        for at, (name, stored) in enumerate(columns.items())
        if kind_of(stored) == "number"
    ]
    return f"select {', '.join(_named(parts))} from (select * from {relation}{sample})" if parts else ""


def _ends(first: Mapping[str, Any], at: int, kind: Kind) -> tuple[float, float] | None:
    """The two ends of a histogram; None where there is none to draw."""
    scale = "_us" if kind == "time" else ""
    found = [first.get(f"{at}_{end}{scale}") for end in ("min", "max")] if kind in ("number", "time") else []
    if not found or found[0] is None or found[1] is None:
        return None
    low, high = max(float(found[0]), -_LARGEST), min(float(found[1]), _LARGEST)
    return (low, high) if low < high else None


def edges(low: float, high: float, *, whole: bool = False) -> list[float]:
    """The upper ends of `BINS` bins of equal width; the last is `high` itself. Few whole numbers have a bin each."""
    if whole and high - low < BINS:
        return [low + n for n in range(int(high - low) + 1)]
    step = (high - low) / BINS
    return [*(low + step * n for n in range(1, BINS)), high]


def _spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else literal(str(value))


def _named(parts: Sequence[str]) -> list[str]:
    """Names begin with a digit, so they are quoted."""
    return [f'{what} as "{name}"' for what, _, name in (part.rpartition(" as ") for part in parts)]


def repeated_keys(relation: str, key: Sequence[str]) -> str:
    """SQL: how many keys come more than once, and in how many rows."""
    names = ", ".join(map(quoted, key))
    counted = f"select count(*) as n from {relation} group by {names} having n > 1"
    return f"select count(*)::BIGINT as keys, coalesce(sum(n), 0)::BIGINT as rows from ({counted})"


def rows_per_day(relation: str, event_time: str) -> str:
    """SQL: day (UTC) and rows, in order; rows without an event time have none."""
    day = f"{quoted(event_time)}::timestamptz::DATE"
    counted = f"select {day} as day, count(*) as rows from {relation} where {quoted(event_time)} is not null"
    return f"{counted} group by 1 order by 1"
