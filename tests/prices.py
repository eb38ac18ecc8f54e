"""A trained numeric model in a lake, without a run: six numbers in, gradient-boosted trees, one price out."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.learners.choosing import learner_named
from lakeloop.lakehouse.learners.protocol import Part, SilentRun, TrainingData
from lakeloop.lakehouse.scoring.loading import SIGNATURE
from lakeloop.lakehouse.scoring.matrix import Encoder
from lakeloop.lakehouse.scoring.signature import Input, Signature

FILES = {
    "lakeloop.toml": 'name = "shop"\nowner = "crm"\n',
    "sources/sold.toml": 'owner = "crm"\nread = { kind = "landing", format = "csv" }\nevent_time = "seen"\n'
    '[columns]\nid = "string"\nseen = "timestamp"\nprice = "float64"\n'
    + "".join(f'x{n} = "float64"\n' for n in range(6)),
    "models/price.sql": "select id, seen as as_of, x0, x1, x2, x3, x4, x5, price as label, seen as label_known_at "
    "from sold\n",
    "models/price.toml": 'problem = "regression"\nlearner = "xgboost"\n[inputs.request]\n'
    + "".join(f'x{n} = "float64"\n' for n in range(6))
    + '[split]\nby = "random"\ntest = 0.3\n[search]\nmetric = "rmse"\n',
}
INPUTS = tuple(Input(f"x{n}", "request", "float64", "number") for n in range(6))
EXAMPLE = {f"x{n}": n / 10 for n in range(6)}


def numbers(lake: Lake, rows: int) -> None:
    """The table shop.numbers: an id and six numbers a row, in one commit."""
    import pyarrow as pa

    def part(begin: int, end: int) -> pa.RecordBatch:
        values = np.random.default_rng(begin).random((6, end - begin))
        columns = {f"x{n}": pa.array(values[n]) for n in range(6)}
        return pa.RecordBatch.from_pydict({"id": pa.array(np.arange(begin, end)), **columns})

    size = 250_000
    parts = (part(begin, min(begin + size, rows)) for begin in range(0, rows, size))
    schema = part(0, 1).schema
    table = lake.tables.open_or_create("shop/numbers", schema)
    table.append(pa.RecordBatchReader.from_batches(schema, parts))


def price_model(
    lake: Lake, learner: str = "xgboost", *, project: str = "shop", rounds: int = 50, run: str = "r1"
) -> int:
    """A version of `price` that is champion and served."""
    signature = Signature("regression", INPUTS, example=EXAMPLE)
    values = np.random.default_rng(0).random((500, 6))
    matrix = Encoder(INPUTS).of_rows([dict(zip(EXAMPLE, row, strict=True)) for row in values.tolist()])
    part = Part(matrix, values @ np.arange(6), None)
    made = learner_named(learner, "regression", 2)
    params = {"rounds": rounds, "max_depth": 4, "learning_rate": 0.1} if learner == "xgboost" else {}
    model = made.fit(TrainingData(part, Part(matrix.take(slice(0, 0)), part.y[:0], None)), params, SilentRun())
    with tempfile.TemporaryDirectory() as folder:
        made.save(model, Path(folder))
        files = {f"model/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}
    files[SIGNATURE] = signature.to_bytes()
    body = {
        "artifacts": [lake.artifacts.put("runs", run, name, data).to_json() for name, data in files.items()],
        "learner": {"name": learner, "threads": 1},
        "model_hash": run,
        "metrics": [],
        "lineage": {"views": {}, "definition": ""},
    }
    before = endpoints.champion(lake, project, "price")
    version = registry.register(lake, project, "price", run, body)
    there = endpoints.promote(lake, project, "price", version, expected=before, why="test")
    endpoints.serve(lake, there, version, {}, "test")
    return version
