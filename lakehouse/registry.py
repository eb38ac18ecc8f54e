"""The model registry: one document per version, so that its history says who changed its status, when and why.

A version is never changed but for its status. `body` holds: run, learner, artifacts (key, sha256, name, size), metrics,
lineage, params, environment, model_hash. Which version is meant to answer is not here but in the endpoint's document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.lake import Lake

if TYPE_CHECKING:
    from lakeloop.lakehouse.scoring.signature import Signature

KIND = "models"
Status: TypeAlias = Literal["registered", "champion", "waiting", "refused", "retired", "barred"]


def version_id(project: str, model: str, number: int) -> str:
    return f"{project}.{model}.{number}"


def register(lake: Lake, project: str, model: str, run: str, body: Mapping[str, Any]) -> int:
    """The number of the version that this run made; the same run again gets the same number, and changes nothing."""
    while True:
        there = numbers(lake, project, model)
        for number in reversed(there):
            if version(lake, project, model, number).body["run"] == run:
                return number
        number = there[-1] + 1 if there else 1
        record = {**body, "run": run, "project": project, "model": model, "version": number, "status": "registered"}
        try:
            lake.documents.create(KIND, version_id(project, model, number), record, f"registered by run {run}")
        except LostRace:  # another run took the number, or this run did in another process: look again
            continue
        return number


def version(lake: Lake, project: str, model: str, number: int) -> Revision:
    """The newest revision of a version; NotFound names those there are."""
    found = lake.documents.latest(KIND, version_id(project, model, number))
    if found is None:
        there = numbers(lake, project, model)
        todo = f"there are {there[0]} to {there[-1]}" if there else f"train it: lakeloop train {model}"
        raise NotFound(f"the model {model} has no version {number}", where=project, todo=todo)
    return found


def numbers(lake: Lake, project: str, model: str) -> list[int]:
    """The versions' numbers, ascending: one LIST."""
    prefix = f"{project}.{model}."
    return sorted(int(found.removeprefix(prefix)) for found in lake.documents.ids(KIND, prefix))


def versions(lake: Lake, project: str, model: str) -> list[Revision]:
    """Every version, newest first: one LIST, and a LIST and a GET for each."""
    return [version(lake, project, model, number) for number in reversed(numbers(lake, project, model))]


def set_status(lake: Lake, project: str, model: str, number: int, status: Status, why: str) -> Revision:
    """Change a version's status; to the one it has, changes nothing. Decided anew when another change came first."""
    while True:
        current = version(lake, project, model, number)
        if current.body["status"] == status:
            return current
        try:
            return lake.documents.update(current, {**current.body, "status": status}, why)
        except LostRace:
            continue


def signature(lake: Lake, project: str, model: str, number: int) -> Signature:
    """The signature of a version, checked against its hash: a LIST and two GETs."""
    from lakeloop.lakehouse.scoring.loading import signature_of

    return signature_of(lake, version(lake, project, model, number).body)


def metric(body: Mapping[str, Any], name: str, *, subject: str = "model", part: str = "") -> Mapping[str, Any] | None:
    """A metric of a version's test part, or of one slice: value, low, high, rows; None when it was not measured."""
    wanted = (subject, name, part)
    return next((one for one in body["metrics"] if (one["subject"], one["metric"], one["slice"]) == wanted), None)
