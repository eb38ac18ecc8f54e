"""Which version of a table was the newest at a moment.

By what the commits say of themselves, not by the times of their files, which copying a lake changes.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from datetime import UTC, datetime

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import Corrupt, NotFound
from lakeloop.lakehouse.store import Store


def version_at(store: Store, table: str, at: datetime) -> int:
    """The newest version of `project/table` committed at or before `at`: a LIST, and of n commits log2(n) GETs.

    NotFound for a moment before the first commit that the log still has.
    """
    log = f"{keys.table(table)}/_delta_log/"
    names = [entry.key.removeprefix(log) for entry in store.list(log)]
    versions = [int(name[:20]) for name in names if len(name) == 25 and name.endswith(".json") and name[:20].isdigit()]
    if not versions:
        raise NotFound(f"there is no table {table}")
    found = bisect_right(versions, at, key=lambda version: committed_at(store, table, version))
    if not found:
        first = committed_at(store, table, versions[0])
        raise NotFound(
            f"{table} has no version as old as {at:%Y-%m-%dT%H:%M:%SZ}",
            todo=f"the oldest that is known, {versions[0]}, is of {first:%Y-%m-%dT%H:%M:%SZ}",
        )
    return versions[found - 1]


def committed_at(store: Store, table: str, version: int) -> datetime:
    """When a version was committed, by its writer's clock: one GET. Corrupt when the commit does not say."""
    key = f"{keys.table(table)}/_delta_log/{version:020d}.json"
    for line in store.get(key).splitlines():
        if b'"commitInfo"' in line:
            try:
                return datetime.fromtimestamp(json.loads(line)["commitInfo"]["timestamp"] / 1000, UTC)
            except (ValueError, KeyError, TypeError):
                break
    raise Corrupt(f"version {version} of {table} does not say when it was committed", todo="name a version instead")
