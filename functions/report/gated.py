"""The newest verdict of the gate, rule by rule, and champion and challenger in every slice of its test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import nan
from typing import Any

import numpy as np

from lakeloop.functions.gate_model import test_rows
from lakeloop.functions.report.answers import Judged
from lakeloop.functions.report.data import Gate, GateRule, Slice
from lakeloop.functions.report.scope import Row, Scope, named
from lakeloop.lakehouse import registry
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.scoring.learning import encode_labels
from lakeloop.lakehouse.scoring.loading import load_model
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.slices import slice_masks
from lakeloop.lakehouse.statistics import Interval
from lakeloop.lakehouse.verdict import Finding, in_words


def verdict(scope: Scope) -> list[Row]:
    """The rows of the newest verdict: rules about everything first, then slices, the largest first."""
    run = scope.newest_run_in("verdicts")
    if run is None:
        return []
    newest = "qualify rank() over (order by logged_at desc) = 1"
    return scope.journal(
        "verdicts",
        f"and run = ? {newest} order by slice <> '', against = '', against = 'baseline', rows desc, rule, slice",
        run["run"],
    )


def gate(scope: Scope, rows: Sequence[Row]) -> Gate | None:
    """What was judged, and each rule with its numbers."""
    if not rows:
        return None
    first = rows[0]
    run = next(run for run in scope.runs if run["run"] == first["run"])
    compared = [row for row in rows if row["ours"] is not None]
    why = in_words([_finding(row) for row in compared]) if compared else first["needed"]
    at = scope.dated(first["logged_at"], run)
    return Gate(
        named(first["version"]), first["verdict"], at, named(first["champion"]), why, [_rule(row) for row in rows]
    )


def slices(scope: Scope, rows: Sequence[Row]) -> list[Slice]:
    """The metric by slice: of the judged version as registered, of the champion by scoring the same test rows."""
    if not rows:
        return []
    body = registry.version(scope.lake, scope.project.name, scope.model.name, rows[0]["version"]).body
    metric = scope.model.search.metric
    ours = [one for one in body["metrics"] if one["subject"] == "model" and one["metric"] == metric and one["slice"]]
    judged = {row["slice"]: row for row in rows if row["against"] == "champion" and row["metric"] == metric}
    theirs = _champions(scope, body, rows[0]["champion"], judged) if judged else {}
    return [Slice(one["slice"], theirs.get(one["slice"]), _interval(one, "value")) for one in ours]


def _champions(scope: Scope, body: Mapping[str, Any], champion: int, judged: Mapping[str, Row]) -> dict[str, Interval]:
    """The champion by slice; where it cannot be loaded any more, what the gate noted, without intervals."""
    try:
        return _scored(scope, body, champion)
    except LakeloopError:
        return {name: Interval(row["theirs"], nan, nan, row["rows"]) for name, row in judged.items() if name}


def _scored(scope: Scope, body: Mapping[str, Any], champion: int) -> dict[str, Interval]:
    rows = test_rows(scope.lake, body)
    record = registry.version(scope.lake, scope.project.name, scope.model.name, champion).body
    signature, learner, model, derive = load_model(scope.lake, record)
    truth = np.nan_to_num(encode_labels(rows, signature), nan=-1.0)
    scores = Scorer(signature, learner, model, derive, {}, champion).predict_table(rows)
    both = Judged(champion, signature, truth, scores, np.empty(0))
    masks = slice_masks(rows, scope.model.evaluate.slices)
    return {name: both.measured(scope.model.search.metric, mask) for name, mask in masks.items()}


def _finding(row: Row) -> Finding:
    return Finding(**{one.name: row[one.name] for one in fields(Finding)})


def _rule(row: Row) -> GateRule:
    gain = None if row["gain"] is None else _interval(row, "gain")
    return GateRule(row["rule"], row["passed"], row["ours"], row["theirs"], gain, row["needed"], row["slice"] or "")


def _interval(row: Mapping[str, Any], value: str) -> Interval:
    middle, low, high = (nan if row[name] is None else float(row[name]) for name in (value, "low", "high"))
    return Interval(middle, low, high, row["rows"])
