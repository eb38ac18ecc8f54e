"""A rollout as `rollouts list` and `rollouts show` print it."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakeloop.infra.place import Place
    from lakeloop.lakehouse.project import Project
    from lakeloop.lakehouse.rollouts.evidence import Evidence
    from lakeloop.lakehouse.rollouts.state import Challenger, Rollout


def line(
    place: Place, project: Project, model: str, rollout: Rollout, evidence: Evidence | None = None
) -> dict[str, Any]:
    step = rollout.step
    versions = ", ".join(str(one.version) for one in rollout.challengers)
    line = {"model": model, "kind": rollout.kind, "champion": rollout.champion, "version": versions}
    return {
        **line,
        "step": _stage(step.stage, step.weight),
        "since": step.at,
        "next": _next(place, project, model, rollout, evidence),
    }


def _next(place: Place, project: Project, model: str, rollout: Rollout, evidence: Evidence | None) -> str:
    """What happens next and when, or why nothing does."""
    from lakeloop.lakehouse.freezing import frozen
    from lakeloop.lakehouse.rollouts.deciding import Back, Complete, Move, Wait, decide
    from lakeloop.lakehouse.rollouts.gathering import gather

    if rollout.ended is not None:
        note = rollout.ended.note
        return f"{rollout.ended.outcome} {note.at:%Y-%m-%d %H:%M} by {note.who}: {note.why}"
    if (stop := frozen(place.lake, project.name, model)) is not None:
        return f"waits: frozen by {stop.who}: {stop.why}"
    now = place.lake.clock()
    decision = decide(rollout, evidence or gather(place.lake, project.name, model, rollout, now), now)
    match decision:
        case Wait(why, None):
            return f"waits: {why}"
        case Wait(why, due):
            return f"due in {_spelled(due, now)}: {why}"
        case Move(stage, weight, why):
            return f"due now, {_stage(stage, weight)}: {why}"
        case Complete(why):
            return f"due now, takes over: {why}"
        case Back(version, why):
            return f"due now, version {version} goes back: {why}"


def _spelled(due: datetime | None, now: datetime) -> str:
    seconds = (due - now).total_seconds() if due is not None else 0
    size, unit = next(((s, u) for s, u in ((86_400, "d"), (3600, "h"), (60, "min")) if seconds >= s), (1, "s"))
    return f"{math.ceil(seconds / size)} {unit}"


def _stage(stage: str, weight: int) -> str:
    return f"{weight / 100:g} %" if stage == "share" else stage


def steps(rollout: Rollout) -> list[dict[str, Any]]:
    return [{"step": _stage(one.stage, one.weight), "since": one.at, "revision": one.revision} for one in rollout.steps]


def arms(rollout: Rollout, evidence: Evidence) -> list[dict[str, Any]]:
    """The champion first. In the shadow the others' requests are rows of the log that they scored."""
    from lakeloop.lakehouse.rollouts.state import CHAMPION, WHOLE, Challenger

    others = rollout.weights() or list(rollout.challengers)
    rest = WHOLE - sum(one.weight for one in others)
    return [_arm_row(one, evidence) for one in (Challenger(CHAMPION, rollout.champion, rest), *others)]


def _arm_row(one: Challenger, evidence: Evidence) -> dict[str, Any]:
    counts, drift = evidence.counts.get(one.version), evidence.drift.get(one.version)
    quality = evidence.quality.get(one.version)
    row: dict[str, Any] = {"arm": one.name, "version": one.version, "share": f"{one.weight / 100:g} %"}
    row |= {"requests": counts.requests if counts else 0, "errors": counts.errors if counts else 0}
    for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
        value = counts.quantile_ms(share) if counts and counts.latency else math.nan
        row[name] = round(value, 2) if math.isfinite(value) else None
    row["psi"] = round(drift.psi, 4) if drift and math.isfinite(drift.psi) else None
    seen = quality is not None and math.isfinite(quality.value)
    row["loss"] = f"{quality.value:+.4f} [{quality.low:+.4f}, {quality.high:+.4f}]" if quality and seen else None
    return row


def rules(rollout: Rollout, evidence: Evidence) -> list[dict[str, Any]]:
    from lakeloop.lakehouse.rollouts.deciding import findings

    return [
        {"version": version, "rule": one.rule, "says": one.verdict, "seen": one.words}
        for version, one in findings(rollout, evidence)
    ]


def replicas(evidence: Evidence) -> str:
    failing = [f"{one.name}: {one.error}" for one in evidence.failing()]
    return f"{len(evidence.replicas)} live" + (f"; {len(failing)} cannot load: {failing[0]}" if failing else "")
