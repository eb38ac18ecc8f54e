"""Proves that a store keeps the promises everything rests on, with a few requests, before a lake is made in it."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import AlreadyExists, Corrupt, Invalid, NotFound, Unknown
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.store import Store

RACERS = 8
TURNS = 3
"""How often each promise about a race and about what is seen at once is tried."""
LAKE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Proof:
    """One promise, and whether the store kept it."""

    promise: str
    held: bool
    detail: str = ""


def probe(store: Store) -> list[Proof]:
    """Try each promise below `_lake/probe/`, and clean up: about 60 requests. Errors that say nothing about the promise
    (Denied, Unavailable, no bucket) are raised."""
    root = f"_lake/probe/{uuid.uuid4().hex}"
    try:
        return [_tried(promise, check, store, root) for promise, check in PROMISES.items()]
    finally:
        store.delete([entry.key for entry in store.list(root)])


def _tried(promise: str, check: Callable[[Store, str], str], store: Store, root: str) -> Proof:
    try:
        detail = check(store, root)
    except Invalid as error:
        detail = error.what
    except NotFound as error:
        if "bucket" in error.what:
            raise
        detail = "what was written is not there"
    return Proof(promise, not detail, detail)


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


# -- each check answers what is wrong, in words; empty when the promise was kept ---


def _create_once(store: Store, root: str) -> str:
    key = f"{root}/once"
    first, second = _created(store, key, b"first"), _created(store, key, b"second")
    if second:
        return "a second create was accepted: writes would be lost without a word"
    return "" if first and store.get(key) == b"first" else "refused, and yet overwritten"


def _one_winner(store: Store, root: str) -> str:
    """They start together: a store that looks first and writes then loses only where they overlap."""
    for turn in range(TURNS):
        start = threading.Barrier(RACERS)

        def create(number: int, key: str = f"{root}/race-{turn}", start: threading.Barrier = start) -> bool:
            start.wait()
            return _created(store, key, str(number).encode())

        with ThreadPoolExecutor(RACERS) as pool:
            winners = sum(pool.map(create, range(RACERS)))
        if winners != 1:
            return f"{winners} of {RACERS} creates that raced were told that they won: writes would be lost"
    return ""


def _reads_own_write(store: Store, root: str) -> str:
    for _ in range(TURNS):
        body = uuid.uuid4().bytes
        store.put(f"{root}/read", body)  # new in the first turn, replaced in the others
        if store.get(f"{root}/read") != body:
            return "an older state was read"
    return ""


def _lists_own_write(store: Store, root: str) -> str:
    for turn in range(TURNS):
        list(store.list(f"{root}/list-{turn}"))
        store.put(f"{root}/list-{turn}", b"")
        if [entry.key for entry in store.list(f"{root}/list-{turn}")] != [f"{root}/list-{turn}"]:
            return "the new key was not listed"
    return ""


def _sees_own_delete(store: Store, root: str) -> str:
    key = f"{root}/gone"
    store.put(key, b"")
    store.delete([key])
    if list(store.list(key)):
        return "the deleted key was listed"
    try:
        store.get(key)
    except NotFound:
        return ""
    return "the deleted object was read"


PROMISES: dict[str, Callable[[Store, str], str]] = {
    "a key is created once (If-None-Match)": _create_once,
    "of creates that race exactly one wins": _one_winner,
    "a write is read at once": _reads_own_write,
    "a write is listed at once": _lists_own_write,
    "a delete is seen at once": _sees_own_delete,
}
