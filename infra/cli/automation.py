"""`work`, `freeze`, `unfreeze`, `events`."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakeloop.infra.cli.options import AsOfOption, EnvOption, JsonOption, LakeOption, QuietOption, moment
from lakeloop.infra.cli.output import out, say, show
from lakeloop.infra.place import Place, find_place
from lakeloop.lakehouse.errors import LakeloopError, NotFound, Unavailable

if TYPE_CHECKING:
    from lakeloop.functions.sweep import Swept
    from lakeloop.infra.training import LocalRay

PANEL = "Automation"
SWEEP_EVERY_S = 300.0
POLL_EVERY_S = 2.0


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(work)
    app.command(rich_help_panel=PANEL)(freeze)
    app.command(rich_help_panel=PANEL)(unfreeze)
    events = typer.Typer(help="What woke the functions", no_args_is_help=True)
    events.command("list")(events_list)
    app.add_typer(events, name="events", rich_help_panel=PANEL)


def work(
    once: Annotated[
        bool, typer.Option("--once", help="One sweep, then stop; exit code 1 when a function failed")
    ] = False,
    as_of: AsOfOption = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run the functions here: ingest, build, monitor, retrain, gate, roll out.

    On events at once, on everything every 5 minutes.
    """
    from lakeloop.infra.training import LocalRay
    from lakeloop.lakehouse import applied

    place = find_place(lake, env)
    at = moment(as_of) if as_of else None
    with LocalRay(place.lake, place.folder, say=lambda text: say(text, quiet=quiet)) as ray:
        if once:
            swept = _sweep(place, ray, at)
            if not swept.anything:
                idle = "nothing to do" if applied.names(place.lake) else "no project is applied; run `lakeloop apply`"
                say(idle, quiet=quiet)
            if swept.failed:
                todo = "mend what they say, and run this again"
                raise LakeloopError(f"{len(swept.failed)} functions failed", todo=todo)
            return
        _forever(place, ray, at)


def _forever(place: Place, ray: LocalRay, at: datetime | None) -> None:
    """Sweep when something new came, and every 5 minutes anyway. A store that is away is waited for."""
    from lakeloop.functions.sweep import news

    seen: frozenset[str] = frozenset()
    last = float("-inf")
    while True:
        try:
            there = news(place.lake)
            if (there and there != seen) or time.monotonic() - last >= SWEEP_EVERY_S:
                _sweep(place, ray, at)
                seen, last = news(place.lake), time.monotonic()  # what is still there now cannot be done yet
        except Unavailable as error:
            say(str(error))
        time.sleep(POLL_EVERY_S)


def _sweep(place: Place, ray: LocalRay, at: datetime | None) -> Swept:
    from lakeloop.functions.sweep import sweep

    def told(function: str, one: Any) -> None:
        out.print(f"{function}: {_line(one)}", markup=False)

    swept = sweep(place.lake, ray.launch, as_of=at, watch=told)
    for function, error in swept.failed.items():
        say(f"{function}: {error}")
    return swept


def freeze(
    model: str,
    why: Annotated[str, typer.Option("--why", help="The reason", prompt=True)],
    lake: LakeOption = None,
    env: EnvOption = None,
) -> None:
    """Stop retraining, promotion and rollout of a model."""
    _set(model, why, lake, env, frozen=True)


def unfreeze(
    model: str,
    why: Annotated[str, typer.Option("--why", help="The reason")] = "",
    lake: LakeOption = None,
    env: EnvOption = None,
) -> None:
    """Lift a freeze."""
    _set(model, why, lake, env, frozen=False)


def events_list(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False, limit: int = 50) -> None:
    """Events that wait, and the newest that were handled."""
    from lakeloop.lakehouse import events

    place = find_place(lake, env)
    rows: list[dict[str, Any]] = [
        {"event": key.rsplit("/", 1)[1], "status": "waits"} for key in events.pending(place.lake)
    ]
    rows += [
        {"event": f"{row['kind']}-{row['key']}", "status": "handled", "when": row["logged_at"]}
        for row in place.lake.sql("select * from lakeloop.events order by logged_at desc limit ?", [limit]).to_pylist()
    ]
    show(rows, as_json=as_json, columns=["event", "status", "when"], empty="no event yet")


def _set(model: str, why: str, lake: str | None, env: str | None, *, frozen: bool) -> None:
    from lakeloop.lakehouse.freezing import freeze as set_freeze

    place = find_place(lake, env)
    project = place.applied()
    if model not in project.models:
        raise NotFound(f"{project.name} has no model {model!r}", todo=f"name one of: {', '.join(project.models)}")
    revision = set_freeze(place.lake, project.name, model, frozen=frozen, why=why)
    say(f"{model} is {'frozen' if revision.body['frozen'] else 'not frozen'}: {revision.why}")


def _line(one: Any) -> str:
    fields = {name: getattr(one, name) for name in getattr(one, "__slots__", ())}
    return ", ".join(
        f"{name} {value}" for name, value in fields.items() if value not in ("", None, (), False) and name != "findings"
    )
