"""What the model answered, and what is known of it by now: requests, realized performance, calibration and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lakeloop.functions.check_monitors import truth_and_scores
from lakeloop.functions.report import words
from lakeloop.functions.report.data import Distribution, PerformancePoint, Traffic
from lakeloop.functions.report.scope import Scope, named
from lakeloop.lakehouse import registry
from lakeloop.lakehouse.query.session import literal
from lakeloop.lakehouse.scoring.signature import Signature
from lakeloop.lakehouse.statistics import CalibrationBin, Interval, bootstrap, calibration_bins

ANSWERS = "_report_answers"
LOOK_BACK = timedelta(days=400)
DAILY = timedelta(days=60)
"""Performance is shown by day over no longer time than this, then by week."""
FEWEST, FEWEST_OF_VERSION = 50, 200
"""Labelled rows: of a day with a point of its own, and of a version with a curve of its own."""
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
    now, since = (f"timestamptz {literal(at.isoformat())}" for at in (scope.as_of, scope.as_of - LOOK_BACK))
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
        f"select version, {_begin(_step(scope), scope)} as period, prediction, scores, label from {ANSWERS} "
        "where label is not null qualify row_number() over (partition by version, id order by as_of desc, logged_at desc) = 1 "
        "order by version, period, id"
    )
    versions = table.column("version").to_numpy()
    found = []
    for version in np.unique(versions).tolist():
        signature = registry.signature(scope.lake, scope.project.name, scope.model.name, version)
        rows = table.filter(versions == version)
        truth, scores = truth_and_scores(signature, rows)
        if len(truth) == rows.num_rows:  # else labels came that the version does not know: days cannot be told apart
            found.append(Judged(version, signature, truth, scores, rows.column("period").to_numpy()))
    return found
