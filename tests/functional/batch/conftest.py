"""The shop of `tests/orders.py` in a folder, with ten orders, and version 1 of its model as champion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from lakeloop.lakehouse.batch.record import BatchRequest
from lakeloop.lakehouse.batch.rows import BatchRows, QueryRows
from lakeloop.lakehouse.lake import Lake
from lakeloop.ray_jobs.batch_predict import BatchDone, Compute, Watch, batch_predict, in_process
from lakeloop.tests.orders import Orders

EXAMPLES = QueryRows("select number as id, placed as as_of, customer, amount from orders")


@dataclass
class Shop:
    """The words of the tests for a batch."""

    orders: Orders

    @property
    def lake(self) -> Lake:
        return self.orders.lake

    def request(self, rows: BatchRows = EXAMPLES, output: str = "scored", **more: Any) -> BatchRequest:
        return BatchRequest("shop", "risk", rows.told, f"shop/{output}", **more)

    def run(
        self,
        rows: BatchRows = EXAMPLES,
        *,
        compute: Compute = in_process,
        again: bool = False,
        part_rows: int = 3,
        lake: Lake | None = None,
        watch: Watch = lambda done, rows: None,
        **more: Any,
    ) -> BatchDone:
        asked = self.request(rows, **more)
        project = self.orders.project
        return batch_predict(
            lake or self.lake,
            project,
            asked,
            rows,
            compute=compute,
            watch=watch,
            again=again,
            part_rows=part_rows,
        )

    def predictions(self, table: str = "scored") -> list[tuple[str, float]]:
        rows = self.orders.scored(table).to_pylist()
        return sorted((row["id"], row["prediction"]) for row in rows)


@pytest.fixture
def shop(folder_lake: Lake) -> Shop:
    orders = Orders(folder_lake)
    orders.take(10)
    orders.register()
    return Shop(orders)
