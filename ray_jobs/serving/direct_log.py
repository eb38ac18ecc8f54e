"""Puts what each request has logged into the lake before its answer leaves, for a process that may be frozen after it.

One PUT a request, and no file on this machine. What cannot be put is not answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import orjson

from lakeloop.lakehouse.errors import LakeloopError, Unavailable
from lakeloop.ray_jobs.serving.prediction_rows import prediction_table
from lakeloop.ray_jobs.serving.shipper import Journal
from lakeloop.ray_jobs.serving.write_ahead import Logged, LoggedColumns, Piece, Shape


class DirectLog:
    """`writer` is part of the segments' names: no two processes share one. Threads may share the log."""

    def __init__(self, journal: Callable[[str], Journal], writer: str) -> None:
        self._journal, self._writer = journal, writer
        self._number, self._lock = 0, threading.Lock()

    def append(self, shape: Shape, request: Logged | LoggedColumns, most_bytes: int = 0) -> None:
        """One request's rows as a segment of their journal; `most_bytes` is for who writes to a disk. Unavailable: they
        may be in the lake or not; the same request may be sent again, since a prediction counts by its id."""
        table = prediction_table(Piece(shape, (orjson.loads(request.line()),)))
        with self._lock:
            self._number += 1
            segment = f"{request.at:%Y%m%dT%H%M%S%fZ}-{self._writer}-{self._number:06d}"
        try:
            self._journal(shape.journal).append(table, segment)
        except LakeloopError as error:
            raise Unavailable(
                f"the prediction could not be logged ({error.what})", where=error.where, todo="send it again"
            ) from error
