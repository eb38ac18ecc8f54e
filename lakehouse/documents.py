"""Documents: small JSON records that must be agreed on, kept as a row of revisions that nobody overwrites.

A change creates the next revision with put-if-absent: the create is the compare-and-swap. Reading the newest is a
LIST of one key and a GET, however long the history. Each write carries a random id, so that after a lost answer a
writer recognises its own success.
"""

from __future__ import annotations

import json
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import (
    AlreadyExists,
    Conflict,
    Corrupt,
    Invalid,
    LakeloopError,
    NoAnswer,
    NotFound,
    Unavailable,
    Unknown,
)
from lakeloop.lakehouse.store import Store


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of a document, and how it came to be."""

    kind: str
    id: str
    number: int
    at: datetime
    who: str
    why: str
    body: Mapping[str, Any]
    write: str = ""
    """Random id of the write that made it."""


class LostRace(Conflict):
    """A document was changed by another first; `won` is what it is now."""

    def __init__(self, won: Revision) -> None:
        super().__init__(
            f"{won.kind}/{won.id} was changed by {won.who} ({won.why or 'no reason given'})",
            where=f"revision {won.number}",
            todo="load it again and decide again",
        )
        self.won = won


class Documents:
    """All documents of a lake. `clock` gives UTC times, `who` signs what is written."""

    def __init__(self, store: Store, clock: Callable[[], datetime], who: str) -> None:
        self._store, self._clock, self._who = store, clock, who

    def latest(self, kind: str, doc_id: str) -> Revision | None:
        """The newest revision, or None: one LIST of one key, one GET."""
        first = next(iter(self._store.list(keys.revisions(kind, doc_id), limit=1)), None)
        if first is None:
            return None
        number = keys.revision_number(first.key) or next(self._numbers(kind, doc_id), 0)
        return self._read(kind, doc_id, number) if number else None

    def get(self, kind: str, doc_id: str) -> Revision:
        """The newest revision, or NotFound."""
        found = self.latest(kind, doc_id)
        if found is None:
            raise NotFound(f"there is no {kind} {doc_id!r}")
        return found

    def create(self, kind: str, doc_id: str, body: Mapping[str, Any], why: str = "") -> Revision:
        """The first revision; LostRace (a Conflict) if the document is there."""
        return self._write(kind, doc_id, 1, None, body, why)

    def update(self, previous: Revision, body: Mapping[str, Any], why: str = "") -> Revision:
        """The revision after `previous`; LostRace (a Conflict) if it is no longer the newest."""
        return self._write(previous.kind, previous.id, previous.number + 1, previous.at, body, why)

    def next(self, kind: str, doc_id: str, number: int) -> Revision | None:
        """The revision after `number` if there is one already: one GET, the cheapest way to poll."""
        try:
            return self._read(kind, doc_id, number + 1)
        except NotFound:
            return None

    def history(self, kind: str, doc_id: str) -> list[Revision]:
        """Every revision, newest first: one GET each."""
        return [self._read(kind, doc_id, number) for number in self._numbers(kind, doc_id)]

    def as_of(self, kind: str, doc_id: str, at: datetime) -> Revision | None:
        """What was true at a moment: the newest revision made at or before it.

        Times never decrease along revisions, so it is searched by halves: one LIST of one key, and of n revisions at
        most log2(n) + 2 GETs.
        """
        newest = self.latest(kind, doc_id)
        if newest is None or newest.at <= at:
            return newest
        seen: dict[int, Revision] = {}

        def time_of(number: int) -> datetime:
            seen[number] = self._read(kind, doc_id, number)
            return seen[number].at

        return seen.get(bisect_right(range(1, newest.number), at, key=time_of))

    def ids(self, kind: str, prefix: str = "") -> list[str]:
        """Ids of all documents of a kind that begin with `prefix`, sorted: one LIST."""
        root = keys.documents(kind)
        return sorted(
            entry.key[len(root) : -1]
            for entry in self._store.list(root + prefix, delimiter="/")
            if entry.key.endswith("/")
        )

    def kinds(self) -> list[str]:
        return [entry.key.split("/")[1] for entry in self._store.list("docs/", delimiter="/")]

    def _write(
        self, kind: str, doc_id: str, number: int, after: datetime | None, body: Mapping[str, Any], why: str
    ) -> Revision:
        now = self._clock()
        at = max(now, after + timedelta(milliseconds=1)) if after else now
        mine = Revision(kind, doc_id, number, at, self._who, why, body, uuid.uuid4().hex)
        data = _encoded(mine)
        try:
            self._store.put(keys.revision(kind, doc_id, number), data, if_absent=True)
        except (AlreadyExists, Unknown, Unavailable) as doubt:
            there = self._look(doubt, mine)
            if there.write != mine.write:
                raise LostRace(there) from doubt
        return mine

    def _look(self, doubt: LakeloopError, mine: Revision) -> Revision:
        """The revision that stands where `mine` may have been written; else the doubt as what it is: nothing was
        written (Unavailable), or nobody can say (Unknown)."""
        try:
            return self._read(mine.kind, mine.id, mine.number)
        except NotFound:
            raise doubt from None
        except Unavailable:
            if not isinstance(doubt, NoAnswer):
                raise doubt from None
        raise Unknown(
            f"revision {mine.number} of {mine.kind}/{mine.id} may or may not have been written",
            where=self._store.url,
            todo="load it when the store answers again, and look",
        ) from doubt

    def _numbers(self, kind: str, doc_id: str) -> Iterator[int]:
        """Newest first. A file that some other tool left among the revisions is none."""
        for entry in self._store.list(keys.revisions(kind, doc_id)):
            if number := keys.revision_number(entry.key):
                yield number

    def _read(self, kind: str, doc_id: str, number: int) -> Revision:
        key = keys.revision(kind, doc_id, number)
        try:
            return _decoded(self._store.get(key), kind, doc_id, number)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Corrupt(
                f"the document {key} cannot be read ({type(error).__name__})",
                where=self._store.url,
                todo="restore the object from a copy of the lake",
            ) from error


def _encoded(revision: Revision) -> bytes:
    record = {
        "write": revision.write,
        "at": revision.at.isoformat(),
        "who": revision.who,
        "why": revision.why,
        "body": revision.body,
    }
    try:
        return json.dumps(record).encode()
    except (TypeError, ValueError) as error:
        raise Invalid(
            f"{revision.kind}/{revision.id} cannot be written as JSON: {error}", todo="use texts, numbers, lists, dicts"
        ) from error


def _decoded(data: bytes, kind: str, doc_id: str, number: int) -> Revision:
    """ValueError, KeyError or TypeError for bytes that are no revision."""
    record = json.loads(data)
    at = datetime.fromisoformat(record["at"])
    texts = [record[name] for name in ("write", "who", "why")]
    if at.tzinfo is None or not isinstance(record["body"], dict) or not all(isinstance(one, str) for one in texts):
        raise ValueError("wrong shape")
    return Revision(kind, doc_id, number, at, record["who"], record["why"], record["body"], record["write"])
