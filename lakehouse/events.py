"""Events: small objects that wake the functions sooner.

Nothing depends on one: lost, doubled or forged, it only changes *when*.
"""

from __future__ import annotations

import re

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.store import Store


def wake(lake: Lake, kind: str, key: str) -> None:
    """Say that something happened to `key`; the same again before it was handled is one event."""
    put(lake.store, kind, key)


def put(store: Store, kind: str, key: str) -> None:
    """The same, for who has a store and no lake."""
    store.put(keys.event(kind, re.sub(r"[^A-Za-z0-9._-]", "_", key)), b"{}")


def pending(lake: Lake) -> list[str]:
    """Keys of the events nobody handled yet: one LIST."""
    return [entry.key for entry in lake.store.list(keys.EVENTS)]


def done(lake: Lake, events: list[str]) -> None:
    """Write the handled ones into the journal `events` and remove them."""
    names = [key.removeprefix(keys.EVENTS).partition("-") for key in events]
    lake.record("events", [{"kind": kind, "key": key, "logged_at": lake.clock()} for kind, _, key in names])
    lake.store.delete(events)
