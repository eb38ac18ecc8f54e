"""The rules of `rollout.back_if`: when a new version goes back by itself.

errors > 1%                 the share of the arm's requests that its model could not answer
latency_p99 > 2x            against the champion's over the same time; also p50, p90, p95
latency_p99 > 50ms          or against a bound
drift > 0.2                 PSI of the arm's predictions against the champion's
quality < champion          the mean loss of labelled predictions, by a sequential test
quality < champion - 0.01   … worse by more than this
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from lakeloop.lakehouse.project.documents import did_you_mean

Quantile: TypeAlias = Literal["p50", "p90", "p95", "p99"]


@dataclass(frozen=True, slots=True)
class ErrorsAbove:
    """More than this share of the requests, in (0, 1)."""

    share: float


@dataclass(frozen=True, slots=True)
class LatencyAbove:
    """A quantile above `times` the champion's, or above `ms`; the other is None."""

    quantile: Quantile
    times: float | None = None
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class DriftAbove:
    """PSI of the predictions against the champion's."""

    psi: float


@dataclass(frozen=True, slots=True)
class QualityBelow:
    """Mean loss above the champion's by more than `margin`."""

    margin: float = 0.0


BackIf: TypeAlias = ErrorsAbove | LatencyAbove | DriftAbove | QualityBelow

QUANTILES: Final[dict[Quantile, float]] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
SUBJECTS: Final = ("errors", *(f"latency_{name}" for name in QUANTILES), "drift", "quality")
EXAMPLES: Final = '"errors > 1%", "latency_p99 > 2x", "latency_p99 > 50ms", "drift > 0.2", "quality < champion"'
_RULE: Final = re.compile(r"\s*([A-Za-z_0-9]+)\s*([<>]=?|=+)\s*(.*?)\s*")
_NUMBER: Final = r"(\d{1,9}(?:\.\d{1,9})?)"
_SHARE: Final = re.compile(_NUMBER + r"\s*%")
_LATENCY: Final = re.compile(_NUMBER + r"\s*(x|ms|s)")
_PSI: Final = re.compile(_NUMBER)
_CHAMPION: Final = re.compile(rf"champion(?:\s*-\s*{_NUMBER})?")


def parse_back_if(text: str) -> BackIf:
    """One rule. ValueError says what is wrong with it and how it is written."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"is not a rule; write {EXAMPLES}")
    subject, sign, bound = found.groups()
    if subject not in SUBJECTS:
        raise ValueError(f"knows nothing of {subject!r}{did_you_mean(subject, SUBJECTS)}")
    wanted = "<" if subject == "quality" else ">"
    if sign != wanted:
        raise ValueError(f"goes back on {subject!r} {sign}; write {wanted}")
    return _bounded(subject, bound)


def _bounded(subject: str, bound: str) -> BackIf:
    match subject:
        case "errors":
            share = _number(_SHARE, bound, "a share above 0% and below 100%, such as 1%", most=100) / 100
            return ErrorsAbove(share)
        case "drift":
            return DriftAbove(_number(_PSI, bound, "a PSI above 0, such as 0.2"))
        case "quality":
            found = _CHAMPION.fullmatch(bound)
            if found is None:
                raise ValueError(f"compares quality with {bound!r}; write champion, or champion - 0.01")
            return QualityBelow(float(found[1] or 0))
        case _:
            return _latency(subject.removeprefix("latency_"), bound)


def _latency(name: str, bound: str) -> LatencyAbove:
    expected = "a bound above 0: 2x (of the champion's), 50ms or 1s"
    value = _number(_LATENCY, bound, expected)
    quantile = next(one for one in get_args(Quantile) if one == name)
    if bound.endswith("x"):
        return LatencyAbove(quantile, times=value)
    return LatencyAbove(quantile, ms=value if bound.endswith("ms") else value * 1000)


def _number(like: re.Pattern[str], text: str, expected: str, most: float = float("inf")) -> float:
    found = like.fullmatch(text)
    value = float(found[1]) if found else 0.0
    if not 0 < value < most:
        raise ValueError(f"{text!r} is not {expected}")
    return value
