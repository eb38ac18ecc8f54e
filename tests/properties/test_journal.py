"""A journal under appends, repeats, folds that race, crashes at any call, compaction, checkpoints, log clean-up and
vacuum: every appended row is read exactly once, by whoever reads, whatever it has kept."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from lakeloop.lakehouse.compaction import compact
from lakeloop.lakehouse.errors import Conflict, Unavailable
from lakeloop.lakehouse.journal import Journal
from lakeloop.lakehouse.segments import KEPT
from lakeloop.lakehouse.store.folder import FolderStore
from lakeloop.lakehouse.tables import Table, Tables
from lakeloop.lakehouse.testing import FaultyStore

NAME = "numbers"
AT_ONCE = -1.0


class Overtaken:
    """Tables in which another folds to the end just before or just after this one opens its handle."""

    def __init__(self, tables: Tables, other: Journal, *, before: bool) -> None:
        self._tables, self._other, self._before, self._done = tables, other, before, False

    def _overtake(self) -> None:
        if not self._done:
            self._done = True
            self._other.fold(grace_s=AT_ONCE)
            self._other.fold(grace_s=AT_ONCE)

    def open(self, name: str) -> Table | None:
        if self._before:
            self._overtake()
        table = self._tables.open(name)
        self._overtake()
        return table

    def open_or_create(self, name: str, schema: pa.Schema) -> Table:
        return self._tables.open_or_create(name, schema)


class AJournal(RuleBasedStateMachine):
    """The model is a dict from segment to its rows; a row says which segment and which of its rows it is."""

    segments = Bundle("segments")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = FolderStore(self.folder)
        self.tables = Tables(self.store.location())
        self.journal = Journal(self.store, self.tables, NAME)
        self.rows: dict[str, pa.Table] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def expected(self) -> list[str]:
        return sorted(row for rows in self.rows.values() for row in rows.column("row").to_pylist())

    def read(self, journal: Journal) -> list[str]:
        found = journal.read()
        return [] if found is None else sorted(found.column("row").to_pylist())

    @rule(
        target=segments,
        count=st.integers(1, 3),
        extra=st.sampled_from(["", "late", "word"]),
        crash=st.sampled_from([None, "before", "after"]),
    )
    def append(self, count: int, extra: str, crash: Literal["before", "after"] | None) -> str:
        """A writer whose first try may crash repeats it: the same name, the same bytes."""
        segment = f"s{len(self.rows):04d}"
        rows = pa.table({"row": [f"{segment}-{n}" for n in range(count)]})
        if extra:
            rows = rows.append_column(extra, pa.array(range(count)))
        if crash:
            with contextlib.suppress(Unavailable):
                Journal(FaultyStore(self.store, 1, crash), self.tables, NAME).append(rows, segment)
        self.journal.append(rows, segment)
        self.rows[segment] = rows
        return segment

    @rule(segment=segments)
    def append_again(self, segment: str) -> None:
        self.journal.append(self.rows[segment], segment)

    @rule(segment=consumes(segments))
    def append_again_twice(self, segment: str) -> None:
        self.append_again(segment)
        self.append_again(segment)

    @rule(at_once=st.booleans())
    def fold(self, at_once: bool) -> None:
        self.journal.fold(grace_s=AT_ONCE if at_once else 60)

    @rule(before=st.booleans())
    def fold_overtaken(self, before: bool) -> None:
        Journal(self.store, Overtaken(self.tables, self.journal, before=before), NAME).fold(grace_s=AT_ONCE)

    @rule(before=st.booleans())
    def read_overtaken(self, before: bool) -> None:
        assert (
            self.read(Journal(self.store, Overtaken(self.tables, self.journal, before=before), NAME)) == self.expected()
        )

    @rule(fail_at=st.integers(1, 6), when=st.sampled_from(["before", "after"]))
    def fold_that_crashes(self, fail_at: int, when: Literal["before", "after"]) -> None:
        with contextlib.suppress(Unavailable):
            Journal(FaultyStore(self.store, fail_at, when), self.tables, NAME).fold(grace_s=AT_ONCE)

    @rule(segment=segments, at_once=st.booleans())
    def shipped_again_after_it_was_folded_and_deleted(self, segment: str, at_once: bool) -> None:
        self.journal.fold(grace_s=AT_ONCE)
        self.journal.fold(grace_s=AT_ONCE)
        assert f"inbox/{NAME}/{segment}" not in {entry.key for entry in self.journal.waiting()}
        self.append_again(segment)
        self.fold(at_once)

    @rule(numbers=st.lists(st.integers(5000, 9000), unique=True, min_size=2, max_size=4), again=st.booleans())
    def segments_in_another_order(self, numbers: list[int], again: bool) -> None:
        """Names that sort before and after those that are folded, from a writer whose clock is wrong."""
        for number in numbers:
            segment = f"s{number:04d}"
            self.rows.setdefault(segment, pa.table({"row": [f"{segment}-0"]}))
            self.journal.append(self.rows[segment], segment)
            if again:
                self.journal.fold(grace_s=AT_ONCE)

    @rule()
    def two_fold_at_once(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: Journal(self.store, self.tables, NAME).fold(grace_s=AT_ONCE), range(2)))

    # -- maintenance, as `maintain_lake` does it, and more impatiently ---

    @property
    def table(self) -> Table | None:
        return self.tables.open(f"lakeloop/{NAME}")

    @precondition(lambda self: self.table is not None)
    @rule()
    def compact(self) -> None:
        assert self.table is not None
        compact(self.store, self.table)

    @precondition(lambda self: self.table is not None)
    @rule(other=st.sampled_from(["compact", "fold"]))
    def compact_overtaken(self, other: str) -> None:
        """From a handle that another has overtaken: refused, or there was nothing to do."""
        stale = self.table
        assert stale is not None
        if other == "compact":
            assert self.table is not None
            compact(self.store, self.table)
        else:
            self.journal.fold(grace_s=AT_ONCE)
        with contextlib.suppress(Conflict):
            compact(self.store, stale)

    @precondition(lambda self: self.table is not None)
    @rule(clean=st.booleans())
    def checkpoint(self, clean: bool) -> None:
        """With the log before it removed: as after the retention of a year."""
        assert self.table is not None
        self.table.checkpoint()
        log = self.folder / "tables" / "lakeloop" / NAME / "_delta_log"
        for commit in log.glob("*.json") if clean else ():
            if int(commit.stem) < self.table.version:
                commit.unlink()

    @precondition(lambda self: self.table is not None)
    @rule()
    def vacuum(self) -> None:
        """Without any retention: every file goes that the newest version does not name."""
        delta = DeltaTable(str(self.folder / "tables" / "lakeloop" / NAME))
        delta.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)

    @rule(keep=st.booleans())
    def read_by_another_process(self, keep: bool) -> None:
        """One that has kept what it read, or nothing."""
        if not keep:
            KEPT.forget(self.store.url)
        assert self.read(Journal(FolderStore(self.folder), self.tables, NAME)) == self.expected()

    @rule(damage=st.sampled_from([b"", b"ARROW1", b"x" * 100]), number=st.integers(0, 3))
    def damaged_segment(self, damage: bytes, number: int) -> None:
        self.store.put(f"inbox/{NAME}/broken-{number}", damage)

    @invariant()
    def every_row_is_read_once(self) -> None:
        assert self.read(self.journal) == self.expected()


TestAJournal = AJournal.TestCase
TestAJournal.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)


class ALongerJournal(AJournal):
    """The same, over many more steps."""


TestALongerJournal = pytest.mark.slow(ALongerJournal.TestCase)
TestALongerJournal.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
