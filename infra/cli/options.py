"""Options that mean the same in every command."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from lakeloop.lakehouse.errors import Invalid

LakeOption = Annotated[
    str | None,
    typer.Option("--lake", help="Folder or s3://bucket/prefix. Default: LAKELOOP_LAKE, the environment's, ./.lake"),
]
EnvOption = Annotated[
    str | None, typer.Option("--env", "-e", help="An environment of lakeloop.toml. Default: LAKELOOP_ENV, the first")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask")]
AsOfOption = Annotated[
    str | None, typer.Option("--as-of", help="The moment to judge by, e.g. 2013-04-01T00:00Z. Default: now")
]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, kept in the history")]


def moment(text: str | None) -> datetime:
    """`--as-of`, UTC unless it names an offset; now by default."""
    if text is None:
        return datetime.now(UTC)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"--as-of {text!r} is not a time", todo="write it as 2013-04-01 or 2013-04-01T06:00Z") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
