"""Proves that a store keeps the promises everything rests on, with a few requests, before a lake is made in it."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import AlreadyExists, Corrupt, Invalid, NotFound, Unknown
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.store import Store

RACERS = 8
LAKE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Proof:
    """One promise, and whether the store kept it."""

    promise: str
    held: bool
    detail: str = ""


def probe(store: Store) -> list[Proof]:
    """Try each promise below `_lake/probe/`, and clean up. Errors of the store itself (Denied, Unavailable, NotFound)
    are raised."""
    root = f"_lake/probe/{uuid.uuid4().hex}"
    try:
        return [
            _create_once(store, f"{root}/once"),
            _one_winner(store, f"{root}/race"),
            _reads_own_write(store, root),
            _lists_own_write(store, root),
        ]
    finally:
        store.delete([entry.key for entry in store.list(root)])


def init_lake(lake: Lake) -> tuple[list[Proof], bool]:
    """Make a lake, or find that it is one. Invalid when the store does not keep its promises. Returns the proofs and
    whether it was made now."""
    if is_lake(lake):
        return [], False
    proofs = probe(lake.store)
    broken = [proof for proof in proofs if not proof.held]
    if broken:
        raise Invalid(
            f"this store cannot hold a lake: {'; '.join(f'{p.promise}: {p.detail}' for p in broken)}",
            where=lake.url,
            todo="use a store that honours If-None-Match on PUT (AWS S3, MinIO, Cloudflare R2, …), or a folder",
        )
    record = {
        "format": LAKE_FORMAT,
        "write": uuid.uuid4().hex,
        "made": lake.clock().isoformat(),
        "by": lake.who,
        "proved": [proof.promise for proof in proofs],
    }
    return proofs, _created(lake.store, keys.FORMAT, json.dumps(record).encode())


def is_lake(lake: Lake) -> bool:
    """Whether a lake was made here; Invalid when it is of a later format."""
    try:
        record = json.loads(lake.store.get(keys.FORMAT))
    except NotFound as error:
        if "bucket" in error.what:
            raise
        return False
    except ValueError as error:
        raise _unreadable(lake) from error
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise _unreadable(lake)
    if record["format"] > LAKE_FORMAT:
        raise Invalid(
            f"this lake has format {record['format']}, newer than this lakeloop knows",
            where=lake.url,
            todo="install a newer lakeloop",
        )
    return True


def _unreadable(lake: Lake) -> Corrupt:
    return Corrupt(f"{keys.FORMAT} cannot be read", where=lake.url, todo="restore it from a copy of the lake")


def _created(store: Store, key: str, body: bytes) -> bool:
    """Whether this create won. A lost answer is no lost race: then the stored bytes tell, so `body` must be this
    caller's own."""
    try:
        store.put(key, body, if_absent=True)
    except AlreadyExists:
        return False
    except Unknown:
        return store.get(key) == body
    return True


def _create_once(store: Store, key: str) -> Proof:
    promise = "a key is created once (If-None-Match)"
    first, second = _created(store, key, b"first"), _created(store, key, b"second")
    if second:
        return Proof(promise, False, "a second create was accepted: writes would be lost without a word")
    kept = first and store.get(key) == b"first"
    return Proof(promise, kept, "" if kept else "refused, and yet overwritten")


def _one_winner(store: Store, key: str) -> Proof:
    with ThreadPoolExecutor(RACERS) as pool:
        winners = sum(pool.map(lambda number: _created(store, key, str(number).encode()), range(RACERS)))
    return Proof(
        "of creates that race exactly one wins", winners == 1, "" if winners == 1 else f"{winners} of {RACERS} won"
    )


def _reads_own_write(store: Store, root: str) -> Proof:
    body = uuid.uuid4().bytes
    store.put(f"{root}/read", body)
    held = store.get(f"{root}/read") == body
    return Proof("a write is read at once", held, "" if held else "an older state was read")


def _lists_own_write(store: Store, root: str) -> Proof:
    listed = [entry.key for entry in store.list(f"{root}/read")]
    return Proof(
        "a write is listed at once", listed == [f"{root}/read"], "" if listed else "the new key was not listed"
    )
