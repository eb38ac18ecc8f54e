"""What is in quarantine and what was decided of it.

A wrong row is a row of the journal `quarantine`; a decision (retried, dropped, kept) is a row of
`quarantine_decisions`, and each row is decided once: decisions of a source are numbered, and the segment of a number is
put if it is absent, so that of two who decide at the same time one wins and the other looks anew. A file that could not
be read, and a journal segment that could not be read, lie below quarantine/ and are open while they lie there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import Conflict
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Catalog, Query, Relation, Session, Stored

Decision: TypeAlias = Literal["retried", "dropped", "kept"]
TRIES = 10
# A line that could not be taken apart has no values that another rule could judge.
JUDGED = "line is not null and reason not like 'broken line:%'"
OF_A_LINE = "line is not null"
TABLE = "_of_source"
IN_TABLE = f"line is not null and (file, line) in (select row(_file, _line) from {TABLE})"
_OPEN = "from lakeloop.quarantine_state where project = ? and source = ? and state = 'open'"


@dataclass(frozen=True, slots=True)
class Decided:
    """Rows that were decided together. A retry lands under `file`."""

    project: str
    source: str
    batch: str
    rows: int

    @property
    def file(self) -> str:
        return f"retry-{self.batch}{keys.RETRIED}"


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file or a journal segment that could not be read, where it lies, and where it came from."""

    owner: str
    """The source; of a segment `inbox/<journal>`."""
    name: str
    key: str
    back: str
    reason: str = ""


def decide(
    lake: Lake, project: str, source: str, decision: Decision, why: str, *, which: str = OF_A_LINE, file: str = ""
) -> Decided | None:
    """Decide every open row of a source (or of one file of it) that `which` holds for; None when there is none."""
    for _ in range(TRIES):
        number, rows = _open_rows(lake, project, source, which, file)
        if not rows:
            return None
        named = json.dumps([project, source, number, [[row["file"], row["line"]] for row in rows]])
        batch = hashlib.sha256(named.encode()).hexdigest()[:16]
        common = {"project": project, "source": source, "number": number, "batch": batch, "decision": decision}
        signed = common | {"who": lake.who, "why": why, "logged_at": lake.clock()}
        lake.record("quarantine_decisions", [row | signed for row in rows], f"{project}-{source}-{number:08d}")
        if _of_number(lake, project, source, number) == (batch, decision):
            return Decided(project, source, batch, len(rows))
    raise Conflict(f"the quarantine of {source} is decided by many at once", todo="run it again")


def keep_landed(lake: Lake, project: str, source: str, *, file: str = "") -> Decided | None:
    """Decide as kept every open row that stands in the source's table: its file came to quarantine, its ingest stopped
    there, and the next one took it in by other rules."""
    return decide(lake, project, source, "kept", "it is in the table", which=IN_TABLE, file=file)


def retried_rows(lake: Lake, decided: Decided) -> list[str]:
    """The raw rows of a retry, as JSON texts, in the order in which they came; without those that an ingest of their
    own file has taken in since, by other rules."""
    sql = (
        "select row from lakeloop.quarantine_state where project = ? and source = ? and batch = ? "
        f"and not ({IN_TABLE}) order by file, line"
    )
    with Session(lake.store.location(), _with_table(lake, decided.project, decided.source)) as session:
        found = session.run(sql, [decided.project, decided.source, decided.batch])
    return [str(row) for row in found.column("row").to_pylist()]


def unfinished(lake: Lake, project: str, source: str) -> list[Decided]:
    """Retries that were decided, and whose rows were never landed: whoever decided them stopped halfway."""
    decided = [
        Decided(project, source, row["batch"], row["n"])
        for row in _ask(
            lake,
            "select batch, count(*) as n from lakeloop.quarantine_decisions "
            "where project = ? and source = ? and decision = 'retried' and line is not null group by batch",
            [project, source],
        )
    ]
    if not decided:
        return []
    # Landing first: an ingest writes down what it did before it takes a file away from there.
    prefix = keys.landing(project, source)
    seen = {entry.key.removeprefix(prefix) for entry in lake.store.list(prefix)}
    seen |= {
        str(row["file"])
        for row in _ask(
            lake,
            "select split_part(file, '#', 1) as file from lakeloop.ingestions where project = $1 and source = $2 union "
            "select split_part(file, '#', 1) from lakeloop.quarantine where project = $1 and source = $2",
            [project, source],
        )
    }
    return [one for one in decided if one.file not in seen]


def set_aside(lake: Lake, project: str, source: str = "") -> list[SetAside]:
    """Files of a project (or of one source) that could not be read, with the reason: one LIST, and a query if any."""
    prefix = keys.quarantined(project)
    entries = list(lake.store.list(keys.quarantined(project, source)))
    reasons = {}
    if entries:
        sql = "select source, file, reason from lakeloop.quarantine where project = ? and line is null"
        reasons = {(row["source"], row["file"]): row["reason"] for row in _ask(lake, sql, [project])}
    found = []
    for entry in entries:
        owner, mark, file = entry.key.removeprefix(prefix).split("/", 2)
        reason = str(reasons.get((owner, f"{file}#{mark}"), ""))
        found.append(SetAside(owner, file, entry.key, f"{keys.landing(project, owner)}{file}", reason))
    return found


def segments(lake: Lake, journal: str = "") -> list[SetAside]:
    """Segments of journals that no fold could read: one LIST."""
    found = []
    for entry in lake.store.list(f"{keys.QUARANTINED_SEGMENTS}{journal}{'/' if journal else ''}"):
        owner, name = entry.key.removeprefix(keys.QUARANTINED_SEGMENTS).split("/", 1)
        reason = "segment: cannot be read, or its columns contradict the journal's"
        found.append(SetAside(f"inbox/{owner}", name, entry.key, keys.segment(owner, name), reason))
    return found


def note_files(lake: Lake, project: str, files: Sequence[SetAside], decision: Decision, why: str) -> None:
    """Write down who decided what of files, before it is done."""
    signed = {"project": project, "decision": decision, "who": lake.who, "why": why, "logged_at": lake.clock()}
    lake.record("quarantine_decisions", [{"source": one.owner, "file": one.name, **signed} for one in files])


def _open_rows(lake: Lake, project: str, source: str, which: str, file: str) -> tuple[int, list[dict[str, Any]]]:
    """The number of the next decision, and the rows it may be about: of one snapshot."""
    with Session(lake.store.location(), _with_table(lake, project, source)) as session:
        number = session.run(
            "select coalesce(max(number), 0) + 1 as n from lakeloop.quarantine_decisions "
            "where project = ? and source = ?",
            [project, source],
        )
        sql = f"select file, line {_OPEN} and {which} and (? = '' or split_part(file, '#', 1) = ?) order by file, line"
        rows = session.run(sql, [project, source, file, file])
    return int(number.column("n")[0].as_py()), rows.to_pylist()


def _with_table(lake: Lake, project: str, source: str) -> Catalog:
    """The names of a lake, and `TABLE` for what a source ever took in, whether or not its project is applied."""
    known = LakeCatalog(lake)

    def named(name: str) -> Relation | None:
        if name != TABLE:
            return known(name)
        table = lake.table(f"{project}/{source}")
        if table is None or not {"_file", "_line"} <= set(table.schema.names):
            return Query("select null::varchar as _file, null::bigint as _line where false")
        return Stored(lake.tables.uri(table.name), table.version)

    return named


def _of_number(lake: Lake, project: str, source: str, number: int) -> tuple[str, str] | None:
    found = _ask(
        lake,
        "select batch, decision from lakeloop.quarantine_decisions "
        "where project = ? and source = ? and number = ? limit 1",
        [project, source, number],
    )
    return (str(found[0]["batch"]), str(found[0]["decision"])) if found else None


def _ask(lake: Lake, sql: str, values: Sequence[object]) -> list[dict[str, Any]]:
    with Session(lake.store.location(), LakeCatalog(lake)) as session:
        return list(session.run(sql, values).to_pylist())
