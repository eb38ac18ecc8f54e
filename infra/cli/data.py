"""`ingest`, `query`, `features`; and where `sources`, `quarantine` and `tables` hang in the tree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lakeloop.infra.cli import quarantine, sources, tables
from lakeloop.infra.cli.asking import query
from lakeloop.infra.cli.options import AsOfOption, EnvOption, JsonOption, LakeOption, QuietOption, moment
from lakeloop.infra.cli.output import facts, out, say, show
from lakeloop.infra.place import find_place
from lakeloop.lakehouse.errors import Invalid, NotFound

PANEL = "Data and features"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(ingest)
    app.command(rich_help_panel=PANEL)(query)
    sources.register(app, PANEL)
    quarantine.register(app, PANEL)
    tables.register(app, PANEL)
    for name, commands, text in (("features", (features_list, features_build, features_get), "Feature views"),):
        group = typer.Typer(help=text, no_args_is_help=True)
        for command in commands:
            group.command(command.__name__.split("_", 1)[1])(command)
        app.add_typer(group, name=name, rich_help_panel=PANEL)


def ingest(
    source: Annotated[
        str | None, typer.Argument(help="A source of the project; without one, everything in landing/")
    ] = None,
    files: Annotated[list[Path] | None, typer.Argument(help="Files to land first")] = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Land files of a source, check every row, and append the good ones to its table."""
    from lakeloop.functions.ingest_data import ingest_data, land
    from lakeloop.infra.progress import file_progress
    from lakeloop.lakehouse import events

    place = find_place(lake, env)
    project = place.applied()
    if place.differs():
        say("the folder says something that is not applied yet; `lakeloop apply` does that", quiet=quiet)
    for file in files or []:
        if not file.is_file():
            raise NotFound(f"there is no file {file}", todo="check the path")
        with open(file, "rb") as data:
            land(place.lake, project, source or "", file.name, data)
    with file_progress(quiet=quiet or as_json) as watch:
        done = ingest_data(place.lake, project, [source] if source else [], watch=watch)
    events.wake(place.lake, "data", project.name)
    rows = [
        {
            "source": r.source,
            "file": r.file,
            "rows": r.rows,
            "quarantined": r.quarantined,
            "note": r.problem
            or ("ingested before" if r.already else f"{r.forgotten} rows are forgotten" if r.forgotten else ""),
        }
        for r in done
    ]
    show(rows, as_json=as_json, empty="nothing lies in landing/")
    for result in done:
        for reason in result.reasons[:3]:
            say(f"  {result.source}: {reason}", quiet=quiet)
    if any(result.quarantined for result in done):
        say("next: lakeloop quarantine list", quiet=quiet)
    problems = [f"{result.source}/{result.file}: {result.problem}" for result in done if result.problem]
    if problems:
        raise Invalid(
            "some files could not be read; they lie in quarantine/", todo="send them again, mended", problems=problems
        )


def features_list(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Every feature view: what it says, of whom, who uses it."""
    from lakeloop.lakehouse.applied import bound

    project = find_place(lake, env).applied()
    models = bound(project).models
    rows = [
        {
            "view": name,
            "entity": ", ".join(project.views[name].entity),
            "features": len(view.features),
            "version": view.version,
            "online": project.views[name].online,
            "used_by": ", ".join(m for m, found in models.items() if name in found.views or name in found.reads),
            "owner": project.views[name].owner,
            "description": project.views[name].description,
        }
        for name, view in bound(project).views.items()
    ]
    show(rows, as_json=as_json)


def features_build(
    views: Annotated[list[str] | None, typer.Argument(help="Views to build; default all")] = None,
    as_of: AsOfOption = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring views up to their inputs, offline and online."""
    from lakeloop.functions.build_features import build_features

    place = find_place(lake, env)
    done = build_features(place.lake, place.applied(), as_of=moment(as_of), views=views or [])
    show(
        [
            {"view": b.view, "rows": b.rows, "online_rows": b.online_rows, "version": b.version, "seconds": b.seconds}
            for b in done
        ],
        as_json=as_json,
        empty="every view is up to its inputs",
    )


def features_get(
    view: str,
    key: Annotated[list[str] | None, typer.Argument(help="The entity's values, in order, as name=value")] = None,
    as_of: AsOfOption = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """The values of one entity, as the endpoint would look them up."""
    from lakeloop.functions.build_features import ONLINE, online_id
    from lakeloop.lakehouse.applied import bound
    from lakeloop.lakehouse.features.online import open_snapshot

    place = find_place(lake, env)
    project = place.applied()
    if view not in project.views or not project.views[view].online:
        online = [name for name, one in project.views.items() if one.online]
        raise NotFound(
            f"there is no online view {view!r}", todo=f"name one of: {', '.join(online) or 'none is online'}"
        )
    bound_view = bound(project).views[view]
    built = place.lake.documents.latest(ONLINE, online_id(project.name, view, bound_view.version))
    if built is None:
        raise NotFound(f"{view} has no snapshot yet", todo="run `lakeloop features build`")
    given = {name: value for name, _, value in (part.partition("=") for part in key or [])}
    missing = [name for name in project.views[view].entity if name not in given]
    if missing:
        raise Invalid(
            f"{view} is asked by {', '.join(project.views[view].entity)}",
            todo=f"lakeloop features get {view} {' '.join(f'{n}=…' for n in project.views[view].entity)}",
        )
    typed = tuple(
        int(given[name]) if bound_view.columns[name] == "BIGINT" else given[name] for name in project.views[view].entity
    )
    values, event = open_snapshot(place.lake, built.body["key"], built.body["sha256"]).at(typed, moment(as_of))
    if values is None:
        out.print("nothing is known of it", markup=False)
        return
    facts({**values, "from": event}, as_json=as_json)
