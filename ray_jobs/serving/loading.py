"""Loads what an endpoint's document names: each arm's model over its views' snapshots, tried on its own example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from lakeloop.lakehouse import forgetting
from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.errors import Corrupt, LakeloopError
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.prediction_log import LogPolicy
from lakeloop.ray_jobs.serving.arms import Arm, Loaded, WantedArm, wanted_arms

if TYPE_CHECKING:
    from lakeloop.lakehouse.scoring.scorer import Scorer

LoadEndpoint: TypeAlias = Callable[[Lake, str, str, Revision, Loaded | None], Loaded]
"""(lake, project, endpoint, revision, previous) → what the revision names, in memory."""
LoadScorer: TypeAlias = "Callable[[Lake, str, str, int, Mapping[str, Any]], Scorer]"
"""(lake, project, model, version, snapshots) → a scorer; its artifacts are checked against their hashes."""


def load_endpoint(lake: Lake, project: str, endpoint: str, revision: Revision, previous: Loaded | None) -> Loaded:
    """Everything a revision names. Arms whose version and snapshots did not change are taken over from `previous`."""
    from lakeloop.lakehouse.scoring.loading import load_scorer

    return load_with(load_scorer, lake, project, endpoint, revision, previous)


def load_with(
    load: LoadScorer, lake: Lake, project: str, endpoint: str, revision: Revision, previous: Loaded | None
) -> Loaded:
    """`load_endpoint` with any loader of scorers."""
    body = revision.body
    model, snapshots = str(body.get("model", endpoint)), dict(body.get("snapshots", {}))
    kept = kept_scorers(previous, snapshots)

    def arm(wanted: WantedArm) -> Arm:
        scorer = kept.get(wanted.version)
        if scorer is None:
            scorer = load(lake, project, model, wanted.version, snapshots)
            probe(scorer, lake, f"{model}@{wanted.version}")
        return Arm(wanted.name, wanted.version, wanted.weight, scorer)

    policy = LogPolicy.from_json(body.get("log"))
    key = forgetting.secret(lake.store) if policy.hash else b""
    return Loaded(model, revision.number, tuple(map(arm, wanted_arms(body, endpoint))), snapshots, policy, key)


def kept_scorers(previous: Loaded | None, snapshots: Mapping[str, Any]) -> dict[int, Scorer]:
    """Scorers that may go on as they are, by version."""
    if previous is None or previous.snapshots != snapshots:
        return {}
    return {arm.version: arm.scorer for arm in previous.arms}


def probe(scorer: Scorer, lake: Lake, name: str) -> None:
    """Answer the signature's own example once. Corrupt when the model cannot even do that."""
    example = scorer.signature.example
    if not example:
        return
    try:
        scorer.answer([example], lake.clock())
    except (LakeloopError, ValueError, TypeError, KeyError) as error:
        raise Corrupt(
            f"{name} does not answer its own example ({error})", todo="look at its run; promote another version"
        ) from error
