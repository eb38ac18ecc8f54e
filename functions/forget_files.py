"""Files without a forgotten entity: landed, raw and quarantined ones, and segments that could not be folded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from lakeloop.functions.forget_subject import Held, Subject
from lakeloop.functions.ingest_data import ingest_data
from lakeloop.functions.screening import Format, Screened, format_of, screen
from lakeloop.functions.spooling import spool, unpacked
from lakeloop.lakehouse import applied, keys
from lakeloop.lakehouse.errors import Invalid, LakeloopError, NotFound
from lakeloop.lakehouse.forgetting import JSON_ROWS
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.store import Entry

UNREADABLE = "could not be read, and held the value: deleted whole"


def forget_files(subject: Subject) -> Iterator[Held]:
    """Every file of landing/, raw/ and quarantine/. What landed is ingested first, so that it stays known by the bytes
    it came with."""
    projects = {name: applied.load(subject.lake, name)[0] for name in applied.names(subject.lake)}
    if not subject.dry:
        _ingest(subject, projects)
    for prefix, kind in (("landing/", "landed file"), ("raw/", "raw file"), ("quarantine/", "quarantined file")):
        for entry in subject.lake.store.list(prefix):
            if not entry.key.startswith(keys.QUARANTINED_SEGMENTS):
                yield from _forget_file(subject, entry, kind, _format(projects, entry.key))


def forget_quarantined_segments(subject: Subject) -> Iterator[Held]:
    """Segments that fit no table, or that are none."""
    store = subject.lake.store
    for entry in store.list(keys.QUARANTINED_SEGMENTS):
        data = store.get(entry.key)
        journal = entry.key.removeprefix(keys.QUARANTINED_SEGMENTS).split("/")[0]
        try:
            rows = pa.ipc.open_file(pa.BufferReader(data)).read_all()
            kept = subject.tombstones.drop(
                rows, model=journal.removeprefix("predictions."), json_columns=JSON_ROWS.get(journal, ())
            )
        except (pa.ArrowException, OSError, ValueError):
            if subject.trace.in_bytes(data):
                if not subject.dry:
                    store.delete([entry.key])
                yield Held("quarantined segment", entry.key, 1, UNREADABLE)
            continue
        if kept.num_rows < rows.num_rows:
            if not subject.dry:
                _put_segment(subject, entry.key, kept)
            yield Held("quarantined segment", entry.key, rows.num_rows - kept.num_rows)


def _put_segment(subject: Subject, key: str, kept: pa.Table) -> None:
    if not kept.num_rows:
        subject.lake.store.delete([key])
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, kept.schema) as writer:
        writer.write_table(kept.combine_chunks())
    subject.lake.store.put(key, sink.getvalue().to_pybytes())


def _ingest(subject: Subject, projects: dict[str, Project]) -> None:
    """Landed files that hold the entity, by their own sources. One that is refused stays, and is rewritten where it
    lies."""
    for project in projects.values():
        prefix = keys.landing(project.name)
        holders = set()
        for entry in subject.lake.store.list(prefix):
            source = entry.key.removeprefix(prefix).split("/")[0]
            if source in project.sources and source not in holders:
                held = _held(subject, entry, _format(projects, entry.key), keep=False)
                holders |= {source} if held else set()
        for source in sorted(holders):
            try:
                ingest_data(subject.lake, project, [source])
            except Invalid:
                continue
            except LakeloopError as error:
                if error.exit_code != 3:
                    raise


def _format(projects: dict[str, Project], key: str) -> Format:
    _, project, source, *_ = [*key.split("/"), "", ""]
    there = projects.get(project)
    return format_of(there.sources.get(source) if there else None)


def _forget_file(subject: Subject, entry: Entry, kind: str, form: Format) -> Iterator[Held]:
    held = _held(subject, entry, form, keep=not subject.dry)
    if held:
        yield Held(kind, entry.key, held.rows, held.note)


def _held(subject: Subject, entry: Entry, form: Format, *, keep: bool) -> Held | None:
    """What one file holds of the entity; `keep`: it is rewritten without that, or deleted when nothing else is in it or
    nobody can read it."""
    store = subject.lake.store
    with TemporaryDirectory(prefix="lakeloop-") as folder:
        scratch = Path(folder)
        try:
            copied = spool(store, entry.key, entry.size, scratch)
        except NotFound:
            return None
        try:
            found, note = screen(entry.key, copied.path, scratch, form, subject.tombstones), ""
        except Invalid:
            if not _in_bytes(subject, entry.key, copied.path, scratch):
                return None
            found, note = Screened(copied.path, 1, empty=True), UNREADABLE
        if found.gone and keep:
            if found.empty:
                store.delete([entry.key])
            else:
                with open(found.path, "rb") as data:
                    store.put(entry.key, data)
    return Held("file", entry.key, found.gone, note) if found.gone else None


def _in_bytes(subject: Subject, key: str, path: Path, scratch: Path) -> bool:
    """Whether a file that cannot be read holds the value as text, packed or not."""
    if subject.trace.in_bytes(path.read_bytes()):
        return True
    try:
        return subject.trace.in_bytes(unpacked(key, path, scratch).read_bytes())
    except Invalid:
        return False
