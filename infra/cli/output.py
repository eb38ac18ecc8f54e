"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from lakeloop.lakehouse.errors import Refused

WIDE = 240
"""Columns of output that no terminal shows: a table in a file or a pipe is not folded to 80."""
LONG = 36
"""Texts longer than this may be folded into lines."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else WIDE)


def show(
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    columns: Sequence[str] | None = None,
    empty: str = "nothing there yet",
    title: str = "",
) -> None:
    """Rows as JSON lines, or as a table with the given columns."""
    if as_json:
        for row in rows:
            out.print(json.dumps(row, default=plain), markup=False)
        return
    if not rows:
        out.print(empty, markup=False)
        return
    names = list(columns or rows[0])
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in names:
        values = [row.get(name) for row in rows]
        numeric = any(value is not None for value in values) and all(isinstance(v, int | float | None) for v in values)
        short = all(len(cell(value)) <= LONG for value in values)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold", no_wrap=short)
    for row in rows:
        table.add_row(*(_escaped(cell(row.get(name))) for name in names))
    out.print(table)


def facts(record: Mapping[str, Any], *, as_json: bool) -> None:
    """One record, a line a fact."""
    if as_json:
        out.print(json.dumps(record, default=plain), markup=False)
        return
    width = max((len(name) for name in record), default=0)
    for name, value in record.items():
        lines = cell(value).splitlines() or [""]
        out.print(f"{name.replace('_', ' '):<{width}}  {lines[0]}", markup=False)
        for line in lines[1:]:
            out.print(f"{'':<{width}}  {line}", markup=False)


def say(text: str, *, quiet: bool = False) -> None:
    """A line for a person, on stderr, so that stdout stays for results."""
    if not quiet:
        err.print(text, markup=False)


def sure(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; Refused where nobody can answer, or the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"this asks first: {question}", todo="say --yes")
    err.print(f"{question} [y/N] ", end="", markup=False)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was changed", todo="answer y, or say --yes")


def cell(value: Any) -> str:
    """A value as a person reads it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case dict() | list():
            return json.dumps(value, default=plain)
        case _:
            return str(value)


def plain(value: Any) -> Any:
    """What JSON has no form for."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def ago(moment: datetime, now: datetime) -> str:
    """`3 h ago`."""
    seconds = (now - moment).total_seconds()
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
