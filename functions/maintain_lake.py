"""`maintain_lake`: fold journals, compact small files, checkpoint logs, delete what no reader can need any more.

It may always be repeated, and never changes what a reader sees. It alone deletes files of tables: everybody else can
work with a role that may not.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from lakeloop.lakehouse import keys, pins
from lakeloop.lakehouse.compaction import compact
from lakeloop.lakehouse.errors import Conflict, Corrupt, Invalid, LakeloopError, NotFound, Unknown
from lakeloop.lakehouse.lake import Lake

FOLD_AT = 64
"""Segments in a journal's inbox from which on a fold pays for itself."""
CHECKPOINT_EVERY = 20
COMPACT_AT = 64


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done to one journal or table."""

    name: str
    what: str
    count: int


def maintain_lake(lake: Lake, *, fold_at: int = FOLD_AT) -> list[Maintained]:
    """Fold every journal with at least `fold_at` segments; compact, checkpoint and vacuum the tables the folds went
    to. What one journal fails with is raised when the others are done; the first of several."""
    waiting = Counter(entry.key.split("/")[1] for entry in lake.store.list(keys.INBOX))
    done: list[Maintained] = []
    failed: list[LakeloopError] = []
    for journal, segments in sorted(waiting.items()):
        if segments >= fold_at:
            try:
                done.append(Maintained(journal, "rows folded", lake.journal(journal).fold()))
                done += maintain_table(lake, f"lakeloop/{journal}")
            except (Conflict, Unknown, Invalid, Corrupt) as error:
                failed.append(error)
    if failed:
        raise failed[0]
    return done


def maintain_table(lake: Lake, name: str, *, now: bool = False) -> list[Maintained]:
    """Compact one table where it pays, checkpoint it every 20 commits, and with that delete what is past its
    retention. `now` does it all whatever pays."""
    table = lake.table(name)
    if table is None:
        return []
    done = []
    if len(table.files) >= (2 if now else COMPACT_AT):
        done.append(Maintained(name, "files compacted", compact(lake.store, table)))
    if table.version - _checkpointed(lake, name) >= (1 if now else CHECKPOINT_EVERY):
        table.checkpoint()
        done.append(Maintained(name, "checkpoint at version", table.version))
        table.forget_old_log()
        done.append(Maintained(name, "files deleted", vacuum(lake, name)))
    return [one for one in done if one.count]


def vacuum(lake: Lake, name: str, *, retention: timedelta = pins.RETENTION) -> int:
    """Delete files of a table that were replaced, or written and never committed, at least `retention` ago, and
    that no pin names. Returns how many.

    The folder is listed first, then the table is opened, then the pins are read: what a writer commits or a run pins
    meanwhile is spared. Safe while others read and write, as long as no write takes longer than `retention`.
    """
    root = f"{keys.table(name)}/"
    old = {e.key.removeprefix(root) for e in lake.store.list(root) if e.age_s >= retention.total_seconds()}
    table = lake.table(name)
    if table is None:
        return 0
    unused = old & set(table.unused_files(retention))
    if unused:
        unused -= {file.path for pin in pins.pins_of(lake, name) for file in pin.files}
        lake.store.delete(f"{root}{path}" for path in sorted(unused))
    return len(unused)


def table_names(lake: Lake) -> list[str]:
    """Every table of the lake, as `project/table`."""
    owners = [entry.key for entry in lake.store.list("tables/", delimiter="/")]
    found = [entry.key for owner in owners for entry in lake.store.list(owner, delimiter="/")]
    return [key.removeprefix("tables/").rstrip("/") for key in found]


def _checkpointed(lake: Lake, name: str) -> int:
    """The version of a table's newest checkpoint, which Delta keeps in a file of its own; 0 when there is none."""
    try:
        return int(json.loads(lake.store.get(f"{keys.table(name)}/_delta_log/_last_checkpoint"))["version"])
    except (NotFound, ValueError, KeyError, TypeError):
        return 0
