"""`restore_table`: a source's table back to an older version, as a new version.

Nothing is taken back: the rows of the older version are written as one ordinary compare-and-swap commit, which says who
did it and why, and every version in between stays readable as long as its files do. What was ingested since can be
landed again from raw/.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import Corrupt, NotFound, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.pins import missing_files
from lakeloop.lakehouse.tables import Table


@dataclass(frozen=True, slots=True)
class Restoring:
    """What a restore would do: the newest version now, the one whose rows become the next, and how both differ."""

    now: Table
    then: Table
    rows_now: int
    rows_then: int
    columns_lost: tuple[str, ...]


def plan_restore(lake: Lake, name: str, *, version: int | None = None, at: datetime | None = None) -> Restoring:
    """Look at both versions; nothing is changed. Refused for what is no table of a source, NotFound for a version that
    is not there, Corrupt when its files are gone."""
    _check_kind(lake, name)
    now, then = lake.table(name), lake.tables.open(name, version=version, at=at)
    if now is None or then is None:
        raise NotFound(f"there is no table {name!r}", todo="see `lakeloop tables list`")
    if then.version == now.version:
        raise Refused(f"version {now.version} is the newest of {name}", todo=f"lakeloop tables history {name}")
    gone = missing_files(lake, name, then.data_files())
    if gone:
        raise Corrupt(
            f"{len(gone)} files of version {then.version} of {name} are gone ({gone[0]})",
            todo="name a newer version, or land the files in raw/ again",
        )
    lost = tuple(column for column in now.schema.names if column not in then.schema.names)
    return Restoring(now, then, _rows(now), _rows(then), lost)


def restore_table(lake: Lake, plan: Restoring, *, why: str = "") -> int:
    """Write the older version's rows as the next version, which is returned. Conflict when the table has changed since
    the plan was made."""
    facts = {"lakeloop.restored": str(plan.then.version), "lakeloop.who": lake.who, "lakeloop.why": why}
    return plan.now.overwrite(plan.then.batches(), facts=facts)


def _check_kind(lake: Lake, name: str) -> None:
    project, _, table = name.partition("/")
    if project == "lakeloop":
        raise Refused(f"{name} is a journal: what was appended stays", todo="ask for an older state in SQL")
    if project in applied.names(lake) and table in applied.load(lake, project)[0].views:
        raise Refused(
            f"{name} is computed from its sources, and the next build would write it anew",
            todo="restore the source, or apply the older definition",
        )


def _rows(table: Table) -> int:
    return sum(file.rows for file in table.data_files())
