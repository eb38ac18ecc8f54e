"""Keeps a replica at its endpoint's newest revision: polls, loads what changed beside what serves, then swaps.

What cannot be loaded leaves the old serving; the reason is in `error` and in the log, and it is tried again. A poll is
one GET.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from lakeloop.lakehouse.endpoints import WHOLE
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.ray_jobs.serving.arms import Load, Loaded

if TYPE_CHECKING:
    from lakeloop.lakehouse.documents import Revision

POLL_S = 0.5
RETRY_S = 5.0
log = logging.getLogger("lakeloop.watcher")


Report: TypeAlias = Callable[[Loaded, int, str, bool], None]
"""(what serves, the newest revision seen, why that does not serve, whether the replica ends): called after each
poll."""


def report_nothing(loaded: Loaded, wanted: int, error: str, ends: bool) -> None:
    """A `Report` for who tells nobody."""


class Watcher:
    """Follows one endpoint. `newer(n)` is the revision after n, or None.

    The first revision is loaded here, and its errors are the caller's, but for those of arms beside the champion.
    """

    def __init__(
        self,
        first: Revision,
        newer: Callable[[int], Revision | None],
        load: Load,
        *,
        report: Report = report_nothing,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._newer, self._load, self._report, self._monotonic = newer, load, report, monotonic
        self._wanted = first
        self._failed_at: float | None = None
        self.error = ""
        self.loaded: Loaded = self._first(first)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def _first(self, revision: Revision) -> Loaded:
        """What serves at the start: where an arm beside the champion cannot be loaded, the champion alone."""
        try:
            return self._load(revision, None)
        except Exception as error:
            alone = champion_alone(revision)
            if alone is None:
                raise
            log.exception("%s: revision %d does not serve, its champion alone does", revision.id, revision.number)
            loaded = self._load(alone, None)
            self.error, self._failed_at = str(error), self._monotonic()
            return loaded

    @property
    def wanted(self) -> int:
        """The newest revision that was seen."""
        return self._wanted.number

    def step(self) -> bool:
        """One poll. True when another revision serves afterwards."""
        while (found := self._newer(self._wanted.number)) is not None:
            self._wanted, self._failed_at = found, None
        if self._wanted.number == self.loaded.revision:
            self.error = ""
            return False
        if self._waits():
            return False
        loaded = self._load(self._wanted, self.loaded)
        self.loaded, self.error = loaded, ""
        log.info("%s: revision %d serves", self._wanted.id, self._wanted.number)
        return True

    def start(self) -> None:
        """Step every half second, in a thread, until `close`."""
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and say goodbye."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._report(self.loaded, self.wanted, self.error, True)

    def _waits(self) -> bool:
        return self._failed_at is not None and self._monotonic() - self._failed_at < RETRY_S

    def _run(self) -> None:
        while not self._closing.wait(POLL_S):
            self.poll()

    def poll(self) -> None:
        """One step, and the report of it."""
        self.try_step()
        try:
            self._report(self.loaded, self.wanted, self.error, False)
        except Exception:
            log.exception("%s: a report failed", self._wanted.id)

    def try_step(self) -> None:
        """A step whose failure is kept and logged: the old revision goes on serving.

        A loader runs users' files, so it may fail in any way.
        """
        try:
            self.step()
        except LakeloopError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("%s: revision %d cannot be loaded", self._wanted.id, self._wanted.number)
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        if reason != self.error:
            log.error(
                "%s: revision %d does not serve, %d still does: %s",
                self._wanted.id,
                self._wanted.number,
                self.loaded.revision,
                reason,
            )
        self.error, self._failed_at = reason, self._monotonic()


def champion_alone(revision: Revision) -> Revision | None:
    """The revision with the first of its arms only, numbered 0 since no revision says so; None where it is the only."""
    arms: list[dict[str, Any]] = list(revision.body.get("arms") or [])
    if len(arms) < 2:
        return None
    return replace(revision, number=0, body={**revision.body, "arms": [{**arms[0], "weight": WHOLE}]})
