"""What an endpoint serves at one moment: its arms, each a version of the model with a share of the requests.

A row's arm follows from its key alone: the value of the endpoint's sticky input, else the row's id, else the request's.
So one key has one arm, in every process and after every restart, for as long as the revision stands. An arm whose
model fails is answered for by the champion, and counted; one that fails often gives its share to the champion.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from lakeloop.lakehouse.endpoints import WHOLE
from lakeloop.lakehouse.errors import Corrupt, Invalid, Refused, Unavailable
from lakeloop.lakehouse.prediction_log import LogPolicy
from lakeloop.ray_jobs.serving.limits import TooLate
from lakeloop.ray_jobs.serving.tallies import Breaker, Tally

if TYPE_CHECKING:
    from lakeloop.lakehouse.documents import Revision
    from lakeloop.lakehouse.scoring.scorer import Scorer

T = TypeVar("T")
Row: TypeAlias = Mapping[str, Any]
log = logging.getLogger("lakeloop.arms")


@dataclass(frozen=True, slots=True)
class Arm:
    """One version and its weight, in [0, 10000], with what was counted of it."""

    name: str
    version: int
    weight: int
    scorer: Scorer
    snapshots: Mapping[str, Any] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    breaker: Breaker = field(default_factory=Breaker)
    feature_versions: Mapping[str, Any] = field(init=False, repr=False, compare=False)
    """By view: the version of the snapshot that is read."""

    def __post_init__(self) -> None:
        versions = {view: where.get("version") for view, where in self.snapshots.items()}
        object.__setattr__(self, "feature_versions", versions)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A revision of an endpoint's document with all that it names in memory.

    `phase` is the revision since which the weights are what they are: tallies count since then.
    """

    model: str
    revision: int
    arms: tuple[Arm, ...]
    snapshots: Mapping[str, Any] = field(default_factory=dict)
    sticky: str = ""
    phase: int = 0
    log: LogPolicy = field(default_factory=LogPolicy)
    log_key: bytes = field(default=b"", repr=False)
    """The lake's key, where something is logged as a hash."""

    @property
    def champion(self) -> Arm:
        """The arm that answers when no other is chosen: the first."""
        return self.arms[0]

    def arm_for(self, endpoint: str, key: str) -> Arm:
        """The arm of a key: the same in every process.

        Thresholds are nested: raising the weight of a later arm only moves keys to it. An arm whose breaker is open
        has none: the champion stands in.
        """
        if len(self.arms) == 1:
            return self.arms[0]
        place = place_of(endpoint, key)
        reached = WHOLE
        for arm in reversed(self.arms[1:]):
            reached -= arm.weight
            if place >= reached:
                return arm if arm.breaker.lets_through() else self.arms[0]
        return self.arms[0]

    def key_of(self, row: Row, request_id: str) -> str:
        """What keeps a row's arm."""
        value = row.get(self.sticky) if self.sticky else None
        if value is None:
            value = row.get("id")
        return request_id if value is None else key_text(value)

    def split(self, endpoint: str, count: int, key: Callable[[int], str]) -> list[tuple[Arm, Sequence[int]]]:
        """The arms of a request's rows, each with the places of its rows. `key` gives the key of the row at a place."""
        if len(self.arms) == 1:
            return [(self.arms[0], range(count))]
        parts: dict[int, tuple[Arm, list[int]]] = {}
        chosen: dict[str, Arm] = {}
        for place in range(count):
            own = key(place)
            arm = chosen.get(own)
            if arm is None:
                arm = chosen[own] = self.arm_for(endpoint, own)
            parts.setdefault(arm.version, (arm, []))[1].append(place)
        return list(parts.values())

    async def answer(self, arm: Arm, score: Callable[[Arm], Awaitable[T]], *, named: bool = False) -> tuple[Arm, T]:
        """What `score` makes of the arm, and the arm that made it: the champion where another arm's model fails on
        what the champion can answer. What the champion cannot answer is raised, and so is what an arm cannot that was
        asked for by name: its caller wants no other."""
        began = time.perf_counter()
        try:
            answers = await score(arm)
        except Exception as error:
            if not self._stands_in(arm, error, named=named):
                raise
        else:
            self._answered(arm, began)
            return arm, answers
        try:
            answers = await score(self.arms[0])
        except Exception as error:
            self._stood_in(arm, error)
            raise
        self._stood_in(arm, None)
        return self.arms[0], answers

    def _answered(self, arm: Arm, began: float) -> None:
        arm.tally.answered((time.perf_counter() - began) * 1000)
        if arm is not self.arms[0]:
            arm.breaker.note(good=True)

    def _stands_in(self, arm: Arm, error: Exception, *, named: bool) -> bool:
        """Whether the champion is to be asked after this failure. Unavailable is the process's own, such as a full
        disk; but for an answer that came too late: there is no time left for another."""
        if isinstance(error, Unavailable):
            self._unavailable(arm, error)
            return False
        if named or arm is self.arms[0]:
            if not isinstance(error, Invalid):
                arm.tally.failed()
            return False
        if not isinstance(error, Invalid):
            what = "version %d of %s failed on a request; the champion answers it"
            log.error(what, arm.version, self.model, exc_info=error)
        return True

    def _unavailable(self, arm: Arm, error: Unavailable) -> None:
        if not isinstance(error, TooLate):
            arm.breaker.release()
            return
        arm.tally.failed()
        if arm is not self.arms[0]:
            arm.breaker.note(good=False)

    def _stood_in(self, arm: Arm, error: Exception | None) -> None:
        """How the champion did. A request that it refuses as well was wrong, and says nothing about the arm."""
        if error is None:
            arm.tally.failed()
            arm.breaker.note(good=False)
            return
        arm.breaker.release()
        if not isinstance(error, Invalid | Unavailable):
            self.arms[0].tally.failed()


Load: TypeAlias = "Callable[[Revision, Loaded | None], Loaded]"
"""Loads what a revision names, taking over from the previous what did not change."""


def place_of(endpoint: str, key: str) -> int:
    """Where a key falls in [0, 10000)."""
    digest = hashlib.blake2b(f"{endpoint}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % WHOLE


def key_text(value: Any) -> str:
    """A key as text: 7, 7.0 and "7" are one."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)


@dataclass(frozen=True, slots=True)
class WantedArm:
    """An arm as the endpoint's document names it. `snapshots`: its own, where they are not the champion's."""

    name: str
    version: int
    weight: int
    snapshots: Mapping[str, Any] | None = None


def wanted_arms(body: Mapping[str, Any], endpoint: str) -> tuple[WantedArm, ...]:
    """The arms of an endpoint's document, the first of them the champion. Refused when there is none that answers."""
    try:
        arms = tuple(
            WantedArm(str(arm["name"]), int(arm["version"]), int(arm["weight"]), arm.get("snapshots"))
            for arm in body["arms"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(
            f"the document of the endpoint {endpoint} names no arms ({error!r})", todo="promote a version again"
        ) from error
    if not any(arm.weight > 0 for arm in arms):
        todo = "run `lakeloop work --once`" if body.get("wanted") else "train and promote a model"
        raise Refused(f"no version answers on the endpoint {endpoint} yet", todo=todo)
    if sum(arm.weight for arm in arms) != WHOLE or any(arm.weight < 0 for arm in arms):
        weights = ", ".join(str(arm.weight) for arm in arms)
        raise Corrupt(
            f"the weights of the endpoint {endpoint} ({weights}) do not add up to {WHOLE}",
            todo="promote a version again",
        )
    return arms
