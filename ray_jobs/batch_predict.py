"""Batch prediction: the rows of a table, a query or a file through a version of a model, into a Delta table.

The parts of a batch are scored where there is room, on Ray or in this process, and appended here, one commit each. The
output says itself which parts it holds: whoever loses a race, or comes after a crash, asks it and appends what is
missing, so every part is in it exactly once, however often the batch is killed and by how many it is continued.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from lakeloop.lakehouse.batch.opening import open_batch
from lakeloop.lakehouse.batch.output import Output, finish
from lakeloop.lakehouse.batch.part import score_part
from lakeloop.lakehouse.batch.record import Batch, BatchRequest
from lakeloop.lakehouse.batch.rows import PART_ROWS, BatchRows
from lakeloop.lakehouse.errors import Invalid, LakeloopError, NotFound, Unavailable
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.scoring.loading import load_scorer
from lakeloop.lakehouse.scoring.scorer import Scorer

if TYPE_CHECKING:
    import pyarrow as pa

Watch: TypeAlias = Callable[[int, int], None]
"""(rows that are in the output, rows of the batch)"""
Compute: TypeAlias = "Callable[[Lake, Batch, Sequence[int]], Generator[tuple[int, pa.Table]]]"
"""Scores parts by their numbers; gives each back when it is done, in any order."""


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A batch that is in its output. `before`: rows that were there already."""

    batch: Batch
    before: int

    @property
    def repeated(self) -> bool:
        """Whether it was all there."""
        return self.before == self.batch.rows


def batch_predict(
    lake: Lake,
    project: Project,
    request: BatchRequest,
    rows: BatchRows,
    *,
    compute: Compute,
    watch: Watch = lambda done, rows: None,
    again: bool = False,
    part_rows: int = PART_ROWS,
) -> BatchDone:
    """Answer a request: continue its open batch, begin a new one, or find that the last one would come out the same.

    With `again` an open batch is abandoned, its rows are taken out of the output, and a new one begins in any case.
    Invalid for columns that the model lacks, Refused for an output that holds other things. Safe to repeat, to kill at
    any moment, and to run twice at once.
    """
    batch = open_batch(lake, project, request, rows, again=again, part_rows=part_rows)
    if batch.status == "done":
        return BatchDone(batch, batch.rows)
    output = Output(lake, request, batch)
    missing = output.missing()
    done = before = batch.rows - sum(batch.parts[number].rows for number in missing)
    watch(done, batch.rows)
    try:
        with closing(compute(lake, batch, missing)) as parts:
            for number, part in parts:
                output.append(number, part)
                done += batch.parts[number].rows
                watch(done, batch.rows)
    except NotFound:  # the parts go when all are in the output: another may have finished
        if output.missing():
            raise
    finish(lake, request, batch)
    return BatchDone(batch, before)


def in_process(lake: Lake, batch: Batch, numbers: Sequence[int]) -> Generator[tuple[int, pa.Table]]:
    """A `Compute` without Ray: one part after another."""
    if numbers:
        scorer = load_scorer(lake, batch.project, batch.model, batch.version, {})
        for number in numbers:
            yield number, score_part(lake, batch, number, scorer)


def on_ray(lake: Lake, batch: Batch, numbers: Sequence[int], *, in_flight: int = 0) -> Generator[tuple[int, pa.Table]]:
    """A `Compute` on the cluster this process is connected to: a task a part, at most one a CPU at a time.

    A worker that dies is replaced by Ray. Unavailable when that does not help, or the cluster is lost. Whoever stops
    early leaves no task behind.
    """
    import ray

    score = ray.remote(num_cpus=1, max_retries=3)(_score)
    waiting, running, shared = list(reversed(numbers)), dict[Any, int](), ray.put(batch)
    most = in_flight or max(1, int(ray.cluster_resources().get("CPU", 1)))
    try:
        while waiting or running:
            while waiting and len(running) < most:
                number = waiting.pop()
                running[score.remote(lake.url, shared, number)] = number
            ready, _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ready[0]), _result(ready[0])
    finally:
        for task in running:
            ray.cancel(task, force=True)


def _score(url: str, batch: Batch, number: int) -> pa.Table:
    """In a worker."""
    scorer = _loaded(url, batch.project, batch.model, batch.version)
    return score_part(open_lake(url), batch, number, scorer, threads=1)


@lru_cache(maxsize=1)
def _loaded(url: str, project: str, model: str, version: int) -> Scorer:
    """Kept from part to part: a version never changes."""
    return load_scorer(open_lake(url), project, model, version, {})


def _result(reference: Any) -> pa.Table:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, LakeloopError):
            raise error.cause from None
        what = f"scoring raised {type(error.cause).__name__}: {str(error.cause).strip()[:300]}"
        raise Invalid(what, todo="correct the model's code, or the rows, then begin anew with --again") from error
    except ray.exceptions.RayError as error:
        what = f"workers were lost ({type(error).__name__})"
        raise Unavailable(what, todo="the same command goes on from here; smaller parts take less memory") from error
