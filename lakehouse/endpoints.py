"""Endpoints: one document per model says which versions answer, and with which snapshots.

Its history is the model's history in production.

`wanted` is what a gate or a person decided; `arms` is what replicas serve, the champion first; `rollout` is how the
second becomes the first, and `roll_out` does its steps. `at_once` says that the wanted version takes over without
one. A version that was rolled back is `barred` until a person promotes it again. Every change is made on the state it
was decided on: whoever is late gets Conflict and must decide again. So a person's decision is never undone by an
automatic step that was decided before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.errors import Conflict, Corrupt, NotFound, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project.definitions import Rollout as Plan
from lakeloop.lakehouse.rollouts.state import WHOLE as WHOLE
from lakeloop.lakehouse.rollouts.state import (
    Challenger,
    End,
    Kind,
    Note,
    Outcome,
    Rollout,
    Stage,
    Step,
    arms_of,
    record_of,
    running,
)

KIND = "endpoints"


def endpoint_id(project: str, model: str) -> str:
    return f"{project}.{model}"


def endpoint(lake: Lake, project: str, model: str) -> Revision | None:
    """The endpoint as it is, or None before the first promotion."""
    return lake.documents.latest(KIND, endpoint_id(project, model))


def champion(lake: Lake, project: str, model: str) -> int | None:
    """The version that is meant to answer, or None."""
    there = endpoint(lake, project, model)
    return int(there.body["wanted"]) if there else None


def answering(lake: Lake, project: str, model: str) -> int | None:
    """The champion that answers: while a rollout goes on, the one it has not replaced yet. None when there is none."""
    there = endpoint(lake, project, model)
    return _champion(there.body) if there else None


def standing(there: Revision | None, version: int, recorded: str) -> str:
    """What a version is to its endpoint now: "champion", "barred", its part in a rollout that is under way, or what the
    registry has recorded."""
    if there is None:
        return recorded
    if version == _champion(there.body):
        return "champion"
    if version in map(int, there.body["barred"]):
        return "barred"
    try:
        rollout = running(there.body)
    except Corrupt:  # a rollback mends it; until then the others are told
        return recorded
    part = next((one for one in rollout.challengers if one.version == version), None) if rollout is not None else None
    if rollout is not None and part is not None:
        weight = next((one.weight for one in rollout.weights() if one.version == version), 0)
        return f"{part.name}, {100 * weight / WHOLE:g}%"
    return "promoted" if recorded == "champion" else recorded


def promote(
    lake: Lake, project: str, model: str, version: int, *, expected: int | None, why: str, by_hand: bool = False
) -> Revision:
    """Make `version` the wanted one, if the wanted one still is `expected` (None: there is none).

    Conflict when it is another by now; Refused for a barred version unless a person promotes it, which lifts the bar,
    and the pause of another version's canary. Safe to repeat.
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
    body = {**there.body, "wanted": version, "at_once": False, "barred": _without(barred, version)}
    rollout = running(body) if by_hand else None
    if rollout is not None and rollout.kind == "canary":  # whoever promotes another has seen enough of a paused one
        body["rollout"] = record_of(replace(rollout, paused=None))
    return lake.documents.update(there, body, why)


def rollback(lake: Lake, project: str, model: str, why: str) -> tuple[int, int]:
    """Back to the champion before this one, which is barred. A rollout ends; where that champion still answers, it has
    all of the traffic from this very revision on.

    Returns (from, to). NotFound when there was none before.
    """
    there = endpoint(lake, project, model)
    if there is None:
        raise NotFound(f"{model} has no champion", todo=f"train and promote one: lakeloop train {model}")
    current = int(there.body["wanted"])
    barred = {*map(int, there.body["barred"]), current}
    champions = (_champion(revision.body) for revision in lake.documents.history(KIND, there.id))
    before = next((one for one in champions if one not in barred), None)
    if before is None:
        raise NotFound(
            f"{model} had no champion before version {current} that was not rolled back",
            todo=f"see `lakeloop models history {model}`",
        )
    body = {**there.body, "wanted": before, "at_once": True, "barred": sorted(barred)}
    arms = there.body["arms"]
    if arms and int(arms[0]["version"]) == before:
        body["arms"] = arms_of(before)
    lake.documents.update(there, _ended(lake, body, "rolled back", why), why)
    return current, before


def serve(lake: Lake, there: Revision, version: int, snapshots: Mapping[str, Mapping[str, Any]], why: str) -> Revision:
    """What replicas follow: one arm with all of the traffic, and the snapshots its views are read from."""
    body = {**there.body, "arms": arms_of(version), "snapshots": dict(snapshots)}
    return lake.documents.update(there, body, why)


def begin(
    lake: Lake,
    there: Revision,
    challengers: Sequence[Challenger],
    plan: Plan,
    why: str,
    *,
    kind: Kind = "canary",
    stage: Stage = "load",
) -> dict[str, Any]:
    """The document's body with a rollout that begins with its next revision. Refused while another is under way."""
    if running(there.body) is not None:
        raise Refused(
            f"a rollout of {there.body['model']} is under way", todo=f"lakeloop rollouts abort {there.body['model']}"
        )
    now = lake.clock()
    rollout = Rollout(
        kind,
        int(there.body["arms"][0]["version"]),
        tuple(challengers),
        plan,
        Note(lake.who, why, now),
        (Step(stage, 0, there.number + 1, now),),
    )
    arms = arms_of(rollout.champion, rollout.weights())
    return {**there.body, "arms": arms, "at_once": False, "rollout": record_of(rollout)}


def pause(lake: Lake, project: str, model: str, why: str) -> Rollout:
    """No automatic step, forward or back, until a person resumes it."""

    def paused(there: Revision, rollout: Rollout) -> dict[str, Any]:
        note = rollout.paused or Note(lake.who, why, lake.clock())
        return {**there.body, "rollout": record_of(replace(rollout, paused=note))}

    return _decide(lake, project, model, paused, f"paused: {why}" if why else "paused")


def resume(lake: Lake, project: str, model: str, why: str) -> Rollout:
    """Automatic steps again; the time that passed counts."""

    def resumed(there: Revision, rollout: Rollout) -> dict[str, Any]:
        return {**there.body, "rollout": record_of(replace(rollout, paused=None))}

    return _decide(lake, project, model, resumed, f"resumed: {why}" if why else "resumed")


def abort(lake: Lake, project: str, model: str, why: str) -> Rollout:
    """The champion has all of the traffic from this revision on. The version of a canary is barred."""

    def aborted(there: Revision, rollout: Rollout) -> dict[str, Any]:
        barred = [rollout.version] if rollout.kind == "canary" else []
        return back(lake, there.body, rollout, "aborted", why, barred)

    return _decide(lake, project, model, aborted, f"aborted: {why}" if why else "aborted")


def finish(lake: Lake, project: str, model: str, version: int | None, why: str) -> tuple[int, int]:
    """A person's decision that a challenger (None: the first) takes over now. Returns (from, to).

    Replicas follow once `roll_out` has given it the traffic.
    """
    _, rollout = under_way(lake, project, model)
    chosen = rollout.version if version is None else version
    if chosen not in [one.version for one in rollout.challengers]:
        todo = ", ".join(str(one.version) for one in rollout.challengers)
        raise NotFound(f"version {chosen} has no part in the rollout of {model}", todo=f"name one of: {todo}")

    def finished(there: Revision, _: Rollout) -> dict[str, Any]:
        barred = _without(there.body["barred"], chosen)
        return _ended(lake, {**there.body, "wanted": chosen, "at_once": True, "barred": barred}, "done", why)

    return _decide(lake, project, model, finished, why).champion, chosen


def _decide(
    lake: Lake, project: str, model: str, change: Callable[[Revision, Rollout], dict[str, Any]], why: str
) -> Rollout:
    """Write a person's decision about the rollout under way. A step that came first does not stop it; another rollout
    does."""
    there, rollout = under_way(lake, project, model)
    first = rollout.steps[0].revision
    while rollout.steps[0].revision == first:
        try:
            lake.documents.update(there, change(there, rollout), why)
        except LostRace:
            there, rollout = under_way(lake, project, model)
            continue
        return rollout
    raise Conflict(f"another rollout of {model} has begun", todo="see `lakeloop rollouts list`, and decide again")


def under_way(lake: Lake, project: str, model: str) -> tuple[Revision, Rollout]:
    """The endpoint and its rollout. NotFound when none is under way."""
    there = endpoint(lake, project, model)
    rollout = running(there.body) if there is not None else None
    if there is None or rollout is None:
        raise NotFound(f"no rollout of {model} is under way", todo="see `lakeloop rollouts list`")
    return there, rollout


def back(
    lake: Lake, body: Mapping[str, Any], rollout: Rollout, outcome: Outcome, why: str, barred: Sequence[int]
) -> dict[str, Any]:
    """The document's body with the rollout ended and all of the traffic at its champion."""
    wanted = int(body["wanted"])  # another, where it was promoted meanwhile
    there = {
        **body,
        "wanted": rollout.champion if wanted in barred else wanted,
        "barred": sorted({*map(int, body["barred"]), *barred}),
    }
    there["arms"] = arms_of(rollout.champion)
    return _ended(lake, there, outcome, why, barred[0] if barred else None)


def completed(lake: Lake, body: Mapping[str, Any], rollout: Rollout, why: str) -> dict[str, Any]:
    """The document's body with the rollout's version as the only arm."""
    return _ended(lake, {**body, "arms": arms_of(rollout.version)}, "done", why)


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


def _champion(body: Mapping[str, Any]) -> int:
    """The version that had the traffic: one that was wanted, but never came out of its rollout, is no champion."""
    return int(body["arms"][0]["version"] if body["arms"] else body["wanted"])


def _ended(lake: Lake, body: dict[str, Any], outcome: Outcome, why: str, version: int | None = None) -> dict[str, Any]:
    try:
        rollout = running(body)
    except Corrupt:  # whatever it was, it ends
        return {**body, "rollout": None}
    if rollout is None:
        return body
    end = End(outcome, Note(lake.who, why, lake.clock()), version)
    return {**body, "rollout": record_of(replace(rollout, ended=end))}


def _without(versions: Sequence[int], version: int) -> list[int]:
    return [one for one in map(int, versions) if one != version]
