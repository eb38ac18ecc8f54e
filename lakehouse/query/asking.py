"""Questions from outside: one SELECT, checked before it runs, over everything in the lake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

import pyarrow as pa

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Batches, Session
from lakeloop.lakehouse.query.statements import check_statement

OF_LAKE_SCHEMA = "lakeloop."


def ask(lake: Lake, text: str, values: Sequence[object] = (), *, project: str | Project = "") -> pa.Table:
    """The answer to one SELECT. Names without a schema are those of `project`, else of the lake's only project, then of
    the lake itself.

    Invalid for what is not a single SELECT-like statement, or reaches for a file, a setting or an extension.
    """
    with _session(lake, text, project) as session:
        return session.run(text, values, where="the query")


@contextmanager
def asked(lake: Lake, text: str, values: Sequence[object] = (), *, project: str | Project = "") -> Iterator[Batches]:
    """The same in batches, for answers that are larger than memory."""
    with _session(lake, text, project) as session:
        yield session.stream(text, values, where="the query")


@contextmanager
def _session(lake: Lake, text: str, project: str | Project) -> Iterator[Session]:
    """For one statement that was checked. No request is made for one that names no table."""
    tables = check_statement(text)
    own = [name for name in tables if not name.startswith(OF_LAKE_SCHEMA)]
    catalog = LakeCatalog(lake, _default_project(lake, project) if own or project else None)
    check_names(catalog, tables)
    with Session(lake.store.location() if tables else None, catalog) as session:
        yield session


def check_names(catalog: LakeCatalog, tables: Iterable[str]) -> None:
    """Invalid for a name that means nothing; DuckDB's own tables about itself are none of the lake's."""
    for name in sorted(tables):
        if not catalog.knows(name):
            raise Invalid(f'there is no table "{name}"', where="the query", todo=_near(name, catalog.names()))


def _near(name: str, names: Sequence[str]) -> str:
    """The nearest name, with or without its schema; else a few of those there are."""
    spelled = {short: full for full in names for short in (full, full.rpartition(".")[2])}
    found = get_close_matches(name.lower(), list(spelled), n=2, cutoff=0.6)
    if found:
        return f"did you mean {' or '.join(dict.fromkeys(spelled[one] for one in found))}?"
    return f"there are: {', '.join(names[:12])}"


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
