"""The history of all documents as rows: a LIST, and in parallel one GET for each revision that was not read before."""

from __future__ import annotations

import json
from datetime import datetime

import pyarrow as pa

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.segments import Kept, fetched
from lakeloop.lakehouse.store import Entry, Store

COLUMNS = pa.schema(
    {
        "kind": pa.string(),
        "id": pa.string(),
        "revision": pa.int64(),
        "previous": pa.int64(),
        "changed_at": pa.timestamp("us", "UTC"),
        "who": pa.string(),
        "why": pa.string(),
        "body": pa.string(),
    }
)
KEPT: Kept[tuple[object, ...]] = Kept()
"""Revisions that this process has read; they never change."""


def document_rows(store: Store) -> pa.Table:
    """Every revision of every document; of each document the newest first. Corrupt for one that cannot be read."""
    entries = [entry for entry in store.list(keys.DOCUMENTS) if is_revision(entry.key)]
    rows = {entry.key: KEPT.get(store.url, entry) for entry in entries}
    missing = [entry for entry in entries if rows[entry.key] is None]
    for entry, data in zip(missing, fetched(store, [entry.key for entry in missing]), strict=True):
        row = rows[entry.key] = _row(entry, data)
        KEPT.put(store.url, entry, row)
    columns = zip(*(rows[entry.key] for entry in entries), strict=True) if entries else [()] * len(COLUMNS)
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, COLUMNS, strict=True)], schema=COLUMNS)


def is_revision(key: str) -> bool:
    """Whether an object below docs/ is a revision: a file that some other tool left there is none."""
    parts = key.split("/")
    name = parts[-1].removesuffix(".json")
    return len(parts) == 4 and parts[-1].endswith(".json") and len(name) == 8 and name.isdigit()


def _row(entry: Entry, data: bytes) -> tuple[object, ...]:
    _, kind, doc_id, _ = entry.key.split("/")
    number = keys.revision_number(entry.key)
    try:
        record = json.loads(data)
        at = datetime.fromisoformat(record["at"])
        told = (record["who"], record["why"], json.dumps(record["body"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            f"the document {entry.key} cannot be read ({type(error).__name__})",
            todo="restore the object from a copy of the lake",
        ) from error
    return (kind, doc_id, number, number - 1 or None, at, *told)
