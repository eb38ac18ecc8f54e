"""Names and values as SQL text."""

from __future__ import annotations

from datetime import datetime


def quoted(name: str) -> str:
    """An identifier for SQL text; `a.b` is one identifier with a dot in it unless split before."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal for SQL text."""
    return "'" + text.replace("'", "''") + "'"


def timestamp(at: datetime) -> str:
    """A moment for SQL text."""
    return f"timestamptz {literal(at.isoformat())}"
