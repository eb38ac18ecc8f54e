"""What names mean in SQL over a lake.

In a project: its sources (as `rows` says), `<source>_history`, its views as built, `<model>_examples`, `predictions`
and `predictions_labelled`. In the schema `lakeloop`: every journal, `documents`. Any other Delta table of the lake is
`project.table`. `"name@3"` is what a name said when its table was at version 3, `"name@2026-11-24T10:00Z"` what it said
at that moment; of a journal, what was folded by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial

import pyarrow as pa

from lakeloop.lakehouse import applied, foreign, keys
from lakeloop.lakehouse.column_types import duckdb_type
from lakeloop.lakehouse.errors import Invalid, NotFound
from lakeloop.lakehouse.features.point_in_time import known
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.pins import Pin
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import FeatureView, Model, Source
from lakeloop.lakehouse.query.document_rows import document_rows
from lakeloop.lakehouse.query.foreign import scan_delta, scan_parquet, select_declared
from lakeloop.lakehouse.query.quoting import literal, quoted, timestamp
from lakeloop.lakehouse.query.session import Files, Foreign, Query, Relation, Stored, Union
from lakeloop.lakehouse.records import JOURNALS, PREDICTIONS
from lakeloop.lakehouse.segments import SEGMENT
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
from (
    select * from lakeloop.quarantine qualify row_number() over (
        partition by project, source, file, line, case when line is null then reason end order by logged_at desc) = 1
) q left join lakeloop.quarantine_decisions d using (project, source, file, line)"""
"""A row of the quarantine is open, kept (its rule only warns), retried or dropped: each is decided once, and
`kept` too when a retry finds it in the table. One that was judged twice, by other rules, counts by the last."""


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


@dataclass(frozen=True, slots=True)
class Version:
    """What stands behind the `@` of a name: the number of a version, or a moment."""

    name: str
    text: str

    @property
    def number(self) -> int | None:
        return int(self.text) if self.text.isascii() and self.text.isdigit() else None

    def moment(self) -> datetime:
        """UTC unless it names an offset."""
        try:
            at = datetime.fromisoformat(self.text)
        except ValueError:
            raise Invalid(
                f"{self.text!r} is neither a version nor a time",
                where=self.name,
                todo="write name@3, or name@2026-11-24T10:00Z",
            ) from None
        return at if at.tzinfo else at.replace(tzinfo=UTC)


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
        self._numbers: dict[str, int] = {}

    def __call__(self, name: str) -> Relation | None:
        if name in self._parts:
            return self._parts[name]
        base, at, text = name.partition("@")
        schema, dot, short = base.rpartition(".")
        version = Version(name, text) if at else None
        if schema == "lakeloop":
            found = self._of_lake(short, version)
        elif dot:
            found = self._of_project(self._project_named(schema), short, version)
        else:
            found = self._of_project(self._project, short, version)
            if found is None:
                found = self._of_lake(short, version)
        if found is None and self._is_table(base):
            found = self._table(base.replace(".", "/"), {}, version)
        return found

    def knows(self, name: str) -> bool:
        """Whether a name means something here; the tables behind it are not opened."""
        base = name.partition("@")[0]
        schema, dot, short = base.rpartition(".")
        if not dot:
            return base in OF_LAKE or (self._project is not None and base in names_of(self._project))
        if schema == "lakeloop" and short in OF_LAKE:
            return True
        project = self._project_named(schema) if schema != "lakeloop" else None
        return (project is not None and short in names_of(project)) or self._is_table(base)

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

    def _is_table(self, name: str) -> bool:
        """Whether the lake has a Delta table `project.table` that nobody declared: one LIST of one key."""
        schema, _, short = name.rpartition(".")
        if not schema or not short or any(part in (".", "..") or "/" in part for part in (schema, short)):
            return False
        log = f"{keys.table(f'{schema}/{short}')}/_delta_log/"
        return any(True for _ in self._lake.store.list(log, limit=1))

    def _number(self, name: str, version: Version) -> int:
        """The number of a version of a table `project/table`."""
        return self._opened(name, version).version if version.number is None else version.number

    def _opened(self, name: str, at: Version) -> Table:
        """A table `project/table` at a version. NotFound where it has none."""
        if at.number is None:
            table = self._lake.tables.open(name, at=at.moment())
        else:
            table = self._lake.tables.open(name, version=at.number)
        if table is None:
            raise NotFound(f"{name} has no version yet", where=at.name)
        return table

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

    # -- of a project ------------------------------------------------------------------------------------------------

    def _of_project(self, project: Project | None, name: str, version: Version | None = None) -> Relation | None:
        if project is None:
            return None
        prefix = "" if project is self._project else f"{project.name}."
        if name in project.sources:
            return self._source(project, project.sources[name], prefix, version)
        if name.removesuffix("_history") in project.sources and name.endswith("_history"):
            return self._history(project, project.sources[name.removesuffix("_history")], version)
        if name in project.views:
            return self._view(project, project.views[name], version)
        if name in names_of(project):
            _no_version(version)
        if name.removesuffix("_examples") in project.models and name.endswith("_examples"):
            return Query(project.models[name.removesuffix("_examples")].examples_sql)
        if name == "predictions":
            return self._predictions([f"predictions.{project.name}.{model}" for model in project.models])
        if name == "predictions_labelled":
            return self._labelled(project, prefix)
        return None

    def _source(self, project: Project, source: Source, prefix: str, version: Version | None) -> Relation:
        history = f"{prefix}{source.name}_history"
        if version is not None:
            history += f"@{self._number(f'{project.name}/{source.name}', version)}"
        return current_rows(source, history, where=self._known_filter(source), first_seen=self._first_seen)

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

    def _foreign_at(self, project: Project, source: Source, version: Version | None) -> Relation:
        """A table that is read in place, as a project saw it under a number, as it is pinned, or as it is now."""
        if version is not None:
            if version.number is None:
                raise Invalid(f"{source.name} lies outside of the lake", where=version.name, todo="name a number")
            return self._foreign(project, source, foreign.state_at(self._lake, project, source, version.number))
        pin = self._pins.get(f"{project.name}/{source.name}")
        return self._foreign(project, source, pin if isinstance(pin, foreign.Seen) else None)

    def _history(self, project: Project, source: Source, version: Version | None = None) -> Relation:
        if source.foreign:
            return self._foreign_at(project, source, version)
        wanted = {name: column.type.stored for name, column in source.columns.items()} | INGESTED
        return self._table(f"{project.name}/{source.name}", wanted, version)

    def _view(self, project: Project, view: FeatureView, version: Version | None = None) -> Relation:
        if version is not None:
            return self._table(f"{project.name}/{view.name}", {}, version)
        if self._known_by is not None:
            return Query(f"select * from (\n{view.sql}\n) where {known(view)} <= epoch_us({timestamp(self._known_by)})")
        if self._from_sources:
            return Query(view.sql)
        return self._table(f"{project.name}/{view.name}", applied.bound(project).views[view.name].columns)

    def _table(self, name: str, wanted: Mapping[str, str], at: Version | None = None) -> Relation:
        """A table at a version, at its pin or its newest version, with every wanted column; empty where there is none
        yet."""
        if at is not None:
            return self._with_columns(name, self._opened(name, at), wanted)
        pin = self._pins.get(name)
        if isinstance(pin, Pin):
            self.read[name] = pin
            return Files(pin.uris(self._lake), {**wanted, **pin.columns})
        table = self._lake.table(name)
        if table is None:
            return pa.table({column: pa.array([], arrow_type(kind)) for column, kind in wanted.items()})
        self.read[name] = table
        return self._with_columns(name, table, wanted)

    def _with_columns(self, name: str, table: Table, wanted: Mapping[str, str]) -> Relation:
        """A version of a table, with nulls in the wanted columns that it has not."""
        there, version = set(table.schema.names), table.version
        if there >= set(wanted):
            return Stored(self._lake.tables.uri(name), version)
        part = self._part(f"{name}@{version}", Stored(self._lake.tables.uri(name), version))
        missing = ", ".join(
            f"null::{kind} as {quoted(column)}" for column, kind in wanted.items() if column not in there
        )
        return Query(f"select *, {missing} from {quoted(part)}")

    def _part(self, name: str, relation: Relation) -> str:
        """Make a relation known under a name of its own, which is returned: numbered, since any spelling of two names
        as one could be that of two others."""
        part = f"_part_{self._numbers.setdefault(name, len(self._numbers))}"
        self._parts[part] = relation
        return part

    @property
    def versions(self) -> dict[str, int]:
        """The version of every table that was read."""
        return {name: one.version for name, one in sorted(self.read.items())}

    # -- journals and documents ----------------------------------------------------------------------------------------

    def _of_lake(self, name: str, version: Version | None = None) -> Relation | None:
        if name in LATEST_STATE:
            return self._latest_state(name, version)
        if name.removesuffix("_log") in LATEST_STATE:
            name = name.removesuffix("_log")
        if name in JOURNALS:
            return self._journal(name, JOURNALS[name]) if version is None else self._folded(name, version)
        if name == "quarantine_state":
            _no_version(version)
            return Query(QUARANTINE_STATE)
        if name == "predictions":
            _no_version(version)
            return self._predictions(self._prediction_journals())
        if name == "documents":
            return document_rows(self._lake.store) if version is None else _documents_at(version)
        return None

    def _latest_state(self, name: str, version: Version | None) -> Relation:
        key = LATEST_STATE[name]
        columns = ", ".join(
            f"arg_max({quoted(c)}, logged_at) as {quoted(c)}"
            for c in JOURNALS[name].names
            if c not in (key, "logged_at")
        )
        select = f"select {key}, min(logged_at) as first_logged_at, max(logged_at) as logged_at, {columns}"
        log = self._journal(name, JOURNALS[name]) if version is None else None
        if isinstance(log, Union):
            return replace(log, select=select, then=f"group by {key}")
        number = "" if version is None else f"@{self._number(f'lakeloop/{name}', version)}"
        return Query(f"{select} from lakeloop.{quoted(f'{name}_log{number}')} group by {key}")

    def _folded(self, name: str, version: Version) -> Relation:
        wanted = {field.name: duckdb_type(field.type) for field in JOURNALS[name]}
        return self._table(f"lakeloop/{name}", wanted, version)

    def _journal(self, name: str, schema: pa.Schema) -> Union:
        snapshot, parts = self._lake.journal(name).snapshot(), list[Stored | pa.Table]()
        if snapshot.table is not None:
            parts.append(Stored(self._lake.tables.uri(f"lakeloop/{name}"), snapshot.table.version))
        if snapshot.pending is not None:
            parts.append(snapshot.pending)
        there = [name for part in (snapshot.table, snapshot.pending) if part is not None for name in part.schema.names]
        if not {*there} >= {*schema.names}:  # each part of a union costs time
            parts.append(schema.append(pa.field(SEGMENT, pa.string())).empty_table())
        return Union(tuple(parts))

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
                part = self._part(name, self._journal(name, PREDICTIONS))
                parts.append(f"select * from {quoted(part)}")
        if not parts:
            return PREDICTIONS.append(pa.field(SEGMENT, pa.string())).empty_table()
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


def _documents_at(version: Version) -> Query:
    if version.number is not None:
        raise Invalid(
            "documents have a revision each, and no version", where=version.name, todo="name a moment instead"
        )
    return Query(f"select * from lakeloop.documents where changed_at <= {timestamp(version.moment())}")


def _no_version(version: Version | None) -> None:
    if version is not None:
        raise Invalid(
            "it is computed from several tables and has no version",
            where=version.name,
            todo="name a version of a source, a view or a journal",
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
