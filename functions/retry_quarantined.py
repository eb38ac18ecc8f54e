"""`retry_quarantined` and `drop_quarantined`: what a person decides of rows and files that were set aside.

A retry lands the raw rows again, as one JSON Lines file whose name follows from what was decided, so that ingest takes
it in once, by the rules in force. It is decided first and landed second; whoever stops in between, the next retry
lands it. Safe to repeat at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import AlreadyExists, Conflict, NotFound, Unknown
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.quarantine import (
    JUDGED,
    Decided,
    SetAside,
    decide,
    keep_landed,
    note_files,
    retried_rows,
    segments,
    set_aside,
    unfinished,
)

SEGMENTS = "inbox/"
"""What stands before a journal's name where a source could stand."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What was put back or dropped: rows of a source under the name they landed by, a file, a segment."""

    owner: str
    file: str
    rows: int = 0


def retry_quarantined(lake: Lake, project: str, source: str, *, file: str = "", why: str = "") -> list[Settled]:
    """Put a source's open rows, and its files that could not be read, back into landing/; the next ingest judges them.

    `source` may be `inbox/<journal>`: its segments go back to the inbox. Broken lines stay where they are: they hold no
    values that another rule could judge. Rows that stand in the table already are kept, and not taken in twice.
    """
    done = []
    if not source.startswith(SEGMENTS):
        keep_landed(lake, project, source, file=file)
        waiting = unfinished(lake, project, source)
        if decided := decide(lake, project, source, "retried", why, which=JUDGED, file=file):
            waiting.append(decided)
        done = [_land(lake, one) for one in waiting]
    files = found_aside(lake, project, source, file)
    if files:
        note_files(lake, project, files, "retried", why)
    return [*done, *(_put_back(lake, one) for one in files)]


def drop_quarantined(lake: Lake, project: str, source: str, *, file: str = "", why: str = "") -> list[Settled]:
    """Give up a source's open rows, which stay in the journal as dropped, and delete its files that could not be
    read."""
    done = []
    if not source.startswith(SEGMENTS) and (decided := decide(lake, project, source, "dropped", why, file=file)):
        done.append(Settled(source, file, decided.rows))
    files = found_aside(lake, project, source, file)
    if files:
        note_files(lake, project, files, "dropped", why)
        lake.store.delete(one.key for one in files)
    return [*done, *(Settled(one.owner, one.name) for one in files)]


def found_aside(lake: Lake, project: str, source: str, file: str = "") -> Sequence[SetAside]:
    """The files or segments that a source's name stands for."""
    found = (
        segments(lake, source.removeprefix(SEGMENTS))
        if source.startswith(SEGMENTS)
        else set_aside(lake, project, source)
    )
    return [one for one in found if file in ("", one.name)]


def _land(lake: Lake, decided: Decided) -> Settled:
    rows = retried_rows(lake, decided)
    key = f"{keys.landing(decided.project, decided.source)}{decided.file}"
    lake.store.put(key, "".join(f"{row}\n" for row in rows).encode())
    return Settled(decided.source, decided.file, len(rows))


def _put_back(lake: Lake, one: SetAside) -> Settled:
    """Copied first, deleted second; Conflict when another file of this name has landed since."""
    try:
        data = lake.store.get(one.key)
    except NotFound:  # another put it back meanwhile
        return Settled(one.owner, one.name)
    try:
        lake.store.put(one.back, data, if_absent=True)
    except (AlreadyExists, Unknown) as error:
        if lake.store.get(one.back) != data:
            raise Conflict(
                f"another {one.name} waits in landing/", where=one.owner, todo="run `lakeloop ingest` first"
            ) from error
    lake.store.delete([one.key])
    return Settled(one.owner, one.name)
