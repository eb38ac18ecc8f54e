"""`init`, `demo`, `status`, `schema`."""

from __future__ import annotations

from typing import Annotated

import typer

from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption, QuietOption
from lakeloop.infra.cli.output import facts, say
from lakeloop.infra.cli.starting import init, schema
from lakeloop.infra.place import find_place

PANEL = "Start"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(init)
    app.command(rich_help_panel=PANEL)(demo)
    app.command(rich_help_panel=PANEL)(status)
    app.command(rich_help_panel=PANEL)(schema)


def demo(
    lake: LakeOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Remove what an earlier demo left in the lake, and begin again")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """The whole loop on the flights that left New York in 2013: about 3 minutes.

    One that was stopped goes on where it was.
    """
    from lakeloop.infra.demo.command import run_demo

    run_demo(lake, fresh=fresh, quiet=quiet)


def status(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """What is in the lake, what answers, and what waits for whom."""
    from lakeloop.infra.status import status_of

    place = find_place(lake, env)
    found = status_of(place.lake)
    if not as_json and place.differs():
        say("the folder says something that is not applied yet; `lakeloop apply` does that")
    facts(found, as_json=as_json)
