"""The gate's verdict, as a pure function of labels, scores and rules.

The burden of proof: a rule about the whole passes when the gain is at least what it asks with the rule's confidence
(one-sided, paired bootstrap on the same rows). A rule `each = "slice"` fails only where the loss is that certain: a
small slice proves nothing either way. A bound (`at_least`, `at_most`) is compared with the measured value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lakeloop.lakehouse.project.definitions import Model, Rule
from lakeloop.lakehouse.project.metrics import LATENCY
from lakeloop.lakehouse.statistics.metrics import evaluate
from lakeloop.lakehouse.statistics.resampling import paired_bootstrap

Array = npt.NDArray[Any]
BASELINE_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Scores:
    """The same rows scored by several: `theirs` by name (`champion`, `baseline`); `slices` are masks over the rows."""

    y: Array
    ours: Array
    theirs: Mapping[str, Array]
    slices: Mapping[str, npt.NDArray[np.bool_]]
    threshold: float = 0.5
    their_threshold: float = 0.5
    latency_p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule on one set of rows, with every number."""

    rule: str
    metric: str
    against: str
    slice: str
    ours: float
    theirs: float | None
    gain: float | None
    low: float | None
    high: float | None
    needed: str
    passed: bool
    rows: int


def rules_of(model: Model) -> tuple[Rule, ...]:
    """The project's rules, or the least that a gate must ask: better than the baseline, and than the champion."""
    if model.gate.rules:
        return model.gate.rules
    return (Rule(model.search.metric, "baseline", gain=0.0), Rule(model.search.metric, "champion", gain=0.0))


def judge(model: Model, scores: Scores) -> list[Finding]:
    """Every rule that can be judged: those against a champion that there is not yet are left out."""
    findings: list[Finding] = []
    for rule in rules_of(model):
        if rule.against and rule.against not in scores.theirs:
            continue
        if rule.metric == LATENCY:
            findings += _latency(rule, scores)
            continue
        for name, mask in _rows(rule, scores).items():
            findings.append(
                _compare(model, rule, scores, name, mask) if rule.against else _bound(model, rule, scores, name, mask)
            )
    return findings


def in_words(findings: Sequence[Finding]) -> str:
    """One line for a person: what failed, or what was gained."""
    failed = [f for f in findings if not f.passed]
    if failed:
        return "; ".join(
            f"{f.rule}{f' on {f.slice}' if f.slice else ''}: {_numbers(f)}, needs {f.needed}" for f in failed[:3]
        )
    telling = next((f for f in findings if f.against == "champion" and not f.slice), None) or next(
        (f for f in findings if f.against), None
    )
    return f"{telling.rule}: {_numbers(telling)}" if telling else "no rule was against it"


def _rows(rule: Rule, scores: Scores) -> dict[str, npt.NDArray[np.bool_]]:
    if rule.each != "slice":
        return {"": np.ones(len(scores.y), dtype=bool)}
    return {name: mask for name, mask in scores.slices.items() if int(mask.sum()) >= max(rule.min_rows, 1)}


def _compare(model: Model, rule: Rule, scores: Scores, name: str, mask: npt.NDArray[np.bool_]) -> Finding:
    y, ours, theirs = scores.y[mask], scores.ours[mask], scores.theirs[rule.against][mask]
    needed = rule.gain if rule.gain is not None else 0.0
    cut = scores.their_threshold if rule.against == "champion" else BASELINE_THRESHOLD
    found = paired_bootstrap(
        model.problem,
        rule.metric,
        y,
        ours,
        theirs,
        confidence=2 * rule.confidence - 1,
        threshold=scores.threshold,
        their_threshold=cut,
    )
    undecided = bool(np.isnan(found.value))
    if name:
        passed = undecided or found.high >= needed
    else:
        passed = not undecided and found.low >= needed
    return Finding(
        f"{rule.metric} against {rule.against}",
        rule.metric,
        rule.against,
        name,
        evaluate(model.problem, rule.metric, y, ours, threshold=scores.threshold),
        evaluate(model.problem, rule.metric, y, theirs, threshold=cut),
        found.value,
        found.low,
        found.high,
        f"a gain of at least {needed:+g}" if not name else f"no certain loss beyond {needed:+g}",
        passed,
        len(y),
    )


def _bound(model: Model, rule: Rule, scores: Scores, name: str, mask: npt.NDArray[np.bool_]) -> Finding:
    value = evaluate(model.problem, rule.metric, scores.y[mask], scores.ours[mask], threshold=scores.threshold)
    return _bounded(rule, value, name, int(mask.sum()))


def _latency(rule: Rule, scores: Scores) -> list[Finding]:
    return [] if scores.latency_p99_ms is None else [_bounded(rule, scores.latency_p99_ms, "", len(scores.y))]


def _bounded(rule: Rule, value: float, name: str, rows: int) -> Finding:
    low, high = rule.at_least, rule.at_most
    undecided = bool(np.isnan(value))  # as the AUC of a slice with one class: it proves nothing either way
    passed = bool(name) if undecided else (low is None or value >= low) and (high is None or value <= high)
    needed = " and ".join(
        part
        for part in (f"at least {low:g}" if low is not None else "", f"at most {high:g}" if high is not None else "")
        if part
    )
    return Finding(rule.metric, rule.metric, "", name, float(value), None, None, None, None, needed, bool(passed), rows)


def _numbers(finding: Finding) -> str:
    if finding.theirs is None:
        return f"{finding.ours:.4g}"
    gain = f"gain {finding.gain:+.4f} [{finding.low:+.4f}, {finding.high:+.4f}]"
    return f"{finding.ours:.4f} against {finding.theirs:.4f}, {gain}"
