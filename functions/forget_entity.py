"""`forget`: an entity leaves the lake, and what comes late cannot bring it back.

The tombstone comes first. Writers that saw it leave the entity's rows out; a commit of one that did not meets the
commit that is made here to every table that could hold them, and is refused. Then everything that holds the entity is
rewritten or deleted at once, whatever pins or retention say, and is looked at once more. Safe to kill: a second call
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import chain
from typing import Any

from lakeloop.functions.forget_artifacts import forget_artifacts
from lakeloop.functions.forget_documents import forget_documents, forget_names
from lakeloop.functions.forget_examples import lost_examples
from lakeloop.functions.forget_files import forget_files, forget_quarantined_segments
from lakeloop.functions.forget_online import forget_online
from lakeloop.functions.forget_subject import Held, Subject
from lakeloop.functions.forget_tables import forget_journals, forget_tables
from lakeloop.functions.maintain_lake import table_names
from lakeloop.lakehouse import applied, forgetting
from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.forgetting import KIND, Entity, Tombstones
from lakeloop.lakehouse.lake import Lake

STEPS: tuple[Callable[[Subject], Iterator[Held]], ...] = (
    forget_files,
    forget_journals,
    forget_tables,
    forget_quarantined_segments,
    forget_online,
    forget_artifacts,
    forget_documents,
    forget_names,
)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was done: every place that was rewritten, and those that still hold the entity."""

    tombstone: str
    done: tuple[Held, ...]
    left: tuple[Held, ...]


def find_entity(lake: Lake, entity: Entity, *, progress: Callable[[Held], None] | None = None) -> list[Held]:
    """Every place that holds an entity; nothing is changed. Invalid when no table has such a column."""
    check_columns(lake, entity)
    key = forgetting.known_secret(lake.store) or b"-" * forgetting.KEY_BYTES  # any, where nothing is hashed yet
    return _told(_look(_subject(lake, entity, forgetting.Tombstones(key))), progress)


def forget_entity(
    lake: Lake, entity: Entity, *, why: str = "", progress: Callable[[Held], None] | None = None
) -> Forgotten:
    """Forget an entity. Safe to repeat, and to go on after a kill."""
    check_columns(lake, entity)
    key = forgetting.secret(lake.store)
    subject = _subject(lake, entity, Tombstones(key))
    tombstone = _bury(subject, str(subject.trace.blotted(why)))
    subject = replace(
        _subject(lake, entity, Tombstones(key), tombstone.body["ids"]),
        dry=False,
        fresh=tombstone.body["status"] != "done",
    )
    done = _told(chain.from_iterable(step(subject) for step in STEPS), progress)
    left = list(_look(replace(subject, dry=True)))
    if not left or all(one.cannot for one in left):
        _close(lake, tombstone, done)
    return Forgotten(subject.id, tuple(one for one in done if not one.cannot), tuple(left))


def check_columns(lake: Lake, entity: Entity) -> None:
    """Invalid for a column that no table, source or journal has, with the names that are near."""
    known = set[str]()
    for name in applied.names(lake):
        for source in applied.load(lake, name)[0].sources.values():
            known |= set(source.columns)
    missing = [name for name in entity.columns if name not in known]
    if missing:
        for name in table_names(lake):
            table = lake.table(name)
            known |= set(table.schema.names) if table is not None else set()
    for name in missing:
        if name not in known:
            near = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
            todo = f"did you mean {' or '.join(near)}?" if near else "name a column of a source"
            raise Invalid(f"no table has a column {name!r}", where=lake.url, todo=todo)


def _subject(lake: Lake, entity: Entity, key: Tombstones, ids: Mapping[str, list[str]] | None = None) -> Subject:
    alone = forgetting.only(key.key, entity, ids or {})
    subject = Subject(lake, entity, alone, dry=True)
    if ids is not None:
        return subject
    lost = {model: [alone.of_id(one) for one in found] for model, found in lost_examples(subject)}
    return replace(subject, tombstones=forgetting.only(key.key, entity, lost))


def _bury(subject: Subject, why: str) -> Revision:
    """The tombstone, with the hashes of the ids that are told today and were told before."""
    lake, ids = subject.lake, {name: sorted(found) for name, found in subject.tombstones.ids.items()}
    body: dict[str, Any] = {"columns": list(subject.entity.columns), "ids": ids, "status": "started", "held": {}}
    while True:
        there = lake.documents.latest(KIND, subject.id)
        try:
            if there is None:
                return lake.documents.create(KIND, subject.id, body, why)
            before = there.body["ids"]
            both = {name: sorted({*before.get(name, ()), *ids.get(name, ())}) for name in {*before, *ids}}
            if both == before:
                return there
            return lake.documents.update(there, {**there.body, "ids": both}, why or there.why)
        except LostRace:
            continue


def _close(lake: Lake, tombstone: Revision, done: list[Held]) -> None:
    """How much was held where, by kind; no name and no value."""
    while tombstone.body["status"] != "done" or done:
        held = dict(tombstone.body["held"])
        for one in done:
            held[one.kind] = held.get(one.kind, 0) + one.rows
        try:
            lake.documents.update(tombstone, {**tombstone.body, "status": "done", "held": held}, tombstone.why)
            return
        except LostRace as race:
            tombstone = race.won


def _look(subject: Subject) -> Iterator[Held]:
    return chain.from_iterable(step(subject) for step in STEPS)


def _told(found: Iterator[Held], progress: Callable[[Held], None] | None) -> list[Held]:
    done = []
    for one in found:
        done.append(one)
        if progress:
            progress(one)
    return done
