"""Online snapshots without a forgotten entity: the one in force is published anew, and all that held it are deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lakeloop.functions.build_features import ONLINE, put_in_force
from lakeloop.functions.forget_subject import Held, Subject
from lakeloop.functions.roll_out import roll_out
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.features.online import Header, publish_snapshot


def forget_online(subject: Subject) -> Iterator[Held]:
    """Every snapshot. Endpoints are given the new ones before the old ones go."""
    lake, held = subject.lake, dict[str, int]()
    for entry in lake.store.list("online/"):
        rows = _opened(subject, entry.key)
        gone = 0 if rows is None else rows.num_rows - subject.tombstones.drop(rows).num_rows
        if gone:
            held[entry.key] = gone
    if held and not subject.dry:
        for doc in lake.documents.ids(ONLINE):
            body = lake.documents.get(ONLINE, doc).body
            if body["key"] in held:
                _publish_without(subject, doc, body)
        for name in applied.names(lake):
            roll_out(lake, applied.load(lake, name)[0])
        lake.store.delete(sorted(held))
    for key, rows_held in held.items():
        yield Held("online snapshot", key, rows_held)


def _opened(subject: Subject, key: str) -> pa.Table | None:
    try:
        return pa.ipc.open_file(pa.BufferReader(subject.lake.store.get(key))).read_all()
    except (NotFound, pa.ArrowException):
        return None


def _publish_without(subject: Subject, doc: str, body: dict[str, Any] | Any) -> None:
    rows = _opened(subject, body["key"])
    if rows is None:
        return
    kept = subject.tombstones.drop(rows)
    snapshot = publish_snapshot(subject.lake, Header.from_metadata(rows.schema.metadata), kept)
    put_in_force(subject.lake, doc, {**body, **snapshot, "rows": kept.num_rows}, "rows were forgotten")
