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
from lakeloop.lakehouse.rollouts.latency import quantile_ms
from lakeloop.lakehouse.statistics.sequential import Difference

REQUESTS: Final = 50
"""Requests an arm must have answered before errors and latency let it go on, or its latency take it back."""
ERRORS: Final = 5
"""So many errors take it back before."""
ROWS: Final = 200
"""Predictions of each side before drift is judged."""
SIGNIFICANT: Final = 1e-4
"""PSI counts only with a p-value below this: small samples have a large one, and it is looked at many times."""

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
    if share > bound and (counts.requests >= REQUESTS or counts.errors >= ERRORS):
        return "breached", words
    return ("good", words) if counts.requests >= REQUESTS else ("early", f"{words}; needs {REQUESTS}")


def _latency(rule: LatencyAbove, ours: Counts, theirs: Counts) -> tuple[Verdict, str]:
    mine = ours.quantile_ms(QUANTILES[rule.quantile])
    bound, against = rule.ms, ""
    if rule.times is not None:
        champion = theirs.quantile_ms(QUANTILES[rule.quantile])
        bound, against = rule.times * champion, f" against {champion:.1f} ms of the champion"
    answered = min(sum(ours.latency), sum(theirs.latency)) if rule.times is not None else sum(ours.latency)
    if answered < REQUESTS:
        return "early", f"{answered} answers to compare; needs {REQUESTS}"
    assert bound is not None
    return ("breached" if mine > bound else "good"), f"{rule.quantile} {mine:.1f} ms{against}"


def _drift(bound: float, drift: Drift | None) -> tuple[Verdict, str]:
    rows = min(drift.rows, drift.champion_rows) if drift else 0
    if drift is None or rows < ROWS:
        return "early", f"{rows} predictions to compare; needs {ROWS}"
    words = f"psi {drift.psi:.3f} on {drift.rows} predictions against {drift.champion_rows}"
    return ("breached" if drift.psi > bound and drift.pvalue < SIGNIFICANT else "good"), words


def _quality(margin: float, seen: Difference | None) -> tuple[Verdict, str]:
    """Labels come late, so a step does not wait for them."""
    if seen is None or math.isnan(seen.value):
        rows = min(seen.rows) if seen else 0
        return "none", f"{rows} labelled predictions: too few to tell"
    words = f"mean loss {seen.value:+.4f} [{seen.low:+.4f}, {seen.high:+.4f}] on {seen.rows[1]} labelled predictions"
    return ("breached" if seen.low > margin else "good"), words
