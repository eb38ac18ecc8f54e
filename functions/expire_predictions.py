"""`expire_predictions`: logged predictions that are older than their model keeps them leave the lake, and so do reports
of replicas that no rollout can still need.

A day's rows go together, in one commit: those logged before the first midnight (UTC) that lies `keep` ago or more. The
files that held them are deleted with the other old files of the table, by `maintain_lake`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from lakeloop.functions.maintain_lake import Maintained
from lakeloop.lakehouse.errors import Conflict
from lakeloop.lakehouse.journal import Journal
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project

WHAT = "rows expired"
REPORTS = "replicas"
REPORTS_KEPT = timedelta(days=90)
"""Longer than a step takes: its evidence is the difference of two reports."""


def expire_predictions(lake: Lake, project: Project) -> Sequence[Maintained]:
    """Remove what is too old, for every model of a project. One LIST and the opening of one table for each journal that
    has nothing to remove. A race that is lost leaves it to the next call."""
    done = []
    logs = {f"predictions.{project.name}.{model.name}": model.serving.log.keep for model in project.models.values()}
    for name, keep in {**logs, REPORTS: REPORTS_KEPT}.items():
        until = (lake.clock() - keep).astimezone(UTC)
        try:
            rows = _expire(lake.journal(name), lake, until.replace(hour=0, minute=0, second=0, microsecond=0))
        except Conflict:
            continue
        if rows:
            done.append(Maintained(name, WHAT, rows))
    return done


def _expire(journal: Journal, lake: Lake, until: datetime) -> int:
    if journal.waiting_before(until):
        journal.fold()
    if journal.waiting_before(until):  # folded, and kept for readers: without its rows it would be taken for a new one
        return 0
    table = lake.table(journal.table_name)
    oldest = table.oldest("logged_at") if table is not None else None
    if table is None or oldest is None or oldest >= until:
        return 0
    # Any other spelling is nanoseconds to the writer, which it does not compare with what it stored.
    return table.remove(
        f"logged_at < arrow_cast('{until:%Y-%m-%dT%H:%M:%SZ}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    )
