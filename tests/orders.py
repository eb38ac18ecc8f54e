"""A shop's orders, the spending of its customers as a feature view, and a model of known answers, without a training.

The model says `amount + 10 * total + 100 * half`: amount is of the order, total of the view, half is derived.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from lakeloop.functions.build_features import build_features
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.roll_out import roll_out
from lakeloop.lakehouse import applied, endpoints, registry
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import parse_project
from lakeloop.lakehouse.scoring.loading import CODE, SIGNATURE
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.lakehouse.scoring.uses import view_uses

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CODE_TEXT = """
import numpy as np

def derive(row):
    return {"half": row["as_of"].hour // 12}

def predict(model, X):
    return (X["amount"] + 10 * X["total"].fillna(0) + 100 * X["half"]).to_numpy()

def save(model, folder):
    (folder / "nothing.txt").write_text("nothing")

def load(folder):
    return {}

def train(data, params, run):
    return {}
"""
FILES = {
    "lakeloop.toml": 'name = "shop"\nowner = "crm"\n',
    "sources/orders.toml": 'owner = "crm"\nread = { kind = "landing", format = "csv", null = [""] }\n'
    'key = ["number"]\nrows = "append"\nevent_time = "placed"\n'
    '[columns]\nnumber = "string"\nplaced = "timestamp"\ncustomer = "string"\namount = "float64"\nnote = "string?"\n',
    "sources/payments.toml": 'owner = "crm"\nread = { kind = "landing", format = "csv" }\nevent_time = "paid"\n'
    '[columns]\ncustomer = "string"\npaid = "timestamp"\ntotal = "float64"\n',
    "features/spending.sql": '-- /// feature-view\n-- owner = "crm"\n-- entity = ["customer"]\n-- event_time = "paid"\n'
    "-- online = true\n-- ///\nselect customer, paid, total from payments\n",
    "models/risk.sql": "select number as id, placed as as_of, customer, amount, amount as label, "
    "placed as label_known_at from orders\n",
    "models/risk.toml": 'problem = "regression"\nlearner = "risk.py"\n[inputs]\nderive = true\n'
    'features = ["spending.total"]\n'
    '[inputs.request]\ncustomer = "string"\namount = "float64"\n[inputs.derived]\nhalf = "int8"\n'
    '[split]\nby = "random"\ntest = 0.3\n[search]\nmetric = "rmse"\n',
    "models/risk.py": CODE_TEXT,
}


class Orders:
    """The shop on a lake. Customer c<k> has paid k at noon and 2k at three."""

    def __init__(self, lake: Lake, *, customers: int = 5, files: dict[str, str] = FILES) -> None:
        self.lake, self.project = lake, parse_project(files)
        applied.publish(lake, self.project, code_version="test")
        paid = [
            f"c{k},{(NOON + hours * HOUR).isoformat()},{k * (1 + hours // 3)}"
            for k in range(customers)
            for hours in (0, 3)
        ]
        self.land("payments", "payments.csv", "customer,paid,total\n" + "\n".join(paid))
        build_features(lake, self.project, as_of=NOON + 4 * HOUR)

    def land(self, source: str, file: str, text: str) -> None:
        land(self.lake, self.project, source, file, text.encode())
        assert [one.quarantined for one in ingest_data(self.lake, self.project)] == [0]

    def take(self, rows: int, *, file: str = "orders.csv", start: int = 0) -> None:
        """Orders o<n>: of customer c<n % 7>, at noon + n minutes, amount n."""
        lines = [
            f"o{n},{(NOON + n * timedelta(minutes=1)).isoformat()},c{n % 7},{n},note {n}"
            for n in range(start, start + rows)
        ]
        self.land("orders", file, "\n".join(["number,placed,customer,amount,note", *lines]))

    def register(self, run: str = "first", code: str = CODE_TEXT) -> int:
        """A version of `risk` that is champion and served."""
        inputs = (
            Input("customer", "request", "string", "string", column=False),
            Input("amount", "request", "float64", "number"),
            Input("total", "feature", "float64", "number"),
            Input("half", "derived", "int8", "integer"),
        )
        uses = view_uses(self.project, "risk")
        signature = Signature("regression", inputs, uses, derive=True, example={"customer": "c1", "amount": 1.0})
        files = {SIGNATURE: signature.to_bytes(), CODE: code.encode(), "model/nothing.txt": b"nothing"}
        return self._registered("risk", run, files, {"name": "risk.py", "file": "models/risk.py"})

    def _registered(self, model: str, run: str, files: dict[str, bytes], learner: dict[str, Any]) -> int:
        views = {use.view: use.version for use in view_uses(self.project, model)}
        body = {
            "artifacts": [self.lake.artifacts.put("runs", run, name, data).to_json() for name, data in files.items()],
            "learner": learner,
            "model_hash": "abc",
            "metrics": [],
            "lineage": {"views": views, "definition": self.project.hash},
        }
        there = endpoints.champion(self.lake, "shop", model)
        version = registry.register(self.lake, "shop", model, run, body)
        endpoints.promote(self.lake, "shop", model, version, expected=there, why="test")
        roll_out(self.lake, self.project)
        return version

    def scored(self, table: str = "scored") -> pa.Table:
        return self.lake.sql(f"select * from shop.{table}", project="shop")


def expected(n: int) -> float:
    """What the model says of order o<n>, as it was known when it came (customers from c5 on have paid nothing)."""
    at = NOON + n * timedelta(minutes=1)
    paid = n % 7 if n % 7 < 5 else 0
    return n + 10 * paid * (2 if at >= NOON + 3 * HOUR else 1) + 100 * (at.hour // 12)
