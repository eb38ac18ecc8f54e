"""What one page is about, and how its facts are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from typing import Any

from lakeloop.functions.report import words
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.query.session import Session

Row = dict[str, Any]
REPLAY = timedelta(days=1)
"""A run that trained as of a moment further than this from its own is part of a replay."""


@dataclass(frozen=True)
class Scope:
    """One model as of a moment, and one connection for every question about it."""

    lake: Lake
    session: Session
    project: Project
    model: Model
    as_of: datetime

    @property
    def zone(self) -> tzinfo:
        """The project's time zone: of days, and of what people read."""
        return words.zone(self.project.timezone)

    def rows(self, sql: str, *values: object) -> list[Row]:
        """The answer to a query as rows; values stand for `?`."""
        answer: list[Row] = self.session.run(sql, values).to_pylist()
        return answer

    def journal(self, name: str, rest: str = "", *values: object, columns: str = "*") -> list[Row]:
        """The model's rows of a journal; `rest` follows the condition, as in `and stat = ? order by logged_at`."""
        sql = f"select {columns} from lakeloop.{name} where project = ? and model = ? {rest}"
        return self.rows(sql, self.project.name, self.model.name, *values)

    @cached_property
    def runs(self) -> Sequence[Row]:
        """The model's runs up to now, the newest first."""
        return self.journal("runs", "and as_of <= ? order by first_logged_at desc, run", self.as_of)

    def newest_run_in(self, journal: str) -> Row | None:
        """The newest run that has rows in a journal."""
        there = {row["run"] for row in self.journal(journal, columns="distinct run")}
        return next((run for run in self.runs if run["run"] in there), None)

    def dated(self, at: datetime, run: Row | None) -> datetime:
        """A moment of the wall clock on the time axis of `as_of`: in a replay, that of the run it belongs to."""
        replayed = run is not None and abs(run["first_logged_at"] - run["as_of"]) > REPLAY
        return utc(run["as_of"]) if run is not None and replayed else utc(at)

    def run_of(self, version: int) -> Row | None:
        """The run that made a version."""
        return next((run for run in self.runs if run["version"] == version), None)


def utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def named(version: int | None) -> str:
    """What the page calls a version; nothing for none."""
    return f"v{version}" if version is not None else ""
