"""`roll_out`: brings each endpoint from what is served to what is wanted, one step at a time, and back when it must.

How a version takes over is its model's `[serving] rollout`: at once, or by a shadow and shares of the traffic that
rise when their time is over, their rules are kept and every live replica has loaded them. A rule that is broken gives
all of the traffic back to the champion and bars the version. What a person decides meanwhile wins: a step is written
on the revision it was decided on, else it is decided anew. Snapshots of views are kept fresh whatever the stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never

from lakeloop.functions.build_features import ONLINE, online_id
from lakeloop.lakehouse import endpoints, events, registry
from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.freezing import frozen
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.prediction_log import LogPolicy, log_policy, withheld
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.rollouts.alerting import alert_unloadable, follow_return
from lakeloop.lakehouse.rollouts.deciding import Back, Complete, Move, Wait, decide, first_stage
from lakeloop.lakehouse.rollouts.gathering import gather
from lakeloop.lakehouse.rollouts.state import CANARY, WHOLE, Challenger, Rollout, Step, arms_of, record_of, running

TRIES = 5


@dataclass(frozen=True, slots=True)
class RolledOut:
    """An endpoint that was changed: the version that is wanted, the champion that served before, at which revision of
    its document, and why."""

    model: str
    version: int
    before: int | None
    revision: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """The next body of an endpoint's document."""

    body: Mapping[str, Any]
    why: str
    step: bool = False
    """Whether it is a step of a rollout, which makes an event."""


def roll_out(lake: Lake, project: Project) -> list[RolledOut]:
    """Close the difference for every endpoint of a project.

    A frozen model keeps its version but still gets fresh snapshots.
    """
    alert_unloadable(lake, project.name, lake.clock())
    done, failed = list[RolledOut](), list[LakeloopError]()
    for model in project.models:
        try:
            changed = _roll_out(lake, project, model)
        except LakeloopError as error:  # one endpoint that cannot be judged does not hold the others
            failed.append(error)
            continue
        done += [changed] if changed is not None else []
    if failed and not done:  # nothing else is left to do: the sweep keeps it as stuck
        raise failed[0]
    return done


def _roll_out(lake: Lake, project: Project, model: str) -> RolledOut | None:
    for _ in range(TRIES):
        there = endpoints.endpoint(lake, project.name, model)
        if there is None:
            return None
        follow_return(lake, there)
        change = _change(lake, project, model, there)
        if change is None:
            return None
        try:
            now = lake.documents.update(there, change.body, change.why)
        except LostRace:
            continue  # somebody decided meanwhile: decide anew
        follow_return(lake, now)
        if change.step:
            events.wake(lake, "rollout", f"{project.name}.{model}")
        before = int(there.body["arms"][0]["version"]) if there.body["arms"] else None
        return RolledOut(model, int(now.body["wanted"]), before, now.number, change.why)
    return None  # the next sweep looks again


def _change(lake: Lake, project: Project, model: str, there: Revision) -> Change | None:
    """What is to be written, or nothing."""
    body, wanted, rollout = there.body, int(there.body["wanted"]), running(there.body)
    served = int(body["arms"][0]["version"]) if body["arms"] else None
    if served is None or (body.get("at_once") and not _alone(body, wanted)):
        return _at_once(lake, project, model, body, wanted)
    if frozen(lake, project.name, model):
        return _refreshed(lake, project, model, body)
    if rollout is not None:
        return _go_on(lake, project, model, there, rollout) or _refreshed(lake, project, model, body)
    if served != wanted:
        return _begin(lake, project, model, there, wanted)
    return _refreshed(lake, project, model, body)


def _alone(body: Mapping[str, Any], version: int) -> bool:
    return [int(arm["version"]) for arm in body["arms"]] == [version]


def _at_once(lake: Lake, project: Project, model: str, body: Mapping[str, Any], version: int) -> Change:
    arms = {**body, "arms": arms_of(version), "at_once": False}
    return Change(fresh(lake, project, model, arms), f"champion is version {version}")


def _refreshed(lake: Lake, project: Project, model: str, body: Mapping[str, Any]) -> Change | None:
    """The same arms over the newest snapshots."""
    newest = fresh(lake, project, model, body)
    return None if newest == body else Change(newest, "new snapshots")


def _begin(lake: Lake, project: Project, model: str, there: Revision, wanted: int) -> Change:
    plan, why = project.models[model].serving.rollout, f"version {wanted} begins"
    if plan.shadow is not None and (absent := withheld(project, project.models[model])):
        plan, why = replace(plan, shadow=None), f"{why} without a shadow, since the log withholds {', '.join(absent)}"
    stage = first_stage(plan.shadow, plan.canary)
    if stage is None:
        return _at_once(lake, project, model, there.body, wanted)
    body = endpoints.begin(lake, there, [Challenger(CANARY, wanted)], plan, there.why, stage=stage)
    return Change(fresh(lake, project, model, body), f"{why}: {_spelled(stage, 0)}", step=True)


def _go_on(lake: Lake, project: Project, model: str, there: Revision, rollout: Rollout) -> Change | None:
    """The step that is due, if one is."""
    wanted = int(there.body["wanted"])
    if rollout.kind == "canary" and wanted != rollout.version and rollout.paused is None:
        body = endpoints.back(lake, there.body, rollout, "superseded", f"version {wanted} is wanted", [])
        return Change(fresh(lake, project, model, body), f"version {wanted} is wanted", step=True)
    decision = decide(rollout, gather(lake, project.name, model, rollout, lake.clock()), lake.clock())
    match decision:
        case Wait():
            return None
        case Back(version, why):
            body = endpoints.back(lake, there.body, rollout, "back", why, [version])
            return Change(fresh(lake, project, model, body), f"version {version} goes back: {why}", step=True)
        case Complete(why):
            body = endpoints.completed(lake, there.body, rollout, why)
            words = f"champion is version {rollout.version}: {why}"
            return Change(fresh(lake, project, model, body), words, step=True)
        case Move(stage, weight, why):
            now = rollout.at_step(Step(stage, weight, there.number + 1, lake.clock()))
            body = {**there.body, "arms": arms_of(now.champion, now.weights()), "rollout": record_of(now)}
            words = f"version {rollout.version}, {_spelled(stage, weight)}: {why}"
            return Change(fresh(lake, project, model, body), words, step=True)
        case _:
            assert_never(decision)


def _spelled(stage: str, weight: int) -> str:
    return f"{weight / WHOLE:.0%} of the traffic" if stage == "share" else stage


def fresh(lake: Lake, project: Project, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with the newest snapshots for each of its arms, and with the policy of the project's log. The champion's
    snapshots are the endpoint's; an arm that was trained with other versions of its views has its own.

    The sticky key follows the project, but not during a rollout: a ramp only adds.
    """
    arms = [{name: value for name, value in arm.items() if name != "snapshots"} for arm in body["arms"]]
    snapshots = [snapshots_of(lake, project, model, int(arm["version"])) for arm in arms]
    for arm, own in zip(arms[1:], snapshots[1:], strict=True):
        if own != snapshots[0]:
            arm["snapshots"] = own
    sticky = project.models[model].serving.sticky
    started = running(body)
    if started is not None and len(started.steps) > 1:
        sticky = body.get("sticky", "")
    newest = {**body, "arms": arms, "snapshots": snapshots[0] if arms else {}}
    log = log_policy(project, project.models[model]).to_json()
    if "log" in body or log != LogPolicy().to_json():
        newest["log"] = log
    return {**newest, "sticky": sticky} if sticky or "sticky" in body else newest


def snapshots_of(lake: Lake, project: Project, model: str, version: int) -> dict[str, dict[str, Any]]:
    """The newest snapshot of each view, in the version of the view that the model was trained with."""
    found = {}
    trained_with: dict[str, str] = registry.version(lake, project.name, model, version).body["lineage"]["views"]
    for view, rules in trained_with.items():
        built = lake.documents.latest(ONLINE, online_id(project.name, view, rules))
        if built is not None:
            found[view] = {name: built.body[name] for name in ("version", "key", "sha256")}
    return found
