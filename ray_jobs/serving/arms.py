"""What an endpoint serves at one moment: its arms, each a version of the model with a share of the requests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from lakeloop.lakehouse.endpoints import WHOLE
from lakeloop.lakehouse.errors import Corrupt, Refused
from lakeloop.lakehouse.prediction_log import LogPolicy

if TYPE_CHECKING:
    from lakeloop.lakehouse.documents import Revision
    from lakeloop.lakehouse.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True)
class Arm:
    """One version and its weight, in [0, 10000]."""

    name: str
    version: int
    weight: int
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class Loaded:
    """A revision of an endpoint's document with all that it names in memory."""

    model: str
    revision: int
    arms: tuple[Arm, ...]
    snapshots: Mapping[str, Any] = field(default_factory=dict)
    log: LogPolicy = field(default_factory=LogPolicy)
    log_key: bytes = field(default=b"", repr=False)
    """The lake's key, where something is logged as a hash."""

    @property
    def feature_versions(self) -> dict[str, Any]:
        """By view: the version of the snapshot that is read."""
        return {view: where.get("version") for view, where in self.snapshots.items()}

    @property
    def champion(self) -> Arm:
        """The arm that answers when no other is chosen: the first."""
        return self.arms[0]

    def arm_for(self, endpoint: str, key: str) -> Arm:
        """The arm of a request: the same key has the same one in every process.

        Thresholds are nested: raising the weight of a later arm only moves keys to it.
        """
        if len(self.arms) == 1:
            return self.arms[0]
        place = place_of(endpoint, key)
        reached = WHOLE
        for arm in reversed(self.arms[1:]):
            reached -= arm.weight
            if place >= reached:
                return arm
        return self.arms[0]


Load: TypeAlias = "Callable[[Revision, Loaded | None], Loaded]"
"""Loads what a revision names, taking over from the previous what did not change."""


def place_of(endpoint: str, key: str) -> int:
    """Where a key falls in [0, 10000)."""
    digest = hashlib.blake2b(f"{endpoint}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % WHOLE


@dataclass(frozen=True, slots=True)
class WantedArm:
    """An arm as the endpoint's document names it."""

    name: str
    version: int
    weight: int


def wanted_arms(body: Mapping[str, Any], endpoint: str) -> tuple[WantedArm, ...]:
    """The arms of an endpoint's document, the first of them the champion. Refused when there is none that answers."""
    try:
        arms = tuple(WantedArm(str(arm["name"]), int(arm["version"]), int(arm["weight"])) for arm in body["arms"])
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(
            f"the document of the endpoint {endpoint} names no arms ({error!r})", todo="promote a version again"
        ) from error
    if not any(arm.weight > 0 for arm in arms):
        todo = "run `lakeloop work --once`" if body.get("wanted") else "train and promote a model"
        raise Refused(f"no version answers on the endpoint {endpoint} yet", todo=todo)
    return arms
