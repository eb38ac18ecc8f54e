"""`tokens create | list | revoke | open`: who may ask an endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption, QuietOption
from lakeloop.infra.cli.output import facts, out, say, show
from lakeloop.infra.place import Place, find_place
from lakeloop.lakehouse.errors import Invalid, NotFound

PANEL = "Serving"
ModelArgument = Annotated[str, typer.Argument(help="A model of the project")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Who may ask an endpoint", no_args_is_help=True)
    commands.command("create")(create)
    commands.command("list")(list_tokens)
    commands.command("revoke")(revoke)
    commands.command("open")(open_endpoint)
    app.add_typer(commands, name="tokens", rich_help_panel=PANEL)


def create(
    model: ModelArgument,
    name: Annotated[str, typer.Option("--name", help="Whose it is; shown in the list")],
    expires: Annotated[
        str, typer.Option("--expires", help="How long it is good for, e.g. 90d. Default: for ever")
    ] = "",
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a token. It is shown now and never again; from the first one on the endpoint answers only to a token."""
    from lakeloop.lakehouse import tokens
    from lakeloop.lakehouse.project.units import parse_duration

    place, project = _place(lake, env, model)
    try:
        until = place.lake.clock() + parse_duration(expires) if expires else None
    except ValueError:
        raise Invalid(f"--expires {expires!r} is not a duration", todo="write it as 12h, 90d or 52w") from None
    first = not tokens.of_endpoint(place.lake, project, model).needed
    secret, _ = tokens.create(place.lake, project, model, name, until)
    if as_json:
        facts({"model": model, "name": name, "token": secret, "expires": until}, as_json=True)
        return
    out.print(secret, markup=False, highlight=False, soft_wrap=True)
    if first:
        say(f"within 10 s {model} answers only to requests with a token", quiet=quiet)
    say("it is not shown again; send it as `Authorization: Bearer <token>`", quiet=quiet)


def list_tokens(
    model: ModelArgument, lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """The tokens of an endpoint: names and times, never a token."""
    from lakeloop.lakehouse import tokens

    place, project = _place(lake, env, model)
    keyring, now = tokens.of_endpoint(place.lake, project, model), place.lake.clock()
    rows = [
        {"name": one.name, "created": one.created, "expires": one.expires, "valid": one.valid(now)}
        for one in keyring.tokens
    ]
    empty = f"{model} has no token: it answers to nobody" if keyring.needed else f"{model} needs no token"
    show(rows, as_json=as_json, empty=empty)


def revoke(
    model: ModelArgument,
    name: Annotated[str, typer.Argument(help="The token's name")],
    lake: LakeOption = None,
    env: EnvOption = None,
    quiet: QuietOption = False,
) -> None:
    """Take a token back. Running endpoints refuse it within 10 s."""
    from lakeloop.lakehouse import tokens

    place, project = _place(lake, env, model)
    tokens.revoke(place.lake, project, model, name)
    say(f"{name} is refused within 10 s", quiet=quiet)
    if not tokens.of_endpoint(place.lake, project, model).tokens:
        say(f"{model} has no token left and answers to nobody; `lakeloop tokens open {model}` lifts that", quiet=quiet)


def open_endpoint(
    model: ModelArgument, lake: LakeOption = None, env: EnvOption = None, quiet: QuietOption = False
) -> None:
    """Let an endpoint answer without a token again; all it has are forgotten."""
    from lakeloop.lakehouse import tokens

    place, project = _place(lake, env, model)
    tokens.open_to_all(place.lake, project, model)
    say(f"within 10 s {model} answers to everybody who reaches it", quiet=quiet)


def _place(lake: str | None, env: str | None, model: str) -> tuple[Place, str]:
    place = find_place(lake, env)
    project = place.applied()
    if model not in project.models:
        raise NotFound(f"{project.name} has no model {model!r}", todo=f"name one of: {', '.join(project.models)}")
    return place, project.name
