"""Rows that are read while others are written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Full, Queue

import pyarrow as pa

AHEAD = 4
"""Batches that are read before the writer asks for them."""


class Ahead:
    """A stream read in a thread of its own, a few batches ahead of the writer.

    The rows may themselves come out of delta-rs, which cannot read on the thread it writes on; and reading and
    writing take a core each. Remembers the error the rows broke with: what comes back through delta-rs is its text.
    """

    def __init__(self, rows: pa.RecordBatchReader) -> None:
        self._rows, self._queue = rows, Queue[pa.RecordBatch | None](AHEAD)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="rows-ahead", daemon=True)
        self.error: Exception | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._rows.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        self._thread.start()
        while (batch := self._queue.get()) is not None:
            yield batch
        if self.error is not None:
            raise self.error

    def _read(self) -> None:
        try:
            for batch in self._rows:
                if not self._put(batch):
                    return
        except Exception as error:  # noqa: BLE001  whatever it is, it is raised where the rows are written
            self.error = error
        self._put(None)

    def _put(self, batch: pa.RecordBatch | None) -> bool:
        """False when nobody reads on."""
        while not self._over.is_set():
            try:
                self._queue.put(batch, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def close(self) -> None:
        """The writer reads no further, and nobody is at the rows any more."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
