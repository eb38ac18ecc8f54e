"""What a lake knows about a step of a rollout: reports of replicas, logged predictions, labels, scores of a shadow.

Rows belong to a step by the document's revision that answered them, so no clock decides what counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project.back_if import BackIf, DriftAbove, QualityBelow, parse_back_if
from lakeloop.lakehouse.registry import signature
from lakeloop.lakehouse.rollouts.evidence import Counts, Drift, Evidence, Replica
from lakeloop.lakehouse.rollouts.latency import added
from lakeloop.lakehouse.rollouts.losses import losses
from lakeloop.lakehouse.rollouts.state import Rollout
from lakeloop.lakehouse.scoring.signature import Signature
from lakeloop.lakehouse.statistics.drift import psi, psi_pvalue
from lakeloop.lakehouse.statistics.histograms import histogram, quantile_edges
from lakeloop.lakehouse.statistics.sequential import Difference, Sample, difference, paired

LIVE = timedelta(seconds=90)
"""A replica whose last report is older is taken for gone; it reports every 30 s at least."""
SKEW = timedelta(minutes=10)
"""How far clocks of machines may differ before a report is overlooked."""
MOST_ROWS = 100_000
"""Predictions of each side that a comparison looks at: those whose ids hash lowest, so that both sides, of which one
may have a hundredth of the rows, are looked at over the same time."""
REPORTS = """
select endpoint, replica, status, wanted, revision, error, phase, version, requests, errors, latency, circuit,
  logged_at
from lakeloop.replicas where project = ? and (endpoint = ? or ? = '') and logged_at >= ?
qualify row_number() over (partition by endpoint, replica, phase, version order by number desc) = 1
order by replica, number"""
SAMPLE = """
select {columns} from {relation} where project = ? and model = ? and version = ? and revision >= ? and {condition}
qualify row_number() over (partition by {one} order by logged_at desc) = 1 order by hash({one}) limit ?"""


def reports(lake: Lake, project: str, since: datetime, endpoint: str = "") -> list[Mapping[str, Any]]:
    """The last report of each replica, version and phase since a moment, in the order they were made: of an endpoint,
    or of all of a project. Two LISTs where nobody ever reported."""
    journal = lake.journal("replicas")
    if not journal.waiting() and lake.table(journal.table_name) is None:
        return []
    found: list[Mapping[str, Any]] = lake.sql(REPORTS, [project, endpoint, endpoint, since - SKEW]).to_pylist()
    return found


def live_replicas(found: Iterable[Mapping[str, Any]], now: datetime) -> tuple[Replica, ...]:
    """Of reports in order: those who reported lately and have not said goodbye, by their last word."""
    last = {row["replica"]: row for row in found}
    return tuple(
        Replica(row["replica"], row["wanted"], row["revision"], row["error"] or "")
        for row in sorted(last.values(), key=lambda row: str(row["replica"]))
        if row["status"] != "gone" and row["logged_at"] > now - LIVE
    )


def counts_of(found: Iterable[Mapping[str, Any]], phase: int) -> dict[int, Counts]:
    """What all replicas counted in a phase, by version; those that are gone by now count as well."""
    rows = [row for row in found if row["phase"] == phase]
    return {
        version: Counts(
            sum(row["requests"] for row in rows if row["version"] == version),
            sum(row["errors"] for row in rows if row["version"] == version),
            tuple(added(row["latency"] for row in rows if row["version"] == version)),
        )
        for version in sorted({row["version"] for row in rows})
    }


def taken_out(found: Iterable[Mapping[str, Any]], replicas: Iterable[Replica], phase: int) -> frozenset[int]:
    """Versions that the breaker of a live replica keeps from their share in a phase."""
    live = {one.name for one in replicas}
    return frozenset(
        row["version"]
        for row in found
        if row["phase"] == phase and row["replica"] in live and row["circuit"] not in (None, "closed")
    )


def gather(
    lake: Lake, project: str, model: str, rollout: Rollout, now: datetime, *, everything: bool = False
) -> Evidence:
    """The evidence of the present step; comparisons only for rules that ask for them, unless `everything` is wanted."""
    found = reports(lake, project, rollout.step.at, model)
    counts = counts_of(found, rollout.step.revision)
    rules: list[BackIf] = [parse_back_if(text) for text in rollout.plan.back_if]
    versions = [one.version for one in rollout.challengers]
    if rollout.step.stage == "shadow":
        counts = {version: _shadow_counts(lake, project, model, rollout, version) for version in versions}
    drift, quality = dict[int, Drift](), dict[int, Difference]()
    if rollout.step.stage != "load":
        if everything or any(isinstance(rule, DriftAbove) for rule in rules):
            drift = {version: drift_of(lake, project, model, rollout, version) for version in versions}
        if everything or any(isinstance(rule, QualityBelow) for rule in rules):
            quality = {version: quality_of(lake, project, model, rollout, version) for version in versions}
    replicas = live_replicas(found, now)
    return Evidence(replicas, counts, drift, quality, taken_out(found, replicas, rollout.step.revision))


def drift_of(lake: Lake, project: str, model: str, rollout: Rollout, version: int) -> Drift:
    """Of a version's predictions against the champion's since the step began, in bins of the champion's deciles."""
    if rollout.step.stage == "shadow":
        rows = _shadow(lake, project, model, rollout, version, "prediction, champion_prediction", "error is null")
        ours, theirs = (_values(rows, name) for name in ("prediction", "champion_prediction"))
    else:
        ours, theirs = (
            _values(_predictions(lake, project, model, one, rollout.step.revision, "prediction"), "prediction")
            for one in (version, rollout.champion)
        )
    if not len(ours) or not len(theirs):
        return Drift(float("nan"), 1.0, len(ours), len(theirs))
    edges = quantile_edges(theirs)
    expected, actual = histogram(theirs, edges), histogram(ours, edges)
    return Drift(psi(expected, actual), psi_pvalue(expected, actual), len(ours), len(theirs))


def quality_of(lake: Lake, project: str, model: str, rollout: Rollout, version: int) -> Difference:
    """The version's mean loss less the champion's, on labelled predictions.

    In the shadow both have answered the same rows, which are compared in pairs. Else each step of the rollout is a
    stratum: its shares are its own, and what changes over time hits both.
    """
    ours, theirs = (signature(lake, project, model, one) for one in (version, rollout.champion))
    if rollout.step.stage == "shadow":
        return _paired(lake, project, model, rollout, version, ours, theirs)
    columns = "prediction, scores, label, revision"
    sides = [
        _labelled(lake, project, model, one, rollout.steps[0].revision, columns) for one in (rollout.champion, version)
    ]
    bounds = [one.revision for one in rollout.steps if one.stage == "share"]
    strata = []
    for at, start in enumerate(bounds):
        end = bounds[at + 1] if at + 1 < len(bounds) else None
        parts = [_within(rows, start, end) for rows in sides]
        strata.append((Sample.of(losses(theirs, parts[0])), Sample.of(losses(ours, parts[1]))))
    return difference(strata)


def _within(rows: pa.Table, start: int, end: int | None) -> pa.Table:
    revision = rows.column("revision").to_numpy()
    keep = revision >= start if end is None else (revision >= start) & (revision < end)
    return rows.filter(pa.array(keep))


def _paired(
    lake: Lake, project: str, model: str, rollout: Rollout, version: int, ours: Signature, theirs: Signature
) -> Difference:
    sql = (
        "select s.prediction as prediction, s.scores as scores, p.prediction as their_prediction, "
        "p.scores as their_scores, p.label from lakeloop.shadow_predictions s "
        "join predictions_labelled p using (project, model, prediction_id) "
        "where s.project = ? and s.model = ? and s.version = ? and s.revision >= ? and s.error is null "
        "and p.label is not null and p.version = ? order by hash(prediction_id) limit ?"
    )
    values = [project, model, version, rollout.step.revision, rollout.champion, MOST_ROWS]
    rows = lake.sql(sql, values, project=project)
    their_rows = rows.select(["their_prediction", "their_scores", "label"]).rename_columns(
        ["prediction", "scores", "label"]
    )
    mine, others = losses(ours, rows), losses(theirs, their_rows)
    return paired(Sample.of(mine - others if len(mine) == len(others) else []))


def _shadow_counts(lake: Lake, project: str, model: str, rollout: Rollout, version: int) -> Counts:
    rows = lake.sql(
        "select count(*) as requests, count(error) as errors from lakeloop.shadow_predictions "
        "where project = ? and model = ? and version = ? and revision >= ?",
        [project, model, version, rollout.step.revision],
    ).to_pylist()[0]
    return Counts(rows["requests"], rows["errors"])


def _shadow(
    lake: Lake, project: str, model: str, rollout: Rollout, version: int, columns: str, condition: str
) -> pa.Table:
    sql = SAMPLE.format(
        columns=columns, relation="lakeloop.shadow_predictions", condition=condition, one="prediction_id"
    )
    return lake.sql(sql, [project, model, version, rollout.step.revision, MOST_ROWS])


def _predictions(lake: Lake, project: str, model: str, version: int, revision: int, columns: str) -> pa.Table:
    sql = SAMPLE.format(columns=columns, relation="predictions", condition="true", one="prediction_id")
    return lake.sql(sql, [project, model, version, revision, MOST_ROWS], project=project)


def _labelled(lake: Lake, project: str, model: str, version: int, revision: int, columns: str) -> pa.Table:
    sql = SAMPLE.format(columns=columns, relation="predictions_labelled", condition="label is not null", one="id")
    return lake.sql(sql, [project, model, version, revision, MOST_ROWS], project=project)


def _values(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(rows.column(name).drop_null().to_numpy(), dtype=np.float64)
