"""Every key of lakeloop.toml, sources, feature views and reports: its reader, and the definition the section makes.

Defaults are those of the definitions' dataclasses. `attr=None` marks a key that is checked but has no stage yet.
"""

from __future__ import annotations

import re
from typing import Any, Final
from zoneinfo import ZoneInfo

from lakeloop.lakehouse.project.definitions import (
    Check,
    Column,
    Environment,
    FeatureView,
    Read,
    Report,
    Source,
    Type,
)
from lakeloop.lakehouse.project.readers import (
    COLUMN,
    NAME,
    Flag,
    Key,
    ListOf,
    Named,
    Number,
    OneOf,
    Scalar,
    Section,
    Shorthand,
    Text,
    declared_type,
    duration,
)
from lakeloop.lakehouse.project.window_features import WindowsReader

NAME_TEXT: Final = Text(like=NAME, expected="a name: small letters, digits and _, a letter first")
COLUMN_NAME: Final = Text(like=COLUMN, expected="a column's name: a letter first, no spaces, quotes or brackets")
COLUMN_NAMES: Final = ListOf(COLUMN_NAME, distinct=True)
TEXTS: Final = ListOf(Text(filled=True), distinct=True)
ON_ERROR: Final = OneOf(("quarantine", "stop", "warn"))
PRIVATE: Final = OneOf(("hash", "drop"))
RANGE: Final = ListOf(Number(), exactly=2)


class _Table:
    """A table of a stage that is not built: any keys."""

    def read(self, value: Any, at: Any) -> Any:
        return value if isinstance(value, dict) else at.problem("is not a table")

    def schema(self) -> dict[str, Any]:
        return {"type": "object"}


TABLE: Final = _Table()


class _Timezone:
    """A name of the IANA time zone database."""

    def read(self, value: Any, at: Any) -> Any:
        try:
            return str(ZoneInfo(value))
        except (ValueError, KeyError, TypeError, OSError):
            return at.problem(f'"{value}" is not a time zone; write "UTC" or one like "America/New_York"')

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


ENVIRONMENT: Final = Section(
    Environment,
    {
        "lake": Key(Text(filled=True), required=True),
        "endpoint": Key(Text()),
        "schedules": Key(Flag()),
        "approve": Key(TEXTS),
        "reads": Key(Text(), attr=None),
        "apply": Key(TABLE, attr=None),
        "trial": Key(TABLE, attr=None),
        "replicas": Key(TABLE, attr=None),
        "ray": Key(Text(), attr=None),
        "log_level": Key(OneOf(("debug", "info", "warning", "error")), attr=None),
    },
)

PROJECT: Final = Section(
    dict,
    {
        "name": Key(NAME_TEXT, required=True),
        "goal": Key(Text()),
        "owner": Key(Text(filled=True), required=True),
        "tags": Key(TEXTS),
        "requires": Key(Text()),
        "timezone": Key(_Timezone()),
        "python": Key(Text()),
        "uses": Key(TEXTS, attr=None),
        "environments": Key(Named(ENVIRONMENT)),
        "channels": Key(TABLE, attr=None),
        "notify": Key(TABLE, attr=None),
    },
)


def _column(name: str, type: tuple[Type, bool], **rules: Any) -> Column:
    return Column(name=name, type=type[0], nullable=type[1], **rules)


COLUMN_SECTION: Final = Section(
    _column,
    {
        "type": Key(declared_type(), required=True),
        "range": Key(RANGE),
        "values": Key(ListOf(Scalar(), distinct=True, filled=True)),
        "matches": Key(Text()),
        "unique": Key(Flag()),
        "on_error": Key(ON_ERROR),
        "private": Key(PRIVATE),
        "note": Key(Text()),
    },
)

READ: Final = Section(
    Read,
    {
        "kind": Key(OneOf(("landing", "push", "delta", "parquet", "query", "python")), required=True),
        "format": Key(OneOf(("csv", "jsonl", "parquet"))),
        "null": Key(ListOf(Text(), distinct=True)),
        "delimiter": Key(Text(like=re.compile(r"[^\n\r\"]"), expected="one character")),
        "uri": Key(Text()),
        "sql": Key(Text(), attr=None),
        "connection": Key(TABLE, attr=None),
        "cursor": Key(Text(), attr=None),
        "every": Key(duration(or_empty=True), attr=None),
    },
)


def _source(on_error: Any = "quarantine", check: tuple[dict[str, Any], ...] = (), **given: Any) -> Source:
    checks = tuple(Check(**{"on_error": on_error, **one}) for one in check)
    return Source(on_error=on_error, checks=checks, **given)


SOURCE: Final = Section(
    _source,
    {
        "description": Key(Text()),
        "owner": Key(Text(filled=True), required=True),
        "tags": Key(TEXTS),
        "read": Key(READ, required=True),
        "key": Key(COLUMN_NAMES),
        "rows": Key(OneOf(("append", "latest", "replace"))),
        "event_time": Key(Text()),
        "timeless": Key(Flag()),
        "known_at": Key(Text()),
        "lag": Key(duration(or_empty=True)),
        "on_error": Key(ON_ERROR),
        "unlisted": Key(OneOf(("drop", "keep", "stop"))),
        "expect": Key(TABLE, attr=None),
        "keep": Key(duration(or_empty=True), attr=None),
        "columns": Key(Named(Shorthand(COLUMN_SECTION, "type"), COLUMN, COLUMN_NAME.expected), required=True),
        "check": Key(
            ListOf(
                Section(
                    dict,
                    {
                        "name": Key(Text(filled=True), required=True),
                        "sql": Key(Text(filled=True), required=True),
                        "on_error": Key(ON_ERROR),
                    },
                )
            )
        ),
    },
)

VIEW: Final = Section(
    FeatureView,
    {
        "description": Key(Text()),
        "owner": Key(Text(filled=True), required=True),
        "tags": Key(TEXTS),
        "entity": Key(COLUMN_NAMES, required=True),
        "event_time": Key(COLUMN_NAME, required=True),
        "known_at": Key(Text()),
        "lag": Key(duration()),
        "ttl": Key(duration(or_empty=True, positive=True)),
        "refresh": Key(duration(positive=True)),
        "online": Key(Flag()),
        "publish": Key(Flag(), attr=None),
        "on_change": Key(Text(), attr=None),
        "tests": Key(TEXTS, attr=None),
        "windows": Key(WindowsReader()),
    },
)

REPORT: Final = Section(
    Report,
    {
        "title": Key(Text(filled=True), required=True),
        "for": Key(Text(filled=True), attr="for_"),
        "plot": Key(OneOf(("bar", "line", "number", "table"))),
        "every": Key(duration(), attr=None),
        "alarm": Key(Text(), attr=None),
    },
)
