"""`expire_predictions`: logged predictions that are older than their model keeps them leave the lake, with what a
version in the shadow said of them, and so do reports of replicas that no rollout can still need.

A day's rows go together, in one commit: those logged before the first midnight (UTC) that lies `keep` ago or more. The
files that held them are deleted with the other old files of the table, by `maintain_lake`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from lakeloop.functions.maintain_lake import Maintained
from lakeloop.lakehouse.errors import Conflict
from lakeloop.lakehouse.journal import Journal
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Model

WHAT = "rows expired"
SHADOW = "shadow_predictions"
REPORTS = "replicas"
REPORTS_KEPT = timedelta(days=90)
"""Longer than a step takes: its evidence is the difference of two reports."""
OLD_SHADOWS = f"select 1 from lakeloop.{SHADOW} where project = ? and model = ? and logged_at < ? limit 1"


def expire_predictions(lake: Lake, project: Project) -> Sequence[Maintained]:
    """Remove what is too old, for every model of a project. For each journal that has nothing to remove one LIST and
    the opening of one table, and a question to that of the shadows while it holds older rows of others. A race that is
    lost leaves it to the next call."""
    done: list[Maintained] = []
    for model in project.models.values():
        with suppress(Conflict):
            done += _of_model(lake, project.name, model, _midnight(lake.clock() - model.serving.log.keep))
    with suppress(Conflict):
        done.append(_expire(lake, lake.journal(REPORTS), _midnight(lake.clock() - REPORTS_KEPT)))
    return [one for one in done if one.count]


def _of_model(lake: Lake, project: str, model: Model, until: datetime) -> Iterator[Maintained]:
    log = lake.journal(f"predictions.{project}.{model.name}")
    yield _expire(lake, log, until)
    # What was said of a prediction stays while it does: else it would be scored again.
    if _holds_older(lake, lake.journal(SHADOW), until) and not _holds_older(lake, log, until):
        yield _expire_shadows(lake, project, model.name, until)


def _midnight(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _expire_shadows(lake: Lake, project: str, model: str, until: datetime) -> Maintained:
    values = [project, model, until]
    if not lake.sql(OLD_SHADOWS, values, project=project).num_rows:
        return Maintained(SHADOW, WHAT, 0)
    return _expire(lake, lake.journal(SHADOW), until, f"project = '{project}' and model = '{model}' and ")


def _expire(lake: Lake, journal: Journal, until: datetime, which: str = "") -> Maintained:
    """`which` is SQL over names of a project, which are words."""
    if journal.waiting_before(until):
        journal.fold()
    table = lake.table(journal.table_name)
    # Folded, and kept for readers: without its rows it would be taken for a new one.
    if table is None or journal.waiting_before(until) or not _holds_older(lake, journal, until):
        return Maintained(journal.name, WHAT, 0)
    # Any other spelling is nanoseconds to the writer, which it does not compare with what it stored.
    moment = f"arrow_cast('{until:%Y-%m-%dT%H:%M:%SZ}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    return Maintained(journal.name, WHAT, table.remove(f"{which}logged_at < {moment}"))


def _holds_older(lake: Lake, journal: Journal, until: datetime) -> bool:
    if journal.waiting_before(until):
        return True
    table = lake.table(journal.table_name)
    oldest = table.oldest("logged_at") if table is not None else None
    return oldest is not None and oldest < until
