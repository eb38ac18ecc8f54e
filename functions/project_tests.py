"""The pytest plugin behind `lakeloop test`: a project's features and examples, of rows that a test gives.

No lake, no Ray, no bucket. The SQL is the project's own, computed as a build would and joined as training does, so that
what a test sees is what a model would have been given. `from models.NAME import derive` works in every test.

    def test_a_delay_is_unknown_before_the_landing(project):
        project.given("flights", [{"carrier": "UA", ...}])
        assert project.features("carrier_delays", carrier="UA", as_of="2013-07-01T15:49Z")["landed_3h"] == 0
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lakeloop.lakehouse.errors import Invalid, LakeloopError, NotFound
from lakeloop.lakehouse.project import Project, find_project, read_project

if TYPE_CHECKING:
    import pyarrow as pa

    from lakeloop.lakehouse.project.bound import Bound
    from lakeloop.lakehouse.project.definitions import Source
    from lakeloop.lakehouse.query.session import Relation, Session

FOLDER = pytest.StashKey[Path]()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_GIVEN = datetime(2000, 1, 1, tzinfo=UTC)
"""`_ingested_at` of the first rows a test gives; each further call of `given` is a file that came a minute later."""
SHOWN = 5


def pytest_configure(config: pytest.Config) -> None:
    """Find the project, and let its tests import `models.NAME`."""
    starts = [Path(str(argument).partition("::")[0]) for argument in config.args]
    for start in (*starts, config.rootpath, config.invocation_params.dir):
        try:
            folder = find_project(start.resolve()).resolve()
        except NotFound:
            continue
        config.stash[FOLDER] = folder
        sys.path.insert(0, str(folder))
        return


def pytest_unconfigure(config: pytest.Config) -> None:
    """Forget the project's modules, for whoever runs pytest more than once in one process."""
    folder = config.stash.get(FOLDER, None)
    if folder is None:
        return
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name == "models" or name.startswith("models.")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def _bound_project(request: pytest.FixtureRequest) -> Bound:
    """The project's files, read and bound once."""
    folder = request.config.stash.get(FOLDER, None)
    if folder is None:
        pytest.fail(
            "there is no lakeloop.toml here or in any folder above\n  → run `lakeloop test` in a project's folder",
            pytrace=False,
        )
    from lakeloop.lakehouse.applied import bound

    try:
        return bound(read_project(folder))
    except LakeloopError as error:
        told = str(error)
    pytest.fail(told, pytrace=False)


@pytest.fixture
def project(_bound_project: Bound) -> GivenProject:
    """The project of this folder, with the rows that the test gives it and no others."""
    return GivenProject(_bound_project)


class GivenProject:
    """A project whose sources hold what `given` was called with. Sources that were given nothing are empty."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._project: Project = bound.project
        self._given: dict[str, list[pa.Table]] = {}

    def given(self, source: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to a source, as a file that comes after those given before: a key that comes again follows `rows`.

        Values are Python's, or texts as in JSON (times in ISO 8601, UTC when they name no zone). Columns that a row
        does not give are null, required or not, so that a test says no more than it needs; what it gives must keep the
        source's rules. [[check]]s are not run.
        """
        __tracebackhide__ = True
        definition = self._project.sources.get(source)
        if definition is None:
            raise _no_such("source", source, list(self._project.sources), self._project.name)
        files = self._given.setdefault(source, [])
        files.append(_decoded(definition, rows, len(files)))

    def features(self, view: str, /, *, as_of: str | date, **key: Any) -> dict[str, Any]:
        """A view's features of one entity, as visible at a moment: what training and the endpoint would use."""
        __tracebackhide__ = True
        definition = self._project.views.get(view)
        if definition is None:
            raise _no_such("feature view", view, list(self._project.views), self._project.name)
        from lakeloop.lakehouse.features.training_set import keep_join

        with self._session() as session:
            self._keep_asked(session, view, key, moment(as_of))
            keep_join(session, definition, "_asked", "_answer")
            row: dict[str, Any] = session.run("select * exclude (_row, _event) from _answer").to_pylist()[0]
        return row

    def examples(self, model: str, as_of: str | date | None = None) -> pa.Table:
        """A model's training rows as of a moment: those whose label was known by then, with their features.

        Without a moment, every example, labelled or not.
        """
        __tracebackhide__ = True
        definition = self._project.models.get(model)
        if definition is None:
            raise _no_such("model", model, list(self._project.models), self._project.name)
        from lakeloop.lakehouse.features.training_set import training_rows

        with self._session() as session:
            return training_rows(session, self._project, definition, None if as_of is None else moment(as_of))

    def _session(self) -> Session:
        from lakeloop.lakehouse.query.session import Session

        return Session(None, self._relation, threads=1)

    def _relation(self, name: str) -> Relation | None:
        """What a name in the project's SQL means here; views are computed, in the types that a build stores."""
        from lakeloop.lakehouse.query.catalog import current_rows
        from lakeloop.lakehouse.query.quoting import quoted
        from lakeloop.lakehouse.query.session import Query

        source = name.removesuffix("_history")
        if name in self._project.sources:
            return current_rows(self._project.sources[name], f"{name}_history")
        if source in self._project.sources:
            return self._history(self._project.sources[source])
        if name in self._project.views:
            columns = self._bound.views[name].columns
            casts = ", ".join(f"{quoted(column)}::{kind} as {quoted(column)}" for column, kind in columns.items())
            return Query(f"select {casts} from (\n{self._project.views[name].sql}\n)")
        return None

    def _history(self, source: Source) -> pa.Table:
        import pyarrow as pa

        from lakeloop.lakehouse.query.catalog import INGESTED, arrow_type

        files = self._given.get(source.name)
        if files:
            return pa.concat_tables(files)
        columns = {**self._bound.sources[source.name], **INGESTED}
        return pa.table({name: pa.array([], arrow_type(kind)) for name, kind in columns.items()})

    def _keep_asked(self, session: Session, view: str, key: Mapping[str, Any], at: datetime) -> None:
        """The one row that is asked, under the name `_asked`, with the key in the view's own types."""
        from lakeloop.lakehouse.query.quoting import quoted

        bound = self._bound.views[view]
        entity = bound.view.entity
        where = f'features("{view}")'
        for name in key:
            if name not in entity:
                raise Invalid(f"{name!r} is not a key of {view}", where=where, todo=_asked_by(entity))
        missing = [name for name in entity if name not in key]
        if missing:
            raise Invalid(f"the key {', '.join(missing)} is not given", where=where, todo=_asked_by(entity))
        columns = [f"try_cast(? as {bound.columns[name]}) as {quoted(name)}" for name in entity]
        values = [_text(key[name]) for name in entity]
        session.keep(
            "_asked",
            f"select {', '.join(['0::BIGINT as _row', '?::BIGINT as _t', *columns])}",
            [(at - EPOCH) // timedelta(microseconds=1), *values],
        )
        found = session.run("select * from _asked").to_pylist()[0]
        for name, value in zip(entity, values, strict=True):
            if found[name] is None and value is not None:
                raise Invalid(f"{value!r} cannot be the key {name}, which is {bound.columns[name]}", where=where)


def moment(value: str | date) -> datetime:
    """A moment from an ISO 8601 text, a datetime or a date; UTC unless it names a zone."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise Invalid(f"{value!r} is not a time", todo='write it as "2013-07-01T12:30Z" or "2013-07-01"') from None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _decoded(source: Source, rows: Sequence[Mapping[str, Any]], file: int) -> pa.Table:
    """Rows as an ingest would have stored them; Invalid for an unknown column, or a value that breaks a rule."""
    import pyarrow as pa

    from lakeloop.functions.judging import unique_rules
    from lakeloop.lakehouse.query.quoting import quoted
    from lakeloop.lakehouse.query.session import Session
    from lakeloop.lakehouse.rules import LANDED, decoded

    where = f'given("{source.name}")'
    _check_columns(source, rows, where)
    present = [name for name in source.columns if any(name in row for row in rows)]
    given = {name: pa.array([_written(source, name, row.get(name)) for row in rows], pa.string()) for name in present}
    lines = pa.array(range(1, len(rows) + 1), pa.int64())
    kept = ", ".join(quoted(name) for name in source.columns)
    with Session(None, lambda _name: None, threads=1) as session:
        session.register(LANDED, pa.table({**given, "_line": lines}))
        kinds = dict.fromkeys(present, pa.string())
        unique = unique_rules(session, source, kinds, lambda: None)
        session.keep("judged", decoded(source, kinds, unique) if present else _of_nulls(source))
        if source.on_error != "warn":
            judged = session.run("select _line, _reasons from judged where _bad order by _line").to_pylist()
            _check_rules(rows, judged, where)
        ingested = f"'given-{file:04d}' as _file, _line, ?::timestamptz as _ingested_at"
        return session.run(
            f"select {kept}, {ingested} from judged order by _line", [FIRST_GIVEN + timedelta(minutes=file)]
        )


def _of_nulls(source: Source) -> str:
    from lakeloop.lakehouse.query.quoting import quoted
    from lakeloop.lakehouse.rules import LANDED

    columns = ", ".join(f"null::{column.type.stored} as {quoted(name)}" for name, column in source.columns.items())
    return f"select _line, false as _bad, []::VARCHAR[] as _reasons, {columns} from {quoted(LANDED)}"


def _check_columns(source: Source, rows: Sequence[Mapping[str, Any]], where: str) -> None:
    for row in rows:
        if not isinstance(row, Mapping):
            raise Invalid(
                f"{type(row).__name__} is not a row", where=where, todo='give a list of rows: [{"column": value, …}]'
            )
        for name in row:
            if name not in source.columns:
                raise _no_such("column", name, list(source.columns), f"sources/{source.name}.toml")


def _check_rules(rows: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]], where: str) -> None:
    """A column that only other rows give is null here too, and no fault."""
    faults = []
    for one in judged:
        row = rows[one["_line"] - 1]
        faults += [f"row {one['_line']}: {reason}" for reason in one["_reasons"] if reason.partition(": ")[0] in row]
    if faults:
        raise Invalid(faults[0], where=where, todo="an ingest would set the row aside", problems=faults[1:SHOWN])


def _written(source: Source, name: str, value: Any) -> str | None:
    """A value as a landed file would spell it."""
    if isinstance(value, str) and source.columns[name].type.name == "timestamp":
        try:
            return moment(value).isoformat()
        except Invalid:
            return value  # the source's rules say what is wrong with it
    return _text(value)


def _text(value: Any) -> str | None:
    match value:
        case None | str():
            return value
        case bool():
            return str(value).lower()
        case datetime():
            return moment(value).isoformat()
        case date():
            return value.isoformat()
        case list() | tuple() | dict():
            return json.dumps(value, default=str, ensure_ascii=False)
        case _:
            return str(value)


def _no_such(kind: str, name: str, known: Sequence[str], where: str) -> Invalid:
    from lakeloop.lakehouse.project.documents import did_you_mean

    hint = did_you_mean(name, known).removeprefix("; ") or f"known: {', '.join(known) or 'none'}"
    return Invalid(f"there is no {kind} {name!r}", where=where, todo=hint)


def _asked_by(entity: Sequence[str]) -> str:
    return (
        f"it is asked by {', '.join(f'{name}=…' for name in entity)}"
        if entity
        else "it has one row for all: give as_of only"
    )
