"""Binding a project: all its SQL is parsed, checked and described over empty tables, and every name in it is resolved.

Nothing is read and nothing is run: queries are described on a private in-memory connection. A project that binds can be
applied.
"""

from __future__ import annotations

from collections.abc import Mapping

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.bound import Bound, BoundModel, BoundView, Columns
from lakeloop.lakehouse.project.definitions import Model, Project
from lakeloop.lakehouse.project.documents import Document, Problems, toml_document
from lakeloop.lakehouse.project.model_binding import (
    ViewColumns,
    all_inputs,
    check_examples,
    check_expressions,
    resolve_features,
)
from lakeloop.lakehouse.project.versions import model_rules_version, view_versions
from lakeloop.lakehouse.project.view_binding import (
    add_invalid,
    canonical,
    dependency_order,
    one_line,
    query_columns,
    read_tables,
    view_columns,
    view_features,
)
from lakeloop.lakehouse.query.statements import check_statement, describe


def bind(project: Project) -> Bound:
    """Resolve every name and type of a project; Invalid with all problems, each `file:line: key: what; what to do`."""
    problems = Problems()
    sources = {name: _stored(project, name) for name in project.sources}
    _check_checks(project, sources, problems)
    _check_reports(project, problems)
    reads = read_tables(project, problems)
    order = dependency_order(project, reads, problems)
    views = _bind_views(project, order, reads, sources, problems)
    tables = sources | {name: view.columns for name, view in views.items()}
    bodies = {name: _bind_model(project, model, tables, views, problems) for name, model in project.models.items()}
    problems.raise_if_any(project.name)
    versions = view_versions(project, reads)
    return Bound(
        project=project,
        sources=sources,
        views={
            name: BoundView(view.view, reads[name], view.columns, view.features, versions[name])
            for name, view in views.items()
        },
        models={name: _with_version(project, body, versions) for name, body in bodies.items() if body is not None},
    )


def _stored(project: Project, source: str) -> dict[str, str]:
    return {name: column.type.stored for name, column in project.sources[source].columns.items()}


def _document(project: Project, path: str, kind: str, problems: Problems) -> Document:
    document = toml_document(path, kind, project.files[path], problems)
    return document or Document(path, kind, {}, problems)


def _check_checks(project: Project, sources: Mapping[str, Columns], problems: Problems) -> None:
    for source in project.sources.values():
        document = _document(project, f"sources/{source.name}.toml", "source", problems)
        for i, check in enumerate(source.checks):
            try:
                check_statement(check.sql, list(sources))
                describe(sources, check.sql)
            except Invalid as error:
                document.problem(("check", i, "sql"), one_line(error))


def _check_reports(project: Project, problems: Problems) -> None:
    """Reports are only parsed: they may read tables of the lake that no file of the project names."""
    for report in project.reports.values():
        try:
            check_statement(report.sql, None, where=report.sql_path)
        except Invalid as error:
            add_invalid(problems, error, report.sql_path)


def _bind_views(
    project: Project,
    order: list[str],
    reads: Mapping[str, tuple[str, ...]],
    sources: Mapping[str, Columns],
    problems: Problems,
) -> dict[str, ViewColumns]:
    """The views that bind, in order; one that reads a view that does not is passed over without another message."""
    found: dict[str, ViewColumns] = {}
    for name in order:
        view = project.views[name]
        tables = {**sources, **{below: found[below].columns for below in found}}
        if not all(table in tables for table in reads[name]):
            continue
        columns = view_columns(view, {table: tables[table] for table in reads[name]}, problems)
        features = None if columns is None else view_features(view, columns, problems)
        if columns is not None and features is not None:
            found[name] = ViewColumns(view, columns, features)
    return found


def _bind_model(
    project: Project,
    model: Model,
    tables: Mapping[str, Columns],
    views: Mapping[str, ViewColumns],
    problems: Problems,
) -> BoundModel | None:
    """A model without its version; None, with the problems noted, when its examples cannot be described."""
    allowed = [*project.sources, *project.views]
    try:
        named = check_statement(model.examples_sql, allowed, forbid_nondeterminism=True, where=model.sql_path)
    except Invalid as error:
        add_invalid(problems, error, model.sql_path)
        return None
    reads = canonical(named, allowed)
    if not all(table in tables for table in reads):
        return None
    columns = query_columns(model.examples_sql, model.sql_path, {table: tables[table] for table in reads}, problems)
    if columns is None:
        return None
    document = _document(project, f"models/{model.name}.toml", "model", problems)
    check_examples(model, columns, document)
    features = resolve_features(model, columns, views, document)
    inputs = all_inputs(model, features)
    if all(spec.view in views for spec in model.inputs.features):
        check_expressions(model, columns, inputs, document)
    return BoundModel(model, reads, columns, features, inputs, version="")


def _with_version(project: Project, body: BoundModel, versions: Mapping[str, str]) -> BoundModel:
    version = model_rules_version(project, body.model, body.reads, versions)
    return BoundModel(body.model, body.reads, body.columns, body.features, body.inputs, version)
