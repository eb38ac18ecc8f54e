"""Applied projects: a project's texts as a document, so that any process reads what a person applied."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.project.bound import Bound
from lakeloop.lakehouse.project.definitions import Gate

KIND = "projects"
_BOUND: dict[str, Bound] = {}


def publish(
    lake: Lake, project: Project, *, code_version: str, why: str = "", environment: str | None = None
) -> tuple[Revision, bool]:
    """Make this definition the one in force; returns its revision and whether anything changed. Safe to repeat.

    `environment` says which of the project's this lake is; None leaves that as it is.
    """
    body = {
        "files": dict(project.files),
        "hash": project.hash,
        "code_version": code_version,
        "goal": project.goal,
        "owner": project.owner,
    }
    while True:
        current = lake.documents.latest(KIND, project.name)
        before = str(current.body.get("environment", "")) if current is not None else ""
        body["environment"] = before if environment is None else environment
        if current is not None and (current.body["hash"], before) == (project.hash, body["environment"]):
            return current, False
        try:
            if current is None:
                return lake.documents.create(KIND, project.name, body, why), True
            return lake.documents.update(current, body, why), True
        except LostRace:  # somebody applied at the same moment; ours comes after, unless it is the same
            continue


def load(lake: Lake, name: str) -> tuple[Project, Revision]:
    """The definition in force, or NotFound with the way out."""
    current = lake.documents.latest(KIND, name)
    if current is None:
        raise NotFound(f"no project {name!r} is applied", where=lake.url, todo="run `lakeloop apply` in its folder")
    return parse(current.body["hash"], current.body["files"]), current


def load_hash(lake: Lake, name: str, definition: str) -> Project:
    """An older definition by its hash, as a model that was trained under it needs it."""
    for revision in lake.documents.history(KIND, name):
        if revision.body["hash"] == definition:
            return parse(definition, revision.body["files"])
    raise NotFound(f"the project {name!r} was never applied as {definition[:12]}", where=lake.url)


def approvers(lake: Lake, project: str, gate: Gate) -> tuple[str, ...]:
    """Who must approve a version here: what the environment of this lake says, else the model's gate."""
    definition, revision = load(lake, project)
    here = definition.environments.get(str(revision.body.get("environment", "")))
    return gate.approve if here is None or here.approve is None else here.approve


def bound(project: Project) -> Bound:
    """The project with its SQL bound; kept, since the same definition always binds to the same."""
    found = _BOUND.get(project.hash)
    if found is None:
        from lakeloop.lakehouse.project.binding import bind

        found = _BOUND[project.hash] = bind(project)
    return found


def names(lake: Lake) -> list[str]:
    return lake.documents.ids(KIND)


def parse(definition: str, files: Mapping[str, str]) -> Project:
    return _parsed(definition, tuple(sorted(files.items())))


@lru_cache(maxsize=16)
def _parsed(definition: str, files: tuple[tuple[str, str], ...]) -> Project:
    return parse_project(dict(files))
