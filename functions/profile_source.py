"""`profile_source`: what a source's table holds, column by column, and what looks wrong about it.

Two passes over the rows as SQL sees them, one over the key, one over the event time: whatever the number of columns.
Also for a table that is read in place, which nobody judges otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from lakeloop.lakehouse import foreign
from lakeloop.lakehouse.errors import LakeloopError, NotFound
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Column, Source
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.profiling import first_pass, quantiles, repeated_keys, rows_per_day, second_pass
from lakeloop.lakehouse.query.quoting import quoted
from lakeloop.lakehouse.query.session import Session

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EVEN = 3
"""Of few distinct values each has a large share; at an end it is odd when it is so many times that of an even split."""
EDGE_SHARE = 0.05
"""More than this share of values exactly at an end of the declared range looks like a cut-off, unless the end is 0."""


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column. `distinct` is approximate; quantiles are of `QUANTILES`; `top` are texts and how often they come."""

    name: str
    type: str
    rows: int
    nulls: int
    distinct: int
    min: Any = None
    max: Any = None
    mean: float | None = None
    std: float | None = None
    quantiles: tuple[float, ...] = ()
    top: tuple[tuple[Any, int], ...] = ()
    histogram: tuple[int, ...] = ()
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A source's table. `days` are the days (UTC) that have rows, and how many; `wrong` is what no one column shows."""

    source: str
    rows: int
    columns: tuple[ColumnProfile, ...]
    repeated_keys: int = 0
    repeated_rows: int = 0
    days: tuple[tuple[date, int], ...] = ()
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fresh:
    """How old a source is: when its table last changed, and its newest event. `problem`: why that cannot be told."""

    source: str
    kind: str
    changed_at: datetime | None = None
    newest_event: datetime | None = None
    problem: LakeloopError | None = None


def profile_source(lake: Lake, project: Project, name: str) -> Profile:
    """Profile a source as SQL sees it: of a key that comes again, the row that counts."""
    source = _source(project, name)
    columns = {one.name: one.type.stored for one in source.columns.values()}
    ranges = {one.name: one.range for one in source.columns.values() if one.range is not None}
    catalog = LakeCatalog(lake, project)
    with Session(lake.store.location(), catalog) as session:
        relation = quoted(name)
        if source.rows != "append":  # which rows count is found out once
            session.keep("_profiled", f"select * from {relation}")
            relation = quoted("_profiled")
        first = session.run(first_pass(relation, columns, ranges)).to_pylist()[0]
        first |= _microseconds(first)
        texts = [second_pass(relation, columns, first), quantiles(relation, columns, first)]
        found = {name: value for sql in texts if sql for name, value in session.run(sql).to_pylist()[0].items()} | first
        keys = session.run(repeated_keys(relation, source.key)).to_pylist()[0] if source.key else {}
        days = session.run(rows_per_day(relation, source.event_time)).to_pylist() if source.event_time else []
    catalog.confirm()
    counted = tuple((row["day"], row["rows"]) for row in days)
    return Profile(
        name,
        first["total"],
        tuple(_column(source, at, found) for at in range(len(columns))),
        keys.get("keys", 0),
        keys.get("rows", 0),
        counted,
        tuple(_wrong(keys, counted, lake.clock())),
    )


def freshness(lake: Lake, project: Project) -> list[Fresh]:
    """Of every source, when its table last changed and its newest event; a table elsewhere that cannot be read says
    why."""
    ingested = {
        row["source"]: row["last"]
        for row in lake.sql(
            "select source, max(logged_at) as last from lakeloop.ingestions where project = ? group by 1",
            [project.name],
            project=project.name,
        ).to_pylist()
    }
    found = []
    for name, source in project.sources.items():
        try:
            changed = foreign.last_change(lake, source) if source.foreign else ingested.get(name)
            found.append(Fresh(name, source.read.kind, changed, _newest_event(lake, project, source)))
        except LakeloopError as error:
            found.append(Fresh(name, source.read.kind, problem=error))
    return found


def _newest_event(lake: Lake, project: Project, source: Source) -> datetime | None:
    if not source.event_time:
        return None
    with Session(lake.store.location(), LakeCatalog(lake, project)) as session:
        newest = f"max({quoted(source.event_time)}::timestamptz) as newest"
        answer = session.run(f"select {newest} from {quoted(f'{source.name}_history')}")
    at: datetime | None = answer.column("newest")[0].as_py()
    return at


def _source(project: Project, name: str) -> Source:
    if name not in project.sources:
        raise NotFound(f"there is no source {name!r}", todo=f"name one of: {', '.join(project.sources) or 'none'}")
    return project.sources[name]


def _microseconds(first: Mapping[str, Any]) -> dict[str, int]:
    """The ends of times, in the scale of the histogram."""
    found = {}
    for name, value in first.items():
        if isinstance(value, date):
            at = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)
            found[f"{name}_us"] = (at - EPOCH) // timedelta(microseconds=1)
    return found


def _column(source: Source, at: int, found: Mapping[str, Any]) -> ColumnProfile:
    column = list(source.columns.values())[at]

    def of(what: str) -> Any:
        return found.get(f"{at}_{what}")

    top = tuple((value, of(f"top{place}")) for place, value in enumerate(of("top") or ()))
    histogram = dict(of("histogram") or ())
    counts = tuple(count for _, count in sorted(histogram.items()))
    nulls = found["total"] - of("count")
    whole = column.type.stored == "BIGINT"
    return ColumnProfile(
        column.name,
        f"{column.type}{'?' if column.nullable else ''}",
        found["total"],
        nulls,
        min(of("distinct"), of("count"), *_possible(of("min"), of("max"))),
        of("min"),
        of("max"),
        of("mean"),
        of("std"),
        tuple(float(round(one)) if whole else one for one in of("quantiles") or ()),
        top,
        counts,
        tuple(_wrong_in(column, found["total"], nulls, of)),
    )


def _possible(low: Any, high: Any) -> tuple[int, ...]:
    """How many different whole numbers there can be, since the count of them is approximate."""
    return (high - low + 1,) if isinstance(low, int) and isinstance(high, int) else ()


def _wrong_in(column: Column, total: int, nulls: int, of: Any) -> Sequence[str]:
    """What looks wrong in one column, in words."""
    if not total:
        return []
    count, wrong = total - nulls, []
    if nulls == total:
        return ["all null"]
    if nulls and not column.nullable:
        wrong.append(f"{nulls:,} null, which is not declared")
    if of("distinct") == 1 and count > 1:
        wrong.append("the same value in every row" if not nulls else "one value or null")
    if of("infinite"):
        wrong.append(f"{of('infinite'):,} not finite")
    if of("outside"):
        wrong.append(f"{of('outside'):,} outside of the range")
    for end, bound in zip(("low", "high"), column.range or (), strict=False):
        if bound and of(end) > max(EDGE_SHARE, EVEN / of("distinct")) * count:
            wrong.append(f"{of(end) / count:.0%} are {bound:g}, an end of the range")
    if of("spaces"):
        wrong.append(f"{of('spaces'):,} begin or end with a space")
    return wrong


def _wrong(keys: Mapping[str, int], days: Sequence[tuple[date, int]], now: datetime) -> list[str]:
    """What looks wrong about the rows as a whole."""
    wrong = []
    if keys.get("keys"):
        wrong.append(f"{keys['keys']:,} keys come more than once, in {keys['rows']:,} rows")
    if days:
        span = (days[-1][0] - days[0][0]).days + 1
        missing = _missing(days)
        if missing and len(days) > span / 2:  # else it is no daily table
            shown = ", ".join(f"{day:%Y-%m-%d}" for day in missing[:3]) + (", …" if len(missing) > 3 else "")
            wrong.append(f"{len(missing):,} of {span:,} days have no row: {shown}")
        ahead = sum(count for day, count in days if day > now.date())
        if ahead:
            wrong.append(f"{ahead:,} rows have an event time in the future")
    return wrong


def _missing(days: Sequence[tuple[date, int]]) -> list[date]:
    there = {day for day, _ in days}
    first, last = days[0][0], days[-1][0]
    return [day for n in range((last - first).days) if (day := first + timedelta(days=n)) not in there]
