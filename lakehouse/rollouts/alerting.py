"""What follows from a rollout's return and from replicas that cannot load: statuses and alerts. Safe to repeat.

The endpoint's document decides; this is derived from it, so a stop between the two is made good by the next call.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from lakeloop.lakehouse import registry
from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.rollouts.evidence import Replica
from lakeloop.lakehouse.rollouts.gathering import LIVE, live_replicas, reports
from lakeloop.lakehouse.rollouts.state import rollout_of

ROLLOUT, LOADING = "roll-out", "replica-load"
"""Monitors of the platform's own; no name of a project's has a hyphen."""


def follow_return(lake: Lake, there: Revision) -> None:
    """After an automatic return: an alert with the reason, and the versions' statuses. One GET when it is done."""
    rollout = rollout_of(there.body)
    if rollout is None or rollout.ended is None or rollout.ended.version is None or rollout.ended.outcome != "back":
        return
    project, model, version = there.body["project"], there.body["model"], rollout.ended.version
    if version not in there.body["barred"]:  # a person lifted the bar since
        return
    if registry.version(lake, project, model, version).body["status"] == "barred":
        return
    why = rollout.ended.note.why
    alert = f"{project}.{model}.{ROLLOUT}.v{version}.r{rollout.steps[0].revision}"
    message = f"version {version} of {model} went back to {rollout.champion} by itself: {why}"
    _open(lake, project, model, ROLLOUT, alert, message)
    if int(there.body["wanted"]) == rollout.champion:
        registry.set_status(lake, project, model, rollout.champion, "champion", f"version {version} went back")
    registry.set_status(lake, project, model, version, "barred", why)


def alert_unloadable(lake: Lake, project: str, now: datetime) -> None:
    """An alert for each endpoint's revision that live replicas cannot load, and its end when all of them could."""
    found = reports(lake, project, now - LIVE)
    if not found:
        return
    sql = "select alert, model from lakeloop.alerts where project = ? and monitor = ? and status = 'open'"
    open_now = lake.sql(sql, [project, LOADING]).to_pylist()
    for model in sorted({row["endpoint"] for row in found}):
        replicas = live_replicas([row for row in found if row["endpoint"] == model], now)
        _endpoint(lake, project, model, replicas, [one["alert"] for one in open_now if one["model"] == model])


def _endpoint(lake: Lake, project: str, model: str, replicas: Sequence[Replica], open_now: Sequence[str]) -> None:
    """Nobody who lives knows nothing: alerts stay as they are."""
    failing = [one for one in replicas if one.error and one.revision < one.wanted]
    wanted = max((one.wanted for one in failing), default=0)
    alert = f"{project}.{model}.{LOADING}.r{wanted}"
    if failing and alert not in open_now:
        message = (
            f"{len(failing)} of {len(replicas)} replicas of {model} go on with what they had, since revision "
            f"{wanted} cannot be loaded: {failing[0].error}"
        )
        _open(lake, project, model, LOADING, alert, message)
    for one in open_now:
        if replicas and (one != alert or not failing):
            _record(lake, project, model, LOADING, one, "resolved", "every live replica serves", "")


def _open(lake: Lake, project: str, model: str, monitor: str, alert: str, message: str) -> None:
    """Said twice it is one segment, hence one row."""
    _record(lake, project, model, monitor, alert, "open", message, f"{alert}-open")


def _record(
    lake: Lake, project: str, model: str, monitor: str, alert: str, status: str, message: str, segment: str
) -> None:
    now = lake.clock()
    row: dict[str, Any] = {
        "alert": alert,
        "project": project,
        "model": model,
        "monitor": monitor,
        "status": status,
        "severity": "page",
        "message": message,
        "window_end": now,
        "logged_at": now,
        "who": lake.who,
    }
    lake.record("alerts", [row], segment)
