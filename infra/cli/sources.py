"""`sources list|show|profile|freshness`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

import typer

from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption
from lakeloop.infra.cli.output import ago, cell, facts, out, show
from lakeloop.infra.place import find_place
from lakeloop.lakehouse.errors import NotFound

if TYPE_CHECKING:
    from lakeloop.functions.profile_source import ColumnProfile, Profile

BARS = " ▁▂▃▄▅▆▇█"
WIDEST = 60
"""Columns of a terminal that the line of rows per day takes at most."""
SHOWN_TOP = 3
LONGEST = 24


def register(app: typer.Typer, panel: str) -> None:
    group = typer.Typer(
        help="What lands in the lake, and tables elsewhere that are read in place", no_args_is_help=True
    )
    group.command("list")(list_)
    group.command("show")(show_)
    group.command("profile")(profile)
    group.command("freshness")(freshness)
    app.add_typer(group, name="sources", rich_help_panel=panel)


def list_(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Every source, with where its rows come from, and what was ingested."""
    place = find_place(lake, env)
    project = place.applied()
    last = {
        row["source"]: row
        for row in place.lake.sql(
            "select source, max(logged_at) as last, sum(rows)::BIGINT as rows, sum(quarantined)::BIGINT as quarantined "
            "from lakeloop.ingestions where project = ? group by 1",
            [project.name],
        ).to_pylist()
    }
    rows = [
        {
            "source": name,
            "read": f"{source.read.kind} {source.read.uri}" if source.foreign else source.read.format,
            "rows": last.get(name, {}).get("rows", None if source.foreign else 0),
            "quarantined": last.get(name, {}).get("quarantined", None if source.foreign else 0),
            "last_ingest": last.get(name, {}).get("last"),
            "owner": source.owner,
            "description": source.description,
        }
        for name, source in project.sources.items()
    ]
    show(rows, as_json=as_json)


def show_(name: str, lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """One source's columns and rules; of a table elsewhere also what is there, and whether it is as declared."""
    from lakeloop.lakehouse import foreign

    place = find_place(lake, env)
    project = place.applied()
    if name not in project.sources:
        raise NotFound(f"there is no source {name!r}", todo=f"name one of: {', '.join(project.sources)}")
    source = project.sources[name]
    rows = [
        {
            "column": c.name,
            "type": f"{c.type}{'?' if c.nullable else ''}",
            "range": list(c.range) if c.range else None,
            "values": ", ".join(map(str, c.values)),
            "on_error": c.on_error or ("" if source.foreign else source.on_error),
            "note": c.note,
        }
        for c in source.columns.values()
    ]
    show(rows, as_json=as_json)
    if source.foreign:
        if not as_json:
            out.print(f"\nread in place: {foreign.look(place.lake, source)}", markup=False)
        place.lake.sql(f'select * from "{name}" limit 0', project=project.name)


def profile(name: str, lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """What a source's table holds, column by column, and what looks wrong about it."""
    from lakeloop.functions.profile_source import profile_source

    place = find_place(lake, env)
    found = profile_source(place.lake, place.applied(), name)
    if as_json:
        facts(asdict(found), as_json=True)
        return
    out.print(f"{found.source}: {found.rows:,} rows, {len(found.columns)} columns\n", markup=False)
    show([_line(column) for column in found.columns], as_json=False)
    if found.days:
        out.print(f"\n{_per_day(found)}", markup=False)
    for wrong in found.wrong:
        out.print(f"looks wrong: {wrong}", markup=False)


def freshness(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """How old every source is: its last ingest, or change of a table elsewhere, and its newest event."""
    from lakeloop.functions import profile_source

    place = find_place(lake, env)
    now = place.lake.clock()
    found = profile_source.freshness(place.lake, place.applied())
    rows = [
        {
            "source": one.source,
            "read": one.kind,
            "changed_at": one.changed_at,
            "changed": ago(one.changed_at, now) if one.changed_at else "never",
            "newest_event": one.newest_event,
            "event": ago(one.newest_event, now) if one.newest_event else "",
            "problem": one.problem.what if one.problem else "",
        }
        for one in found
    ]
    if not any(one.problem for one in found):
        rows = [{name: value for name, value in row.items() if name != "problem"} for row in rows]
    show(rows, as_json=as_json)
    for one in found:
        if one.problem:
            raise one.problem


def bars(counts: Sequence[int]) -> str:
    """A small histogram; a bin that holds anything is seen."""
    most = max(counts, default=0)
    return "".join(BARS[0] if not count else BARS[max(1, round(count / most * 8))] for count in counts)


def _line(column: ColumnProfile) -> dict[str, Any]:
    filled = column.rows - column.nulls
    return {
        "column": column.name,
        "type": column.type,
        "null": _share(column.nulls, column.rows) if column.nulls else "",
        "distinct": f"{column.distinct:,}",
        "histogram": bars(column.histogram),
        "values": _values(column, filled),
        "looks_wrong": ", ".join(column.wrong),
    }


def _values(column: ColumnProfile, filled: int) -> str:
    if column.min == column.max and column.min is not None:
        return _short(column.min)
    if column.top and column.top[0][1] >= 0.01 * filled:
        shown = [f"{_short(value)} {_share(count, filled)}" for value, count in column.top[:SHOWN_TOP]]
        return ", ".join(shown) + (", …" if column.distinct > SHOWN_TOP else "")
    if column.min is None:
        return ""
    if not column.quantiles:
        return f"{_short(column.min)} … {_short(column.max)}"
    middle = f"{cell(column.min)} … {cell(column.quantiles[2])} … {cell(column.max)}"
    spread = f" ± {cell(column.std)}" if column.std is not None else ""
    return middle if column.mean is None else f"{middle}, mean {cell(column.mean)}{spread}"


def _share(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    return "<1%" if 0 < share < 0.01 else ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def _short(value: Any) -> str:
    text = cell(value)
    return f"{text[: LONGEST - 1]}…" if len(text) > LONGEST else text


def _per_day(found: Profile) -> str:
    first, last = found.days[0][0], found.days[-1][0]
    span = (last - first).days + 1
    each = -(-span // WIDEST)
    counts = [0] * -(-span // each)
    for day, count in found.days:
        counts[(day - first).days // each] += count
    typical = median(count for _, count in found.days)
    return f"rows per day  {bars(counts)}  {first} … {last}, median {typical:,.0f}"
