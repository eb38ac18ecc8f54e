"""`ingest_data`: what lies in landing/ becomes rows of tables, each file exactly once.

A file is known by its name and the hash of its bytes, which stand in every row (`_file`): after a crash between the commit and the move to raw/, the
next run sees that the rows are there. Rows that break a rule go to the journal `quarantine` with every reason.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lakeloop.functions.decoding import decode
from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import Conflict, Invalid, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Source
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


def ingest_data(lake: Lake, project: Project, sources: Sequence[str] = (), *, progress: Callable[[Ingested], None] | None = None) -> list[Ingested]:
    """Ingest every landed file of a project (or of some of its sources), oldest name first.

    Refused when a source says `on_error = "stop"` and a row is wrong: the file stays in landing/ and nothing of it is in the table.
    """
    done = []
    prefix = keys.landing(project.name)
    for entry in lake.store.list(prefix):
        source, _, file = entry.key[len(prefix) :].partition("/")
        if source in project.sources and file and (not sources or source in sources):
            result = _ingest_file(lake, project, project.sources[source], entry.key, file)
            done.append(result)
            if progress:
                progress(result)
    return done


def land(lake: Lake, project: Project, source: str, file: str, data: bytes) -> str:
    """Put a file where `ingest_data` finds it; returns its key. Invalid when the project has no such source."""
    if source not in project.sources:
        known = ", ".join(sorted(project.sources)) or "none"
        raise Invalid(f"{project.name} has no source {source!r}", todo=f"name one of: {known}")
    key = keys.check_key(f"{keys.landing(project.name, source)}{file}")
    lake.store.put(key, data)
    return key


def _ingest_file(lake: Lake, project: Project, source: Source, key: str, file: str) -> Ingested:
    began = time.monotonic()
    data = lake.store.get(key)
    mark = hashlib.sha256(data).hexdigest()[:16]
    identity = f"{file}#{mark}"
    table = lake.table(f"{project.name}/{source.name}")
    if table is not None and table.column("_file", [identity]):
        _move_to_raw(lake, project, source, key, file, data)
        return Ingested(source.name, file, 0, 0, table.version, already=True)
    good, bad = _judge(lake, project, source, file, data)
    if bad and source.on_error == "stop":
        shown = "; ".join(f"line {row['_line']}: {row['reason']}" for row in bad[:SHOWN])
        raise Refused(f"{len(bad)} wrong rows, and the source says stop: {shown}", where=f"{source.name}/{file}", todo="mend the file in landing/, or set on_error")
    at = lake.clock()
    common = {"project": project.name, "source": source.name, "file": identity, "at": at}
    segment = f"{source.name}-{mark}"
    lake.record("quarantine", [{**common, "line": r["_line"], "reason": r["reason"], "row": r["row"]} for r in bad], f"{project.name}-{segment}")
    quarantined = 0 if source.on_error == "warn" else len({row["_line"] for row in bad})
    count = good.num_rows
    good = good.append_column("_file", pa.array([identity] * count, pa.string()))
    good = good.append_column("_ingested_at", pa.array([at] * count, pa.timestamp("us", "UTC")))
    version = _commit(lake, f"{project.name}/{source.name}", identity, stored(good))
    seconds = time.monotonic() - began
    facts = {**common, "rows": count, "quarantined": quarantined, "warned": len(bad) - quarantined, "version": version, "seconds": seconds}
    lake.record("ingestions", [facts], f"{project.name}-{segment}")
    _move_to_raw(lake, project, source, key, file, data)
    return Ingested(source.name, file, count, quarantined, version, reasons=tuple(row["reason"] for row in bad))


def _judge(lake: Lake, project: Project, source: Source, file: str, data: bytes) -> tuple[pa.Table, list[dict[str, str]]]:
    """Good rows with their line, and wrong rows with their reasons."""
    raw, broken = decode(source, f"{source.name}/{file}", data)
    present = [name for name in raw.column_names if name != "_line"]
    columns = ", ".join(quoted(name) for name in source.columns)
    with Session(None, LakeCatalog(lake, project)) as session:
        session.register("raw", raw)
        session.keep("judged", decoded(source, present))
        for check in source.checks:
            _apply_check(session, source, check.name, check.sql)
        keep_all = "true" if source.on_error == "warn" else "len(_reasons) = 0"
        good = session.run(f"select {columns}, _line from judged where {keep_all}")
        wrong = session.run("select _line, array_to_string(_reasons, '; ') as reason, _row::VARCHAR as row from judged where len(_reasons) > 0 order by _line")
    return good, [*broken, *wrong.to_pylist()]


def _apply_check(session: Session, source: Source, name: str, sql: str) -> None:
    """A check's query sees the file's rows under the source's name; rows that come back with their line are wrong."""
    columns = ", ".join(quoted(column) for column in source.columns)
    session.keep(source.name, f"select {columns}, _line from judged where len(_reasons) = 0")
    found = session.run(sql, where=f"the check {name!r} of {source.name}")
    if not found.num_rows:
        return
    if "_line" not in found.column_names:
        raise Refused(f"the check {name!r} found {found.num_rows} wrong rows", where=source.name, todo="select * in the check, so that the rows can be told apart")
    session.register("_found", found.select(["_line"]))
    session.keep(
        "judged",
        "select * replace (case when _line in (select _line from _found) then list_append(_reasons, ?) else _reasons end as _reasons) from judged",
        [f"check: {name}"],
    )


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
    lake.store.put(keys.raw(project.name, source.name, lake.clock(), file), data)
    lake.store.delete([key])
