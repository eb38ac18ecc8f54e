"""What is known about a step of a rollout, and what its rules say to that. Pure: counts in, findings out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, assert_never

from lakeloop.lakehouse.project.back_if import (
    QUANTILES,
    BackIf,
    DriftAbove,
    ErrorsAbove,
    LatencyAbove,
    QualityBelow,
    parse_back_if,
)
from lakeloop.lakehouse.rollouts.latency import above, quantile_ms
from lakeloop.lakehouse.statistics.sequential import Difference
from lakeloop.lakehouse.statistics.special import binomial_survival

REQUESTS: Final = 50
"""Requests an arm must have answered before errors and latency let it go on."""
ROWS: Final = 200
"""Predictions of each side before drift is judged."""
SIGNIFICANT: Final = 1e-4
"""A bound is broken when that much were seen by chance so rarely if it were kept: few rows scatter much, and they are
looked at many times. What is beyond a bound, but not so clearly, waits for more."""

Verdict: TypeAlias = Literal["good", "breached", "early", "none"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What replicas counted of one version since the step began. `latency`: by the bins of `latency`, answered ones."""

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()

    def quantile_ms(self, share: float) -> float:
        return quantile_ms(self.latency, share)


@dataclass(frozen=True, slots=True)
class Drift:
    """PSI of a version's predictions against the champion's, and how many of each there are."""

    psi: float
    pvalue: float
    rows: int
    champion_rows: int


@dataclass(frozen=True, slots=True)
class Replica:
    """The last word of a live replica: the newest revision it has seen and the one it serves; why they differ."""

    name: str
    wanted: int
    revision: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a decision rests on, by version. What no rule asks for is not gathered."""

    replicas: tuple[Replica, ...] = ()
    counts: Mapping[int, Counts] = field(default_factory=dict)
    drift: Mapping[int, Drift] = field(default_factory=dict)
    quality: Mapping[int, Difference] = field(default_factory=dict)
    """Of the mean loss: the version's less the champion's."""
    taken_out: frozenset[int] = frozenset()
    """Versions that the breaker of a live replica keeps from their share."""

    def behind(self, revision: int) -> list[Replica]:
        """Live replicas that do not serve this revision yet."""
        return [one for one in self.replicas if one.revision < revision]

    def failing(self) -> list[Replica]:
        return [one for one in self.replicas if one.error]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says. `early`: it cannot say yet, so the step waits; `none`: it has nothing to go by."""

    rule: str
    verdict: Verdict
    words: str


def judge(text: str, version: int, champion: int, evidence: Evidence) -> Finding:
    """One rule, of a version that answers requests or scores the log."""
    rule: BackIf = parse_back_if(text)
    match rule:
        case ErrorsAbove(share):
            verdict, words = _errors(share, evidence.counts.get(version, Counts()))
        case LatencyAbove():
            verdict, words = _latency(
                rule, evidence.counts.get(version, Counts()), evidence.counts.get(champion, Counts())
            )
        case DriftAbove(psi):
            verdict, words = _drift(psi, evidence.drift.get(version))
        case QualityBelow(margin):
            verdict, words = _quality(margin, evidence.quality.get(version))
        case _:
            assert_never(rule)
    return Finding(text, verdict, words)


def _errors(bound: float, counts: Counts) -> tuple[Verdict, str]:
    share = counts.errors / counts.requests if counts.requests else 0.0
    words = f"{counts.errors} of {counts.requests} requests failed ({share:.2%})"
    if binomial_survival(counts.errors, counts.requests, bound) < SIGNIFICANT:
        return "breached", words
    return _enough(counts.requests, share > bound, words)


def _latency(rule: LatencyAbove, ours: Counts, theirs: Counts) -> tuple[Verdict, str]:
    """Broken when clearly more requests than the quantile leaves took longer than the bound. The champion's quantile
    is taken as it was seen, on `REQUESTS` at least."""
    share = QUANTILES[rule.quantile]
    mine, answered, bound, against = ours.quantile_ms(share), sum(ours.latency), rule.ms or 0.0, ""
    if rule.times is not None:
        champion = theirs.quantile_ms(share)
        bound, against = rule.times * champion, f" against {champion:.1f} ms of the champion"
        if sum(theirs.latency) < REQUESTS:
            return "early", f"{sum(theirs.latency)} answers of the champion to compare with; needs {REQUESTS}"
    words = f"{rule.quantile} {mine:.1f} ms{against} on {answered} answers"
    if binomial_survival(above(ours.latency, bound), answered, 1 - share) < SIGNIFICANT:
        return "breached", words
    return _enough(answered, mine > bound, words)


def _enough(rows: int, beyond: bool, words: str) -> tuple[Verdict, str]:
    if rows < REQUESTS:
        return "early", f"{words}; needs {REQUESTS}"
    return ("early", f"{words}: too few to tell") if beyond else ("good", words)


def _drift(bound: float, drift: Drift | None) -> tuple[Verdict, str]:
    rows = min(drift.rows, drift.champion_rows) if drift else 0
    if drift is None or rows < ROWS:
        return "early", f"{rows} predictions to compare; needs {ROWS}"
    words = f"psi {drift.psi:.3f} on {drift.rows} predictions against {drift.champion_rows}"
    if drift.psi <= bound:
        return "good", words
    return ("breached", words) if drift.pvalue < SIGNIFICANT else ("early", f"{words}: too few to tell")


def _quality(margin: float, seen: Difference | None) -> tuple[Verdict, str]:
    """Labels come late, so a step does not wait for them."""
    if seen is None or math.isnan(seen.value):
        rows = min(seen.rows) if seen else 0
        return "none", f"{rows} labelled predictions: too few to tell"
    words = f"mean loss {seen.value:+.4f} [{seen.low:+.4f}, {seen.high:+.4f}] on {seen.rows[1]} labelled predictions"
    return ("breached" if seen.low > margin else "good"), words
