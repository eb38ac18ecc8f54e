"""Compaction: a few large files in place of many small ones, as one compare-and-swap commit like any other.

delta-rs' own compaction commits beside whatever came meanwhile: two of them, or one and an overwrite from an older
handle, leave rows twice (docs/adr/0006). So delta-rs writes the files and their statistics into a scratch table, and
the commit that puts them in place of the small ones is ours: it carries the table's application transaction, and is
put under the number after the handle's version if that is absent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import AlreadyExists, Conflict, NoAnswer, NotFound, Unavailable, Unknown
from lakeloop.lakehouse.store import Store
from lakeloop.lakehouse.tables import APP, DataFile, Table, write_scratch

TARGET = 100 << 20
"""Bytes of a file from which on it is left as it is, and which new ones are made of."""


def compact(store: Store, table: Table) -> int:
    """Merge the small files of a table. Returns how many went; the handle is then at the version that was made.

    Conflict for a stale handle: somebody committed meanwhile, and the files that were written are nobody's. Unknown
    when the answer was lost.
    """
    groups = [group for group in _groups(table.data_files()) if len(group) > 1]
    if not groups:
        return 0
    gone = [file for group in groups for file in group]
    with TemporaryDirectory(prefix="lakeloop-") as scratch:
        added: list[dict[str, Any]] = []
        for number, group in enumerate(groups):
            folder = Path(scratch, str(number))
            for add in write_scratch(folder, table.batches([file.path for file in group])):
                with open(folder / add["path"], "rb") as data:
                    store.put(f"{keys.table(table.name)}/{add['path']}", data)
                added.append(add)
    _commit(store, table, gone, added)
    table.refresh()
    return len(gone)


def _groups(files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
    """Small files that become one each."""
    group: list[DataFile] = []
    for file in files:
        if file.size >= TARGET / 2:
            continue
        group.append(file)
        if sum(one.size for one in group) >= TARGET:
            yield group
            group = []
    if group:
        yield group


def _commit(store: Store, table: Table, gone: Sequence[DataFile], added: Sequence[Mapping[str, Any]]) -> None:
    now, version = int(time.time() * 1000), table.version + 1
    facts = {"timestamp": now, "operation": "OPTIMIZE", "operationParameters": {}, "engineInfo": "lakeloop"}
    actions: list[dict[str, Any]] = [
        {"commitInfo": facts},
        {"txn": {"appId": APP, "version": version, "lastUpdated": now}},
        *({"remove": _removal(file, now)} for file in gone),
        *({"add": {**add, "dataChange": False}} for add in added),
    ]
    key = f"{keys.table(table.name)}/_delta_log/{version:020d}.json"
    body = "\n".join(json.dumps(action) for action in actions).encode()
    lost = Conflict(f"{table.name} has a newer version than {table.version}", todo="open it again and decide again")
    try:
        store.put(key, body, if_absent=True)
    except AlreadyExists as error:
        raise lost from error
    except (Unknown, NoAnswer) as doubt:
        try:
            there = store.get(key)
        except (NotFound, Unavailable):
            raise Unknown(f"{table.name} may not be compacted", todo="the next maintenance looks") from doubt
        if there != body:  # it names files that only this call wrote
            raise lost from doubt


def _removal(file: DataFile, at: int) -> dict[str, Any]:
    return {
        "path": file.path,
        "deletionTimestamp": at,
        "dataChange": False,
        "extendedFileMetadata": True,
        "partitionValues": {},
        "size": file.size,
    }
