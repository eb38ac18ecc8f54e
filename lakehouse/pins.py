"""Pins: what a run read, kept as lists of files, so that it can be read again when the log that named them is gone.

A pin is the document `pins/<project>.<table>@<version>`: columns, files, and who holds it. Reading by a pin asks
neither the table nor its log. Vacuum spares the files of every pin that somebody holds. A version may be pinned for
half of the retention after another took its place, and vacuum deletes only what was replaced a whole retention ago,
so that no vacuum that is under way can miss a new pin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.errors import Corrupt, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.stored import duckdb_type
from lakeloop.lakehouse.tables import DataFile, Table, committed_at

KIND = "pins"
RETENTION = timedelta(days=7)
"""How long replaced files stay, for readers of older versions."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One version of a table: its columns (name → stored DuckDB type) and its files."""

    table: str
    version: int
    columns: Mapping[str, str]
    files: tuple[DataFile, ...]

    def uris(self, lake: Lake) -> tuple[str, ...]:
        """The files' addresses in this lake."""
        return tuple(f"{lake.tables.uri(self.table)}/{file.path}" for file in self.files)


def pin_of(table: Table) -> Pin:
    """What a handle sees, not kept yet."""
    columns = {field.name: duckdb_type(field.type) for field in table.schema}
    return Pin(table.name, table.version, columns, tuple(table.data_files()))


def find_pin(lake: Lake, table: str, version: int) -> Pin:
    """A version of a table by its pin, else by its log. NotFound when neither is there."""
    kept = lake.documents.latest(KIND, _id(table, version))
    if kept is not None:
        return _from_body(kept.body)
    handle = lake.tables.open(table, version=version)
    if handle is None:
        raise Corrupt(f"there is no table {table}", todo="restore tables/ from a copy of the lake")
    return pin_of(handle)


def hold(lake: Lake, pin: Pin, owner: str) -> Pin:
    """Keep a pin for an owner, and make sure that its files are there (Corrupt otherwise). Safe to repeat.

    Refused for a version that was replaced longer than half of the retention ago.
    """
    while True:
        kept = lake.documents.latest(KIND, _id(pin.table, pin.version))
        try:
            if kept is None:
                _check_young(lake, pin)
                lake.documents.create(KIND, _id(pin.table, pin.version), _body(pin, [owner]), f"read by {owner}")
            elif owner not in kept.body["owners"]:
                if not kept.body["owners"]:  # vacuum may be at its files
                    _check_young(lake, pin)
                owners = [*kept.body["owners"], owner]
                lake.documents.update(kept, {**kept.body, "owners": owners}, f"read by {owner}")
            break
        except LostRace:
            continue
    _check_there(lake, pin)
    return pin


def release(lake: Lake, owner: str) -> int:
    """Let go of everything that an owner holds; returns how many pins. Safe to repeat."""
    count = 0
    for doc in lake.documents.ids(KIND):
        kept = lake.documents.get(KIND, doc)
        while owner in kept.body["owners"]:
            owners = [one for one in kept.body["owners"] if one != owner]
            try:
                kept = lake.documents.update(kept, {**kept.body, "owners": owners}, f"released by {owner}")
                count += 1
            except LostRace as race:
                kept = race.won
    return count


def pins_of(lake: Lake, table: str, *, held_only: bool = True) -> list[Pin]:
    """Every pin of a table that somebody holds, or ever held: one LIST, and a LIST and a GET for each version."""
    found = [lake.documents.get(KIND, doc) for doc in lake.documents.ids(KIND, _id(table, ""))]
    return [_from_body(revision.body) for revision in found if revision.body["owners"] or not held_only]


def owners_of(lake: Lake, table: str, rows: Mapping[str, int]) -> dict[str, int]:
    """Who holds files of a table, and how many of the `rows` (by path) are in theirs; the most of any version."""
    found: dict[str, int] = {}
    for doc in lake.documents.ids(KIND, _id(table, "")):
        body = lake.documents.get(KIND, doc).body
        count = sum(rows.get(file["path"], 0) for file in body["files"])
        for owner in body["owners"] if count else ():
            found[owner] = max(count, found.get(owner, 0))
    return found


def redact(lake: Lake, table: str, made: Mapping[str, DataFile | None], rows: Mapping[str, int]) -> None:
    """Let pins name other files (path → file; None: nothing takes its place), with so many fewer rows each. Safe to
    repeat."""
    for doc in lake.documents.ids(KIND, _id(table, "")):
        kept = lake.documents.get(KIND, doc)
        while any(file["path"] in made for file in kept.body["files"]):
            files = [(file, made.get(file["path"])) for file in kept.body["files"]]
            renamed = [asdict(new) if new else file for file, new in files if new or file["path"] not in made]
            gone = sum(rows[file["path"]] for file, _ in files if file["path"] in made)
            body = {**kept.body, "files": renamed, "redacted": kept.body.get("redacted", 0) + gone}
            try:
                kept = lake.documents.update(kept, body, "rows were forgotten")
            except LostRace as race:
                kept = race.won


def missing_files(lake: Lake, table: str, named: Iterable[DataFile]) -> list[str]:
    """Paths of those of a table's files that are not there, in order: one LIST."""
    root = f"{keys.table(table)}/"
    there = {entry.key.removeprefix(root) for entry in lake.store.list(root)}
    return [file.path for file in named if file.path not in there]


def _check_young(lake: Lake, pin: Pin) -> None:
    """The moment a version was replaced is that of the commit after it."""
    newest = lake.tables.open(pin.table)
    if newest is not None and newest.version == pin.version:
        return
    after = [] if newest is None else [c for c in newest.facts(None) if c["version"] == pin.version + 1]
    if not after or lake.clock() - committed_at(after[0]) > RETENTION / 2:
        raise Refused(
            f"version {pin.version} of {pin.table} was replaced too long ago to be pinned",
            todo="take a newer version: the files of this one may go at any time",
        )


def _check_there(lake: Lake, pin: Pin) -> None:
    missing = missing_files(lake, pin.table, pin.files)
    if missing:
        raise Corrupt(
            f"{len(missing)} files of version {pin.version} of {pin.table} are gone ({missing[0]}, …)",
            todo="take a newer version, or restore them from a copy of the lake",
        )


def _id(table: str, version: int | str) -> str:
    return f"{table.replace('/', '.')}@{version}"


def _body(pin: Pin, owners: list[str]) -> dict[str, Any]:
    files = [asdict(file) for file in pin.files]
    return {
        "table": pin.table,
        "version": pin.version,
        "columns": dict(pin.columns),
        "files": files,
        "owners": owners,
    }


def _from_body(body: Mapping[str, Any]) -> Pin:
    files = tuple(DataFile(**file) for file in body["files"])
    return Pin(body["table"], body["version"], body["columns"], files)
