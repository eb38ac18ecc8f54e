"""`ingest_data`: what lies in landing/ becomes rows of tables, each file exactly once.

A file is known by its name and the hash of its bytes, which stand in every row (`_file`): after a crash between the
commit and the move to raw/, the next run sees that the rows are there. Rows that break a rule go to the journal
`quarantine` with every reason.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lakeloop.functions.decoding import decode
from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import Conflict, Invalid, LakeloopError, NotFound, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Check, Source
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Session, quoted
from lakeloop.lakehouse.rules import decoded
from lakeloop.lakehouse.tables import stored

TRIES = 10
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of one file."""

    source: str
    file: str
    rows: int
    quarantined: int
    version: int
    already: bool = False
    reasons: tuple[str, ...] = ()
    problem: str = ""
    """Why the file as a whole could not be read; it lies in quarantine/ then."""


def ingest_data(
    lake: Lake, project: Project, sources: Sequence[str] = (), *, progress: Callable[[Ingested], None] | None = None
) -> list[Ingested]:
    """Ingest every landed file of a project (or of some of its sources), oldest name first.

    Refused when a source says `on_error = "stop"` and a row is wrong: the file stays in landing/ and nothing of it is
    in the table. Later files of that source wait with it; those of other sources are ingested first.
    """
    done = []
    stopped: dict[str, LakeloopError] = {}
    prefix = keys.landing(project.name)
    for entry in lake.store.list(prefix):
        source, _, file = entry.key[len(prefix) :].partition("/")
        known = source in project.sources and not project.sources[source].foreign
        if known and source not in stopped and file and (not sources or source in sources):
            try:
                result = _ingest_file(lake, project, project.sources[source], entry.key, file)
            except (Refused, Invalid) as error:
                stopped[source] = error
                continue
            if result is None:
                continue
            done.append(result)
            if progress:
                progress(result)
    if stopped:
        raise next(iter(stopped.values()))
    return done


def land(lake: Lake, project: Project, source: str, file: str, data: bytes) -> str:
    """Put a file where `ingest_data` finds it; returns its key. Invalid when the project has no such source."""
    landing = [name for name, one in project.sources.items() if not one.foreign]
    if source not in landing:
        known = source in project.sources
        what = f"reads {source!r} in place; nothing lands in it" if known else f"has no source {source!r}"
        raise Invalid(f"{project.name} {what}", todo=f"name one of: {', '.join(landing) or 'none'}")
    key = keys.check_key(f"{keys.landing(project.name, source)}{file}")
    lake.store.put(key, data)
    return key


def _ingest_file(lake: Lake, project: Project, source: Source, key: str, file: str) -> Ingested | None:
    """One file to its end; None when another ingest took it meanwhile."""
    began = time.monotonic()
    try:
        data = lake.store.get(key)
    except NotFound:
        return None
    mark = hashlib.sha256(data).hexdigest()[:16]
    identity = f"{file}#{mark}"
    table = lake.table(f"{project.name}/{source.name}")
    already = table is not None and bool(table.column("_file", [identity]))
    try:
        good, bad = _judge(lake, project, source, file, data)
    except Invalid as error:
        if table is not None and already:  # its rows are there, by rules that were others then
            _move_to_raw(lake, project, source, key, f"{mark}/{file}", data)
            return Ingested(source.name, file, 0, 0, table.version, already=True)
        return _set_aside(lake, project, source, key, file, data, str(error))
    # What comes out of quarantine was taken in once: it goes back there, and stops no other file.
    stopping = [] if already or file.endswith(keys.RETRIED) else [row for row in bad if row["_stop"]]
    if stopping:
        shown = "; ".join(f"line {row['_line']}: {row['reason']}" for row in stopping[:SHOWN])
        raise Refused(
            f"{len(stopping)} wrong rows, and the source says stop: {shown}",
            where=f"{source.name}/{file}",
            todo="mend the file in landing/, or set on_error",
        )
    at = lake.clock()
    common = {"project": project.name, "source": source.name, "file": identity, "logged_at": at}
    segment = _segment(project, source, identity)
    wrong = [{**common, "line": r["_line"], "reason": r["reason"], "row": r["row"], "kept": r["_keep"]} for r in bad]
    # Rows that are in the table were judged then; by the rules of today others may be wrong.
    lake.record("quarantine", [] if already else wrong, segment)
    quarantined = sum(not row["_keep"] for row in bad)
    count = good.num_rows
    good = good.append_column("_file", pa.repeat(pa.scalar(identity, pa.string()), count))
    good = good.append_column("_ingested_at", pa.repeat(pa.scalar(at, pa.timestamp("us", "UTC")), count))
    version = _commit(lake, f"{project.name}/{source.name}", identity, stored(good))
    seconds = time.monotonic() - began
    facts = {
        **common,
        "rows": count,
        "quarantined": quarantined,
        "warned": len(bad) - quarantined,
        "version": version,
        "seconds": seconds,
    }
    # Also when the rows were there: a crash may have come between the commit and this.
    lake.record("ingestions", [facts], segment)
    _move_to_raw(lake, project, source, key, f"{mark}/{file}", data)
    if already:
        return Ingested(source.name, file, 0, 0, version, already=True)
    return Ingested(source.name, file, count, quarantined, version, reasons=tuple(row["reason"] for row in bad))


def _set_aside(
    lake: Lake, project: Project, source: Source, key: str, file: str, data: bytes, problem: str
) -> Ingested:
    """A file that cannot be read stops no other: it is moved to quarantine/, and says why."""
    mark = hashlib.sha256(data).hexdigest()[:16]
    lake.store.put(f"{keys.quarantined(project.name, source.name)}{mark}/{file}", data)
    identity = f"{file}#{mark}"
    fact = {
        "project": project.name,
        "source": source.name,
        "file": identity,
        "reason": f"file: {problem}",
        "logged_at": lake.clock(),
    }
    lake.record("quarantine", [fact], f"{_segment(project, source, identity)}-file")
    lake.store.delete([key])
    return Ingested(source.name, file, 0, 0, -1, problem=problem)


def _segment(project: Project, source: Source, identity: str) -> str:
    """One for each file: the same bytes under another name are another file."""
    return f"{project.name}-{source.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _judge(
    lake: Lake, project: Project, source: Source, file: str, data: bytes
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Rows for the table, with their line; and wrong rows with their reasons, `_keep` (in the table all the same) and
    `_stop`."""
    raw, broken = decode(source, f"{source.name}/{file}", data)
    present = [name for name in raw.column_names if name != "_line"]
    columns = ", ".join(quoted(name) for name in source.columns)
    stop = {"_keep": False, "_stop": source.on_error == "stop"}
    bad: list[dict[str, Any]] = [{**line, **stop} for line in broken]
    with Session(lake.store.location() if source.checks else None, LakeCatalog(lake, project)) as session:
        session.register("raw", raw)
        wrong = "len(_reasons) > 0"
        session.keep(
            "judged",
            f"select *, not {wrong} or {source.on_error == 'warn'} as _keep, "
            f"{wrong} and {source.on_error == 'stop'} as _stop from ({decoded(source, present)})",
        )
        for check in source.checks:
            bad += _apply_check(session, source, check)
        good = session.run(f"select {columns}, _line from judged where _keep")
        reasons = "_line, array_to_string(_reasons, '; ') as reason, _row::VARCHAR as row, _keep, _stop"
        bad += session.run(f"select {reasons} from judged where {wrong} order by _line").to_pylist()
    return good, bad


def _apply_check(session: Session, source: Source, check: Check) -> list[dict[str, Any]]:
    """A check's query sees the file's rows under the source's name, and other sources as they are. Rows that come back
    with their line are wrong.

    Without lines nobody can tell which are: that stops the file, or is one finding where the check only warns.
    """
    columns = ", ".join(quoted(column) for column in source.columns)
    session.keep(source.name, f"select {columns}, _line from judged where _keep")
    found = session.run(check.sql, where=f"the check {check.name!r} of {source.name}")
    if not found.num_rows:
        return []
    if "_line" not in found.column_names:
        what = f"the check {check.name!r} found {found.num_rows} wrong rows"
        if check.on_error != "warn":
            raise Refused(what, where=source.name, todo="select * in the check, so that the rows can be told apart")
        return [{"_line": None, "reason": what, "row": "", "_keep": True, "_stop": False}]
    session.register("_found", found.select(["_line"]))
    keep, stop = check.on_error == "warn", check.on_error == "stop"
    session.keep(
        "judged",
        f"""select * exclude (_hit) replace (
            case when _hit then list_append(_reasons, ?) else _reasons end as _reasons, _keep and (not _hit or {keep})
            as _keep, _stop or (_hit and {stop}) as _stop
        ) from (select *, _line in (select _line from _found) as _hit from judged)""",
        [f"check: {check.name}"],
    )
    return []


def _commit(lake: Lake, name: str, identity: str, rows: pa.Table) -> int:
    """Append once: whoever loses a race looks whether the file's rows are there before trying again."""
    for _ in range(TRIES):
        table = lake.tables.open_or_create(name, rows.schema)
        if table.column("_file", [identity]) or not rows.num_rows:
            return table.version
        try:
            return table.append(rows, facts={"file": identity})
        except Conflict:
            continue
    raise Conflict(f"{name} is written by many at once", todo="run the ingest again")


def _move_to_raw(lake: Lake, project: Project, source: Source, key: str, file: str, data: bytes) -> None:
    """What was landed under the same name meanwhile stays: it is the next ingest's."""
    lake.store.put(keys.raw(project.name, source.name, lake.clock(), file), data)
    with suppress(NotFound):
        if lake.store.get(key) == data:
            lake.store.delete([key])
