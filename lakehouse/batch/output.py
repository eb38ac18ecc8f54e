"""The table that a batch goes to, which says itself which parts it holds; and the end of a batch."""

from __future__ import annotations

import json

import pyarrow as pa

from lakeloop.lakehouse.batch import record
from lakeloop.lakehouse.batch.part import marked
from lakeloop.lakehouse.batch.record import PART, TRIES, Batch, BatchRequest
from lakeloop.lakehouse.errors import Conflict, Unknown
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.tables import Table


class Output:
    """The table a batch goes to, as a handle: what it holds is asked when it is opened, and again after a lost race."""

    def __init__(self, lake: Lake, request: BatchRequest, batch: Batch) -> None:
        self._lake, self._request, self._batch = lake, request, batch
        self._table: Table | None = None
        self._there: set[str] = set()

    def missing(self) -> list[int]:
        """Numbers of the parts that are not there."""
        self._open()
        return [at for at in range(len(self._batch.parts)) if self._batch.mark(at) not in self._there]

    def append(self, number: int, part: pa.Table) -> None:
        """One commit, unless another has made it meanwhile."""
        batch, mark = self._batch, self._batch.mark(number)
        rows = marked(part, batch, number)
        for _ in range(TRIES):
            table = self._table or self._open(rows.schema)
            if mark in self._there:
                return
            try:
                assert table is not None
                table.append(rows, facts={"batch": batch.id, "part": mark})
                return
            except (Conflict, Unknown):
                self._table = None
                self._check_open()
        raise Conflict(f"{batch.output} is written by many at once", todo="run the same command again")

    def _check_open(self) -> None:
        """After a lost race: it may have been lost to who abandons this batch."""
        found = record.newest(self._lake, self._request)
        if found is None or found[1].id != self._batch.id or found[1].status == "abandoned":
            raise Conflict(f"the batch {self._batch.id} was abandoned", todo="somebody began it anew with --again")

    def _open(self, schema: pa.Schema | None = None) -> Table | None:
        tables, name = self._lake.tables, self._batch.output
        self._table = tables.open(name) if schema is None else tables.open_or_create(name, schema)
        marks = [self._batch.mark(number) for number in range(len(self._batch.parts))]
        self._there = self._table.column(PART, marks) if self._table is not None else set()
        return self._table


def finish(lake: Lake, request: BatchRequest, batch: Batch) -> None:
    """Say that it is done, last of all: after a crash before that, the next run finds nothing missing and does this
    again."""
    now = lake.clock()
    row = {
        "batch": batch.id,
        "project": batch.project,
        "model": batch.model,
        "version": batch.version,
        "model_hash": batch.model_hash,
        "input": batch.rows_from,
        "tables": json.dumps(dict(batch.tables)),
        "features": json.dumps(dict(batch.features)),
        "as_of": batch.as_of,
        "output": batch.output,
        "rows": batch.rows,
        "parts": len(batch.parts),
        "seconds": (now - batch.began).total_seconds() if batch.began else None,
        "who": lake.who,
        "logged_at": now,
    }
    lake.record("batches", [row], batch.id)
    record.let_go(lake, batch)
    record.close(lake, request, batch, "done")
