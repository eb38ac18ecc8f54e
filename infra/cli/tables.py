"""`tables list|show|history|restore`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption, QuietOption, WhyOption, YesOption, moment
from lakeloop.infra.cli.output import facts, out, say, show, sure
from lakeloop.infra.place import Place, find_place
from lakeloop.lakehouse.errors import Invalid, NotFound

if TYPE_CHECKING:
    from lakeloop.lakehouse.tables import Table

NameArgument = Annotated[str, typer.Argument(help="PROJECT/TABLE, or a table of this folder's project")]
VersionOption = Annotated[int | None, typer.Option("--version", help="The number of a version")]
AtOption = Annotated[str | None, typer.Option("--at", help="The newest version of this time, e.g. 2026-04-01T00:00Z")]
COMMITS = 5


def register(app: typer.Typer, panel: str) -> None:
    group = typer.Typer(help="Delta tables", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show_)
    group.command("history")(history)
    group.command("restore")(restore)
    app.add_typer(group, name="tables", rich_help_panel=panel)


def list_(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Every Delta table of the lake."""
    from lakeloop.functions.maintain_lake import table_names

    place = find_place(lake, env)
    found = [table for name in table_names(place.lake) if (table := place.lake.table(name)) is not None]
    rows = [
        {"table": one.name, "version": one.version, "columns": len(one.schema.names), **_sizes(one)} for one in found
    ]
    show(rows, as_json=as_json, empty="no table yet")


def show_(
    name: NameArgument,
    version: VersionOption = None,
    at: AtOption = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """One table: columns, files, size, its last commits, and which versions are pinned by whom."""
    from lakeloop.lakehouse import pins
    from lakeloop.lakehouse.stored import duckdb_type
    from lakeloop.lakehouse.tables import committed_at

    place = find_place(lake, env)
    table = _table(place, name, version, at)
    columns = {field.name: duckdb_type(field.type) for field in table.schema}
    held = [place.lake.documents.get(pins.KIND, doc) for doc in place.lake.documents.ids(pins.KIND, _pin(table.name))]
    pinned = {f"version {one.body['version']}": one.body["owners"] for one in held if one.body["owners"]}
    commits = [_commit(one) for one in table.facts(COMMITS)]
    about = {
        "table": table.name,
        "version": table.version,
        "committed": committed_at(table.facts(1)[0]),
        **_sizes(table),
    }
    if as_json:
        facts({**about, "column_types": columns, "pins": pinned, "commits": commits}, as_json=True)
        return
    facts({**about, **({"pins": pinned} if pinned else {})}, as_json=False)
    out.print("\ncolumns")
    show([{"column": column, "type": kind} for column, kind in columns.items()], as_json=False)
    out.print("\nlast commits")
    show(commits, as_json=False)


def history(name: NameArgument, lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """A table's commits, newest first."""
    table = _table(find_place(lake, env), name)
    show([_commit(one) for one in table.facts()], as_json=as_json)


def restore(
    name: NameArgument,
    version: VersionOption = None,
    at: AtOption = None,
    why: WhyOption = "",
    yes: YesOption = False,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """A source's table back to an older version, as a new version: nothing in between is lost."""
    from lakeloop.functions.restore_table import plan_restore, restore_table
    from lakeloop.lakehouse import events
    from lakeloop.lakehouse.tables import committed_at

    if (version is None) == (at is None):
        raise Invalid("a restore needs a version", todo="name one: --version 3, or --at 2026-04-01T00:00Z")
    place = find_place(lake, env)
    full = _full(place, name)
    plan = plan_restore(place.lake, full, version=version, at=moment(at) if at else None)
    then = f"version {plan.then.version} ({committed_at(plan.then.facts(1)[0]):%Y-%m-%d %H:%M}Z)"
    say(
        f"{full} has {plan.rows_now:,} rows in version {plan.now.version}; it will have the {plan.rows_then:,} rows of "
        f"{then} again, as version {plan.now.version + 1}",
        quiet=quiet,
    )
    if plan.columns_lost:
        say(f"columns that were added since go: {', '.join(plan.columns_lost)}", quiet=quiet)
    sure("restore it?", yes=yes)
    before = plan.now.version
    made = restore_table(place.lake, plan, why=why)
    events.wake(place.lake, "data", full.partition("/")[0])
    done = {"table": full, "version": made, "restored": plan.then.version, "rows": plan.rows_then, "before": before}
    facts(done, as_json=as_json)
    say(f"next: lakeloop features build; back again: lakeloop tables restore {full} --version {before}", quiet=quiet)


def _full(place: Place, name: str) -> str:
    return name if "/" in name else f"{place.applied().name}/{name}"


def _table(place: Place, name: str, version: int | None = None, at: str | None = None) -> Table:
    full = _full(place, name)
    table = place.lake.tables.open(full, version=version, at=moment(at) if at else None)
    if table is None:
        raise NotFound(f"there is no table {full!r}", todo="see `lakeloop tables list`")
    return table


def _sizes(table: Table) -> dict[str, Any]:
    files = table.data_files()
    mib = round(sum(file.size for file in files) / 2**20, 3)
    return {"files": len(files), "rows": sum(file.rows for file in files), "MiB": mib}


def _pin(table: str) -> str:
    return f"{table.replace('/', '.')}@"


def _commit(one: Mapping[str, Any]) -> dict[str, Any]:
    """A commit as a person reads it: Delta's own record, and what Lakeloop wrote into it."""
    from lakeloop.lakehouse.tables import committed_at

    ours = {"file": "file", "lakeloop.widened": "widened", "lakeloop.restored": "rows of version", "lakeloop.who": "by"}
    ours |= {"lakeloop.why": "why"}
    notes = [f"{label} {one[key]}" for key, label in ours.items() if one.get(key)]
    mode = (one.get("operationParameters") or {}).get("mode")
    operation = " ".join(str(part) for part in (one.get("operation"), mode) if part)
    return {"version": one.get("version"), "at": committed_at(one), "operation": operation, "note": ", ".join(notes)}
