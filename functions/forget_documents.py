"""Documents without a forgotten entity's values.

The one exception to "a revision is never overwritten": a revision that tells a value, in a message or a note, is put
again with `[forgotten]` in its place, and with the same write id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from lakeloop.functions.forget_subject import Held, Subject
from lakeloop.lakehouse import applied, forgetting
from lakeloop.lakehouse.errors import NotFound

READERS = 16
KEPT = ("write", "at")
RENAME = "delete it, or copy it to another name, where nothing needs it by this one"
TEXTS = "a text of the project tells the value"


def forget_documents(subject: Subject) -> Iterator[Held]:
    """Every revision of every document: one GET each."""
    store = subject.lake.store
    names = [entry.key for prefix in ("docs/", "open/", "events/") for entry in store.list(prefix)]
    wanted = [key for key in names if key.split("/")[1] != forgetting.KIND]
    with ThreadPoolExecutor(READERS) as pool:
        for key, data in zip(wanted, pool.map(lambda key: _get(subject, key), wanted), strict=True):
            yield from _forget_document(subject, key, data)


def forget_names(subject: Subject) -> Iterator[Held]:
    """Objects whose very name tells a value: those are told, and left to a person."""
    for entry in subject.lake.store.list():
        if subject.trace.in_text(entry.key):
            yield Held("name", entry.key, 1, cannot=f"{entry.key}: its name tells the value; {RENAME}")


def _get(subject: Subject, key: str) -> bytes:
    try:
        return subject.lake.store.get(key)
    except NotFound:
        return b"{}"


def _forget_document(subject: Subject, key: str, data: bytes) -> Iterator[Held]:
    if not all(value.encode() in data or _escaped(value) in data for value in subject.entity.values.values()):
        return
    try:
        record = json.loads(data)
    except ValueError:
        return
    clean = subject.trace.blotted(record)
    if clean is record:
        return
    if key.split("/")[1] == applied.KIND:
        yield Held("document", key, 1, cannot=f"{key}: {TEXTS}, which its hash covers: mend the project and apply it")
        return
    if not subject.dry:
        subject.lake.store.put(key, json.dumps({**clean, **{n: record[n] for n in KEPT if n in record}}).encode())
    yield Held("document", key, 1)


def _escaped(value: str) -> bytes:
    return json.dumps(value)[1:-1].encode()
