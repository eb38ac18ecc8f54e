"""Endpoints: one document per model says which versions answer, and with which snapshots.

Its history is the model's history in production.

`wanted` is what a gate or a person decided; `arms` is what replicas serve; `roll_out` moves the second to the first.
A version that was rolled back is `barred` until a person promotes it again. A change is made on the state it was
decided on: whoever is late gets Conflict and must decide again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.errors import Conflict, NotFound, Refused
from lakeloop.lakehouse.lake import Lake

KIND = "endpoints"
WHOLE = 10_000
"""All of the traffic, in the unit of an arm's weight."""


def endpoint_id(project: str, model: str) -> str:
    return f"{project}.{model}"


def endpoint(lake: Lake, project: str, model: str) -> Revision | None:
    """The endpoint as it is, or None before the first promotion."""
    return lake.documents.latest(KIND, endpoint_id(project, model))


def champion(lake: Lake, project: str, model: str) -> int | None:
    """The version that is meant to answer, or None."""
    there = endpoint(lake, project, model)
    return int(there.body["wanted"]) if there else None


def promote(
    lake: Lake, project: str, model: str, version: int, *, expected: int | None, why: str, by_hand: bool = False
) -> Revision:
    """Make `version` the wanted one, if the wanted one still is `expected` (None: there is none).

    Conflict when it is another by now; Refused for a barred version unless a person promotes it, which lifts the bar.
    Safe to repeat.
    """
    there = endpoint(lake, project, model)
    if there is None:
        if expected is not None:
            raise Conflict(f"{model} has no champion any more", todo="judge again")
        body = {"project": project, "model": model, "wanted": version, "arms": [], "snapshots": {}, "barred": []}
        return lake.documents.create(KIND, endpoint_id(project, model), body, why)
    wanted, barred = int(there.body["wanted"]), list(there.body["barred"])
    if wanted == version:
        return there
    if wanted != expected:
        raise Conflict(f"the champion of {model} is version {wanted} by now, not {expected}", todo="judge again")
    if version in barred and not by_hand:
        raise Refused(
            f"version {version} of {model} was rolled back",
            todo=f"a person may lift that: lakeloop models promote {model} {version}",
        )
    body = {**there.body, "wanted": version, "barred": [one for one in barred if one != version]}
    return lake.documents.update(there, body, why)


def rollback(lake: Lake, project: str, model: str, why: str) -> tuple[int, int]:
    """Back to the champion before this one, which is barred.

    Returns (from, to). NotFound when there was none before.
    """
    there = endpoint(lake, project, model)
    if there is None:
        raise NotFound(f"{model} has no champion", todo=f"train and promote one: lakeloop train {model}")
    current = int(there.body["wanted"])
    barred = {*map(int, there.body["barred"]), current}
    before = next(
        (int(r.body["wanted"]) for r in lake.documents.history(KIND, there.id) if int(r.body["wanted"]) not in barred),
        None,
    )
    if before is None:
        raise NotFound(
            f"{model} had no champion before version {current} that was not rolled back",
            todo=f"see `lakeloop models history {model}`",
        )
    lake.documents.update(there, {**there.body, "wanted": before, "barred": sorted(barred)}, why)
    return current, before


def serve(lake: Lake, there: Revision, version: int, snapshots: Mapping[str, Mapping[str, Any]], why: str) -> Revision:
    """What replicas follow: one arm with all of the traffic, and the snapshots its views are read from."""
    arms = [{"name": "champion", "version": version, "weight": WHOLE}]
    return lake.documents.update(there, {**there.body, "arms": arms, "snapshots": dict(snapshots)}, why)


def history(lake: Lake, project: str, model: str) -> list[dict[str, Any]]:
    """Every change of champion, newest first: version, at, who, why."""
    changes: list[dict[str, Any]] = []
    for revision in reversed(lake.documents.history(KIND, endpoint_id(project, model))):
        if not changes or changes[0]["version"] != int(revision.body["wanted"]):
            changes.insert(
                0,
                {"version": int(revision.body["wanted"]), "at": revision.at, "who": revision.who, "why": revision.why},
            )
    return changes
