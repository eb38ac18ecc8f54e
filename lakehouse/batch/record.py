"""Batch predictions as documents: one per request, whose newest revision is its newest batch.

A request is what a person asks for (a model, rows, an output table); a batch answers it once. All that its answer rests
on is fixed when it begins: the version, the moment, the versions of the tables, and its parts. So it can be continued
by anyone, and the table it goes to says which parts it holds (`_part`). The same request begins another batch only when
the one before is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

from lakeloop.lakehouse import pins
from lakeloop.lakehouse.artifacts import Artifact
from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.lake import Lake

KIND = "batches"
BATCH, PART = "_batch", "_part"
TRIES = 20
"""How often a commit to an output is tried again that lost a race."""
Status: TypeAlias = Literal["open", "done", "abandoned"]


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What is asked for. `version` None is the champion; `as_of` None the rows' own moments, else now.

    `rows` names them: "table flights", "query select …", "file rows.parquet#<hash>".
    """

    project: str
    model: str
    rows: str
    output: str
    version: int | None = None
    as_of: datetime | None = None
    keep: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The same request has the same document."""
        moment = self.as_of.isoformat() if self.as_of else ""
        told = json.dumps([self.rows, self.output, self.version, moment, sorted(self.keep)])
        return f"{self.project}.{self.model}.{hashlib.sha256(told.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class StagedPart:
    """Some of the rows, as a Parquet file that this batch owns."""

    artifact: Artifact
    rows: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One answer to a request. `output` is `project/table`; `kept` the columns it copies from the rows.

    `tables` are the versions of what the rows were read from, `features` of what features are looked up in; with
    `from_sources` the views are computed by the model's own `definition`, since those that are built follow a newer.
    """

    id: str
    project: str
    model: str
    version: int
    model_hash: str
    definition: str
    rows_from: str
    as_of: datetime
    output: str
    kept: tuple[str, ...]
    tables: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, int] = field(default_factory=dict)
    from_sources: bool = False
    parts: tuple[StagedPart, ...] = ()
    status: Status = "open"
    began: datetime | None = None
    """When the batch was opened by the clock of who did."""

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def owner(self) -> str:
        """In whose name it holds pins."""
        return f"batch {self.id}"

    def mark(self, number: int) -> str:
        """What stands in `_part` of every row of a part."""
        return f"{self.id}#{number:05d}"

    def answers_too(self, other: Batch) -> bool:
        """Whether this batch is done, and another would read the same rows and features with the same version."""
        mine = (self.version, self.model_hash, self.tables, self.features, self.from_sources, self.kept)
        theirs = (other.version, other.model_hash, other.tables, other.features, other.from_sources, other.kept)
        return self.status == "done" and mine == theirs

    def to_json(self) -> dict[str, Any]:
        moments = {"as_of": self.as_of.isoformat(), "began": self.began.isoformat() if self.began else None}
        return {**asdict(self), **moments}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Batch:
        fields = dict(body)
        try:
            fields["as_of"] = datetime.fromisoformat(fields["as_of"])
            fields["began"] = datetime.fromisoformat(fields["began"]) if fields["began"] else None
            fields["kept"] = tuple(fields["kept"])
            parts = fields["parts"]
            fields["parts"] = tuple(StagedPart(Artifact.from_json(one["artifact"]), one["rows"]) for one in parts)
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"the record of a batch cannot be read ({error!r})", todo="use a newer lakeloop") from error


def newest(lake: Lake, request: BatchRequest) -> tuple[Revision, Batch] | None:
    """The newest batch of a request, with the revision that says so: one LIST of one key, one GET."""
    found = lake.documents.latest(KIND, request.id)
    return (found, Batch.from_json(found.body)) if found is not None else None


def next_id(request: BatchRequest, previous: Batch | None) -> str:
    """The id of the batch after another: `<request>-1`, `-2`, …"""
    number = int(previous.id.rpartition("-")[2]) + 1 if previous else 1
    return f"{request.id}-{number}"


def begin(lake: Lake, request: BatchRequest, batch: Batch, previous: Revision | None) -> Batch:
    """Open a batch. LostRace (a Conflict) when another began one meanwhile."""
    opened = replace(batch, began=lake.clock())
    why = f"{opened.rows:,} rows for {opened.output}"
    if previous is None:
        lake.documents.create(KIND, request.id, opened.to_json(), why)
    else:
        lake.documents.update(previous, opened.to_json(), why)
    return opened


def close(lake: Lake, request: BatchRequest, batch: Batch, status: Status) -> None:
    """A batch is over. Safe to repeat, and to do twice."""
    while (found := newest(lake, request)) is not None and found[1].id == batch.id and found[1].status == "open":
        revision, there = found
        with suppress(LostRace):  # another said so at the same moment
            lake.documents.update(revision, replace(there, status=status).to_json(), f"{batch.id} is {status}")


def let_go(lake: Lake, batch: Batch) -> None:
    """What a batch has staged goes, and what it held is free. Safe to repeat."""
    lake.artifacts.delete(KIND, batch.id)
    if batch.features:
        pins.release(lake, batch.owner)
