"""The leakage check: would the model's inputs have been the same if nothing but what was known at the time had
existed?

At several moments T the inputs of the newest predictions are computed twice: from all data, and from only those rows
of sources and views that were known at T. An input that differs rests on the future. The rows that make the examples
themselves are exempt (a timetable is known before the flight); of those, the values that a key had when it first came
are compared with its last ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.features.training_set import EXAMPLES, RESERVED, keep_examples, with_features
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.quoting import quoted, timestamp
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.query.statements import parse

MOMENTS = 4
SPAN = timedelta(hours=1)
ROWS = 60


@dataclass(frozen=True, slots=True)
class Leak:
    """An input that knew more than it could."""

    model: str
    input: str
    example: str
    as_of: datetime
    value: Any
    known: Any
    rows: int
    why: str

    def __str__(self) -> str:
        return (
            f"{self.input} of example {self.example}, as of {self.as_of:%Y-%m-%d %H:%M}Z, is {_shown(self.value)}; "
            f"{self.why} it is {_shown(self.known)} ({self.rows} such rows)"
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """What was compared, and what was found."""

    model: str
    moments: int
    rows: int
    leaks: tuple[Leak, ...]


def check_leakage(
    lake: Lake, project: Project, model: str, *, progress: Callable[[int, int], None] | None = None
) -> Checked:
    """Compare at `MOMENTS` moments spread over the model's examples.

    Without data there is nothing to compare: 0 rows.
    """
    definition = project.models[model]
    moments = _moments(lake, project, definition)
    leaks: dict[str, Leak] = {}
    rows = 0
    for at, moment in enumerate(moments):
        full, known = _both(lake, project, definition, moment)
        rows += full.num_rows
        _compare(leaks, definition, full, known, f"with only what was known at {moment:%Y-%m-%d %H:%M}Z")
        if progress:
            progress(at + 1, len(moments))
    if moments:
        _compare(leaks, definition, *_first_and_last(lake, project, definition), "when the row first came")
    return Checked(model, len(moments), rows, tuple(leaks.values()))


def spine_of(sql: str) -> str:
    """The table that the rows of a query come from: the leftmost one of its FROM clause."""
    node: Any = parse(sql)
    common = {entry["key"]: entry["value"]["query"]["node"] for entry in (node.get("cte_map") or {}).get("map", [])}
    while True:
        kind = node.get("type")
        if kind == "BASE_TABLE":
            if node["table_name"] not in common:
                return str(node["table_name"])
            node = common.pop(node["table_name"])
        elif kind == "JOIN":
            node = node["left"]
        elif kind == "SUBQUERY":
            node = node["subquery"]["node"]
        elif "from_table" in node:
            node = node["from_table"]
        elif "left" in node:
            node = node["left"]
        else:
            raise Invalid("the query reads no table", todo="let the examples come from a source")


def _moments(lake: Lake, project: Project, model: Model) -> list[datetime]:
    with Session(lake.store.location(), LakeCatalog(lake, project)) as session:
        keep_examples(session, model, where="label is not null")
        shares = [(at + 1) / (MOMENTS + 1) for at in range(MOMENTS)]
        found = session.run(f"select distinct unnest(quantile_disc(as_of, {shares})) as t from {EXAMPLES} order by t")
    return [moment for moment in found.column("t").to_pylist() if moment is not None]


def _both(lake: Lake, project: Project, model: Model, moment: datetime) -> tuple[pa.Table, pa.Table]:
    """The newest examples up to a moment, with their inputs, from everything and from what was known."""
    span = f"as_of > {timestamp(moment - SPAN)} and as_of <= {timestamp(moment)}"
    newest = f"{span} qualify row_number() over (order by as_of desc, id) <= {ROWS}"
    with Session(lake.store.location(), LakeCatalog(lake, project, from_sources=True)) as session:
        keep_examples(session, model, where=newest)
        full = with_features(session, project, model)
        asked = session.run(f"select * from {EXAMPLES}")
    spine = spine_of(model.examples_sql)
    with Session(
        lake.store.location(), LakeCatalog(lake, project, from_sources=True, known_by=moment, exempt=spine)
    ) as session:
        keep_examples(session, model, where=span)
        request = session.run(f"select * exclude (_row) from {EXAMPLES}")
    with Session(lake.store.location(), LakeCatalog(lake, project, from_sources=True, known_by=moment)) as session:
        session.register(EXAMPLES, asked)
        features = with_features(session, project, model)
    return full, _joined(request, features, list(model.inputs.request))


def _joined(request: pa.Table, features: pa.Table, asked: list[str]) -> pa.Table:
    """What was known: request columns from the one, features from the other, by id."""
    others = [name for name in features.column_names if name not in asked and name not in RESERVED]
    left = request.select(["id", *[name for name in asked if name in request.column_names]])
    return left.join(features.select(["id", *others]), "id", join_type="right outer")


def _first_and_last(lake: Lake, project: Project, model: Model) -> tuple[pa.Table, pa.Table]:
    """Examples as of all data, and as their source's rows first came.

    Only where a key came more than once can they differ.
    """
    tables = []
    for first in (False, True):
        with Session(lake.store.location(), LakeCatalog(lake, project, first_seen=first)) as session:
            keep_examples(session, model)
            tables.append(
                session.run(f"select id, as_of, {', '.join(map(quoted, model.inputs.request))} from {EXAMPLES}")
            )
    return tables[0], tables[1]


def _compare(leaks: dict[str, Leak], model: Model, full: pa.Table, known: pa.Table, why: str) -> None:
    """Note, per input, the first row that differs and how many do."""
    inputs = [name for name in full.column_names if name in known.column_names and name not in RESERVED]
    if not inputs or not full.num_rows:
        return
    tests = ", ".join(
        f"count(*) filter (where f.{quoted(n)} is distinct from k.{quoted(n)}) as {quoted(n)}" for n in inputs
    )
    with Session(None, lambda _name: None) as session:
        session.register("f", full)
        session.register("k", known)
        counts = session.run(f"select {tests} from f join k using (id)").to_pylist()[0]
        for name in (name for name in inputs if counts[name] and name not in leaks):
            row = session.run(
                f"select f.id, f.as_of, f.{quoted(name)} as value, k.{quoted(name)} as known from f join k using (id) "
                f"where f.{quoted(name)} is distinct from k.{quoted(name)} order by f.as_of, f.id limit 1"
            ).to_pylist()[0]
            leaks[name] = Leak(
                model.name, name, row["id"], row["as_of"], row["value"], row["known"], int(counts[name]), why
            )


def _shown(value: Any) -> str:
    return "absent" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
