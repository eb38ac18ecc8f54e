"""Tables outside of the lake that are read in place: what was there, and which of its states was read.

Nothing is copied. A source's states are the revisions of one document, `foreign/<project>.<source>`: a Delta version,
or a list of Parquet files with their marks (ETag, or time and size). Its number is the source's version in every
lineage, and grows with whatever happens to the table, also when it is dropped and made anew. Reading a version again
gives the same rows, or says why it cannot: a table elsewhere is not ours to keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.errors import Corrupt, Invalid, LakeloopError, NotFound
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Source
from lakeloop.lakehouse.store import Entry, Location
from lakeloop.lakehouse.store.opening import open_store

KIND = "foreign"
_PARQUET = (".parquet", ".parq", ".pq")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class State:
    """What a table elsewhere was at one moment. Delta: its id and version; Parquet: each file's uri and mark."""

    kind: str
    uri: str
    id: str = ""
    version: int = -1
    files: tuple[tuple[str, str], ...] = ()

    def body(self) -> dict[str, Any]:
        """As it stands in the document."""
        if self.kind == "delta":
            return {"kind": self.kind, "uri": self.uri, "id": self.id, "version": self.version}
        return {"kind": self.kind, "uri": self.uri, "files": [list(one) for one in self.files]}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> State:
        files = tuple((str(uri), str(mark)) for uri, mark in body.get("files", ()))
        return cls(body["kind"], body["uri"], body.get("id", ""), int(body.get("version", -1)), files)

    @property
    def partitions(self) -> tuple[str, ...]:
        """The columns that every file has in its path: `…/day=2026-01-01/x.parquet`."""
        found = {tuple(part.partition("=")[0] for part in uri.split("/")[:-1] if "=" in part) for uri, _ in self.files}
        return found.pop() if len(found) == 1 else ()

    def __str__(self) -> str:
        what = f"version {self.version}" if self.kind == "delta" else f"{len(self.files)} files"
        return f"{self.kind}, {what} of {self.uri}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A state that was noted, and its number."""

    version: int
    state: State


def place(lake: Lake, source: Source) -> Location:
    """Where the table is, with what engines need to read it. Invalid for a place that holds the lake, or is in it."""
    uri = source.read.uri.rstrip("/")
    if _overlaps(lake, uri):
        raise Invalid(
            f"{uri} lies in the lake, or the lake in it", where=source.name, todo="name a table outside of the lake"
        )
    if "://" not in uri:
        return Location(uri)
    here = lake.store.location()
    return Location(uri, here.options or open_store(uri).location().options)


def permitted(lake: Lake, project: Project) -> dict[str, Source]:
    """The sources elsewhere that may be read: those of a definition that was applied, as it was.

    Of a draft, only those that the definition in force reads at the same place.
    """
    wanted = {n: one for n, one in project.sources.items() if one.foreign and not _overlaps(lake, one.read.uri)}
    current = lake.documents.latest(applied.KIND, project.name) if wanted else None
    if current is None:
        return {}
    if current.body["hash"] == project.hash:
        return wanted
    if any(one.body["hash"] == project.hash for one in lake.documents.history(applied.KIND, project.name)):
        return wanted
    there = applied.parse(current.body["hash"], current.body["files"]).sources
    return {name: one for name, one in wanted.items() if name in there and there[name].read == one.read}


def _overlaps(lake: Lake, uri: str) -> bool:
    theirs, ours = f"{uri.rstrip('/')}/", f"{lake.url.rstrip('/')}/"
    return theirs.startswith(ours) or ours.startswith(theirs)


def look(lake: Lake, source: Source) -> State:
    """What is there now. NotFound when nothing is."""
    where = place(lake, source)
    if source.read.kind == "parquet":
        return State("parquet", where.uri, files=_parquet_files(where.uri))
    from lakeloop.lakehouse.tables import open_elsewhere

    table = open_elsewhere(where)
    if table is None:
        raise NotFound(f"there is no Delta table at {where.uri}", where=source.name, todo="check read.uri")
    return State("delta", where.uri, table.id, table.version)


def last_change(lake: Lake, source: Source) -> datetime:
    """When the table last changed: its newest commit by its writer's clock, or its newest file by the store's."""
    where = place(lake, source)
    if source.read.kind == "parquet":
        return lake.clock() - timedelta(seconds=min(entry.age_s for _, entry in _parquet_entries(where.uri)))
    from lakeloop.lakehouse.tables import committed_at, open_elsewhere

    table = open_elsewhere(where)
    if table is None:
        raise NotFound(f"there is no Delta table at {where.uri}", where=source.name, todo="check read.uri")
    return committed_at(table.facts(1)[0])


def note(lake: Lake, project: Project, source: Source, state: State) -> Seen:
    """This state with its number; it is written down when it is new."""
    body, doc = state.body(), _document(project, source)
    while True:
        current = lake.documents.latest(KIND, doc)
        if current is not None and dict(current.body) == body:
            return Seen(current.number, state)
        with suppress(LostRace):  # another saw it change at the same moment
            made = lake.documents.update(current, body) if current else lake.documents.create(KIND, doc, body)
            return Seen(made.number, state)


def observe(lake: Lake, project: Project, source: Source) -> int:
    """The number of what is there now."""
    return note(lake, project, source, look(lake, source)).version


def state_at(lake: Lake, project: Project, source: Source, number: int) -> Seen:
    """A state that was noted, if it can still be read: NotFound or Corrupt when its owner has changed it since."""
    found = lake.documents.next(KIND, _document(project, source), number - 1)
    if found is None:
        raise NotFound(f"{source.name} was never read as version {number}", todo="see `lakeloop models lineage`")
    state = State.from_body(found.body)
    where = place(lake, source)
    if (state.kind, state.uri) != (source.read.kind, where.uri):
        raise Invalid(
            f"version {number} of {source.name} was read as {state}, and the source is {where.uri} now",
            todo="apply the definition of that time, or train on what is there now",
        )
    if state.kind == "parquet":
        check_files(state, _parquet_files(where.uri), source.name)
        return Seen(number, state)
    from lakeloop.lakehouse.tables import open_elsewhere

    table = open_elsewhere(where, state.version)
    if table is None or table.id != state.id:
        raise _changed(source.name, f"the table at {where.uri} was dropped{' and made anew' if table else ''}")
    return Seen(number, state)


def check_files(then: State, now: Iterable[tuple[str, str]], source: str) -> None:
    """Corrupt unless each file of then is there now as it was; files that came since do not matter."""
    marks = dict(now)
    for uri, mark in then.files:
        if marks.get(uri) != mark:
            raise _changed(source, f"{uri} {'was written anew' if uri in marks else 'is gone'}")


def described(lake: Lake, tables: Mapping[str, int]) -> dict[str, str]:
    """In words, what versions in a lineage were, of those tables in it that are read in place."""
    found = {}
    for doc in lake.documents.ids(KIND) if tables else ():
        name = doc.replace(".", "/")
        revision = lake.documents.next(KIND, doc, tables[name] - 1) if name in tables else None
        if revision is not None:
            found[name] = f"{State.from_body(revision.body)}, seen {revision.at:%Y-%m-%d %H:%M}Z"
    return found


def _document(project: Project, source: Source) -> str:
    return f"{project.name}.{source.name}"


def _changed(source: str, what: str) -> LakeloopError:
    todo = "ask its owner for the old data, or train on what is there now"
    return Corrupt(f"the table has changed since: {what}", where=source, todo=todo)


def _parquet_files(uri: str) -> tuple[tuple[str, str], ...]:
    """Every file of the table and its mark."""
    return tuple((name, entry.tag) for name, entry in _parquet_entries(uri))


def _parquet_entries(uri: str) -> list[tuple[str, Entry]]:
    """Every Parquet file in a folder and below it, or the one file of this name. Files and folders that begin with `_`
    or `.` are none of the table's, as Spark and Hive have it."""
    base, entries = f"{uri}/", []
    with suppress(Invalid):  # it is a file
        entries = list(open_store(uri).list())
    if not entries:
        parent, _, name = uri.rpartition("/")
        base = f"{parent}/"
        entries = [one for one in open_store(parent or "/").list(name, limit=1) if one.key == name]
    if any(entry.key.startswith("_delta_log/") for entry in entries):
        raise Invalid(f"{uri} is a Delta table", todo='write kind = "delta": its files are not all of its truth')
    found = [
        (base + entry.key, entry)
        for entry in entries
        if entry.key.endswith(_PARQUET) and not any(part.startswith(("_", ".")) for part in entry.key.split("/"))
    ]
    if not found:
        raise NotFound(f"there are no Parquet files at {uri}", todo="check read.uri; they end in .parquet")
    odd = next((name for name, _ in found if _GLOB.search(name)), None)
    if odd is not None:
        raise Invalid(f"{odd} would be read as a pattern", todo="give the file a name without *, ? and [")
    return found
