"""`roll_out`: brings each endpoint from what is served to what is wanted: the champion's version, and the newest
snapshots of its views.

This release knows one step, all of the traffic at once; replicas load, verify and probe a version before it answers,
and keep the old one until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lakeloop.functions.build_features import ONLINE, online_id
from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.freezing import frozen
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project


@dataclass(frozen=True, slots=True)
class RolledOut:
    """An endpoint that was changed: to which version, at which revision of its document."""

    model: str
    version: int
    before: int | None
    revision: int


def roll_out(lake: Lake, project: Project) -> list[RolledOut]:
    """Close the difference for every endpoint of a project.

    A frozen model keeps its version but still gets fresh snapshots.
    """
    done = []
    for model in project.models:
        there = endpoints.endpoint(lake, project.name, model)
        if there is not None:
            changed = _roll_out(lake, project, model, there)
            if changed:
                done.append(changed)
    return done


def _roll_out(lake: Lake, project: Project, model: str, there: Revision) -> RolledOut | None:
    served = int(there.body["arms"][0]["version"]) if there.body["arms"] else None
    wanted = int(there.body["wanted"])
    if served is not None and served != wanted and frozen(lake, project.name, model):
        wanted = served
    snapshots = _snapshots(lake, project, model, wanted)
    if served == wanted and dict(there.body["snapshots"]) == snapshots:
        return None
    why = "new snapshots" if served == wanted else f"champion is version {wanted}"
    try:
        now = endpoints.serve(lake, there, wanted, snapshots, why)
    except LostRace:
        return None  # somebody decided anew; the next sweep looks again
    return RolledOut(model, wanted, served, now.number)


def _snapshots(lake: Lake, project: Project, model: str, version: int) -> dict[str, dict[str, Any]]:
    """The newest snapshot of each view, in the version of the view that the model was trained with."""
    found = {}
    trained_with: dict[str, str] = registry.version(lake, project.name, model, version).body["lineage"]["views"]
    for view, rules in trained_with.items():
        built = lake.documents.latest(ONLINE, online_id(project.name, view, rules))
        if built is not None:
            found[view] = {name: built.body[name] for name in ("version", "key", "sha256")}
    return found
