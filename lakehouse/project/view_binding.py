"""Binding the SQL of views: which tables each reads, their order, and what columns and features they give."""

from __future__ import annotations

from collections.abc import Mapping

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.bound import Columns
from lakeloop.lakehouse.project.definitions import FeatureView, Project
from lakeloop.lakehouse.project.documents import Document, Problems, did_you_mean, header_document
from lakeloop.lakehouse.project.stored_types import TIMES, stored_type
from lakeloop.lakehouse.project.window_features import aggregate_sql
from lakeloop.lakehouse.query.statements import check_statement, describe


def add_invalid(problems: Problems, error: Invalid, path: str) -> None:
    """Note what a statement's check found, at the line it points at in the file."""
    _, _, line = error.where.rpartition(":")
    problems.add(path, int(line) if line.isdigit() else 0, one_line(error))


def one_line(error: Invalid) -> str:
    """The message and its way out, in one line."""
    return f"{error.what}; {error.todo}" if error.todo else error.what


def read_tables(project: Project, problems: Problems) -> dict[str, tuple[str, ...]]:
    """The sources and views that each view's SQL names; a view whose SQL may not be run is noted, and left out."""
    allowed = [*project.sources, *project.views]
    found: dict[str, tuple[str, ...]] = {}
    for name, view in project.views.items():
        try:
            tables = check_statement(view.sql, allowed, forbid_nondeterminism=True, where=view.sql_path)
            found[name] = canonical(tables, allowed)
        except Invalid as error:
            add_invalid(problems, error, view.sql_path)
    return found


def canonical(tables: set[str], allowed: list[str]) -> tuple[str, ...]:
    """Names as the project spells them: SQL does not tell small letters from capitals."""
    return tuple(name for name in allowed if name.lower() in {table.lower() for table in tables})


def dependency_order(project: Project, reads: Mapping[str, tuple[str, ...]], problems: Problems) -> list[str]:
    """Views after the views they read. Those on a cycle, or above one, are left out; each cycle is noted once."""
    order: list[str] = []
    broken: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> bool:
        if name in path:
            circle = path[path.index(name) :]
            first = min(circle)
            turn = circle.index(first)
            spelled = " → ".join((*circle[turn:], *circle[:turn], first))
            problems.add(project.views[first].sql_path, 0, f"views read each other in a circle: {spelled}")
            return False
        if name not in order and name not in broken:
            below = [table for table in reads.get(name, ()) if table in project.views]
            sound = name in reads and False not in [visit(table, (*path, name)) for table in below]  # visit them all
            (order.append if sound else broken.add)(name)
        return name in order

    for name in project.views:
        visit(name, ())
    return order


def view_columns(view: FeatureView, tables: Mapping[str, Columns], problems: Problems) -> Columns | None:
    """The stored columns of a view's SQL, checked against its header; None, with the problem noted, when wrong."""
    columns = query_columns(view.sql, view.sql_path, tables, problems)
    if columns is None:
        return None
    document = _header(view, problems)
    names = [(f"entity {name}", name, ("entity", i)) for i, name in enumerate(view.entity)]
    times = [
        (key, name, (key,)) for key, name in (("event_time", view.event_time), ("known_at", view.known_at)) if name
    ]
    sound = True
    for _, name, path in [*names, *times]:
        if name not in columns:
            document.problem(path, f'the query gives no column "{name}"' + did_you_mean(name, list(columns)))
            sound = False
    for key, name, path in times:
        if name in columns and columns[name] not in TIMES:
            document.problem(path, f'"{name}" is {columns[name]}, not a timestamp; {key} needs one')
            sound = False
    return columns if sound else None


def query_columns(sql: str, path: str, tables: Mapping[str, Columns], problems: Problems) -> Columns | None:
    """The columns a query gives and how they are stored; None, with the problem noted."""
    try:
        described = describe(tables, sql, where=path)
    except Invalid as error:
        add_invalid(problems, error, path)
        return None
    found: dict[str, str] = {}
    for name, kind in described.items():
        stored = stored_type(kind)
        if stored is None:
            kind = "without a type" if kind == '"NULL"' else kind
            problems.add(path, 0, f'column "{name}" is {kind}, which a table cannot hold; cast it')
        else:
            found[name] = stored
    return found if len(found) == len(described) else None


def _header(view: FeatureView, problems: Problems, text: str = "") -> Document:
    document = header_document(view.sql_path, "feature-view", text or view.sql, problems)
    return document or Document(view.sql_path, "feature-view", {}, problems)


def view_features(view: FeatureView, columns: Columns, problems: Problems) -> Columns | None:
    """What a model may use of a view: all but its key and its times, or with windows an aggregate for each window."""
    if view.windows is None:
        own = {*view.entity, view.event_time, view.known_at}
        return {name: kind for name, kind in columns.items() if name not in own}
    document = _header(view, problems)
    found: dict[str, str] = {}
    sound = True
    for feature in view.windows.features:
        try:
            kind = expression_type(aggregate_sql(feature, view.event_time), "events", columns, aggregate=True)
            found |= {feature.column(window): kind for window in view.windows.over}
        except Invalid as error:
            document.problem(("windows", feature.name), one_line(error))
            sound = False
    return found if sound else None


def expression_type(expression: str, table: str, columns: Columns, *, aggregate: bool = False) -> str:
    """The stored type of one expression over a table's columns; Invalid for anything else."""
    sql = f'select {"" if aggregate else "*, "}(\n{expression}\n) as "_value" from {table}'
    check_statement(sql, [table], forbid_nondeterminism=True)
    kind = describe({table: columns}, sql)["_value"]
    stored = stored_type(kind)
    if stored is None:
        raise Invalid(f"gives {kind}, which a table cannot hold", todo="cast it")
    return stored
