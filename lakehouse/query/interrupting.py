"""Calls to DuckDB that Ctrl-C ends.

DuckDB's client looks for a signal while a query starts, but not while its answer streams: a filter that finds little
in much would run for minutes after the signal. So the main thread waits, and another makes the call; a signal
interrupts the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

import duckdb

T = TypeVar("T")
AGAIN_S = 0.05


class Interruptible:
    """Makes one call after another on a connection. In any thread but the main one, where no signal arrives, it makes
    them itself."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, call: Callable[[], T]) -> T:
        if threading.current_thread() is not threading.main_thread():
            return call()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="duckdb")
        future = self._pool.submit(call)
        try:
            return future.result()
        except KeyboardInterrupt:
            self._end(future)
            raise

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _end(self, future: Future[Any]) -> None:
        """An interrupt that comes before the query has begun is forgotten by DuckDB: so again, until the call is
        over."""
        while not wait([future], AGAIN_S).done:
            self._connection.interrupt()
        with suppress(duckdb.Error, OSError, RuntimeError):  # "interrupted", as each of them says it
            future.result()
