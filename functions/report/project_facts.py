"""What a page shows of the whole project: rows in quarantine, and the answers to its own reports."""

from __future__ import annotations

import json
from datetime import datetime

from lakeloop.functions.report import words
from lakeloop.functions.report.data import Quarantine, Query
from lakeloop.functions.report.scope import Row, Scope, utc
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.project.definitions import Report
from lakeloop.lakehouse.query.statements import check_statement

MOST_ROWS = 500
EXAMPLE = 160

QUARANTINED = r"""
with refused as (
  select *, regexp_replace(reason, '(\w+): [^;]*? (is|does|has) ', '\1 \2 ', 'g') as kind
  from lakeloop.quarantine where project = $project
), counted as (
  select source, kind, count(*) as n, max(logged_at) as newest,
    arg_max({'file': file, 'line': line, 'row': row}, (logged_at, line)) as example
  from refused group by all
), came as (
  select source, sum(rows + quarantined) as of_rows from lakeloop.ingestions
  where project = $project and split_part(file, '#', 1) not like '%.quarantine.jsonl' group by all
)
select * from counted left join came using (source) order by n desc, source, kind"""
"""A reason without the value that broke the rule, so that rows of one kind are counted together."""


def quarantine(scope: Scope) -> list[Quarantine]:
    """Refused rows by source and kind of reason, out of all that came."""
    found = scope.session.run(QUARANTINED, {"project": scope.project.name}).to_pylist()
    return [
        Quarantine(
            row["source"],
            row["kind"],
            row["n"],
            _whole(row["of_rows"]),
            _seen(scope, row["newest"]),
            _example(row["example"]),
        )
        for row in found
    ]


def queries(scope: Scope) -> list[Query]:
    """The project's reports; one that cannot be answered says why in its place."""
    return [_query(scope, report) for report in scope.project.reports.values()]


def _query(scope: Scope, report: Report) -> Query:
    try:
        check_statement(report.sql)
        answer = scope.session.run(report.sql, where=report.sql_path)
    except LakeloopError as error:
        return Query(report.title, (), (), note=f"It could not be answered. {error}")
    rows = [list(row.values()) for row in answer.slice(0, MOST_ROWS).to_pylist()]
    return Query(report.title, answer.column_names, rows, report.plot)


def _seen(scope: Scope, at: datetime) -> datetime | None:
    """When it came; nothing in a replay, where only the wall clock was kept."""
    return utc(at) if at <= scope.as_of else None


def _whole(rows: object) -> int | None:
    return None if rows is None else int(str(rows))


def _example(row: Row) -> str:
    line = f", line {row['line']}" if row["line"] is not None else ""
    text = f"{str(row['file']).partition('#')[0]}{line}: {_plain(row['row'] or '')}"
    return text if len(text) <= EXAMPLE else f"{text[: EXAMPLE - 1]}…"


def _plain(raw: str) -> str:
    """A row as `name=value`; a line that could not be read as it came."""
    try:
        return words.settings(json.loads(raw))
    except (ValueError, AttributeError):
        return raw
