"""What training hands to a learner, and what a learner must do. The same whether it is built in or the user's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.project.definitions import Dimension
from lakeloop.lakehouse.scoring.matrix import Matrix

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Vector = NDArray[np.float64]
BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Part:
    """Rows to learn from, or to be judged on. `y`: 0/1, the class's place, or the value; `weight`: None means all 1."""

    matrix: Matrix
    y: Vector
    weight: Vector | None = None

    @property
    def X(self) -> pd.DataFrame:  # noqa: N802 - the field's name for it
        """The inputs as a pandas frame: float32 columns, categories with the fixed vocabulary."""
        return self.matrix.frame()

    def arrow(self) -> pa.Table:
        """The inputs as an Arrow table: float32 columns, NaN for absent, categories as texts."""
        return _arrow(self.matrix)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """`arrow` in pieces, for learners that read a stream."""
        return iter(_arrow(self.matrix).to_batches(max_chunksize=BATCH_ROWS))

    def __len__(self) -> int:
        return len(self.matrix)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The part to fit and the part to stop by. When a model is refitted on both, `valid` is still there, but seen."""

    train: Part
    valid: Part


class Run(Protocol):
    """One fit. `best_step` is None in a search; in a refit, the step at which the search's best trial was best."""

    seed: int
    metric: str
    best_step: int | None

    def report(self, step: int, **metrics: float) -> None:
        """Tell how far it is. The search may end the trial here."""
        ...

    def log(self, **facts: Any) -> None:
        """Keep facts next to the run. `best_step` says where the model was best, when that is not the best report."""
        ...

    def checkpoint(self, path: str | Path) -> None:
        """Keep a file or folder of an unfinished fit."""
        ...


class Learner(Protocol):
    """Fits, asks, keeps and loads models of one kind. Values only, so that it can be sent to another process."""

    @property
    def name(self) -> str: ...

    def fit(self, data: TrainingData, params: Mapping[str, Any], run: Run) -> Any:
        """A model; the same for the same arguments."""
        ...

    def predict(self, model: Any, matrix: Matrix) -> NDArray[np.floating[Any]]:
        """Binary: P(positive), (n,); multiclass: (n, classes), rows sum to 1; regression: (n,)."""
        ...

    def save(self, model: Any, folder: Path) -> None:
        """Files below an empty folder; the same bytes for the same model."""
        ...

    def load(self, folder: Path) -> Any:
        """The model of a folder whose files were checked against the registry's hashes."""
        ...

    def default_space(self, problem: str, rows: int) -> Mapping[str, Dimension]:
        """What is searched when the definition has no [search.space]."""
        ...

    def default_params(self, problem: str, rows: int) -> Mapping[str, Any]:
        """The first trial when the definition has no [search.space]."""
        ...


@dataclass(slots=True)
class SilentRun:
    """A fit that nobody watches; it remembers what was reported."""

    seed: int = 0
    metric: str = ""
    best_step: int | None = None
    reports: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def report(self, step: int, **metrics: float) -> None:
        self.reports.append((step, metrics))

    def log(self, **facts: Any) -> None:
        self.facts.update(facts)

    def checkpoint(self, path: str | Path) -> None:
        return


def _arrow(matrix: Matrix) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for place, name in enumerate(matrix.names):
        column = matrix.values[:, place]
        if name in matrix.categories:
            absent = np.isnan(column)
            codes = pa.array(np.where(absent, 0, column).astype(np.int32), mask=absent)
            columns[name] = pa.DictionaryArray.from_arrays(codes, pa.array(matrix.categories[name], pa.string()))
        else:
            columns[name] = pa.array(column)
    return pa.table(columns)
