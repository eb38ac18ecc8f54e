"""Artifacts without a forgotten entity: tables with a row for each example are rewritten, and what names them follows.

What a model has learnt cannot be rewritten: a version whose files hold the value is named, to be retrained.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa

from lakeloop.functions.forget_subject import Held, Subject
from lakeloop.functions.screening import screen_parquet
from lakeloop.lakehouse import registry, runs
from lakeloop.lakehouse.artifacts import Artifact
from lakeloop.lakehouse.batch import record
from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.scoring.signature import Signature

TASKS = "tasks"
PARQUET, ZIP, GZIP = b"PAR1", b"PK\x03\x04", b"\x1f\x8b"
LEARNT = "retrain it without the rows, then retire this version"


def forget_artifacts(subject: Subject) -> Iterator[Held]:
    """Every artifact: one GET each."""
    store, named = subject.lake.store, _Named(subject)
    for entry in list(store.list("artifacts/")):
        try:
            data = store.get(entry.key)
        except NotFound:
            continue
        if data.startswith(PARQUET):
            yield from _forget_rows(subject, named, entry.key, data)
        elif _holds(subject, data):
            yield from _forget_bytes(subject, named, entry.key, data)


class _Named:
    """Documents that name artifacts, read when they are first needed."""

    def __init__(self, subject: Subject) -> None:
        self._lake = subject.lake

    @cached_property
    def _documents(self) -> dict[str, list[tuple[str, str]]]:
        """By key of an artifact: the documents (kind, id) that name it."""
        found: dict[str, list[tuple[str, str]]] = {}
        for kind in (registry.KIND, TASKS, record.KIND):
            for doc in self._lake.documents.ids(kind):
                for key in _keys(self._lake.documents.get(kind, doc).body):
                    found.setdefault(key, []).append((kind, doc))
        return found

    def by(self, key: str) -> list[tuple[str, str]]:
        return self._documents.get(key, [])

    def run_of(self, key: str) -> str:
        """The run that an artifact belongs to; empty when nothing says."""
        _, owner_kind, owner, _ = key.split("/", 3)
        if owner_kind == "runs":
            return owner
        task = self._lake.documents.latest(TASKS, owner) if owner_kind == TASKS else None
        return str(task.body["run"]) if task is not None else ""

    def model_of(self, run: str) -> str:
        """project.model of a run; empty for none."""
        found = self._lake.documents.latest(runs.KIND, run) if run else None
        return f"{found.body['project']}.{found.body['model']}" if found is not None else ""


def _forget_rows(subject: Subject, named: _Named, key: str, data: bytes) -> Iterator[Held]:
    run = named.run_of(key)
    try:
        model, tells = named.model_of(run), subject.trace.in_text
        kept, gone = screen_parquet(data, subject.tombstones, model=model, tells=tells)
    except (pa.ArrowException, OSError):
        return
    if not gone:
        return
    if not subject.dry:
        if run:
            runs.mark_redacted(subject.lake, run, subject.id, gone)
        _take_place(subject, named, key, kept)
    yield Held("artifact of a run" if run else "part of a batch", key, gone, f"run {run}" if run else "")


def _without_example(data: bytes) -> bytes:
    """A signature without its example, which a replica then does not ask before it answers; empty for other files."""
    try:
        record = json.loads(data)
    except (ValueError, UnicodeDecodeError):
        return b""
    if not isinstance(record, dict) or not {"inputs", "example"} <= set(record):
        return b""
    return Signature.from_json({**record, "example": {}}).to_bytes()


def _take_place(subject: Subject, named: _Named, key: str, data: bytes) -> None:
    """Other bytes in the place of an artifact's, under their own hash."""
    owner_kind, owner = key.split("/")[1:3]
    new = subject.lake.artifacts.put(owner_kind, owner, "", data)
    for kind, doc in named.by(key):
        _rename(subject, kind, doc, key, new)
    subject.lake.store.delete([key])


def _rename(subject: Subject, kind: str, doc: str, key: str, new: Artifact) -> None:
    """The document names the new bytes."""
    while True:
        there = subject.lake.documents.get(kind, doc)
        body = _with_artifact(there.body, key, new)
        if body == there.body:
            return
        try:
            subject.lake.documents.update(there, body, "rows were forgotten")
            return
        except LostRace:
            continue


def _forget_bytes(subject: Subject, named: _Named, key: str, data: bytes) -> Iterator[Held]:
    """Not a table: a model's own files stay, and are named; what only a run's tasks need goes, and is made anew."""
    other = _without_example(data)
    if other and not subject.trace.in_bytes(other):
        if not subject.dry:
            _take_place(subject, named, key, other)
        yield Held("example of a signature", key, 1)
        return
    models = [doc for kind, doc in named.by(key) if kind == registry.KIND]
    if models:
        names = {_name(subject.lake.documents.get(registry.KIND, doc), key) for doc in models}
        for doc in models:
            project, model, version = doc.rsplit(".", 2)
            what = f"version {version} of {project}.{model} has learnt the value ({', '.join(sorted(names))})"
            yield Held("model version", doc, 1, cannot=f"{what}: {LEARNT}")
        return
    run = named.run_of(key)
    if not subject.dry:
        runs.mark_redacted(subject.lake, run, subject.id, 1)
        for kind, doc in named.by(key):
            _void(subject, kind, doc)
        subject.lake.store.delete([key])
    yield Held("artifact of a run", key, 1, "deleted whole")


def _void(subject: Subject, kind: str, doc: str) -> None:
    """A task's output that names what is gone counts no more: the task is run again when somebody needs it."""
    while True:
        there = subject.lake.documents.get(kind, doc)
        if there.body.get("void"):
            return
        try:
            subject.lake.documents.update(there, {**there.body, "void": True}, "an artifact was forgotten")
            return
        except LostRace:
            continue


def _holds(subject: Subject, data: bytes) -> bool:
    return any(subject.trace.in_bytes(part) for part in _unpacked(data))


def _unpacked(data: bytes) -> Iterator[bytes]:
    yield data
    try:
        if data.startswith(GZIP):
            yield gzip.decompress(data)
        if data.startswith(ZIP):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for member in archive.infolist():
                    yield archive.read(member)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError):
        return


def _keys(body: Any) -> Iterator[str]:
    """Keys of the artifacts that a document names, wherever they stand."""
    if isinstance(body, Mapping):
        if {"key", "sha256", "size"} <= set(body):
            yield body["key"]
        for value in body.values():
            yield from _keys(value)
    elif isinstance(body, list):
        for value in body:
            yield from _keys(value)


def _with_artifact(body: Any, key: str, new: Artifact) -> Any:
    if isinstance(body, Mapping):
        changed = {name: _with_artifact(value, key, new) for name, value in body.items()}
        if body.get("key") == key and "sha256" in body:
            changed |= {"key": new.key, "sha256": new.sha256, "size": new.size}
        return changed
    return [_with_artifact(value, key, new) for value in body] if isinstance(body, list) else body


def _name(version: Revision, key: str) -> str:
    return next((str(one["name"]) for one in version.body["artifacts"] if one["key"] == key), "a file")
