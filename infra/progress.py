"""Progress of long work, on stderr: one line a task, and a bar for the trials of a search.

Silent where nobody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from lakeloop.ray_jobs.dag import TaskEvent


def bars(*, quiet: bool = False, console: Console | None = None) -> Progress:
    """A set of progress bars as all commands show them."""
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console or Console(stderr=True), disable=quiet, transient=False)


@contextmanager
def file_progress(*, quiet: bool = False) -> Iterator[Callable[[str, int], None]]:
    """Shows how many rows of each file were read so far: what is given is to be told the file and its rows."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[rows]:,} rows"))
    tasks: dict[str, TaskID] = {}

    def watch(file: str, rows: int) -> None:
        if file not in tasks:
            for task in tasks.values():
                progress.update(task, visible=False)
            tasks[file] = progress.add_task(file, total=None, rows=0)
        progress.update(tasks[file], rows=rows)

    with _shown(columns, quiet=quiet, transient=True) as progress:
        yield watch


@contextmanager
def batch_progress(text: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Shows how many of a known number of rows are done: what is given is to be told both."""
    count = TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=28), count)
    tasks: list[TaskID] = []

    def watch(done: int, rows: int) -> None:
        if not tasks:
            tasks.append(progress.add_task(text, total=rows))
        progress.update(tasks[0], completed=done)

    with _shown(columns, quiet=quiet, transient=False) as progress:
        yield watch


def _shown(columns: Sequence[ProgressColumn], *, quiet: bool, transient: bool) -> Progress:
    console = Console(stderr=True)
    silent = quiet or not console.is_terminal
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=silent, transient=transient)


class TrainingProgress:
    """Shows the tasks of a run as they go. Use as a context manager and pass `watch` to the run."""

    def __init__(self, *, quiet: bool = False, progress: Progress | None = None, prefix: str = "") -> None:
        self._progress, self._owned, self._prefix = progress or bars(quiet=quiet), progress is None, prefix
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> TrainingProgress:
        if self._owned:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned:
            self._progress.stop()

    def watch(self, event: TaskEvent) -> None:
        """One event of a run's task."""
        row = self._rows.get(event.task)
        if row is None:
            row = self._rows[event.task] = self._progress.add_task(
                f"{self._prefix}{event.task}", total=None if event.task == "tune" else 1, note=""
            )
        match event.status:
            case "started":
                return
            case "running":
                best = f"best {event.best:.4f}" if event.best is not None else ""
                self._progress.update(row, total=event.total or None, completed=event.done, note=best)
            case "done" | "reused":
                total = self._progress.tasks[row].total or 1
                self._progress.update(
                    row,
                    total=total,
                    completed=total,
                    note=event.note if event.status == "done" else f"{event.note} (done before)",
                )
            case "failed":
                self._progress.update(row, note=f"failed: {event.note}")
