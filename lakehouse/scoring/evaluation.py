"""What a model is worth on the test part: every metric with its interval, whole and by slice, beside a baseline."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.project.metrics import DEFAULT_METRIC, LATENCY
from lakeloop.lakehouse.query.asking import sql_over
from lakeloop.lakehouse.scoring.derivation import typed_list
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Signature
from lakeloop.lakehouse.slices import slice_masks
from lakeloop.lakehouse.statistics import bootstrap

if TYPE_CHECKING:
    import pyarrow as pa

Array = NDArray[np.float64]
SLICE_ROWS = 30
RESAMPLES = 500
SLICE_RESAMPLES = 200
LATENCY_ROWS = 200
USUAL = {
    "binary": ("roc_auc", "average_precision", "log_loss", "brier", "ece"),
    "multiclass": ("accuracy", "log_loss", "macro_f1"),
    "regression": ("rmse", "mae", "r2"),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of one subject (`model` or `baseline`) on one set of rows; `slice` is empty for all of them."""

    subject: str
    metric: str
    slice: str
    value: float | None
    low: float | None
    high: float | None
    rows: int


def metrics_of(model: Model) -> tuple[str, ...]:
    """What is measured: [evaluate] metrics (or the usual ones), the search's, and what rules and monitors ask for."""
    named = [*(model.evaluate.metrics or USUAL[model.problem]), model.search.metric or DEFAULT_METRIC[model.problem]]
    named += [rule.metric for rule in model.gate.rules] + [monitor.metric for monitor in model.monitors]
    return tuple(dict.fromkeys(name for name in named if name and name != LATENCY))


def baseline_of(model: Model, signature: Signature, test: pa.Table, train_y: Array) -> Array:
    """What one would predict without a model: [evaluate] baseline, else the training part's class shares or mean.

    Where the expression is null, the share or mean stands in. A multiclass expression names a class.
    """
    prior = _prior(signature, train_y)
    if not model.evaluate.baseline:
        return np.repeat(np.asarray(prior)[None], test.num_rows, axis=0)
    column = sql_over(test, {"baseline": model.evaluate.baseline}, where=f"[evaluate] baseline of {model.name}")[
        "baseline"
    ]
    if signature.problem == "multiclass":
        return _one_class_each(column.to_pylist(), signature, prior)
    try:
        values = np.array(typed_list(column, "number"), dtype=np.float64)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise Invalid(f"[evaluate] baseline is {column.type}, not a number", todo="cast it to double") from error
    values = np.where(np.isnan(values), prior, values)
    return np.clip(values, 0.0, 1.0) if signature.problem == "binary" else values


def measure(
    model: Model,
    signature: Signature,
    test: pa.Table,
    y: Array,
    subjects: Mapping[str, Array],
    weight: Array | None,
) -> list[Measured]:
    """Every metric of every subject, whole and per slice of at least 30 rows, with 95 % bootstrap intervals."""
    masks = {"": np.ones(len(y), dtype=bool)} | slice_masks(test, model.evaluate.slices, min_rows=SLICE_ROWS)
    found = []
    for name, mask in masks.items():
        resamples = SLICE_RESAMPLES if name else RESAMPLES
        for subject, predictions in subjects.items():
            for metric in metrics_of(model):
                one = bootstrap(
                    model.problem,
                    metric,
                    y[mask],
                    predictions[mask],
                    resamples=resamples,
                    seed=model.split.seed,
                    weight=None if weight is None else weight[mask],
                    threshold=signature.threshold,
                )
                numbers = _finite(one.value), _finite(one.low), _finite(one.high)
                found.append(Measured(subject, metric, name, *numbers, one.rows))
    return found


def latency_p99_ms(scorer: Scorer, test: pa.Table) -> Measured:
    """The 99th percentile of answering one row at a time, features given, in this process, in milliseconds."""
    rows = request_rows(scorer.signature, test.slice(0, LATENCY_ROWS))
    now = datetime.now(UTC)
    for row in rows[:20]:
        scorer.answer([row], now)
    taken = []
    for row in rows:
        begun = time.perf_counter()
        scorer.answer([row], now)
        taken.append((time.perf_counter() - begun) * 1000)
    return Measured("model", LATENCY, "", float(np.quantile(taken, 0.99)), None, None, len(rows))


def request_rows(signature: Signature, table: pa.Table) -> list[dict[str, Any]]:
    """A table's rows as a caller would send them with features given. Values that break the signature become null."""
    given = [one for one in signature.inputs if one.role != "derived"]
    columns = {one.name: typed_list(table.column(one.name), one.kind) for one in given}
    columns["as_of"] = typed_list(table.column("as_of"), "timestamp")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def scores_table(
    test: pa.Table, signature: Signature, predictions: Array, baseline: Array, names: Sequence[str] = ()
) -> pa.Table:
    """id, as_of, label, weight, prediction, baseline, and every input: all that a gate needs to score another model."""
    import pyarrow as pa

    kept = ["id", "as_of", "label", "label_known_at", "weight", *(one.name for one in signature.inputs), *names]
    table = test.select([name for name in dict.fromkeys(kept) if name in test.column_names])
    for name, values in (("prediction", predictions), ("baseline", baseline)):
        table = table.append_column(name, pa.array(values.tolist()))
    return table


def predictions_of(table: pa.Table, name: str = "prediction") -> Array:
    """A column of `scores_table` as predictions: (rows,) or (rows, classes)."""
    return np.array(table.column(name).to_pylist(), dtype=np.float64)


def _prior(signature: Signature, y: Array) -> Any:
    if signature.problem != "multiclass":
        return float(np.mean(y))
    counts = np.bincount(y[y >= 0].astype(np.int64), minlength=len(signature.classes))
    return counts / counts.sum()


def _one_class_each(labels: list[Any], signature: Signature, prior: Array) -> Array:
    from lakeloop.lakehouse.scoring.matrix import category_text

    places = {label: place for place, label in enumerate(signature.classes)}
    found = np.repeat(prior[None], len(labels), axis=0)
    for row, label in enumerate(labels):
        if label is not None and category_text(label) in places:
            found[row] = 0.0
            found[row, places[category_text(label)]] = 1.0
    return found


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
