"""One part of a batch: staged rows in, predictions out, by the same scorer and the same features as training.

A feature that the rows give as a column wins; any other is looked up as of each row's moment by the point-in-time join,
in the versions of the tables that the batch has fixed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.batch.record import BATCH, PART, Batch
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.features.training_set import EXAMPLES, pinned, wanted_groups, with_features
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.scoring.matrix import Encoder
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Signature

AS_OF = "as_of"
MOMENT = pa.timestamp("us", "UTC")
MEMORY = "1GB"
"""What DuckDB may take for the features of one part before it spills."""


def score_part(lake: Lake, batch: Batch, number: int, scorer: Scorer, *, threads: int = 0) -> pa.Table:
    """What the columns kept say, `as_of`, `prediction`, `decision` and (multiclass) `scores`, in the order of the rows.

    Invalid for values that the model's inputs cannot take.
    """
    part = batch.parts[number]
    rows = pq.read_table(io.BytesIO(lake.artifacts.get(part.artifact.key, part.artifact.sha256)))
    rows = with_defaults(scorer.signature, with_moments(rows, batch.as_of))
    kept = rows.select([*batch.kept, AS_OF])
    if scorer.signature.views:
        rows = looked_up(lake, batch, rows, threads)
    predictions = scorer.predict_table(rows)
    for name, column in prediction_columns(scorer, predictions).items():
        kept = kept.append_column(name, column)
    return kept


def output_schema(rows: pa.Schema, kept: Sequence[str], signature: Signature) -> pa.Schema:
    """The columns that the output gets, given those of the rows."""
    fields = [rows.field(name) for name in kept] + [pa.field(AS_OF, MOMENT)]
    made = [("prediction", pa.float64()), ("decision", pa.string())]
    made += [("scores", pa.list_(pa.float64()))] if signature.problem == "multiclass" else []
    marks = [("model", pa.string()), ("version", pa.int64()), (BATCH, pa.string()), (PART, pa.string())]
    return pa.schema(fields + [pa.field(*one) for one in (*made, *marks)])


def marked(rows: pa.Table, batch: Batch, number: int) -> pa.Table:
    """The rows of a part with what is the same in all of them: model, version, `_batch`, `_part`."""
    marks = {"model": batch.model, "version": batch.version, BATCH: batch.id, PART: batch.mark(number)}
    for name, value in marks.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
    return rows


def with_moments(rows: pa.Table, as_of: datetime) -> pa.Table:
    """The rows with `as_of` in UTC: their own, or the batch's where there is no such column or it is null."""
    moment = pa.scalar(as_of, MOMENT)
    if AS_OF not in rows.column_names:
        return rows.append_column(AS_OF, pa.repeat(moment, rows.num_rows))
    column = rows.column(AS_OF)
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise Invalid(f"the column as_of is {column.type}", todo="make it a timestamp: as_of::timestamptz as as_of")
    if pa.types.is_date(column.type) or column.type.tz is None:
        column = column.cast(pa.timestamp("us"), safe=False)
    return rows.set_column(rows.column_names.index(AS_OF), AS_OF, pc.fill_null(column.cast(MOMENT, safe=False), moment))


def check_types(rows: pa.Schema, signature: Signature) -> None:
    """Invalid for a column whose type the input of its name cannot take, before any row is read."""
    none = with_moments(rows.empty_table(), datetime.now(UTC))
    for one in signature.columns:
        if one.name in rows.names:
            Encoder((one,)).of_table(none)


def with_defaults(signature: Signature, rows: pa.Table) -> pa.Table:
    """The rows with the defaults of the inputs that they lack."""
    for one in signature.named("request"):
        if one.name not in rows.column_names and one.default is not None:
            rows = rows.append_column(one.name, pa.repeat(pa.scalar(one.default), rows.num_rows))
    return rows


def looked_up(lake: Lake, batch: Batch, rows: pa.Table, threads: int) -> pa.Table:
    """The rows with every feature that they do not give, in their order."""
    project = applied.load_hash(lake, batch.project, batch.definition)
    if not wanted_groups(project, batch.model, rows.column_names):
        return rows
    pins = pinned(lake, project, batch.features)
    catalog = LakeCatalog(lake, project, pins=pins, from_sources=batch.from_sources)
    numbered = rows.append_column("_row", pa.array(np.arange(rows.num_rows)))
    with (
        TemporaryDirectory(prefix="lakeloop-") as scratch,
        Session(lake.store.location(), catalog, threads=threads, memory=MEMORY, scratch=Path(scratch)) as session,
    ):
        session.register(EXAMPLES, numbered)
        return with_features(session, project, project.models[batch.model], given=rows.column_names)


def prediction_columns(scorer: Scorer, predictions: NDArray[np.float64]) -> dict[str, Any]:
    """As the prediction log has them: a decision is `true`, `false` or the class; of several scores the highest is the
    prediction."""
    decisions = pa.array(scorer.decide(predictions)).cast(pa.string())
    if predictions.ndim == 1:
        return {"prediction": pa.array(predictions), "decision": decisions}
    offsets = np.arange(0, predictions.size + 1, predictions.shape[1], dtype=np.int32)
    scores = pa.ListArray.from_arrays(offsets, predictions.ravel())
    return {"prediction": pa.array(predictions.max(axis=1)), "decision": decisions, "scores": scores}
