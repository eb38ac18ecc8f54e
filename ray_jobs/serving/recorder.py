"""What a process logs of its answers: the policy of what it has loaded, applied before anything is written.

Private values never reach the disk: they are hashed under the lake's key, as `forget` marks them, or left out. Where
the log is `sync`, an answer waits for a commit that many requests share.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from lakeloop.lakehouse.errors import LakeloopError, Unavailable
from lakeloop.lakehouse.forgetting import hashed
from lakeloop.lakehouse.prediction_log import logged_as
from lakeloop.ray_jobs.serving.shipper import Journal, ship_piece
from lakeloop.ray_jobs.serving.write_ahead import LogFull, Logged, LoggedColumns, Shape, WriteAhead

if TYPE_CHECKING:
    from lakeloop.ray_jobs.serving.arms import Loaded

log = logging.getLogger("lakeloop.recorder")


@dataclass(frozen=True, slots=True)
class _Plan:
    """How rows of one shape are logged: the shape they have then, and by column its input and whether it is hashed."""

    shape: Shape
    columns: tuple[tuple[str, str, bool], ...]


class Writer(Protocol):
    """Where requests are logged: a write-ahead file, or the lake itself. LogFull, or Unavailable: nothing was."""

    def append(self, shape: Shape, request: Logged | LoggedColumns, most_bytes: int) -> None: ...


class Recorder:
    """Logs requests as the policy of `loaded()` says. `dropped` counts the rows that a full log lost, as it may."""

    def __init__(self, writer: Writer, loaded: Callable[[], Loaded], commits: Commits | None = None) -> None:
        self._writer, self._loaded, self._commits = writer, loaded, commits
        self._plans: dict[tuple[Shape, int], _Plan] = {}
        self.dropped = 0

    def append(self, shape: Shape, request: Logged | LoggedColumns) -> Future[None] | None:
        """Log one request, unless it is not in the sample.

        Returns what to wait for before the answer may leave, if anything: its error is Unavailable. LogFull when
        nothing was logged and the policy refuses requests then.
        """
        loaded = self._loaded()
        policy = loaded.log
        if not policy.everything:
            if not policy.wants(request.request_id):
                return None
            shape, request = self._hidden(shape, request, loaded)
        try:
            self._writer.append(shape, request, policy.disk_bytes)
        except LogFull:
            if policy.full == "refuse":
                raise
            self.dropped += request.count
            return None
        return self._commits.ticket() if policy.sync and self._commits is not None else None

    def _hidden(
        self, shape: Shape, request: Logged | LoggedColumns, loaded: Loaded
    ) -> tuple[Shape, Logged | LoggedColumns]:
        """The request without what is dropped, with hashes for what is private."""
        policy = loaded.log
        if not policy.drop and not policy.hash:
            return shape, replace(request, sample_rate=policy.sample)
        plan = self._plans.get((shape, loaded.revision))
        if plan is None:
            self._plans = {(shape, loaded.revision): (plan := _plan(shape, loaded))}
        if isinstance(request, LoggedColumns):
            inputs = _columns(plan, request.inputs, loaded.log_key)
            return plan.shape, replace(request, inputs=inputs, sample_rate=policy.sample)
        rows = [{**row, "inputs": _inputs(plan, row["inputs"], loaded.log_key)} for row in request.rows]
        return plan.shape, replace(request, rows=rows, sample_rate=policy.sample)


def _plan(shape: Shape, loaded: Loaded) -> _Plan:
    inputs, columns = [], []
    for name, kind in shape.inputs:
        column = logged_as(name, loaded.log)
        if column is not None:
            inputs.append((column, kind if column == name else "string"))
            columns.append((column, name, column != name))
    return _Plan(replace(shape, inputs=tuple(inputs)), tuple(columns))


def _inputs(plan: _Plan, inputs: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    return {
        column: hashed(key, name, inputs.get(name)) if private else inputs.get(name)
        for column, name, private in plan.columns
    }


def _columns(plan: _Plan, inputs: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """As `_inputs`, of a list or an array per input; one that was not sent stays away."""

    def of(name: str, private: bool) -> Any:
        values = inputs[name]
        if not private:
            return values
        return [hashed(key, name, one) for one in (values.tolist() if hasattr(values, "tolist") else values)]

    return {column: of(name, private) for column, name, private in plan.columns if name in inputs}


class Commits:
    """Puts what a writer has logged into the lake at once, for requests that wait for it.

    One thread ships; what is logged meanwhile shares the next commit. What cannot be shipped stays in the folder, and
    the node's shipper goes on with it: the request is refused, and is in the log all the same.
    """

    def __init__(self, writer: WriteAhead, journal: Callable[[str], Journal]) -> None:
        self._writer, self._journal = writer, journal
        self._waiting: list[Future[None]] = []
        self._wake, self._closing = threading.Condition(), False
        self._thread: threading.Thread | None = None

    def ticket(self) -> Future[None]:
        """Done when all that was logged before this call is in the lake; Unavailable if it could not be brought."""
        ticket: Future[None] = Future()
        with self._wake:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="commits", daemon=True)
                self._thread.start()
            self._waiting.append(ticket)
            self._wake.notify()
        return ticket

    def close(self) -> None:
        """Commit for who still waits, then end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closing)
                tickets, self._waiting = self._waiting, []
            if not tickets:
                return
            self._settle(tickets)

    def _settle(self, tickets: list[Future[None]]) -> None:
        error = self._ship()
        for ticket in tickets:
            if not ticket.set_running_or_notify_cancel():  # it waited too long
                continue
            if error is None:
                ticket.set_result(None)
            else:
                ticket.set_exception(error)

    def _ship(self) -> Unavailable | None:
        try:
            self._writer.seal()
            for path in self._writer.sealed():
                try:
                    ship_piece(path, self._journal)
                except FileNotFoundError:  # the node's shipper was first
                    continue
        except (LakeloopError, OSError) as error:
            log.warning("predictions could not be brought to the lake before their answer: %s", error)
            return _not_brought(str(error))
        except Exception as error:  # a thread that ended would let all who come wait in vain
            log.exception("predictions could not be brought to the lake before their answer")
            return _not_brought(type(error).__name__)
        return None


def _not_brought(reason: str) -> Unavailable:
    return Unavailable(
        f"the prediction could not be brought to the lake ({reason}), and [serving] log is sync",
        todo="send the request again, with the same id",
    )
