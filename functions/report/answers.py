"""What the model answered, and what is known of it by now: requests, realized performance, calibration and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakeloop.functions.check_monitors import truth_and_scores
from lakeloop.functions.report import words
from lakeloop.functions.report.data import Distribution, PerformancePoint, Traffic
from lakeloop.functions.report.scope import Scope, named, utc
from lakeloop.lakehouse import registry
from lakeloop.lakehouse.query.quoting import literal, timestamp
from lakeloop.lakehouse.scoring.signature import Signature
from lakeloop.lakehouse.statistics import CalibrationBin, Interval, bootstrap, calibration_bins

ANSWERS = "_report_answers"
LOOK_BACK = timedelta(days=400)
DAILY = timedelta(days=60)
"""Performance is shown by day over no longer time than this, then by week."""
FEWEST, FEWEST_OF_VERSION, FEWEST_OF_BIN = 50, 200, 10
"""Labelled rows: of a day with a point of its own, of a version with a curve of its own, and of a point of that."""
RESAMPLES = 200
SCORE_BINS = 25


@dataclass(frozen=True, slots=True)
class Judged:
    """Labelled predictions of one version: truth and scores as the metrics take them, and each row's first moment."""

    version: int
    signature: Signature
    truth: npt.NDArray[Any]
    scores: npt.NDArray[Any]
    periods: npt.NDArray[Any]

    def measured(self, metric: str, rows: npt.NDArray[np.bool_] | slice = slice(None)) -> Interval:
        """The metric over some of the rows, with its interval."""
        signature, truth, scores = self.signature, self.truth[rows], self.scores[rows]
        return bootstrap(signature.problem, metric, truth, scores, resamples=RESAMPLES, threshold=signature.threshold)


def keep_answers(scope: Scope) -> None:
    """Every answer of the time that the page looks back on, with its label if it is known by now: read once."""
    there = scope.session.run("select * from predictions limit 0").column_names
    scores = "scores" if "scores" in there else "null::DOUBLE[] as scores"
    now, since = (timestamp(at) for at in (scope.as_of, scope.as_of - LOOK_BACK))
    scope.session.keep(
        ANSWERS,
        f"select prediction_id, id, version, as_of, logged_at, prediction, {scores}, "
        f"case when label_known_at::timestamptz <= {now} then label end as label "
        f"from predictions_labelled where model = {literal(scope.model.name)} and as_of > {since} and as_of <= {now}",
    )


def traffic(scope: Scope) -> list[Traffic]:
    """Answers by day and version."""
    day = _begin("day", scope)
    sql = f"select {day} as day, version, count(distinct prediction_id) as n from {ANSWERS} group by all order by all"
    return [Traffic(_local(row["day"], scope), named(row["version"]), row["n"]) for row in scope.rows(sql)]


def judged(scope: Scope) -> list[Judged]:
    """The labelled predictions by version, the last of each example."""
    table = scope.session.run(
        f"select version, {_begin(step(scope), scope)} as period, prediction, scores, label from {ANSWERS} "
        "where label is not null "
        "qualify row_number() over (partition by version, id order by as_of desc, logged_at desc) = 1 "
        "order by version, period, id"
    )
    versions = table.column("version").to_numpy()
    return [_judged(scope, version, table.filter(versions == version)) for version in np.unique(versions).tolist()]


def performance(scope: Scope, found: Sequence[Judged]) -> list[PerformancePoint]:
    """The metric by day or week and version; those with too few rows, or of one class, are left out."""
    points = []
    for one in found:
        for period in np.unique(one.periods):
            rows = one.periods == period
            value = one.measured(scope.model.search.metric, rows) if rows.sum() >= FEWEST else None
            if value is not None and words.known(value.value):
                points.append(PerformancePoint(_local(period.item(), scope), named(one.version), value))
    return points


def calibration(found: Sequence[Judged]) -> dict[str, list[CalibrationBin]]:
    """Calibration curves of a binary model's versions."""
    return {
        named(one.version): [bin_ for bin_ in calibration_bins(one.truth, one.scores) if bin_.rows >= FEWEST_OF_BIN]
        for one in found
        if one.signature.problem == "binary" and len(one.truth) >= FEWEST_OF_VERSION
    }


def scores(found: Sequence[Judged]) -> list[Distribution]:
    """Histograms of the versions' predictions on the same bins; none for a score per class."""
    shown = [one for one in found if one.scores.ndim == 1 and len(one.scores) >= FEWEST_OF_VERSION]
    if not shown:
        return []
    binary = shown[-1].signature.problem == "binary"
    everything = np.concatenate([one.scores for one in shown])
    low, high = (0.0, 1.0) if binary else np.quantile(everything, (0.005, 0.995)).tolist()
    edges = np.linspace(low, high if high > low else low + 1.0, SCORE_BINS + 1)
    counts = [np.histogram(np.clip(one.scores, edges[0], edges[-1]), edges)[0] for one in shown]
    return [
        Distribution(named(one.version), edges.tolist(), count.tolist())
        for one, count in zip(shown, counts, strict=True)
    ]


def _judged(scope: Scope, version: int, rows: pa.Table) -> Judged:
    signature = registry.signature(scope.lake, scope.project.name, scope.model.name, version)
    if signature.problem == "multiclass":  # a class that the version does not know has no score
        rows = rows.filter(pc.is_in(rows.column("label").cast(pa.string()), pa.array(signature.classes)))
    truth, predicted = truth_and_scores(signature, rows)
    return Judged(version, signature, truth, predicted, rows.column("period").to_numpy())


def step(scope: Scope) -> str:
    """What a point of the performance is: a day or a week."""
    (span,) = scope.rows(f"select min(as_of) as first, max(as_of) as last from {ANSWERS}")
    return "week" if span["first"] is not None and span["last"] - span["first"] > DAILY else "day"


def _begin(step: str, scope: Scope) -> str:
    """SQL: the local time at which a row's day or week begins."""
    return f"date_trunc('{step}', timezone({literal(str(scope.zone))}, as_of))"


def _local(begin: datetime, scope: Scope) -> datetime:
    return utc(begin.replace(tzinfo=scope.zone))
