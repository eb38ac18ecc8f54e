"""A small shop on a lake in a folder: a source, a model without features, and what its endpoint would have logged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied, endpoints, registry
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.scoring.loading import SIGNATURE
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.tests.buying import FILES

DAY = timedelta(days=1)
START = datetime(2024, 3, 1, tzinfo=UTC)
PERFORMANCE = """
[[monitor]]
name = "accuracy_holds"
watch = "performance"
metric = "accuracy"
below = 0.5
window = "3d"
every = "1d"
"""


class Shop:
    """The project in force on a lake, with version 1 of `buys` as champion that is served."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.project = self.apply()
        signature = Signature(
            "binary", (Input("clicks", "request", "float32", "number"),), (), ("false", "true"), "true"
        )
        kept = lake.artifacts.put("runs", "first", SIGNATURE, signature.to_bytes())
        body = {"artifacts": [kept.to_json()], "metrics": [], "lineage": {"views": {}}}
        assert registry.register(lake, "shop", "buys", "first", body) == 1
        endpoints.serve(lake, endpoints.promote(lake, "shop", "buys", 1, expected=None, why="first"), 1, {}, "first")

    def apply(self, more: str = PERFORMANCE) -> Project:
        """Another definition, with these lines at the end of the model's file."""
        self.project = parse_project({**FILES, "models/buys.toml": FILES["models/buys.toml"] + more})
        applied.publish(self.lake, self.project, code_version="test")
        return self.project

    def visits(self, file: str, rows: Sequence[tuple[str, datetime, bool | None, datetime | None]]) -> None:
        """What became of visits: id, when, whether one bought, and when that was known."""
        lines = [
            f"{name},{seen.isoformat()},1,{'' if bought is None else str(bought).lower()},"
            f"{known.isoformat() if known else ''}"
            for name, seen, bought, known in rows
        ]
        land(self.lake, self.project, "visits", file, "\n".join(["id,seen,clicks,bought,known", *lines]).encode())
        ingest_data(self.lake, self.project)

    def predicted(self, answers: Sequence[tuple[str, datetime, float]], segment: str = "log-1") -> None:
        """What version 1 answered: id, as_of, prediction."""
        rows: list[dict[str, Any]] = [
            {
                "prediction_id": f"{name}#0",
                "id": name,
                "as_of": at,
                "logged_at": at,
                "project": "shop",
                "model": "buys",
                "version": 1,
                "prediction": value,
                "clicks": 1.0,
            }
            for name, at, value in answers
        ]
        self.lake.journal("predictions.shop.buys").append(pa.Table.from_pylist(rows), segment)


@pytest.fixture
def shop(folder_lake: Lake) -> Shop:
    return Shop(folder_lake)
