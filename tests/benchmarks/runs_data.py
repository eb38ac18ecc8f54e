"""Lakes with many runs, as years of training leave them: two rows a run and one for each metric, folded, compacted and
checkpointed by `maintain_table`, with some segments that are not folded yet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakeloop.functions.maintain_lake import maintain_table
from lakeloop.lakehouse.journal import SEGMENT
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.records import JOURNALS

METRICS = (*(f"metric_{number:02d}" for number in range(19)), "roc_auc")
MODELS = ("churn", "delay", "fraud", "price")
DEPTHS = (3, 4, 5, 6, 8)
FOLDS = 64
"""Commits that wrote the runs: the number at which maintenance compacts."""
WAITING = 20
"""Runs whose segments lie in the inbox still."""
ENVIRONMENT = json.dumps(
    {
        "python": "3.11.7",
        "machine": "x86_64",
        "system": "Linux",
        "lakeloop": "0.3.0",
        "numpy": "2.3.4",
        "pandas": "2.3.3",
        "pyarrow": "22.0.0",
        "ray": "2.60.0",
        "scikit-learn": "1.7.2",
        "skops": "0.13.0",
        "xgboost-cpu": "3.1.1",
    }
)
BEGAN = datetime(2024, 1, 1, tzinfo=UTC)


class ManyRuns:
    """`count` runs by number, the same in every process. Metrics are uniform in [0, 1)."""

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(7)
        self.count = count
        self.ids = np.array([f"team-{MODELS[n % 4]}-{h:012x}" for n, h in enumerate(random.integers(0, 2**48, count))])
        self.model = np.array(MODELS)[np.arange(count) % 4]
        self.depth = np.array(DEPTHS)[random.integers(0, len(DEPTHS), count)]
        self.rate = random.uniform(0.01, 0.3, count)
        self.seconds = random.uniform(20, 900, count)
        self.values = random.random((count, len(METRICS)))

    def started(self, number: int) -> datetime:
        return BEGAN + timedelta(minutes=number)

    def params(self, number: int) -> dict[str, float]:
        return {"max_depth": int(self.depth[number]), "learning_rate": float(self.rate[number]), "rounds": 400}


def run_rows(runs: ManyRuns, numbers: range) -> pa.Table:
    """Rows of the journal `runs`: one when a run started, one when it had finished."""
    rows = [row for number in numbers for row in _rows_of(runs, number)]
    return pa.Table.from_pylist(rows, schema=JOURNALS["runs"].append(pa.field(SEGMENT, pa.string())))


def _rows_of(runs: ManyRuns, number: int) -> Iterator[dict[str, object]]:
    run, at = str(runs.ids[number]), runs.started(number)
    ended = at + timedelta(seconds=float(runs.seconds[number]))
    shared = {
        "run": run,
        "project": "team",
        "model": str(runs.model[number]),
        "trigger": "schedule",
        "incident": f"schedule {at.isoformat()}",
        "as_of": at,
        "rules_version": "5f2b9c0d1e3a",
        "definition": "c4ca4238a0b923820dcc509a6f75849b",
        "code_version": "git:0123456789ab",
        "environment": ENVIRONMENT,
        "who": "trainer",
    }
    result = {
        "version": number // 4 + 1,
        "seconds": float(runs.seconds[number]),
        "tables": json.dumps({"team/orders": number, "team/people": number // 2}),
        "params": json.dumps(runs.params(number)),
    }
    yield {**shared, "status": "started", "logged_at": at, SEGMENT: _segment(at, run, "started")}
    yield {**shared, **result, "status": "finished", "logged_at": ended, SEGMENT: _segment(ended, run, "finished")}


def _segment(at: datetime, run: str, what: str) -> str:
    return f"{at:%Y%m%dT%H%M%S%fZ}-{run}-{what}-000000"


def metric_rows(runs: ManyRuns, numbers: range) -> pa.Table:
    """Rows of the journal `metrics`: as many as there are metrics for each run."""
    each, of = len(METRICS), slice(numbers.start, numbers.stop)
    values = runs.values[of].ravel()
    at = [runs.started(number) for number in numbers]
    segments = [_segment(moment, str(runs.ids[n]), "metrics") for moment, n in zip(at, numbers, strict=True)]
    count = len(numbers) * each
    columns = {
        "run": np.repeat(runs.ids[of], each),
        "project": np.full(count, "team"),
        "model": np.repeat(runs.model[of], each),
        "version": np.repeat(np.arange(numbers.start, numbers.stop) // 4 + 1, each),
        "subject": np.full(count, "model"),
        "metric": np.tile(np.array(METRICS), len(numbers)),
        "slice": np.full(count, ""),
        "value": values,
        "low": values - 0.01,
        "high": values + 0.01,
        "rows": np.full(count, 10_000),
        "logged_at": np.repeat(np.array([moment.replace(tzinfo=None) for moment in at], "datetime64[us]"), each),
        SEGMENT: np.repeat(np.array(segments), each),
    }
    schema = JOURNALS["metrics"].append(pa.field(SEGMENT, pa.string()))
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)


def fill(folder: str, runs: ManyRuns, waiting: int = WAITING) -> Lake:
    """A lake in a folder with these runs: `FOLDS` commits to each table, maintenance; the last are in the inbox."""
    lake, folded = open_lake(folder), runs.count - waiting
    edges = [folded * part // FOLDS for part in range(FOLDS + 1)]
    for journal, rows in (("runs", run_rows), ("metrics", metric_rows)):
        table = lake.tables.open_or_create(f"lakeloop/{journal}", rows(runs, range(1)).schema)
        for low, high in pairwise(edges):
            table.append(rows(runs, range(low, high)))
        maintain_table(lake, f"lakeloop/{journal}")
        if not waiting:
            continue
        late = rows(runs, range(folded, runs.count))
        for segment in dict.fromkeys(late.column(SEGMENT).to_pylist()):
            own = late.filter(pc.equal(late.column(SEGMENT), segment))
            lake.journal(journal).append(own.drop_columns([SEGMENT]), segment)
    return lake
