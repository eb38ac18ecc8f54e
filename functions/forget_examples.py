"""Which examples were a forgotten entity's: those that a model's query yields with its rows and not without them."""

from __future__ import annotations

from collections.abc import Iterator

from lakeloop.functions.forget_subject import Subject
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.quoting import literal, quoted
from lakeloop.lakehouse.query.session import Query, Relation, Session

ALL = "_all "


def lost_examples(subject: Subject) -> Iterator[tuple[str, set[str]]]:
    """By `project.model`: ids. A model whose query does not run today has none."""
    for name in applied.names(subject.lake):
        project = applied.load(subject.lake, name)[0]
        holders = _holders(subject, project)
        for model in project.models.values() if holders else ():
            try:
                lost = _ids(subject, project, model, set()) - _ids(subject, project, model, holders)
            except Invalid:
                continue
            if lost:
                yield f"{project.name}.{model.name}", lost


def _holders(subject: Subject, project: Project) -> set[str]:
    """Sources that have all of the entity's columns."""
    return {name for name, source in project.sources.items() if set(subject.entity.columns) <= set(source.columns)}


def _ids(subject: Subject, project: Project, model: Model, without: set[str]) -> set[str]:
    catalog = LakeCatalog(subject.lake, project)
    told = " and ".join(f"{quoted(name)}::VARCHAR = {literal(text)}" for name, text in subject.entity.values.items())

    def resolve(name: str) -> Relation | None:
        if name.startswith(ALL):
            return catalog(name.removeprefix(ALL))
        if name.removesuffix("_history") in without and name.endswith("_history"):
            return Query(f"select * from {quoted(ALL + name)} where not coalesce({told}, false)")
        return catalog(name)

    with Session(subject.lake.store.location(), resolve) as session:
        sql = f"select distinct id::VARCHAR as id from (\n{model.examples_sql}\n) where id is not null"
        return set(session.run(sql, where=model.sql_path).column("id").to_pylist())
