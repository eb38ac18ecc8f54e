"""Ships a node's sealed prediction logs: each piece becomes one segment of its endpoint's journal, then its file goes.

A piece has one name and one content at every try, and the journal knows the names it holds; so a shipper that is killed
between the append and the removal, or two shippers over one folder, ship no row twice. While the store is away the
files stay and the pauses grow.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lakeloop.lakehouse.errors import Conflict, Corrupt, Denied, Invalid, LakeloopError, Unavailable, Unknown
from lakeloop.ray_jobs.serving.prediction_rows import prediction_table
from lakeloop.ray_jobs.serving.write_ahead import Backlog, adopt, read_piece, sealed_pieces, segment_of

if TYPE_CHECKING:
    import pyarrow as pa

REJECTED = ".rejected"
PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
log = logging.getLogger("lakeloop.shipper")


class Journal(Protocol):
    """What the shipper needs of a journal: an append that may be repeated."""

    def append(self, rows: pa.Table, segment: str) -> object: ...


@dataclass(frozen=True, slots=True)
class Round:
    """What one look at the folder did. `stopped` says why it ended early: the store is away."""

    pieces: int = 0
    rows: int = 0
    rejected: int = 0
    stopped: str = ""


def ship(folder: Path, journal: Callable[[str], Journal]) -> Round:
    """Ship all that is sealed, oldest first, after adopting what dead writers left.

    A piece that can never be shipped is set aside.
    """
    adopt(folder)
    pieces = rows = rejected = 0
    for path in sealed_pieces(folder):
        try:
            rows += ship_piece(path, journal)
        except (Unavailable, Unknown, Denied) as error:
            return Round(pieces, rows, rejected, stopped=str(error))
        except FileNotFoundError:  # another shipper's
            continue
        except (Corrupt, Invalid, Conflict) as error:
            log.error("the prediction log %s cannot be shipped and is set aside: %s", path, error)
            with suppress(FileNotFoundError):
                path.rename(path.with_name(path.name + REJECTED))
            rejected += 1
            continue
        pieces += 1
    return Round(pieces, rows, rejected)


def ship_piece(path: Path, journal: Callable[[str], Journal]) -> int:
    """One sealed piece into its journal; then its file goes. Returns its rows. FileNotFoundError when another has
    shipped it."""
    piece = read_piece(path)
    table = prediction_table(piece)
    journal(piece.shape.journal).append(table, segment=segment_of(path))
    path.unlink(missing_ok=True)
    return int(table.num_rows)


class Shipper:
    """Ships a folder every half second in a thread of its own, until it is closed."""

    def __init__(self, folder: Path, journal: Callable[[str], Journal]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._journal, self._backlog = folder, journal, Backlog(folder)
        self._closing = threading.Event()
        self._stopped = ""
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
        self._thread.start()

    def state(self) -> Mapping[str, Any]:
        """Rows that wait, and why they do when the store is away."""
        waiting = self._backlog.rows()
        return {"pending": waiting, "stopped": self._stopped, "alive": self._thread.is_alive(), "process": os.getpid()}

    def close(self) -> None:
        """Stop after the piece that is on its way."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = PAUSE_S
        while not self._closing.wait(pause_s):
            self._stopped = self._ship()
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S) if self._stopped else PAUSE_S

    def _ship(self) -> str:
        try:
            done = ship(self._folder, self._journal)
        except (LakeloopError, OSError) as error:
            log.error("shipping %s failed: %s", self._folder, error)
            return str(error)
        except Exception as error:  # a thread that ended would ship nothing any more
            log.exception("shipping %s failed", self._folder)
            return f"{type(error).__name__}: {error}"
        if done.stopped and not self._stopped:
            log.warning("prediction logs wait in %s: %s", self._folder, done.stopped)
        return done.stopped
