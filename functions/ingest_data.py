"""`ingest_data`: what lies in landing/ becomes rows of tables, each file exactly once, in bounded memory.

A file is known by its name and the hash of its bytes, which stand in every row (`_file`): after a crash between the
commit and the move to raw/, the next run sees that the rows are there. Rows that break a rule go to the journal
`quarantine` with every reason.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, TypeAlias

import pyarrow as pa

from lakeloop.functions.decoding import check_declared, open_file
from lakeloop.functions.judging import Judged
from lakeloop.functions.screening import Screened, format_of, screen, unreadable_tells
from lakeloop.functions.spooling import Spooled, plain_name, same_bytes, spool, unpacked
from lakeloop.lakehouse import forgetting, keys
from lakeloop.lakehouse.errors import Conflict, Corrupt, Invalid, LakeloopError, NotFound, Refused
from lakeloop.lakehouse.forgetting import Tombstones
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Source
from lakeloop.lakehouse.records import JOURNALS
from lakeloop.lakehouse.store import Entry
from lakeloop.lakehouse.stored import other_types
from lakeloop.lakehouse.tables import Table

TRIES = 10
Watch: TypeAlias = Callable[[str, int], None]
SHOWN = 3
INGESTED_AT = "_ingested_at"


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
    forgotten: int = 0
    """Rows of forgotten entities, which are kept nowhere."""


def ingest_data(
    lake: Lake, project: Project, sources: Sequence[str] = (), *, watch: Watch = lambda file, rows: None
) -> list[Ingested]:
    """Ingest every landed file of a project (or of some of its sources), oldest name first. `watch` is told the file
    and how many of its rows were judged so far.

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
                result = _ingest_file(lake, project, project.sources[source], entry, file, watch)
            except (Refused, Invalid, Corrupt) as error:
                stopped[source] = error
                continue
            if result is None:
                continue
            done.append(result)
    if stopped:
        raise next(iter(stopped.values()))
    return done


def land(lake: Lake, project: Project, source: str, file: str, data: bytes | BinaryIO) -> str:
    """Put a file where `ingest_data` finds it; returns its key. Invalid when the project has no such source."""
    landing = [name for name, one in project.sources.items() if not one.foreign]
    if source not in landing:
        known = source in project.sources
        what = f"reads {source!r} in place; nothing lands in it" if known else f"has no source {source!r}"
        raise Invalid(f"{project.name} {what}", todo=f"name one of: {', '.join(landing) or 'none'}")
    key = keys.check_key(f"{keys.landing(project.name, source)}{file}")
    lake.store.put(key, data)
    return key


@dataclass(frozen=True, slots=True)
class _Landing:
    """One landed file of a source, copied to this machine."""

    lake: Lake
    project: Project
    source: Source
    key: str
    file: str
    copy: Spooled
    scratch: Path
    watch: Watch
    screened: Screened
    """What is read and stored: the copy, without the rows of forgotten entities."""
    tombstones: Tombstones = field(default_factory=Tombstones)

    @property
    def mark(self) -> str:
        return self.copy.sha256[:16]

    @property
    def identity(self) -> str:
        """The same bytes under another name are another file."""
        return f"{self.file}#{self.mark}"

    @property
    def segment(self) -> str:
        return f"{self.project.name}-{self.source.name}-{hashlib.sha256(self.identity.encode()).hexdigest()[:16]}"

    @property
    def judgement(self) -> str:
        """The segment of wrong rows: these depend on the rules, too, which may change between two tries."""
        rules = self.project.files[f"sources/{self.source.name}.toml"]
        return f"{self.segment}-{hashlib.sha256(rules.encode()).hexdigest()[:8]}"

    @property
    def table(self) -> str:
        return f"{self.project.name}/{self.source.name}"

    def common(self, at: datetime) -> dict[str, object]:
        return {"project": self.project.name, "source": self.source.name, "file": self.identity, "logged_at": at}


def _ingest_file(
    lake: Lake, project: Project, source: Source, entry: Entry, file: str, watch: Watch
) -> Ingested | None:
    """One file to its end; None when another ingest took it meanwhile."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="lakeloop-") as scratch:
        try:
            copied = spool(lake.store, entry.key, entry.size, Path(scratch))
        except NotFound:
            return None
        landing = _Landing(lake, project, source, entry.key, file, copied, Path(scratch), watch, Screened(copied.path))
        for _ in range(TRIES):
            try:
                return _ingest_landing(_screened(landing), began)
            except _ForgottenMeanwhile:
                continue
    raise Conflict("entities are forgotten faster than it can be read", where=file, todo="run the ingest again")


class _ForgottenMeanwhile(Exception):
    """A tombstone came after the file was screened."""


def _screened(landing: _Landing) -> _Landing:
    """The landing without rows of forgotten entities; known by the bytes that landed all the same."""
    tombstones = forgetting.load(landing.lake.store)
    try:
        where = f"{landing.source.name}/{landing.file}"
        screened = screen(where, landing.copy.path, landing.scratch, format_of(landing.source), tombstones)
    except Invalid:  # cannot be read: it is set aside, whole
        screened = Screened(landing.copy.path)
    return replace(landing, screened=screened, tombstones=tombstones)


def _check_screened(landing: _Landing) -> None:
    """Called after a table was opened and before it is written to, or after a file was stored."""
    if forgetting.load(landing.lake.store).entities != landing.tombstones.entities:
        raise _ForgottenMeanwhile


def _ingest_landing(landing: _Landing, began: float) -> Ingested:
    lake, source = landing.lake, landing.source
    if landing.screened.empty:
        _clear(landing)
        return Ingested(source.name, landing.file, 0, 0, -1, forgotten=landing.screened.gone)
    table = lake.table(landing.table)
    already = table is not None and bool(table.column("_file", [landing.identity]))
    try:
        return _take_in(landing, already, began)
    except (Invalid, Refused) as error:
        if table is None or not already:
            if isinstance(error, Refused):
                raise
            return _set_aside(landing, str(error))
        _move_to_raw(landing)  # its rows are there, by rules that were others then
        return Ingested(source.name, landing.file, 0, 0, table.version, already=True)


def _take_in(landing: _Landing, already: bool, began: float) -> Ingested:
    lake, source = landing.lake, landing.source
    where = f"{source.name}/{landing.file}"
    path = unpacked(where, landing.screened.path, landing.scratch)
    found = open_file(source.read, plain_name(where), path)
    check_declared(source, where, found)
    watch = partial(landing.watch, where)
    # What comes out of quarantine was taken in once: it goes back there, and stops no other file.
    stops = not landing.file.endswith(keys.RETRIED)
    with Judged(lake, landing.project, source, found, landing.scratch, watch, stops=stops) as judged:
        version = _commit(landing, judged)
        seconds, at = time.monotonic() - began, lake.clock()
        facts = {
            **landing.common(at),
            "rows": judged.rows,
            "quarantined": judged.quarantined,
            "warned": judged.warned,
            "version": version,
            "seconds": seconds,
        }
        reasons = tuple(reason for rows in judged.wrong() for reason in rows.column("reason").to_pylist()[:SHOWN])
    # Also when the rows were there: a crash may have come between the commit and this.
    lake.record("ingestions", [facts], landing.segment)
    _move_to_raw(landing)
    if already:
        return Ingested(source.name, landing.file, 0, 0, version, already=True)
    return Ingested(
        source.name,
        landing.file,
        judged.rows,
        judged.quarantined,
        version,
        reasons=reasons,
        forgotten=landing.screened.gone,
    )


def _commit(landing: _Landing, judged: Judged) -> int:
    """Append once: whoever loses a race looks whether the file's rows are there before trying again.

    Wrong rows are in quarantine before the good ones are in the table: a crash in between loses none.
    """
    lake, identity = landing.lake, landing.identity
    for _ in range(TRIES):
        table = lake.table(landing.table)
        at = _ingestion_time(lake, table)
        rows = judged.good(identity, at)
        # Rows that are in the table were judged when they came; by the rules of today others may be wrong.
        already = table is not None and bool(table.column("_file", [identity]))
        batches = iter(rows) if already else _then(iter(rows), partial(_quarantine, landing, judged, at))
        first = next(batches, None)
        if table is None:
            table = lake.tables.open_or_create(landing.table, rows.schema)
        if first is None or already or table.column("_file", [identity]):
            for _ in batches:  # the wrong rows are to be told all the same
                pass
            return table.version
        _check_screened(landing)
        try:
            if declared := other_types(table.schema, rows.schema):
                table.retype(declared)
            stream = pa.RecordBatchReader.from_batches(rows.schema, chain([first], batches))
            return table.append(stream, facts={"file": identity})
        except Conflict:
            continue
    raise Conflict(f"{landing.table} is written by many at once", todo="run the ingest again")


def _then(batches: Iterator[pa.RecordBatch], last: Callable[[], None]) -> Iterator[pa.RecordBatch]:
    yield from batches
    last()


def _ingestion_time(lake: Lake, table: Table | None) -> datetime:
    """Now, and later than every row of the table that it is committed to: the order of commits decides which row of a
    key is the last, not a writer's clock."""
    newest = table.newest(INGESTED_AT) if table is not None else None
    now = lake.clock()
    return now if newest is None else max(now, newest + timedelta(milliseconds=1))


def _quarantine(landing: _Landing, judged: Judged, at: datetime) -> None:
    schema = JOURNALS["quarantine"]
    for number, rows in enumerate(judged.wrong()):
        facts = {
            name: pa.repeat(pa.scalar(v, schema.field(name).type), len(rows)) for name, v in landing.common(at).items()
        }
        columns = {**facts, **{name: rows.column(name) for name in rows.column_names}}
        table = pa.table([columns[name] for name in schema.names], schema=schema)
        landing.lake.journal("quarantine").append(table, f"{landing.judgement}-{number}")


def _set_aside(landing: _Landing, problem: str) -> Ingested:
    """A file that cannot be read stops no other: it is moved to quarantine/, and says why."""
    lake, source = landing.lake, landing.source
    if unreadable_tells(landing.file, landing.screened.path, landing.scratch, landing.tombstones):
        problem += "; it holds a forgotten value, and was deleted"
    else:
        _keep(landing, keys.quarantined_file(landing.project.name, source.name, landing.mark, landing.file))
    fact = {**landing.common(lake.clock()), "reason": f"file: {problem}"}
    lake.record("quarantine", [fact], f"{landing.segment}-file")
    _clear(landing)
    return Ingested(source.name, landing.file, 0, 0, -1, problem=problem)


def _move_to_raw(landing: _Landing) -> None:
    at = landing.lake.clock()
    _keep(landing, keys.raw(landing.project.name, landing.source.name, at, landing.mark, landing.file))
    _clear(landing)


def _keep(landing: _Landing, key: str) -> None:
    with open(landing.screened.path, "rb") as data:
        landing.lake.store.put(key, data)
    try:
        _check_screened(landing)
    except _ForgottenMeanwhile:
        landing.lake.store.delete([key])
        raise


def _clear(landing: _Landing) -> None:
    """What was landed under the same name meanwhile stays: it is the next ingest's."""
    if same_bytes(landing.lake.store, landing.key, landing.copy):
        with suppress(NotFound):
            landing.lake.store.delete([landing.key])
