"""Freezes: a person stops retraining, promotion and rollout of a model, and says why."""

from __future__ import annotations

from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.lake import Lake

KIND = "freezes"


def freeze(lake: Lake, project: str, model: str, *, frozen: bool, why: str) -> Revision:
    """Set or lift the freeze of a model; LostRace (a Conflict) when somebody else did at the same moment."""
    doc = f"{project}.{model}"
    current = lake.documents.latest(KIND, doc)
    if current is None:
        return lake.documents.create(KIND, doc, {"frozen": frozen}, why)
    if current.body["frozen"] == frozen:
        return current
    return lake.documents.update(current, {"frozen": frozen}, why)


def frozen(lake: Lake, project: str, model: str) -> Revision | None:
    """The freeze in force, with who and why, or None."""
    current = lake.documents.latest(KIND, f"{project}.{model}")
    return current if current is not None and current.body["frozen"] else None
