"""A lake that holds one customer everywhere, and a reader of every byte of a lake that shares no code with `forget`."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakeloop.functions.build_features import build_features
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.maintain_lake import maintain_table
from lakeloop.functions.roll_out import roll_out
from lakeloop.lakehouse import applied, endpoints, registry, runs
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.ray_jobs.dag import run_tasks
from lakeloop.ray_jobs.training import _Steps

START = datetime(2026, 3, 1, tzinfo=UTC)
AS_OF = datetime(2026, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SPEND = (
    '-- /// feature-view\n-- owner = "me"\n-- entity = ["customer_id"]\n-- event_time = "seen"\n-- online = true\n'
    "-- ///\n"
    "select customer_id, seen, price from orders\n"
)
SOURCE = 'owner = "me"\nread = {{ kind = "landing", format = "{}" }}\nevent_time = "seen"\n[columns]\n'


def project_files(kind: str) -> dict[str, str]:
    """A shop whose customers have ids of this type."""
    return {
        "lakeloop.toml": 'name = "shop"\nowner = "me"\n',
        "sources/orders.toml": SOURCE.format("csv")
        + f'order_id = "string"\ncustomer_id = "{kind}"\nseen = "timestamp"\n'
        'price = { type = "float64", range = [0, 1000] }\n',
        "sources/clicks.toml": SOURCE.format("jsonl")
        + f'customer_id = "{kind}"\nseen = "timestamp"\npage = "string"\n',
        "sources/profiles.toml": SOURCE.format("parquet")
        + f'customer_id = "{kind}"\nseen = "timestamp"\nplan = "string"\n',
        "features/spend.sql": SPEND,
        "models/buys.toml": 'problem = "binary"\nlearner = "sklearn"\n[inputs]\nfeatures = ["spend.price"]\n'
        f'[inputs.request]\nasked = "float32"\ncustomer_id = "{kind}"\n'
        '[split]\nby = "random"\ntest = 0.2\nvalid = 0.2\n'
        '[search]\nmetric = "roc_auc"\n',
        "models/buys.sql": "select concat(customer_id, '/', order_id) as id, seen as as_of, customer_id, "
        "price as asked, floor(price)::bigint % 2 = 1 as label, seen + interval 1 hour as label_known_at from orders\n",
    }


@dataclass
class World:
    """The shop's lake; `value` is who will be forgotten."""

    lake: Lake
    kind: str
    value: str

    @property
    def others(self) -> list[str]:
        return [f"cust-{n:04}" if self.kind == "string" else str(7000 + n) for n in range(12)]

    @property
    def typed(self) -> Any:
        return int(self.value) if self.kind != "string" else self.value

    def project(self) -> Project:
        return parse_project(project_files(self.kind))

    def orders(self, first: int, *, wrong: bool = False) -> bytes:
        """Two orders of each customer, the one in question among them; some of them wrong."""
        lines = ["order_id,customer_id,seen,price"]
        for number, customer in enumerate([*self.others, self.value] * 2, start=first):
            lines.append(f"o{number},{customer},{(START + number * timedelta(hours=1)).isoformat()},{number % 100}.5")
        if wrong:
            lines += [f"w1,{self.value},2026-03-01,99999", "w2,nobody,2026-03-01,-3" if self.kind == "string" else ""]
            lines += [f"w3,{self.value}"]
        return "\n".join(line for line in lines if line).encode() + b"\n"

    def clicks(self) -> bytes:
        rows = [{"customer_id": _typed(self.kind, c), "seen": START.isoformat(), "page": "a"} for c in self.everybody]
        broken = f'{{"customer_id": "{self.value}", "seen": \n'
        return "".join(json.dumps(row) + "\n" for row in rows).encode() + broken.encode()

    def profiles(self) -> bytes:
        ids = [_typed(self.kind, one) for one in self.everybody]
        rows = pa.table({"customer_id": ids, "seen": [START] * len(ids), "plan": ["gold"] * len(ids)})
        sink = io.BytesIO()
        pq.write_table(rows, sink)
        return sink.getvalue()

    @property
    def everybody(self) -> list[str]:
        return [*self.others, self.value]

    def garbage(self) -> bytes:
        return b"\x00\x01 no file at all: customer_id=" + self.value.encode() + b" \xff"

    def arrive(self) -> None:
        """Every kind of file, once."""
        lake, project = self.lake, self.project()
        land(lake, project, "orders", "first.csv", self.orders(0, wrong=True))
        land(lake, project, "orders", "second.csv.gz", gzip.compress(self.orders(100)))
        land(lake, project, "clicks", "clicks.jsonl", self.clicks())
        land(lake, project, "clicks", "more.jsonl.zip", zipped("more.jsonl", self.clicks().replace(b'"a"', b'"b"')))
        land(lake, project, "profiles", "people.parquet", self.profiles())
        land(lake, project, "profiles", "bad.parquet", self.garbage())
        ingest_data(lake, project)

    def predictions(self, segment: str, first: int) -> None:
        """What an endpoint logged: the id tells whose it was, as does nothing else."""
        rows = [
            {"prediction_id": f"{segment}#{n}", "id": f"{customer}/o{first + n}", "as_of": START, "logged_at": START}
            | {"project": "shop", "model": "buys", "version": 1, "prediction": 0.5, "asked": 1.0}
            for n, customer in enumerate([*self.others, self.value] * 2)
        ]
        self.lake.journal("predictions.shop.buys").append(pa.Table.from_pylist(rows), segment)

    def fill(self) -> str:
        """The customer everywhere; returns the run that used the rows."""
        lake, project = self.lake, self.project()
        applied.publish(lake, project, code_version="1")
        self.arrive()
        build_features(lake, project, as_of=START + DAY)
        maintain_table(lake, "shop/orders", now=True)
        run = self.train()
        self.predictions("log-1", 0)
        lake.journal("predictions.shop.buys").fold()
        self.predictions("log-2", 100)
        land(lake, project, "orders", "third.csv", self.orders(200))
        ingest_data(lake, project)
        build_features(lake, project, as_of=START + 2 * DAY)
        roll_out(lake, project)
        lake.journal("quarantine").fold()
        land(lake, project, "orders", "waiting.csv", self.orders(300))
        self.notes()
        return run

    def train(self) -> str:
        """The tasks of a run that need no Ray, and a version that was served."""
        lake, project = self.lake, self.project()
        run = runs.open_run(lake, project, "buys", trigger="by hand", as_of=AS_OF, incident="1")
        assert run is not None
        opened = runs.get_run(lake, run)
        done = run_tasks(lake, opened, _Steps(lake, opened, lambda event: None).tasks()[:3], lambda event: None)
        kept = lake.artifacts.get(done["pull"]["table"]["key"], done["pull"]["table"]["sha256"])
        scores = lake.artifacts.put("runs", run, "scores.parquet", kept)
        views = {"spend": applied.bound(project).views["spend"].version}
        body = {"artifacts": [scores.to_json()], "metrics": [], "lineage": {"views": views, "definition": project.hash}}
        registry.register(lake, "shop", "buys", run, body)
        endpoints.promote(lake, "shop", "buys", 1, expected=None, why="test")
        runs.finish_run(lake, run, version=1, facts={})
        return run

    def notes(self) -> None:
        """What people and monitors wrote of the customer."""
        lake = self.lake
        told = f"customer_id={self.value}"
        lake.documents.create("stuck", "ingest.shop", {"error": f"no plan for {told}", "tries": 1}, f"seen {told}")
        alert = {"alert": "a1", "project": "shop", "message": f"drift in {told} and others", "logged_at": START}
        lake.record("alerts", [alert, {**alert, "alert": "a2", "message": "all is well"}])
        slices = [{"run": "r", "metric": "roc_auc", "slice": name, "value": 0.5} for name in (told, "customer_id=cust")]
        lake.record("metrics", slices)
        lake.store.put("quarantine/inbox/events/broken-1", self.garbage())


def _typed(kind: str, value: str) -> Any:
    return value if kind == "string" else int(value)


def zipped(name: str, data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return sink.getvalue()


def tellers(lake: Lake, value: Any) -> list[str]:
    """Keys of objects that hold the value in any byte: as they lie, unpacked, and decoded."""
    found = []
    for entry in lake.store.list():
        data = lake.store.get(entry.key)
        if str(value) in entry.key or any(_tells(part, value) for part in _readings(data)):
            found.append(entry.key)
    return found


def _readings(data: bytes) -> Iterator[Any]:
    yield data
    if data.startswith(b"\x1f\x8b"):
        yield from _readings(gzip.decompress(data))
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield from _readings(archive.read(name))
    if data.startswith(b"PAR1"):
        yield from _parquet(data)
    if data.startswith(b"ARROW1"):
        rows = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        yield from (rows.to_pylist(), rows.schema.metadata)


def _parquet(data: bytes) -> Iterator[Any]:
    file = pq.ParquetFile(io.BytesIO(data))
    yield from (file.read().to_pylist(), file.schema_arrow.metadata)
    for group in range(file.metadata.num_row_groups):
        for column in range(file.metadata.num_columns):
            statistics = file.metadata.row_group(group).column(column).statistics
            if statistics is not None and statistics.has_min_max:
                yield [statistics.min, statistics.max]


def _tells(part: Any, value: Any) -> bool:
    if isinstance(part, bytes):
        return str(value).encode() in part
    if isinstance(part, str):
        return str(value) in part
    if isinstance(part, dict):
        return any(_tells(one, value) for pair in part.items() for one in pair)
    if isinstance(part, list):
        return any(_tells(one, value) for one in part)
    return bool(part == value) and part is not None
