"""Launches training runs on Ray in this process: the launcher of a laptop, and of a single machine in the cloud."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.lake import Lake

if TYPE_CHECKING:
    from lakeloop.ray_jobs.cluster import LocalCluster
    from lakeloop.ray_jobs.dag import TaskEvent


def state_folder(lake_url: str, folder: Path | None = None) -> Path:
    """Where this machine keeps what belongs to a lake but not into it: logs of predictions not shipped yet, records
    of processes.

    LAKELOOP_STATE_DIR, else the user's state folder; one below it per lake and checkout.
    """
    root = (
        os.environ.get("LAKELOOP_STATE_DIR")
        or os.environ.get("XDG_STATE_HOME")
        or str(Path.home() / ".local" / "state")
    )
    mark = hashlib.sha256(f"{lake_url}|{folder or ''}".encode()).hexdigest()[:12]
    return Path(root) / "lakeloop" / mark


class LocalRay:
    """Ray on this machine, started when it is first needed and stopped on leaving.

    Use as a context manager, from the main thread.
    """

    def __init__(
        self, lake: Lake, folder: Path | None, *, say: Callable[[str], None], serve: bool = False, cpus: int = 0
    ) -> None:
        self._lake, self._folder, self._say, self._serve = lake, state_folder(lake.url, folder), say, serve
        # One more than there are: replicas take fractions of a CPU, which must not cost a trial its place.
        self._cpus = cpus or max(2, os.cpu_count() or 2) + int(serve)
        self._exit = ExitStack()
        self.cluster: LocalCluster | None = None

    def __enter__(self) -> LocalRay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()
        self.cluster = None

    def start(self) -> LocalCluster:
        """The cluster, started if it is not up. Unavailable when Ray is not installed or does not start."""
        if self.cluster is None:
            self._say("starting Ray (about 10 s, once)")
            try:
                from lakeloop.ray_jobs.cluster import start_local
            except ImportError as error:
                raise Unavailable("Ray is not installed", todo='pip install "lakeloop[ray]"') from error
            self.cluster = self._exit.enter_context(start_local(self._folder, cpus=self._cpus, serve=self._serve))
        return self.cluster

    def train(self, run: str, progress: Callable[[TaskEvent], Any] = lambda _event: None) -> int:
        """Work on a run to its end; returns the version it made."""
        self.start()
        from lakeloop.ray_jobs.training import train

        return train(self._lake, run, progress=progress)

    def launch(self, run: str) -> None:
        """A `Launcher`: the run is done when this returns. What it failed of is in the run's record."""
        from lakeloop.lakehouse.errors import LakeloopError

        try:
            self.train(run)
        except LakeloopError as error:
            self._say(f"run {run}: {error}")
