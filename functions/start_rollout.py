"""Rollouts that a person starts: A/B with named arms, a challenger in the shadow, a canary by a plan of its own."""

from __future__ import annotations

from collections.abc import Sequence

from lakeloop.functions.roll_out import fresh
from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.errors import Invalid, NotFound, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.prediction_log import withheld
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Rollout as Plan
from lakeloop.lakehouse.rollouts.deciding import first_stage
from lakeloop.lakehouse.rollouts.state import CANARY, CHAMPION, WHOLE, Challenger, Kind, Stage


def start_ab(
    lake: Lake, project: Project, model: str, arms: Sequence[Challenger], rules: Sequence[str], why: str
) -> Revision:
    """Named arms beside the champion, which keeps the rest, until a person ends it. Invalid for names, versions or
    weights that cannot be."""
    there = _there(lake, project, model)
    champion = int(there.body["arms"][0]["version"])
    names, versions = [one.name for one in arms], [one.version for one in arms]
    if not arms or len({*names, CHAMPION}) != len(names) + 1:
        raise Invalid(f"the arms {', '.join(names)} are not named apart", todo=f"name each once, and none {CHAMPION}")
    if len({*versions, champion}) != len(versions) + 1:
        raise Invalid("two arms serve one version", todo=f"name others than {champion}, each once")
    if any(one.weight <= 0 for one in arms) or sum(one.weight for one in arms) >= WHOLE:
        raise Invalid("the shares leave nothing to the champion", todo="give shares above 0 and below 100 together")
    return _start(lake, project, model, there, arms, Plan(back_if=tuple(rules)), why, "ab", "load")


def start_shadow(lake: Lake, project: Project, model: str, version: int, rules: Sequence[str], why: str) -> Revision:
    """Champion and challenger: the version scores the log until a person ends it. Refused where the log does not hold
    what callers sent."""
    if absent := withheld(project, project.models[model]):
        raise Refused(f"the log of {model} withholds {', '.join(absent)}", todo="start a canary with a small share")
    there = _there(lake, project, model)
    return _start(
        lake, project, model, there, [Challenger(CANARY, version)], Plan(back_if=tuple(rules)), why, "shadow", "shadow"
    )


def start_canary(lake: Lake, project: Project, model: str, version: int, plan: Plan, why: str) -> Revision:
    """The version is wanted from now on, and takes over by this plan in the project's place. It lifts a bar."""
    there = _there(lake, project, model)
    stage = first_stage(plan.shadow, plan.canary)
    if stage is None:
        raise Invalid("this is no rollout but all at once", todo=f"lakeloop models promote {model} {version}")
    barred = [one for one in map(int, there.body["barred"]) if one != version]
    started = _start(
        lake,
        project,
        model,
        there,
        [Challenger(CANARY, version)],
        plan,
        why,
        "canary",
        stage,
        wanted=version,
        barred=barred,
    )
    registry.set_status(lake, project.name, model, version, "champion", why)
    before = int(there.body["arms"][0]["version"])
    registry.set_status(lake, project.name, model, before, "retired", f"version {version} is the champion")
    return started


def _there(lake: Lake, project: Project, model: str) -> Revision:
    there = endpoints.endpoint(lake, project.name, model)
    if there is None or not there.body["arms"]:
        raise NotFound(f"nothing serves {model} yet", todo=f"train and promote a version: lakeloop train {model}")
    return there


def _start(
    lake: Lake,
    project: Project,
    model: str,
    there: Revision,
    challengers: Sequence[Challenger],
    plan: Plan,
    why: str,
    kind: Kind,
    stage: Stage,
    **more: object,
) -> Revision:
    champion = int(there.body["arms"][0]["version"])
    for one in challengers:
        registry.version(lake, project.name, model, one.version)
        if one.version == champion:
            raise Refused(f"version {champion} is the champion of {model}", todo="name another version")
    body = {**endpoints.begin(lake, there, challengers, plan, why, kind=kind, stage=stage), **more}
    return lake.documents.update(there, fresh(lake, project, model, body), why)
