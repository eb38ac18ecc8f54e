"""The online snapshot: one Arrow file per build of a view, which answers for a key at a moment without any other
store.

It holds each entity's values as a line of moments, from `start` on, so that a request's `as_of` is answered from the
state of that moment, and windows go on moving between two builds. Reading it needs one GET; an answer is two searches
in memory.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import AlreadyExists, Corrupt, Invalid, Unknown
from lakeloop.lakehouse.lake import Lake

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FROM, EVENT = "_from", "_event"


@dataclass(frozen=True, slots=True)
class Header:
    """What a snapshot says of itself, in the file's metadata."""

    project: str
    view: str
    version: str
    entity: tuple[str, ...]
    start_us: int
    ttl_us: int | None
    empty: Mapping[str, Any] | None
    """Values for an entity without a line: of a windowed view (counts are 0); None: the entity is unknown."""

    def to_metadata(self) -> dict[bytes, bytes]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {b"lakeloop": json.dumps(fields).encode()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes]) -> Header:
        fields = json.loads(metadata[b"lakeloop"])
        return cls(**{**fields, "entity": tuple(fields["entity"])})


class Lookup:
    """A loaded snapshot. Safe for threads: nothing changes after loading."""

    def __init__(self, header: Header, rows: pa.Table) -> None:
        self.header = header
        self.features = tuple(name for name in rows.column_names if name not in (*header.entity, FROM, EVENT))
        self._from: list[int] = rows.column(FROM).to_pylist()
        self._event: list[int | None] = rows.column(EVENT).to_pylist()
        self._values = [rows.column(name).to_pylist() for name in self.features]
        self._lines = _lines([rows.column(name).to_pylist() for name in header.entity], rows.num_rows)
        self.newest = EPOCH + timedelta(microseconds=max(self._from)) if self._from else None
        """When the youngest of its values became visible; None when it holds none."""

    def at(self, key: tuple[Any, ...], as_of: datetime) -> tuple[dict[str, Any] | None, datetime | None]:
        """The values visible for a key at a moment, and their event time; None for an unknown key, or one that was
        not visible yet.

        Invalid when the moment is older than what the snapshot keeps.
        """
        moment = (as_of - EPOCH) // timedelta(microseconds=1)
        if moment < self.header.start_us:
            since = EPOCH + timedelta(microseconds=self.header.start_us)
            raise Invalid(
                f"as_of {as_of:%Y-%m-%d %H:%M}Z is before what is kept online of {self.header.view} "
                f"(since {since:%Y-%m-%d %H:%M}Z)",
                todo="ask for a later moment, or use offline features",
            )
        begin, end = self._lines.get(key, (0, 0))
        at = bisect_right(self._from, moment, begin, end) - 1
        if at < begin:
            return (dict(self.header.empty), None) if self.header.empty is not None else (None, None)
        event = self._event[at]
        if self.header.ttl_us is not None and event is not None and moment - event > self.header.ttl_us:
            return None, None
        values = {name: column[at] for name, column in zip(self.features, self._values, strict=True)}
        return values, None if event is None else EPOCH + timedelta(microseconds=event)


def publish_snapshot(lake: Lake, header: Header, rows: pa.Table) -> dict[str, str]:
    """Write a snapshot (sorted by entity and `_from`) below its view's version.

    Returns what an endpoint needs to load it.
    """
    sink = pa.BufferOutputStream()
    kept = rows.replace_schema_metadata(header.to_metadata())
    with pa.ipc.new_file(sink, kept.schema) as writer:
        writer.write_table(kept.combine_chunks())
    data = sink.getvalue().to_pybytes()
    sha256 = hashlib.sha256(data).hexdigest()
    key = keys.online(header.project, header.view, header.version, sha256)
    with suppress(AlreadyExists, Unknown):  # the key is the hash of the bytes
        lake.store.put(key, data, if_absent=True)
    return {"version": header.version, "key": key, "sha256": sha256}


def open_snapshot(lake: Lake, key: str, sha256: str) -> Lookup:
    """Load a snapshot: one GET, checked against its hash (Corrupt)."""
    data = lake.store.get(key)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Corrupt(f"the snapshot {key} does not match its hash", todo="run `lakeloop features build`")
    rows = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    return Lookup(Header.from_metadata(rows.schema.metadata), rows)


def _lines(entity: list[list[Any]], count: int) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Where each entity's rows begin and end, in rows sorted by entity."""
    lines: dict[tuple[Any, ...], tuple[int, int]] = {}
    begin = 0
    keys_in_order = list(zip(*entity, strict=True)) if entity else [()] * count
    for at, key in enumerate(keys_in_order):
        if at + 1 == count or keys_in_order[at + 1] != key:
            lines[key] = (begin, at + 1)
            begin = at + 1
    return lines
