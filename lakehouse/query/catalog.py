"""What names mean in SQL over a lake.

In a project: its sources (as `rows` says), `<source>_history`, its views as built, `<model>_examples`, `predictions`
and `predictions_labelled`. In the schema `lakeloop`: every journal, `documents`. `"name@3"` is version
3 of a table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial

import pyarrow as pa

from lakeloop.lakehouse import applied, foreign, keys
from lakeloop.lakehouse.errors import Invalid, NotFound
from lakeloop.lakehouse.features.point_in_time import known
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.pins import Pin
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import FeatureView, Model, Source
from lakeloop.lakehouse.query.foreign import scan_delta, scan_parquet, select_declared
from lakeloop.lakehouse.query.session import Files, Foreign, Query, Relation, Stored, literal, quoted, timestamp
from lakeloop.lakehouse.records import JOURNALS
from lakeloop.lakehouse.store import Location
from lakeloop.lakehouse.tables import Table

INGESTED = {"_file": "VARCHAR", "_line": "BIGINT", "_ingested_at": "TIMESTAMP WITH TIME ZONE"}
LATEST_STATE = {"runs": "run", "alerts": "alert"}
"""Journals that a person reads as one row per thing: the newest value of each column. `<name>_log` has every row."""
ARROW_TYPES = {
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
}


OF_LAKE = (*JOURNALS, *(f"{name}_log" for name in LATEST_STATE), "quarantine_state", "predictions", "documents")
QUARANTINE_STATE = """
select q.* exclude (kept), coalesce(d.decision, case when q.kept then 'kept' else 'open' end) as state,
    d.batch, d.who, d.why, d.logged_at as decided_at
from lakeloop.quarantine q left join lakeloop.quarantine_decisions d using (project, source, file, line)"""
"""A row of the quarantine is open, kept (its rule only warns), retried or dropped: each is decided once."""


def names_of(project: Project) -> list[str]:
    """What SQL calls the things of a project."""
    sources = [name for source in project.sources for name in (source, f"{source}_history")]
    return [
        *sources,
        *project.views,
        *(f"{model}_examples" for model in project.models),
        "predictions",
        "predictions_labelled",
    ]


class LakeCatalog:
    """Resolves names for one session. Remembers every table of a project that it opened, in `read`."""

    def __init__(
        self,
        lake: Lake,
        project: Project | None = None,
        *,
        pins: Mapping[str, Pin | foreign.Seen] | None = None,
        from_sources: bool = False,
        known_by: datetime | None = None,
        exempt: str = "",
        first_seen: bool = False,
        record: bool = False,
    ) -> None:
        """`from_sources`: views are computed, not read as built. `record`: what was found of tables that are read in
        place is written down, so that it has a version.

        For leakage checks: `known_by` leaves out what was not known by then, of sources and of views, but not of the
        source `exempt`; `first_seen` reads every key of a source as it came first.
        """
        self._lake, self._project = lake, project
        self._pins, self._from_sources = dict(pins or {}), from_sources
        self._known_by, self._exempt, self._first_seen = known_by, exempt, first_seen
        self._record = record
        self._elsewhere: dict[str, foreign.State] = {}
        self.read: dict[str, Table | Pin | foreign.Seen] = {}
        self._parts: dict[str, Relation] = {}

    def __call__(self, name: str) -> Relation | None:
        if name in self._parts:
            return self._parts[name]
        if "@" in name:
            return self._pinned(name)
        schema, dot, short = name.rpartition(".")
        if schema == "lakeloop":
            return self._of_lake(short)
        if dot:
            return self._of_project(self._project_named(schema), short)
        found = self._of_project(self._project, short) if self._project else None
        return found if found is not None else self._of_lake(short)

    def knows(self, name: str) -> bool:
        """Whether a name means something here; the tables behind it are not opened."""
        base = name.rpartition("@")[0] or name
        schema, dot, short = base.rpartition(".")
        if schema == "lakeloop":
            return short in OF_LAKE
        if dot:
            project = self._project_named(schema)
            return project is not None and short in names_of(project)
        return base in OF_LAKE or (self._project is not None and base in names_of(self._project))

    def names(self) -> list[str]:
        """What can be asked of: the project's own names, and the lake's with their schema."""
        return [*(names_of(self._project) if self._project else ()), *(f"lakeloop.{name}" for name in OF_LAKE)]

    def _project_named(self, name: str) -> Project | None:
        if self._project and self._project.name == name:
            return self._project
        try:
            return applied.load(self._lake, name)[0]
        except NotFound:
            return None

    @cached_property
    def _permitted(self) -> dict[str, Source]:
        return foreign.permitted(self._lake, self._project) if self._project else {}

    def outside(self) -> list[Location]:
        """The places beyond the lake that the project reads, as it was applied; no request for one that reads none."""
        return [foreign.place(self._lake, source) for source in self._permitted.values()]

    def confirm(self) -> None:
        """Corrupt when a file that is read in place was changed since this catalog looked: one LIST for each source."""
        for name, state in self._elsewhere.items():
            if state.kind == "parquet":
                foreign.check_files(state, foreign.look(self._lake, self._permitted[name]).files, name)

    def _pinned(self, name: str) -> Relation | None:
        base, _, version = name.rpartition("@")
        schema, dot, short = base.rpartition(".")
        project = schema if dot else self._project.name if self._project else ""
        if not version.isdigit() or not project:
            return None
        definition = self._project_named(project)
        if definition is not None and short in definition.sources and definition.sources[short].foreign:
            source = definition.sources[short]
            return self._foreign(definition, source, foreign.state_at(self._lake, definition, source, int(version)))
        return Stored(self._lake.tables.uri(f"{project}/{short}"), int(version))

    # -- of a project ------------------------------------------------------------------------------------------------

    def _of_project(self, project: Project | None, name: str) -> Relation | None:
        if project is None:
            return None
        prefix = "" if project is self._project else f"{project.name}."
        if name in project.sources:
            return self._source(project, project.sources[name], prefix)
        if name.removesuffix("_history") in project.sources and name.endswith("_history"):
            return self._history(project, project.sources[name.removesuffix("_history")])
        if name in project.views:
            return self._view(project, project.views[name])
        if name.removesuffix("_examples") in project.models and name.endswith("_examples"):
            return Query(project.models[name.removesuffix("_examples")].examples_sql)
        if name == "predictions":
            return self._predictions([f"predictions.{project.name}.{model}" for model in project.models])
        if name == "predictions_labelled":
            return self._labelled(project, prefix)
        return None

    def _source(self, project: Project, source: Source, prefix: str) -> Relation:
        return current_rows(
            source, f"{prefix}{source.name}_history", where=self._known_filter(source), first_seen=self._first_seen
        )

    def _known_filter(self, source: Source) -> str:
        """The earliest moment a row can have been known: its event time plus lag, or when it says itself."""
        if self._known_by is None or source.timeless or source.name == self._exempt:
            return ""
        moment = timestamp(self._known_by)
        if source.known_at:
            return f"{quoted(source.known_at)}::timestamptz <= {moment}"
        lag = source.lag.total_seconds() if source.lag else 0
        return f"{quoted(source.event_time)}::timestamptz + to_seconds({lag}) <= {moment}"

    def _foreign(self, project: Project, source: Source, seen: foreign.Seen | None) -> Relation:
        """A table that is read in place, as it was seen or as it is now."""
        if project is not self._project:
            raise Invalid(
                f"{project.name}.{source.name} lies outside of the lake", todo=f"ask from the project {project.name}"
            )
        if source.name not in self._permitted:
            foreign.place(self._lake, source)
            raise Invalid(f"{source.read.uri} is not applied", where=source.name, todo="run `lakeloop apply`")
        state = seen.state if seen else foreign.look(self._lake, source)
        if seen is None and self._record:
            seen = foreign.note(self._lake, project, source, state)
        if seen is not None:
            self.read[f"{project.name}/{source.name}"] = seen
        self._elsewhere[source.name] = state
        scan = (
            scan_delta(state.uri, state.version)
            if state.kind == "delta"
            else scan_parquet([uri for uri, _ in state.files], state.partitions)
        )
        return Foreign(scan, partial(select_declared, source, state.partitions))

    def _history(self, project: Project, source: Source) -> Relation:
        if source.foreign:
            pin = self._pins.get(f"{project.name}/{source.name}")
            return self._foreign(project, source, pin if isinstance(pin, foreign.Seen) else None)
        wanted = {name: column.type.stored for name, column in source.columns.items()} | INGESTED
        return self._table(f"{project.name}/{source.name}", wanted)

    def _view(self, project: Project, view: FeatureView) -> Relation:
        if self._known_by is not None:
            return Query(f"select * from (\n{view.sql}\n) where {known(view)} <= epoch_us({timestamp(self._known_by)})")
        if self._from_sources:
            return Query(view.sql)
        return self._table(f"{project.name}/{view.name}", applied.bound(project).views[view.name].columns)

    def _table(self, name: str, wanted: Mapping[str, str]) -> Relation:
        """A table at its pin or its newest version, with every wanted column; empty where there is none yet."""
        pin = self._pins.get(name)
        if isinstance(pin, Pin):
            self.read[name] = pin
            return Files(pin.uris(self._lake), {**wanted, **pin.columns})
        table = self._lake.table(name)
        if table is None:
            return pa.table({column: pa.array([], arrow_type(kind)) for column, kind in wanted.items()})
        self.read[name] = table
        there, version = set(table.schema.names), table.version
        if there >= set(wanted):
            return Stored(self._lake.tables.uri(name), version)
        part = f"_stored_{name.replace('/', '_')}"
        self._parts[part] = Stored(self._lake.tables.uri(name), version)
        missing = ", ".join(
            f"null::{kind} as {quoted(column)}" for column, kind in wanted.items() if column not in there
        )
        return Query(f"select *, {missing} from {quoted(part)}")

    @property
    def versions(self) -> dict[str, int]:
        """The version of every table that was read."""
        return {name: one.version for name, one in sorted(self.read.items())}

    # -- journals and documents ----------------------------------------------------------------------------------------

    def _of_lake(self, name: str) -> Relation | None:
        if name in LATEST_STATE:
            key = LATEST_STATE[name]
            columns = ", ".join(
                f"arg_max({quoted(c)}, logged_at) as {quoted(c)}"
                for c in JOURNALS[name].names
                if c not in (key, "logged_at")
            )
            return Query(
                f"select {key}, min(logged_at) as first_logged_at, max(logged_at) as logged_at, {columns} "
                f"from lakeloop.{name}_log group by {key}"
            )
        if name.removesuffix("_log") in LATEST_STATE:
            return self._journal(name.removesuffix("_log"), JOURNALS[name.removesuffix("_log")])
        if name in JOURNALS:
            return self._journal(name, JOURNALS[name])
        if name == "quarantine_state":
            return Query(QUARANTINE_STATE)
        if name == "predictions":
            return self._predictions(self._prediction_journals())
        if name == "documents":
            return self._documents()
        return None

    def _journal(self, name: str, schema: pa.Schema | None) -> Relation:
        snapshot, flat = self._lake.journal(name).snapshot(), name.replace(".", "_")
        parts: list[str] = []
        if snapshot.table is not None:
            self._parts[f"_folded_{flat}"] = Stored(self._lake.tables.uri(f"lakeloop/{name}"), snapshot.table.version)
            parts.append(f"select * from {quoted(f'_folded_{flat}')}")
        if snapshot.pending is not None:
            self._parts[f"_pending_{flat}"] = snapshot.pending
            parts.append(f"select * from {quoted(f'_pending_{flat}')}")
        if schema is not None:
            self._parts[f"_empty_{flat}"] = schema.append(pa.field("_segment", pa.string())).empty_table()
            parts.append(f"select * from {quoted(f'_empty_{flat}')}")
        return Query(" union all by name ".join(parts) or "select null::VARCHAR as prediction_id where false")

    def _prediction_journals(self) -> list[str]:
        store = self._lake.store
        found = [
            *store.list(f"{keys.INBOX}predictions.", delimiter="/"),
            *store.list("tables/lakeloop/predictions.", delimiter="/"),
        ]
        return sorted({entry.key.rstrip("/").rsplit("/", 1)[1] for entry in found})

    def _predictions(self, journals: Sequence[str]) -> Relation:
        """A prediction is its id: a request that was sent again and answered again counts once, as last answered."""
        there = set(self._prediction_journals())
        parts = []
        for name in journals:
            if name in there:
                part = f"_journal_{name.replace('.', '_')}"
                self._parts[part] = self._journal(name, None)
                parts.append(f"select * from {quoted(part)}")
        if not parts:
            return empty_predictions()
        return Query(
            f"select * from ({' union all by name '.join(parts)}) qualify row_number() over ("
            "partition by project, model, prediction_id order by logged_at desc) = 1"
        )

    def _labelled(self, project: Project, prefix: str) -> Relation:
        dot = prefix and f"{quoted(project.name)}."
        models = applied.bound(project).models
        kinds = {name: one.columns["label"] for name, one in models.items() if "label" in one.columns}
        label = "label" if len(set(kinds.values())) == 1 else "label::varchar as label"  # a union would make true a 1
        labels = " union all by name ".join(
            f"select {literal(model)} as model, id::varchar as id, {label}, label_known_at "
            f"from {_examples_of(project.models[model], dot)} where label is not null"
            for model in kinds
        )
        labels = labels or "select null::varchar as model, null::varchar as id, null as label, null as label_known_at"
        return Query(
            f"select p.*, l.label, l.label_known_at from {dot}predictions p left join ({labels}) l using (model, id)"
        )

    def _documents(self) -> Relation:
        documents = self._lake.documents
        revisions = [
            r for kind in documents.kinds() for doc in documents.ids(kind) for r in documents.history(kind, doc)
        ]
        return pa.table(
            {
                "kind": pa.array([r.kind for r in revisions], pa.string()),
                "id": pa.array([r.id for r in revisions], pa.string()),
                "revision": pa.array([r.number for r in revisions], pa.int64()),
                "changed_at": pa.array([r.at for r in revisions], pa.timestamp("us", "UTC")),
                "who": pa.array([r.who for r in revisions], pa.string()),
                "why": pa.array([r.why for r in revisions], pa.string()),
                "body": pa.array([json.dumps(r.body) for r in revisions], pa.string()),
            }
        )


def current_rows(source: Source, history: str, *, where: str = "", first_seen: bool = False) -> Query:
    """What a source says now, of all that ever came (`history`: its columns and those of `INGESTED`), by its `rows`.

    `where` is a condition on the rows; `first_seen` reads each key as it came first.
    """
    table = ".".join(quoted(part) for part in history.split("."))
    columns = ", ".join(quoted(name) for name in source.columns)
    filtered = f" where {where}" if where else ""
    newest = "order by " + ", ".join(f"{name} {'asc' if first_seen else 'desc'}" for name in _arrival(source))
    match source.rows:
        case "append":
            return Query(f"select {columns} from {table}{filtered}")
        case "latest":
            partition = ", ".join(quoted(name) for name in source.key)
            return Query(
                f"select {columns} from {table}{filtered} "
                f"qualify row_number() over (partition by {partition} {newest}) = 1"
            )
        case "replace":
            return Query(f"select {columns} from {table} where _file = (select _file from {table} {newest} limit 1)")


def _arrival(source: Source) -> list[str]:
    """The columns in whose order the versions of a key came. A table elsewhere says it by its times; of equal times the
    greater values win, which is arbitrary but the same everywhere."""
    if not source.foreign:
        return ["_ingested_at", "_file", "_line"]
    first = source.known_at or source.event_time
    return [quoted(name) for name in (first, *(name for name in source.columns if name != first))]


def _examples_of(model: Model, schema: str) -> str:
    """SQL: a model's examples as a table, with the labels that are taken for granted by now."""
    name = f"{schema}{quoted(f'{model.name}_examples')}"
    if model.examples.no_label == "drop":
        return name
    return f"(select * from ({with_no_label(model, f'select * from {name}')}) where label_known_at <= now())"


def with_no_label(model: Model, examples: str) -> str:
    """SQL: the examples, with the label that `no_label` says where none has come, known when `label_wait` is over."""
    value = model.examples.no_label
    if value == "drop":
        return examples
    text = literal(value) if isinstance(value, str) else str(value)
    waited = f"as_of::timestamptz + to_seconds({model.examples.label_wait.total_seconds()})"
    return (
        f"select * replace (coalesce(label, {text}) as label, "
        f"case when label is null then {waited} else label_known_at::timestamptz end as label_known_at) "
        f"from ({examples})"
    )


def arrow_type(duckdb_type: str) -> pa.DataType:
    """The Arrow type of a stored DuckDB type."""
    if duckdb_type.endswith("[]"):
        return pa.list_(arrow_type(duckdb_type[:-2]))
    return ARROW_TYPES.get(duckdb_type, pa.string())


def empty_predictions() -> pa.Table:
    """The columns that every prediction has, without rows."""
    text, real = pa.string(), pa.float64()
    names = {
        "prediction_id": text,
        "request_id": text,
        "id": text,
        "as_of": pa.timestamp("us", "UTC"),
        "logged_at": pa.timestamp("us", "UTC"),
        "project": text,
        "model": text,
        "version": pa.int64(),
        "arm": text,
        "prediction": real,
        "decision": text,
        "latency_ms": real,
        "revision": pa.int64(),
        "ages": text,
    }
    return pa.schema(list(names.items())).empty_table()
