"""`monitors`, `alerts`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lakeloop.infra.cli.options import AsOfOption, EnvOption, JsonOption, LakeOption, moment
from lakeloop.infra.cli.output import out, show
from lakeloop.infra.place import find_place
from lakeloop.lakehouse.errors import NotFound

PANEL = "Monitoring"


def register(app: typer.Typer) -> None:
    monitors = typer.Typer(help="What is watched, and what was seen", no_args_is_help=True)
    monitors.command("list")(monitors_list)
    monitors.command("run")(monitors_run)
    app.add_typer(monitors, name="monitors", rich_help_panel=PANEL)
    alerts = typer.Typer(help="What went over its bound", no_args_is_help=True)
    alerts.command("list")(alerts_list)
    app.add_typer(alerts, name="alerts", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(report)


def monitors_list(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Every monitor with its newest result."""
    place = find_place(lake, env)
    project = place.applied()
    newest = {
        (row["model"], row["monitor"]): row
        for row in place.lake.sql(
            "select * from lakeloop.monitor_results where project = ? and subject = '' "
            "qualify row_number() over (partition by model, monitor order by window_end desc, logged_at desc) = 1",
            [project.name],
        ).to_pylist()
    }
    rows = []
    for model in project.models.values():
        for monitor in model.monitors:
            seen = newest.get((model.name, monitor.name), {})
            rows.append(
                {
                    "model": model.name,
                    "monitor": monitor.name,
                    "watch": monitor.watch,
                    "window_end": seen.get("window_end"),
                    "stat": seen.get("stat"),
                    "value": seen.get("value"),
                    "bound": seen.get("bound"),
                    "breached": seen.get("breached"),
                    "rows": seen.get("rows"),
                    "version": seen.get("version"),
                }
            )
    show(rows, as_json=as_json, empty="the project has no monitors")


def monitors_run(
    names: Annotated[list[str] | None, typer.Argument(help="Monitors; default all")] = None,
    as_of: AsOfOption = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge every monitor's newest closed window."""
    from lakeloop.functions.check_monitors import check_monitors

    place = find_place(lake, env)
    project = place.applied()
    known = [monitor.name for model in project.models.values() for monitor in model.monitors]
    for name in names or []:
        if name not in known:
            raise NotFound(
                f"there is no monitor {name!r}", todo=f"name one of: {', '.join(known) or 'none is declared'}"
            )
    done = check_monitors(place.lake, project, as_of=moment(as_of), names=names or [])
    show(
        [
            {"monitor": one.monitor, "window_end": one.window_end, "breached": one.breached, "message": one.message}
            for one in done
        ],
        as_json=as_json,
        empty="nothing new to judge",
    )


def alerts_list(
    all_: Annotated[bool, typer.Option("--all", help="Resolved ones too")] = False,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Alerts that are open."""
    place = find_place(lake, env)
    project = place.applied()
    sql = (
        "select alert, model, monitor, status, severity, window_end, message from lakeloop.alerts "
        "where project = ? and (? or status = 'open') order by window_end desc, alert"
    )
    show(place.lake.sql(sql, [project.name, all_]).to_pylist(), as_json=as_json, empty="no alert is open")


def report(
    model: Annotated[str | None, typer.Argument(help="A model; default: the project's first with a champion")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; default: <model>-report.html here")
    ] = None,
    audience: Annotated[
        str,
        typer.Option(
            "--for", help="business, experimentation, data_engineering, operations, security; default everything"
        ),
    ] = "",
    as_of: AsOfOption = None,
    lake: LakeOption = None,
    env: EnvOption = None,
) -> None:
    """Write the page: one static HTML file with plots, that needs no server."""
    from lakeloop.functions.report.gathering import write_report
    from lakeloop.lakehouse import endpoints

    place = find_place(lake, env)
    project = place.applied()
    chosen = (
        model
        or next(
            (name for name in project.models if endpoints.champion(place.lake, project.name, name) is not None), None
        )
        or next(iter(project.models), None)
    )
    if chosen is None or chosen not in project.models:
        raise NotFound(
            f"{project.name} has no model {model or ''!r}",
            todo=f"name one of: {', '.join(project.models) or 'none is declared'}",
        )
    path = output or Path(f"{chosen}-report.html")
    write_report(place.lake, project, chosen, path, as_of=moment(as_of), audience=audience)
    out.print(str(path), markup=False)
