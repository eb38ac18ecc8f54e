"""Questions from outside: one SELECT, checked before it runs, over everything in the lake."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.query.statements import check_statement


def ask(lake: Lake, text: str, values: Sequence[object] = (), *, project: str | Project = "") -> pa.Table:
    """The answer to one SELECT. Names without a schema are those of `project`, else of the lake's only project, then of the lake itself.

    Invalid for what is not a single SELECT-like statement, or reaches for a file, a setting or an extension.
    """
    check_statement(text)
    with Session(lake.store.location(), LakeCatalog(lake, _default_project(lake, project))) as session:
        return session.run(text, values, where="the query")


def _default_project(lake: Lake, project: str | Project) -> Project | None:
    if isinstance(project, Project):
        return project
    if project:
        return applied.load(lake, project)[0]
    there = applied.names(lake)
    return applied.load(lake, there[0])[0] if len(there) == 1 else None


def sql_over(rows: pa.Table, expressions: dict[str, str], *, where: str = "") -> pa.Table:
    """SQL expressions over the columns of a table in memory, one output column each, in the order of its rows."""
    for expression in expressions.values():
        check_statement(f"select {expression} from inputs")
    with Session(None, lambda _name: None) as session:
        session.register("inputs", rows)
        columns = ", ".join(f'({expression}) as "{name}"' for name, expression in expressions.items())
        return session.run(f"select {columns} from inputs", where=where)
