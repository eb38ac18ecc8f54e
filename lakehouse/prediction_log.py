"""The policy of an endpoint's prediction log: what of an answer is logged, and what happens when it cannot be.

A policy is what a model declares (`[serving] log`, `private`), as the endpoint's document carries it to the replicas:
so that all of them follow a change without a restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.prediction_columns import HASHED
from lakeloop.lakehouse.project.definitions import Model, Privacy, Project

WHOLE = 1 << 64


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """What of an endpoint's answers is logged, and what happens when it cannot be.

    `drop` and `hash` name inputs. `sync`: an answer waits until its rows are in the lake. `full`: the folder holds
    `disk_bytes` already, or the disk takes no more; the request is refused, or its rows are dropped and counted.
    """

    sample: float = 1.0
    drop: frozenset[str] = field(default_factory=frozenset)
    hash: frozenset[str] = field(default_factory=frozenset)
    sync: bool = False
    full: Literal["refuse", "drop"] = "refuse"
    disk_bytes: int = 1 << 30
    everything: bool = field(init=False, repr=False, compare=False)
    """Whether every input of every answer is logged as it is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "everything", self.sample >= 1 and not self.drop and not self.hash)

    @property
    def hidden(self) -> frozenset[str]:
        """Inputs whose values are not in the log."""
        return self.drop | self.hash

    def wants(self, request_id: str) -> bool:
        """Whether a request is in the sample: the same id is, or is not, in every process, and at every try."""
        if self.sample >= 1:
            return True
        digest = hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"log sample")
        return int.from_bytes(digest.digest(), "big") < self.sample * WHOLE

    def to_json(self) -> dict[str, Any]:
        """As the endpoint's document holds it."""
        return {
            "sample": self.sample,
            "drop": sorted(self.drop),
            "hash": sorted(self.hash),
            "sync": self.sync,
            "full": self.full,
            "disk_bytes": self.disk_bytes,
        }

    @staticmethod
    def from_json(body: Mapping[str, Any] | None) -> LogPolicy:
        """From a document; the default where an older release wrote none."""
        if not body:
            return LogPolicy()
        try:
            return LogPolicy(
                float(body["sample"]),
                frozenset(map(str, body["drop"])),
                frozenset(map(str, body["hash"])),
                bool(body["sync"]),
                "drop" if body["full"] == "drop" else "refuse",
                int(body["disk_bytes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(
                f"an endpoint's document has no sound log policy ({error!r})", todo="run `lakeloop apply`"
            ) from error


def log_policy(project: Project, model: Model) -> LogPolicy:
    """What a model declares. An input that is called like a private column of a source is as private as that."""
    declared = model.serving.log
    private = private_inputs(project, model)
    return LogPolicy(
        declared.sample,
        frozenset(declared.drop) | {name for name, how in private.items() if how == "drop"},
        frozenset(name for name, how in private.items() if how == "hash") - frozenset(declared.drop),
        declared.mode == "sync",
        declared.on_full,
        declared.disk,
    )


def private_inputs(project: Project, model: Model) -> dict[str, Privacy]:
    """By name: what the model's request says of its inputs, and what the sources say of columns of other names.

    `drop` wins where two sources differ. A name may be one that the model does not take.
    """
    found: dict[str, Privacy] = {}
    for source in project.sources.values():
        for column in source.columns.values():
            if column.private is not None and found.get(column.name) != "drop":
                found[column.name] = column.private
    own = {name: one.private for name, one in model.inputs.request.items() if one.private is not None}
    return {**found, **own}


def withheld(project: Project, model: Model) -> list[str]:
    """Inputs of the request that the log does not hold as they were sent, so that nothing can be scored from it."""
    policy = log_policy(project, model)
    return sorted(name for name in model.inputs.request if name in policy.drop | policy.hash)


def logged_as(name: str, policy: LogPolicy) -> str | None:
    """What an input is called in the log; None where it is not logged."""
    if name in policy.drop:
        return None
    return name + HASHED if name in policy.hash else name
