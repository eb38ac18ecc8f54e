"""The chi-squared distribution's upper tail, from the regularized incomplete gamma function, without scipy."""

from __future__ import annotations

import math

_PRECISION = 1e-15
_TERMS = 10_000


def chi2_survival(x: float, degrees: float) -> float:
    """P(X > x) for a chi-squared X of so many degrees: Q(degrees/2, x/2); 1 for x <= 0, NaN for no degrees."""
    if math.isnan(x) or degrees <= 0:
        return float("nan")
    if x / 2 <= 0:
        return 1.0
    if math.isinf(x):
        return 0.0
    return _gamma_upper(degrees / 2, x / 2)


def binomial_survival(successes: int, trials: int, probability: float) -> float:
    """P(X ≥ successes) of X ~ Binomial(trials, probability), summed upwards from its first and largest term.

    At or below the mean it is about a half or more, and is answered as 1: nobody asks how much. `probability` is
    neither 0 nor 1.
    """
    if successes <= trials * probability:
        return 1.0
    odds = probability / (1 - probability)
    first = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    term = math.exp(first + successes * math.log(probability) + (trials - successes) * math.log1p(-probability))
    total = 0.0
    for count in range(successes, trials + 1):
        total += term
        term *= (trials - count) / (count + 1) * odds
        if term < total * 1e-12:
            break
    return min(total, 1.0)


def _gamma_upper(a: float, x: float) -> float:
    """Q(a, x): the series below a + 1, the continued fraction above, where each is quick (Numerical Recipes, §6.2)."""
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    return 1 - front * _series(a, x) if x < a + 1 else front * _fraction(a, x)


def _series(a: float, x: float) -> float:
    """Σ xⁿ / (a (a+1) … (a+n)), DLMF 8.7.1."""
    term = total = 1 / a
    for n in range(1, _TERMS):
        term *= x / (a + n)
        total += term
        if term < total * _PRECISION:
            break
    return total


def _fraction(a: float, x: float) -> float:
    """The continued fraction of DLMF 8.9.2 in its even form, by the modified Lentz method."""
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    value = d
    for n in range(1, _TERMS):
        top = -n * (n - a)
        b += 2
        d = 1 / _away_from_zero(top * d + b, tiny)
        c = _away_from_zero(b + top / c, tiny)
        value *= d * c
        if abs(d * c - 1) < _PRECISION:
            break
    return value


def _away_from_zero(x: float, tiny: float) -> float:
    return x if abs(x) > tiny else tiny
