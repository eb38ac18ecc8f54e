"""What is to be done with a rollout, from what is known: a pure function, so that it can be shown before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from lakeloop.lakehouse.rollouts.evidence import Evidence, Finding, judge
from lakeloop.lakehouse.rollouts.state import WHOLE, Rollout, Stage


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done. `due`: when the time alone would let it go on; None when time is not what it waits for."""

    why: str
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """The next stage, and the weight of the challengers in it."""

    stage: Stage
    weight: int
    why: str


@dataclass(frozen=True, slots=True)
class Complete:
    """The new version takes over."""

    why: str


@dataclass(frozen=True, slots=True)
class Back:
    """A rule was broken by a version: the champion takes all back."""

    version: int
    why: str


Decision: TypeAlias = Wait | Move | Complete | Back


def findings(rollout: Rollout, evidence: Evidence) -> list[tuple[int, Finding]]:
    """What each rule says of each challenger at this step. While it only loads there is nothing to say."""
    if rollout.step.stage == "load":
        return []
    latency = rollout.step.stage == "share"
    rules = [rule for rule in rollout.plan.back_if if latency or not rule.lstrip().startswith("latency")]
    return [
        (one.version, judge(r, one.version, rollout.champion, evidence)) for one in rollout.challengers for r in rules
    ]


def decide(rollout: Rollout, evidence: Evidence, now: datetime) -> Decision:
    """The one thing to do now. A person's pause stops every automatic step, forward and back."""
    if rollout.paused is not None:
        return Wait(f"paused by {rollout.paused.who}" + (f": {rollout.paused.why}" if rollout.paused.why else ""))
    found = findings(rollout, evidence)
    for version, finding in found:
        if finding.verdict == "breached":
            return Back(version, f"{finding.rule}: {finding.words}")
    if (stop := _time(rollout, now)) is not None:
        return stop
    for version, finding in found:
        if finding.verdict == "early":
            return Wait(f"version {version}, {finding.rule}: {finding.words}")
    return _forward(rollout, evidence)


def _time(rollout: Rollout, now: datetime) -> Wait | None:
    """What keeps it here whatever the evidence: a time that is not over, or that only a person ends it."""
    stage, plan = rollout.step.stage, rollout.plan
    if stage == "load":
        return None
    if rollout.kind != "canary":
        return Wait("runs until a person ends it")
    if stage == "share" and next_share(rollout) is None:
        return Wait(f"{plan.canary[-1]} % is its last step: a person promotes it")
    hold = plan.shadow if stage == "shadow" else plan.hold
    due = rollout.step.at + (hold or timedelta())
    return Wait(f"{'shadow' if stage == 'shadow' else 'hold'} is not over", due) if now < due else None


def _forward(rollout: Rollout, evidence: Evidence) -> Decision:
    """The next step. No weight rises before every live replica has what it would answer with, nor while a breaker
    keeps the version from answering."""
    share = WHOLE if rollout.kind == "ab" else next_share(rollout)
    assert share is not None
    words = " and ".join(finding.words for _, finding in findings(rollout, evidence) if finding.verdict == "good")
    if rollout.step.stage == "shadow" and share < WHOLE:
        return Move("load", 0, words or "the shadow's time is over")
    if rollout.step.stage != "shadow" and (stop := _loaded(rollout, evidence)) is not None:
        return stop
    if rollout.version in evidence.taken_out:
        return Wait(f"version {rollout.version} fails: the breaker of a replica keeps it from answering")
    if rollout.kind == "ab":
        return Move("share", sum(one.weight for one in rollout.challengers), "all replicas have loaded it")
    if share == WHOLE:
        return Complete(words or "its time is over")
    return Move("share", share, words or "all replicas have loaded it")


def _loaded(rollout: Rollout, evidence: Evidence) -> Wait | None:
    if not evidence.replicas:
        return Wait("no live replica has reported")
    behind = evidence.behind(rollout.step.revision)
    if not behind:
        return None
    reasons = sorted({one.error for one in behind if one.error})
    return Wait(
        f"{len(behind)} of {len(evidence.replicas)} replicas have not loaded it"
        + "".join(f": {r}" for r in reasons[:1])
    )


def next_share(rollout: Rollout) -> int | None:
    """The weight after this step's; None when the plan has no further one."""
    later = [share * WHOLE // 100 for share in rollout.plan.canary if share * WHOLE // 100 > rollout.step.weight]
    return later[0] if later else None


def first_stage(plan_shadow: timedelta | None, canary: Sequence[int]) -> Stage | None:
    """Where a canary begins; None when it takes over at once."""
    if plan_shadow is not None:
        return "shadow"
    return "load" if canary[0] < 100 else None
