"""`check_monitors`: every monitor of every champion, over its newest closed window, and the alerts that follow.

Performance is judged over the newest window that has labels. A window is judged again when rows or labels came since.
Alerts are rows: one opens when `for` windows in a row are bad, and resolves when one is good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.features.online import EPOCH
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.monitoring import (
    Window,
    actual_counts,
    drift_inputs,
    expected_counts,
    keep_window,
    labelled_scores,
    newest_labelled,
)
from lakeloop.lakehouse.prediction_log import log_policy
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Model, Monitor
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.quoting import literal, timestamp
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.rollouts.alerting import LOADING, ROLLOUT
from lakeloop.lakehouse.scoring.signature import Signature
from lakeloop.lakehouse.statistics.drift import psi, psi_pvalue
from lakeloop.lakehouse.statistics.metrics import metric_of
from lakeloop.lakehouse.statistics.resampling import bootstrap


@dataclass(frozen=True, slots=True)
class Judged:
    """One monitor over one window: the number that counts, its bound, and what a person would say."""

    monitor: str
    window_end: datetime
    value: float
    bound: float
    breached: bool
    rows: int
    message: str
    alert: str = ""
    """The alert that this opened, if it did."""


def check_monitors(lake: Lake, project: Project, *, as_of: datetime, names: Sequence[str] = ()) -> list[Judged]:
    """Judge what is not judged yet as of a moment. Returns what was judged now."""
    done = []
    with Session(lake.store.location(), LakeCatalog(lake, project)) as session:
        if not names:
            _resolve_removed(lake, session, project)
        for model in project.models.values():
            there = endpoints.endpoint(lake, project.name, model.name)
            wanted = [m for m in model.monitors if not names or m.name in names]
            if not wanted or not there or not there.body["arms"]:
                continue
            version = int(there.body["arms"][0]["version"])
            signature = registry.signature(lake, project.name, model.name, version)
            for monitor in wanted:
                window = _window(session, model, monitor, version, as_of)
                judged = window and _judge(lake, session, project, model, monitor, window, signature, as_of)
                if judged:
                    done.append(judged)
    return done


def _window(session: Session, model: Model, monitor: Monitor, version: int, as_of: datetime) -> Window | None:
    """The newest closed window; of performance, the newest that has labels, which may come long after it."""
    end = _floor(as_of, monitor.every)
    if monitor.watch == "performance":
        newest = newest_labelled(session, Window(model.name, version, EPOCH, end), as_of)
        if newest is None:
            return None
        end = min(end, _floor(newest, monitor.every) + monitor.every)
    return Window(model.name, version, end - monitor.window, end)


def _floor(at: datetime, step: timedelta) -> datetime:
    return EPOCH + (at - EPOCH) // step * step


def _resolve_removed(lake: Lake, session: Session, project: Project) -> None:
    """Close the alerts of monitors that the project has no more: nothing else ever would."""
    there = {(model.name, monitor.name) for model in project.models.values() for monitor in model.monitors}
    found = session.run(
        "select alert, model, monitor from lakeloop.alerts "
        f"where project = {literal(project.name)} and status = 'open' order by alert"
    ).to_pylist()
    for row in found:
        if (row["model"], row["monitor"]) not in there and row["monitor"] not in (ROLLOUT, LOADING):
            _resolve(lake, project.name, row, "the project has no such monitor any more")


def _judge(
    lake: Lake,
    session: Session,
    project: Project,
    model: Model,
    monitor: Monitor,
    window: Window,
    signature: Signature,
    as_of: datetime,
) -> Judged | None:
    if monitor.watch == "performance":
        results = _performance(lake, session, project, model, monitor, window, signature, as_of)
    else:
        hidden = log_policy(project, model).hidden
        results = _drift(session, monitor, window, signature, hidden)
    if not results or results[0]["rows"] < max(1, monitor.min_rows):
        return None
    if _known(session, project, model, monitor, window, results[0]):
        return None
    common = {
        "project": project.name,
        "model": model.name,
        "monitor": monitor.name,
        "watch": monitor.watch,
        "version": window.version,
        "window_start": window.start,
        "window_end": window.end,
        "logged_at": lake.clock(),
    }
    first = results[0]
    message = _message(monitor, window, results)
    judged = f"{project.name}.{model.name}.{monitor.name}.v{window.version}.{window.end:%Y%m%d%H%M}"
    # The alert comes first: what stops between the two judges again, and says the same.
    alert = _alert(lake, session, project, model, monitor, window, first, message, judged)
    lake.record("monitor_results", [{**common, **result} for result in results], f"{judged}-{first['rows']}")
    return Judged(
        monitor.name, window.end, first["value"], first["bound"], first["breached"], first["rows"], message, alert
    )


def _performance(
    lake: Lake,
    session: Session,
    project: Project,
    model: Model,
    monitor: Monitor,
    window: Window,
    signature: Signature,
    as_of: datetime,
) -> list[dict[str, Any]]:
    scores = labelled_scores(session, window, as_of)
    if not scores.num_rows:
        return []
    y, prediction = truth_and_scores(signature, scores)
    if not len(y):
        return []
    found = bootstrap(signature.problem, monitor.metric, y, prediction, threshold=signature.threshold)
    greater = metric_of(signature.problem, monitor.metric).greater_is_better
    if monitor.drop is not None:
        measured = registry.metric(
            registry.version(lake, project.name, model.name, window.version).body, monitor.metric
        )
        reference = float(measured["value"]) if measured and measured["value"] is not None else math.nan
        bound = reference - monitor.drop if greater else reference + monitor.drop
    else:
        bound = monitor.below if monitor.below is not None else monitor.above if monitor.above is not None else math.nan
    low_is_bad = greater if monitor.drop is not None else monitor.below is not None
    breached = bool(found.value < bound if low_is_bad else found.value > bound)
    result = {
        "subject": "",
        "stat": monitor.metric,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "bound": bound,
    }
    return [{**result, "breached": breached, "rows": found.rows}]


def _drift(
    session: Session, monitor: Monitor, window: Window, signature: Signature, hidden: frozenset[str]
) -> list[dict[str, Any]]:
    """The share of drifted columns first, then each column, the worst first; none of inputs that are not logged."""
    name = f"_window_{window.model}_{monitor.name}"
    rows = keep_window(session, window, name)
    if not rows:
        return []
    there = set(session.run(f"select * from {name} limit 0").column_names) - hidden
    if monitor.watch == "inputs":
        watched = [
            (one.name, one.profile)
            for one in drift_inputs(signature.inputs, monitor.columns, there)
            if one.profile is not None
        ]
    else:
        watched = [("prediction", signature.prediction)] if signature.prediction is not None else []
    if not watched:
        return []
    actual = actual_counts(session, name, [column for column, _ in watched], [profile for _, profile in watched])
    bound = monitor.above if monitor.above is not None else math.inf
    columns: list[dict[str, Any]] = []
    for (column, profile), counts in zip(watched, actual, strict=True):
        reference = expected_counts(profile)
        value, p = psi(reference, counts), psi_pvalue(reference, counts)
        columns.append(
            {
                "subject": column,
                "stat": "psi",
                "value": value,
                "bound": bound,
                "breached": bool(value > bound),
                "rows": rows,
                "p_value": p,
            }
        )
    columns.sort(key=lambda one: -float(one["value"]))
    share = sum(bool(one["breached"]) for one in columns) / len(columns)
    summary = {
        "subject": "",
        "stat": "share of columns",
        "value": share,
        "bound": monitor.share,
        "breached": share > monitor.share,
        "rows": rows,
    }
    return [summary, *columns]


def truth_and_scores(signature: Signature, rows: pa.Table) -> tuple[Any, Any]:
    """Labels and predictions as the metrics take them: 0/1 and P(positive); codes and a row of scores each.

    Or two numbers.
    """
    labels = rows.column("label")
    if signature.problem == "regression":
        return labels.cast(pa.float64()).to_numpy(), rows.column("prediction").to_numpy()
    texts = labels.cast(pa.string()).to_pylist()
    if signature.problem == "binary":
        return np.array([text == signature.positive for text in texts], dtype=float), rows.column(
            "prediction"
        ).to_numpy()
    codes = {name: code for code, name in enumerate(signature.classes)}
    known = [at for at, text in enumerate(texts) if text in codes]
    scores = rows.column("scores").to_pylist()
    return np.array([codes[texts[at]] for at in known]), np.array([scores[at] for at in known], dtype=float)


def _known(
    session: Session, project: Project, model: Model, monitor: Monitor, window: Window, first: dict[str, Any]
) -> bool:
    """Whether this window was judged on as many rows already."""
    seen = session.run(
        f"select count(*) as n from lakeloop.monitor_results where {_this(project, model, monitor)} "
        f"and version = {window.version} and subject = '' "
        f"and window_end = {timestamp(window.end)} and rows >= {first['rows']}"
    )
    return bool(seen.column("n")[0].as_py())


def _alert(
    lake: Lake,
    session: Session,
    project: Project,
    model: Model,
    monitor: Monitor,
    window: Window,
    first: dict[str, Any],
    message: str,
    judged: str,
) -> str:
    """Open, keep or resolve the monitor's alert; returns the id of one that was opened now."""
    open_now = session.run(
        f"select alert from lakeloop.alerts where {_this(project, model, monitor)} and status = 'open'"
    ).to_pylist()
    common = {
        "project": project.name,
        "model": model.name,
        "monitor": monitor.name,
        "severity": monitor.severity,
        "value": first["value"],
        "bound": first["bound"],
        "window_end": window.end,
        "logged_at": lake.clock(),
        "who": lake.who,
    }
    if (
        first["breached"]
        and not open_now
        and _bad_in_a_row(session, project, model, monitor, window) >= monitor.for_ - 1
    ):
        opened = {**common, "alert": judged, "status": "open", "message": message}
        lake.record("alerts", [opened], f"{judged}-{first['rows']}-open")
        return judged
    if not first["breached"]:
        for one in open_now:
            lake.record(
                "alerts",
                [{**common, "alert": one["alert"], "status": "resolved", "message": f"good again: {message}"}],
                f"{one['alert']}-resolved-{window.end:%Y%m%d%H%M}-{first['rows']}",
            )
    return ""


def _bad_in_a_row(session: Session, project: Project, model: Model, monitor: Monitor, window: Window) -> int:
    """How many of the windows just before this one were bad, without a gap."""
    if monitor.for_ == 1:
        return 0
    before = session.run(
        "select window_end, arg_max(breached, logged_at) as bad from lakeloop.monitor_results "
        f"where {_this(project, model, monitor)} and version = {window.version} and subject = '' "
        f"and window_end < {timestamp(window.end)} group by 1 order by 1 desc limit {monitor.for_}"
    ).to_pylist()
    count, expected = 0, window.end - monitor.every
    for row in before:
        if not row["bad"] or abs(row["window_end"] - expected) > timedelta(seconds=1):
            break
        count, expected = count + 1, expected - monitor.every
    return count


def resolve_alerts(lake: Lake, project: str, model: str, why: str) -> None:
    """Close the open alerts of a model: a new champion is measured by itself."""
    sql = "select alert, model, monitor from lakeloop.alerts where project = ? and model = ? and status = 'open'"
    for row in lake.sql(sql, [project, model]).to_pylist():
        _resolve(lake, project, row, why)


def _resolve(lake: Lake, project: str, alert: Mapping[str, Any], why: str) -> None:
    """Said twice, it is resolved all the same: an alert is what its newest row says."""
    fact = {**alert, "project": project, "status": "resolved", "message": why}
    lake.record("alerts", [{**fact, "logged_at": lake.clock(), "who": lake.who}])


def _this(project: Project, model: Model, monitor: Monitor) -> str:
    return f"project = {literal(project.name)} and model = {literal(model.name)} and monitor = {literal(monitor.name)}"


def _message(monitor: Monitor, window: Window, results: list[dict[str, Any]]) -> str:
    first, days = results[0], f"{window.start:%d %b} to {window.end:%d %b}"
    if monitor.watch == "performance":
        side = "beyond" if first["breached"] else "within"
        return (
            f"{monitor.metric} {first['value']:.3f} [{first['low']:.3f}, {first['high']:.3f}] "
            f"on {first['rows']} labelled predictions, {days}: {side} {first['bound']:.3f}"
        )
    bad = [one for one in results[1:] if one["breached"]]
    worst = ", ".join(f"{one['subject']} {one['value']:.2f}" for one in bad[:4])
    named = f": {worst}" if worst else ""
    return f"{len(bad)} of {len(results) - 1} columns drifted (psi > {results[-1]['bound']:g}){named}, {days}"
