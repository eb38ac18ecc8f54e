"""Training runs: opened once for each reason, worked on by whoever is given them, closed when they were judged.

A run is three things: the document `runs/<id>` (opened, then finished, failed or lost: agreed on, with its history),
the marker `open/<id>` (found by one LIST; its age is the run's heartbeat, for who works on it puts it again), and
rows in the journal `runs` for people and SQL. Whether a run was opened is decided by the document, so nothing is
trained twice.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from lakeloop.lakehouse import applied, foreign, keys
from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.errors import AlreadyExists, Invalid, LakeloopError, NotFound, Unknown
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project

KIND = "runs"
BEAT_S = 20.0
LOST_AFTER_S = 900.0
"""A run whose marker is older than this, and that has no result, is worked on by nobody."""
Outcome: TypeAlias = Literal["finished", "failed", "lost"]


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that was opened and not closed. `definition` is the hash of the project's texts that it trains by."""

    run: str
    project: str
    model: str
    trigger: str
    incident: str
    as_of: datetime
    definition: str
    rules_version: str
    code_version: str = ""
    tables: Mapping[str, int] = field(default_factory=dict)
    """Pinned versions of tables; empty: the newest when the run pulls its data."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """`params` and `step` to fit with instead of searching: how a version is made again from its lineage."""
    status: Literal["opened", "finished", "failed", "lost"] = "opened"
    version: int | None = None
    error: str = ""
    beat_age_s: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether it has a result, good or bad."""
        return self.status != "opened"

    @property
    def lost(self) -> bool:
        """Whether nobody has worked on it for a while, though it has no result."""
        return not self.finished and self.beat_age_s > LOST_AFTER_S


def open_run(
    lake: Lake,
    project: Project,
    model: str,
    *,
    trigger: str,
    as_of: datetime,
    incident: str,
    tables: Mapping[str, int] | None = None,
    params: Mapping[str, Any] | None = None,
) -> str | None:
    """Open the run of this incident, data and rules; None when it was opened before. The project must be applied."""
    from lakeloop.lakehouse.project.versions import model_version

    rules = model_version(project, model)
    run = run_id(project.name, model, incident, tables or data_version(lake, project), rules)
    if lake.documents.latest(KIND, run) is not None:
        return None
    opened = {
        "run": run,
        "project": project.name,
        "model": model,
        "trigger": trigger,
        "incident": incident,
        "as_of": as_of.isoformat(),
        "definition": project.hash,
        "rules_version": rules,
        "code_version": _code_version(lake, project),
        "tables": dict(tables or {}),
        "params": dict(params or {}),
    }
    with suppress(AlreadyExists, Unknown):  # its opener stopped halfway, or is at it just now: the document decides
        lake.store.put(keys.open_run(run), json.dumps(opened).encode(), if_absent=True)
    try:
        lake.documents.create(KIND, run, {**opened, "status": "opened"}, trigger)
    except LostRace:
        return None
    return run


def run_id(project: str, model: str, incident: str, data: Mapping[str, int], rules_version: str) -> str:
    """The same reason, data and rules are the same run."""
    reason = json.dumps([project, model, incident, sorted(data.items()), rules_version])
    return f"{project}-{model}-{hashlib.sha256(reason.encode()).hexdigest()[:12]}"


def data_version(lake: Lake, project: Project, sources: Collection[str] | None = None) -> dict[str, int]:
    """The newest version of each of the project's sources (or of these) that has a table."""
    found = {}
    for name, source in project.sources.items():
        full = f"{project.name}/{name}"
        if sources is not None and name not in sources:
            continue
        if source.foreign:
            found[full] = foreign.observe(lake, project, source)
        elif (table := lake.table(full)) is not None:
            found[full] = table.version
    return found


def get_run(lake: Lake, run: str) -> OpenRun:
    """A run, open or closed; NotFound if it was never opened."""
    found = lake.documents.latest(KIND, run)
    if found is None:
        raise NotFound(f"there is no run {run!r}", todo="lakeloop runs list")
    return _run(found.body, 0.0)


def open_runs(lake: Lake) -> list[OpenRun]:
    """Runs that were opened and not closed, with the age of their beat: one LIST, and a LIST and a GET for each."""
    found = []
    for entry in list(lake.store.list(keys.OPEN_RUNS)):
        document = lake.documents.latest(KIND, entry.key.removeprefix(keys.OPEN_RUNS))
        if document is not None:  # else its opener stopped halfway; opening it again mends that
            found.append(_run(document.body, entry.age_s))
    return found


def finish_run(lake: Lake, run: str, *, version: int, facts: Mapping[str, Any]) -> None:
    """The run made this version. `facts` are columns of the journal `runs`. Safe to repeat."""
    _settle(lake, run, "finished", {"version": version}, facts)


def fail_run(lake: Lake, run: str, error: str, facts: Mapping[str, Any] | None = None) -> None:
    """The run has failed for a reason that trying again would not change."""
    _settle(lake, run, "failed", {"error": error}, facts or {})


def close_run(lake: Lake, run: str, *, lost: str = "") -> None:
    """Nothing more is to be done for a run; `lost` says why it has no result. Safe to repeat."""
    if lost:
        _settle(lake, run, "lost", {"error": lost}, {})
    lake.store.delete([keys.open_run(run)])


def record_run(lake: Lake, run: OpenRun, status: str, at: datetime, facts: Mapping[str, Any] | None = None) -> None:
    """A row in the journal `runs`; the same status at the same moment again changes nothing."""
    from lakeloop.lakehouse.journal import segment_name

    row = {
        "run": run.run,
        "project": run.project,
        "model": run.model,
        "status": status,
        "logged_at": at,
        "trigger": run.trigger,
        "incident": run.incident,
        "as_of": run.as_of,
        "rules_version": run.rules_version,
        "definition": run.definition,
        "code_version": run.code_version,
        "who": lake.who,
    }
    lake.record("runs", [row | dict(facts or {})], segment_name(f"{run.run}-{status}", 0, at))


def mark_redacted(lake: Lake, run: str, tombstone: str, rows: int) -> bool:
    """Note that so many rows that a run used were forgotten, so that it rebuilds without them. Safe to repeat; False
    for what is no run, or was marked with as many before."""
    found = lake.documents.latest(KIND, run)
    while found is not None:
        marks = found.body.get("redacted", {})
        if marks.get(tombstone, {"rows": 0})["rows"] >= rows:
            return False
        mark = {tombstone: {"rows": rows, "at": lake.clock().isoformat()}}
        try:
            lake.documents.update(found, {**found.body, "redacted": marks | mark}, "rows were forgotten")
            return True
        except LostRace as race:
            found = race.won
    return False


def redaction(lake: Lake, run: str) -> str:
    """What was forgotten of a run, in words; empty for most."""
    found = lake.documents.latest(KIND, run)
    marks = list(found.body.get("redacted", {}).values()) if found is not None else []
    if not marks:
        return ""
    rows, at = sum(mark["rows"] for mark in marks), max(mark["at"] for mark in marks)
    return f"{rows:,} rows forgotten, the last on {at[:10]}; it rebuilds redacted"


@contextmanager
def beating(lake: Lake, run: str, every_s: float = BEAT_S) -> Iterator[None]:
    """While inside, the marker is put again and again, so that the run is seen to be worked on."""
    data = json.dumps(dict(lake.documents.get(KIND, run).body)).encode()
    lake.store.put(keys.open_run(run), data)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(every_s):
            try:
                lake.store.put(keys.open_run(run), data)
            except LakeloopError:  # the store is away: the next beat tells, and so does what the run itself writes
                continue

    thread = threading.Thread(target=beat, name=f"beat-{run}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _settle(lake: Lake, run: str, status: Outcome, result: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """First the document, then the row; one who comes again after a crash in between writes the row that is missing."""
    settled = lake.documents.get(KIND, run)
    while settled.body["status"] == "opened":
        try:
            body = {**settled.body, **result, "status": status}
            settled = lake.documents.update(settled, body, str(result.get("error", "")))
        except LostRace as race:
            settled = race.won
    if settled.body["status"] != status:
        raise Invalid(f"the run {run} is {settled.body['status']} already", todo="open another run")
    record_run(lake, _run(settled.body, 0.0), status, settled.at, {**facts, **result})


def _run(body: Mapping[str, Any], age_s: float) -> OpenRun:
    fields = {name: body[name] for name in OpenRun.__dataclass_fields__ if name in body}
    return OpenRun(**{**fields, "as_of": datetime.fromisoformat(body["as_of"]), "beat_age_s": age_s})


def _code_version(lake: Lake, project: Project) -> str:
    """What `apply` noted of the commit this definition came from; its own hash when it is not the one in force."""
    current: Revision | None = lake.documents.latest(applied.KIND, project.name)
    if current is not None and current.body["hash"] == project.hash:
        return str(current.body["code_version"])
    return project.hash
