"""Loads what an endpoint's document names: each arm's model over its views' snapshots, tried on its own example."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from lakeloop.lakehouse import forgetting
from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.errors import Corrupt, LakeloopError
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.prediction_log import LogPolicy
from lakeloop.lakehouse.rollouts.state import phase_of
from lakeloop.ray_jobs.serving.arms import Arm, Loaded, WantedArm, wanted_arms
from lakeloop.ray_jobs.serving.tallies import Breaker, Tally

if TYPE_CHECKING:
    from lakeloop.lakehouse.scoring.scorer import Scorer

LoadEndpoint: TypeAlias = Callable[[Lake, str, str, Revision, Loaded | None], Loaded]
"""(lake, project, endpoint, revision, previous) → what the revision names, in memory."""
LoadScorer: TypeAlias = "Callable[[Lake, str, str, int, Mapping[str, Any]], Scorer]"
"""(lake, project, model, version, snapshots) → a scorer; its artifacts are checked against their hashes."""

WARM_CALLS = 20
WARM_S = 0.5
"""A new model answers its example so often, or for so long, before it answers a caller."""


def load_endpoint(lake: Lake, project: str, endpoint: str, revision: Revision, previous: Loaded | None) -> Loaded:
    """Everything a revision names. Arms whose version and snapshots did not change are taken over from `previous`."""
    from lakeloop.lakehouse.scoring.loading import load_scorer

    return load_with(load_scorer, lake, project, endpoint, revision, previous)


def load_with(
    load: LoadScorer, lake: Lake, project: str, endpoint: str, revision: Revision, previous: Loaded | None
) -> Loaded:
    """`load_endpoint` with any loader of scorers.

    Tallies go on while the phase stays; a breaker goes on with its version.
    """
    body = revision.body
    model, snapshots, phase = str(body.get("model", endpoint)), dict(body.get("snapshots", {})), phase_of(body)
    before = {arm.version: arm for arm in previous.arms} if previous is not None else {}
    goes_on = previous is not None and previous.phase == phase

    def arm(wanted: WantedArm) -> Arm:
        own = snapshots if wanted.snapshots is None else dict(wanted.snapshots)
        kept = before.get(wanted.version)
        if kept is not None and kept.snapshots == own:
            scorer = kept.scorer
        else:
            scorer = load(lake, project, model, wanted.version, own)
            warm(scorer, lake, f"{model}@{wanted.version}")
        tally = kept.tally if kept is not None and goes_on else Tally()
        breaker = kept.breaker if kept is not None else Breaker()
        return Arm(wanted.name, wanted.version, wanted.weight, scorer, own, tally, breaker)

    arms = tuple(map(arm, wanted_arms(body, endpoint)))
    policy = LogPolicy.from_json(body.get("log"))
    key = forgetting.secret(lake.store) if policy.hash else b""
    sticky = str(body.get("sticky", ""))
    return Loaded(model, revision.number, arms, snapshots, sticky, phase, policy, key)


def warm(scorer: Scorer, lake: Lake, name: str) -> None:
    """Answer the signature's own example, then again and again for a moment: first calls are slow.

    Corrupt when the model cannot even do that.
    """
    example = scorer.signature.example
    if not example:
        return
    until = time.monotonic() + WARM_S
    try:
        for _ in range(WARM_CALLS):
            scorer.answer([example], lake.clock())
            if time.monotonic() > until:
                break
    except (LakeloopError, ValueError, TypeError, KeyError) as error:
        raise Corrupt(
            f"{name} does not answer its own example ({error})", todo="look at its run; promote another version"
        ) from error
