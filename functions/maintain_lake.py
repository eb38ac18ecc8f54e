"""`maintain_lake`: fold journals, checkpoint busy tables, compact small files.

It may always be repeated and never changes what a reader sees.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import NotFound
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
    """Fold every journal with at least `fold_at` segments; checkpoint and compact the tables that the folds went to."""
    waiting = Counter(entry.key.split("/")[1] for entry in lake.store.list(keys.INBOX))
    done = []
    for journal, segments in sorted(waiting.items()):
        if segments >= fold_at:
            done.append(Maintained(journal, "rows folded", lake.journal(journal).fold()))
            done += maintain_table(lake, f"lakeloop/{journal}")
    return done


def maintain_table(lake: Lake, name: str) -> list[Maintained]:
    """Compact and checkpoint one table where it pays."""
    table = lake.table(name)
    if table is None:
        return []
    done = []
    if len(table.files) >= COMPACT_AT:
        done.append(Maintained(name, "files compacted", table.compact()))
    if table.version - _checkpointed(lake, name) >= CHECKPOINT_EVERY:
        table.checkpoint()
        done.append(Maintained(name, "checkpoint at version", table.version))
    return done


def _checkpointed(lake: Lake, name: str) -> int:
    """The version of a table's newest checkpoint, which Delta keeps in a file of its own; 0 when there is none."""
    try:
        return int(json.loads(lake.store.get(f"{keys.table(name)}/_delta_log/_last_checkpoint"))["version"])
    except (NotFound, ValueError, KeyError):
        return 0
