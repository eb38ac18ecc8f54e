"""What a replica says of itself, in the journal `replicas`: the revision it serves, and what it counted of each arm.

A rollout goes on only when every replica has what it would answer with, and goes back by these counts. A report is one
small object: on every change, which wakes the sweep during a rollout, so that its step is not late; every half minute;
and every five seconds while there is more than one arm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.ray_jobs.serving.arms import Loaded

EVERY_S = 30.0
EVERY_SPLIT_S = 5.0
RETRY_S = 5.0
log = logging.getLogger("lakeloop.reports")

Record: TypeAlias = Callable[[str, Sequence[Mapping[str, Any]]], None]
"""(journal, rows): `Lake.record`."""
Told: TypeAlias = tuple[Any, ...]


class Reporter:
    """Reports one replica of one endpoint. Called from one thread."""

    def __init__(
        self,
        project: str,
        endpoint: str,
        replica: str,
        record: Record,
        clock: Callable[[], datetime],
        *,
        wake: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._project, self._endpoint, self._replica = project, endpoint, replica
        self._record, self._clock, self._wake, self._monotonic = record, clock, wake, monotonic
        self._told: Told = ()
        self._next = 0.0
        self._number = 0

    def report(self, loaded: Loaded, wanted: int, error: str, ends: bool) -> None:
        """Write a report if one is due. While the store is away it is tried again later; it never raises for that."""
        told: Told = (loaded.revision, wanted, error, ends, *(arm.breaker.state for arm in loaded.arms))
        now = self._monotonic()
        if told == self._told and now < self._next:
            return
        if not self._told and now < self._next:  # the last one failed a moment ago
            return
        self._number += 1
        try:
            self._record("replicas", self._rows(loaded, wanted, error, ends))
            if told != self._told and loaded.phase:
                self._wake()
        except LakeloopError as failed:
            log.warning("the report of %s could not be written: %s", self._replica, failed)
            self._told, self._next = (), now + RETRY_S
            return
        self._told, self._next = told, now + (EVERY_SPLIT_S if len(loaded.arms) > 1 else EVERY_S)

    def _rows(self, loaded: Loaded, wanted: int, error: str, ends: bool) -> list[Mapping[str, Any]]:
        common = {
            "replica": self._replica,
            "project": self._project,
            "endpoint": self._endpoint,
            "model": loaded.model,
            "number": self._number,
            "status": "gone" if ends else "serving",
            "wanted": wanted,
            "revision": loaded.revision,
            "error": error,
            "phase": loaded.phase,
            "logged_at": self._clock(),
        }
        rows: list[Mapping[str, Any]] = []
        for arm in loaded.arms:
            counted = arm.tally.counted()
            own = {"arm": arm.name, "version": arm.version, "weight": arm.weight, "circuit": arm.breaker.state}
            counts = {"requests": counted.requests, "errors": counted.errors, "latency": list(counted.latency)}
            rows.append({**common, **own, **counts})
        return rows
