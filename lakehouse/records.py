"""The journals of a lake and the columns of their rows. Facts that are appended; none is ever changed."""

from __future__ import annotations

import pyarrow as pa

TEXT, WHOLE, REAL, FLAG, TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", "UTC")


def _columns(**types: pa.DataType) -> pa.Schema:
    return pa.schema(list(types.items()))


JOURNALS: dict[str, pa.Schema] = {
    "runs": _columns(
        run=TEXT, project=TEXT, model=TEXT, status=TEXT, logged_at=TIME, trigger=TEXT, incident=TEXT, as_of=TIME, version=WHOLE, seconds=REAL, tables=TEXT,
        rules_version=TEXT, definition=TEXT, code_version=TEXT, environment=TEXT, params=TEXT, error=TEXT, who=TEXT,
    ),
    "trials": _columns(
        run=TEXT, project=TEXT, model=TEXT, trial=WHOLE, attempt=WHOLE, seq=WHOLE, params=TEXT, metric=TEXT, value=REAL, step=WHOLE, status=TEXT, seconds=REAL,
        error=TEXT, logged_at=TIME,
    ),
    "tasks": _columns(run=TEXT, project=TEXT, model=TEXT, task=TEXT, status=TEXT, inputs=TEXT, started=TIME, ended=TIME, seconds=REAL, output=TEXT, error=TEXT),
    "metrics": _columns(
        run=TEXT, project=TEXT, model=TEXT, version=WHOLE, subject=TEXT, metric=TEXT, slice=TEXT, value=REAL, low=REAL, high=REAL, rows=WHOLE, logged_at=TIME
    ),
    "verdicts": _columns(
        run=TEXT, project=TEXT, model=TEXT, version=WHOLE, champion=WHOLE, rule=TEXT, metric=TEXT, against=TEXT, slice=TEXT, ours=REAL, theirs=REAL, gain=REAL, low=REAL,
        high=REAL, needed=TEXT, passed=FLAG, rows=WHOLE, verdict=TEXT, logged_at=TIME,
    ),
    "monitor_results": _columns(
        project=TEXT, model=TEXT, monitor=TEXT, watch=TEXT, version=WHOLE, window_start=TIME, window_end=TIME, subject=TEXT, stat=TEXT, value=REAL, low=REAL, high=REAL,
        bound=REAL, breached=FLAG, rows=WHOLE, logged_at=TIME, p_value=REAL,
    ),
    "alerts": _columns(
        alert=TEXT, project=TEXT, model=TEXT, monitor=TEXT, status=TEXT, severity=TEXT, message=TEXT, value=REAL, bound=REAL, window_end=TIME, logged_at=TIME, who=TEXT
    ),
    "ingestions": _columns(project=TEXT, source=TEXT, file=TEXT, rows=WHOLE, quarantined=WHOLE, warned=WHOLE, version=WHOLE, seconds=REAL, logged_at=TIME),
    "quarantine": _columns(project=TEXT, source=TEXT, file=TEXT, line=WHOLE, reason=TEXT, row=TEXT, logged_at=TIME),
    "builds": _columns(project=TEXT, view=TEXT, view_version=TEXT, rows=WHOLE, online_rows=WHOLE, version=WHOLE, inputs=TEXT, as_of=TIME, seconds=REAL, logged_at=TIME),
    "events": _columns(kind=TEXT, key=TEXT, logged_at=TIME),
}
"""Journals with fixed columns. `predictions.<project>.<model>` is typed by the model's signature instead."""
