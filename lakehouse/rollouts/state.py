"""A rollout as its endpoint's document keeps it: who takes over from whom, by which plan, what was done, how it ended.

Stages: `shadow` (the new version scores the log), `load` (its weight is 0 while replicas load it), `share` (it answers
its part). A step is a revision of the document; the last one is the present. Times are the document's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.project.definitions import Rollout as Plan

WHOLE = 10_000
"""All of the traffic, in the unit of an arm's weight."""
CHAMPION, CANARY = "champion", "canary"

Kind: TypeAlias = Literal["canary", "shadow", "ab"]
Stage: TypeAlias = Literal["shadow", "load", "share"]
Outcome: TypeAlias = Literal["done", "back", "aborted", "rolled back", "superseded"]


@dataclass(frozen=True, slots=True)
class Challenger:
    """A version beside the champion. `weight` is what an A/B gives it; a canary's is its step's."""

    name: str
    version: int
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A stage from a revision on, with the weight of all challengers together."""

    stage: Stage
    weight: int
    revision: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person or the stepper decided."""

    who: str
    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class End:
    """How it ended: `back` is the automatic return, for which `version` broke a rule."""

    outcome: Outcome
    note: Note
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout, under way or ended."""

    kind: Kind
    champion: int
    challengers: tuple[Challenger, ...]
    plan: Plan
    started: Note
    steps: tuple[Step, ...]
    paused: Note | None = None
    ended: End | None = None

    @property
    def step(self) -> Step:
        return self.steps[-1]

    @property
    def runs(self) -> bool:
        return self.ended is None

    @property
    def version(self) -> int:
        """The version that takes over; of an A/B the first beside the champion."""
        return self.challengers[0].version

    def at_step(self, step: Step) -> Rollout:
        return replace(self, steps=(*self.steps, step))

    def weights(self) -> list[Challenger]:
        """The challengers that replicas load, with their weights at this step."""
        match self.step.stage:
            case "shadow":
                return []
            case "load":
                return [replace(one, weight=0) for one in self.challengers]
            case "share" if self.kind == "canary":
                return [replace(self.challengers[0], weight=self.step.weight)]
            case "share":
                return list(self.challengers)


def rollout_of(body: Mapping[str, Any]) -> Rollout | None:
    """The newest rollout of a document, or None when there was none. Corrupt for what cannot be read."""
    record = body.get("rollout")
    if record is None:
        return None
    try:
        return _read(record)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Corrupt(f"the endpoint's rollout cannot be read ({error!r})", todo="lakeloop models rollback") from error


def running(body: Mapping[str, Any]) -> Rollout | None:
    """The rollout that is under way, or None."""
    found = rollout_of(body)
    return found if found is not None and found.runs else None


def record_of(rollout: Rollout) -> dict[str, Any]:
    """As JSON."""
    plan = rollout.plan
    return {
        "kind": rollout.kind,
        "champion": rollout.champion,
        "challengers": [{"name": c.name, "version": c.version, "weight": c.weight} for c in rollout.challengers],
        "plan": {
            "shadow_s": _seconds(plan.shadow),
            "canary": list(plan.canary),
            "hold_s": _seconds(plan.hold),
            "back_if": list(plan.back_if),
        },
        "started": _note_record(rollout.started),
        "steps": [
            {"stage": one.stage, "weight": one.weight, "revision": one.revision, "at": one.at.isoformat()}
            for one in rollout.steps
        ],
        "paused": _note_record(rollout.paused) if rollout.paused else None,
        "ended": _end_record(rollout.ended) if rollout.ended else None,
    }


def phase_of(body: Mapping[str, Any]) -> int:
    """The revision since which the weights are what they are: replicas count requests by it. 0 outside of a rollout."""
    rollout = running(body)
    return rollout.step.revision if rollout is not None else 0


def arms_of(champion: int, challengers: Sequence[Challenger] = ()) -> list[dict[str, Any]]:
    """The arms of a document: the champion first, which has what the others leave."""
    rest = WHOLE - sum(one.weight for one in challengers)
    others = [{"name": one.name, "version": one.version, "weight": one.weight} for one in challengers]
    return [{"name": CHAMPION, "version": champion, "weight": rest}, *others]


def _read(record: Mapping[str, Any]) -> Rollout:
    plan, paused, ended = record["plan"], record["paused"], record["ended"]
    steps = tuple(
        Step(one["stage"], int(one["weight"]), int(one["revision"]), datetime.fromisoformat(one["at"]))
        for one in record["steps"]
    )
    challengers = tuple(Challenger(c["name"], int(c["version"]), int(c["weight"])) for c in record["challengers"])
    if not steps or not challengers:
        raise ValueError("no step or no challenger")
    return Rollout(
        record["kind"],
        int(record["champion"]),
        challengers,
        Plan(_duration(plan["shadow_s"]), tuple(plan["canary"]), _duration(plan["hold_s"]), tuple(plan["back_if"])),
        _note(record["started"]),
        steps,
        _note(paused) if paused else None,
        End(ended["outcome"], _note(ended), ended["version"]) if ended else None,
    )


def _end_record(end: End) -> dict[str, Any]:
    return {"outcome": end.outcome, "version": end.version, **_note_record(end.note)}


def _note_record(note: Note) -> dict[str, str]:
    return {"who": note.who, "why": note.why, "at": note.at.isoformat()}


def _note(record: Mapping[str, Any]) -> Note:
    return Note(record["who"], record["why"], datetime.fromisoformat(record["at"]))


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
