"""The tree of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from lakeloop.infra.cli import (
    automation,
    batch,
    data,
    feedback,
    lakes,
    models,
    project,
    rollouts,
    serving,
    start,
    tokens,
)

app = typer.Typer(
    name="lakeloop",
    help="The whole MLOps loop on a bucket: data, features, training, registry, serving, monitoring, retraining. "
    "No server, no database.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        typer.echo(installed("lakeloop"))
        raise typer.Exit


@app.callback()
def version_option(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """The whole MLOps loop on a bucket."""


start.register(app)
project.register(app)
lakes.register(app)
data.register(app)
models.register(app)
serving.register(app)
batch.register(app)
rollouts.register(app)
tokens.register(app)
feedback.register(app)
automation.register(app)
