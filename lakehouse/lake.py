"""A lake: the primitives put together over one store. Everything else in the product takes a `Lake`."""

from __future__ import annotations

import getpass
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lakeloop.lakehouse.artifacts import Artifacts
from lakeloop.lakehouse.documents import Documents
from lakeloop.lakehouse.store import Store
from lakeloop.lakehouse.store.opening import open_store

if TYPE_CHECKING:
    import pyarrow as pa

    from lakeloop.lakehouse.journal import Journal
    from lakeloop.lakehouse.tables import Table, Tables


def utc_now() -> datetime:
    return datetime.now(UTC)


def user_name() -> str:
    """Who signs what is written: LAKELOOP_USER, else the user of this machine."""
    try:
        return os.environ.get("LAKELOOP_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


@dataclass(frozen=True)
class Lake:
    """One lake. Opening it makes no request."""

    store: Store
    who: str = field(default_factory=user_name)
    clock: Callable[[], datetime] = utc_now
    writer: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    """Part of the names of this process's segments; no two processes share one."""
    _counter: dict[str, int] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __reduce__(self) -> tuple[Callable[..., Lake], tuple[str, str]]:
        """Another process opens the same lake anew: no client, lock or credential travels."""
        return _reopened, (self.url, self.who)

    @property
    def url(self) -> str:
        return self.store.url

    @cached_property
    def documents(self) -> Documents:
        return Documents(self.store, self.clock, self.who)

    @cached_property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.store)

    @property
    def tables(self) -> Tables:
        from lakeloop.lakehouse.tables import Tables

        return Tables(self.store.location())

    def table(self, name: str) -> Table | None:
        """The newest version of `project/table`, or None."""
        return self.tables.open(name)

    def journal(self, name: str) -> Journal:
        from lakeloop.lakehouse.journal import Journal

        return Journal(self.store, _TablesOf(self), name)

    def record(self, journal: str, rows: Sequence[Mapping[str, Any]], segment: str = "") -> None:
        """Append rows to a journal, under a segment name that fixes what they are, or under this writer's next one."""
        import pyarrow as pa

        from lakeloop.lakehouse.journal import segment_name
        from lakeloop.lakehouse.records import JOURNALS

        if not rows:
            return
        schema = JOURNALS[journal]
        table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)
        self.journal(journal).append(table, segment or segment_name(self.writer, self._next(journal), self.clock()))

    def _next(self, journal: str) -> int:
        with self._lock:
            self._counter[journal] = self._counter.get(journal, 0) + 1
            return self._counter[journal]

    def sql(self, text: str, values: Sequence[object] = (), *, project: str = "") -> pa.Table:
        """The answer to one SELECT over every table, journal and document of the lake; values stand for `?`."""
        from lakeloop.lakehouse.query.asking import ask

        return ask(self, text, values, project=project)

    def runs(self, **asked: Any) -> pa.Table:
        """Runs, filtered and ordered: the arguments of `run_list.find_runs` (`model`, `status`, `params`, `metric`,
        `above`, `below`, `order`, `limit`)."""
        from lakeloop.lakehouse.run_list import find_runs

        return find_runs(self, **asked)


@dataclass(frozen=True, slots=True)
class _TablesOf:
    """A lake's tables for a journal, which needs them to fold and to read, but not to append: importing delta-rs takes
    longer than an append."""

    lake: Lake

    def open(self, name: str) -> Table | None:
        return self.lake.tables.open(name)

    def open_or_create(self, name: str, schema: pa.Schema) -> Table:
        return self.lake.tables.open_or_create(name, schema)


def _reopened(url: str, who: str) -> Lake:
    return open_lake(url, who=who)


def open_lake(url: str, *, who: str = "", clock: Callable[[], datetime] = utc_now) -> Lake:
    """The lake at a folder, `s3://bucket/prefix`, or `memory://name` (tests). No request is made."""
    return Lake(open_store(url), who or user_name(), clock)
