"""The sequential test keeps its level under peeking, finds what differs, and says what its source says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lakeloop.lakehouse.statistics.sequential import EFFECT, LEAST, Difference, Sample, difference, paired

LOOK_EVERY = 50
LABELS = 4000


def prefixes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Running mean and variance, without the code under test."""
    count = np.arange(1, len(values) + 1)
    mean = np.cumsum(values) / count
    square = np.cumsum(values**2) / count
    return mean, (square - mean**2) * count / np.maximum(count - 1, 1)


def looks(first: np.ndarray, second: np.ndarray) -> list[Difference]:
    """What is seen at every look at two streams that come in at their own rates."""
    (m1, v1), (m2, v2) = prefixes(first), prefixes(second)
    seen = []
    for part in np.arange(0.02, 1.0001, 0.02):
        a, b = int(len(first) * part) - 1, int(len(second) * part) - 1
        seen.append(difference([(Sample(a + 1, m1[a], v1[a]), Sample(b + 1, m2[b], v2[b]))]))
    return seen


def brier(rng: np.random.Generator, rows: int, noise: float = 0.0) -> np.ndarray:
    """Squared errors of a calibrated model, or of one whose predictions are off by noise."""
    p = rng.beta(2, 5, rows)
    y = rng.random(rows) < p
    said = np.clip(p + noise * rng.standard_normal(rows), 0, 1)
    return (said - y) ** 2


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_peeking_at_every_step_rejects_a_true_hypothesis_no_more_than_it_may(share: float) -> None:
    rng, rejected, naive, rounds = np.random.default_rng(7), 0, 0, 600
    for _ in range(rounds):
        first, second = brier(rng, int(LABELS * (1 - share))), brier(rng, int(LABELS * share))
        seen = looks(first, second)
        rejected += any(one.low > 0 or one.high < 0 for one in seen)
        (m1, v1), (m2, v2) = prefixes(first), prefixes(second)
        steps = [(int(len(first) * p) - 1, int(len(second) * p) - 1) for p in np.arange(0.02, 1.0001, 0.02)]
        naive += any(
            abs(m2[b] - m1[a]) > 1.96 * math.sqrt(v1[a] / (a + 1) + v2[b] / (b + 1)) for a, b in steps if b >= LEAST
        )
    assert rejected / rounds <= 0.05
    assert naive / rounds > 0.15  # what a test of fixed size does under the same looks


def test_a_worse_model_is_found_and_the_better_is_never_called_worse() -> None:
    rng, found, wrong, rounds = np.random.default_rng(8), 0, 0, 200
    for _ in range(rounds):
        seen = looks(brier(rng, LABELS // 2), brier(rng, LABELS // 2, noise=0.25))
        found += any(one.low > 0 for one in seen)
        wrong += any(one.high < 0 for one in seen)
    assert found / rounds > 0.95
    assert wrong == 0


def test_the_interval_ends_where_the_ratio_of_the_paper_reaches_its_bound() -> None:
    a, b = Sample(400, 0.20, 0.04), Sample(100, 0.23, 0.05)
    seen = difference([(a, b)], alpha=0.05)
    variance, mixing = 0.04 / 400 + 0.05 / 100, EFFECT**2 * (0.04 + 0.05) / 2

    def ratio(effect: float) -> float:
        d = seen.value - effect
        weight = math.sqrt(variance / (variance + mixing))
        return weight * math.exp(mixing * d**2 / (2 * variance * (variance + mixing)))

    assert seen.value == pytest.approx(0.03)
    assert ratio(seen.low) == pytest.approx(20)
    assert ratio(seen.high) == pytest.approx(20)
    assert seen.pvalue == pytest.approx(min(1, 1 / ratio(0)))


def test_a_change_over_time_that_hits_both_sides_is_no_difference() -> None:
    rng = np.random.default_rng(9)
    quiet, loud = rng.random(2000) * 0.2, rng.random(2000) * 0.2 + 0.5
    steps = [(Sample.of(quiet[:1800]), Sample.of(quiet[1800:])), (Sample.of(loud[:200]), Sample.of(loud[200:]))]
    together = difference([(Sample.of([*quiet[:1800], *loud[:200]]), Sample.of([*quiet[1800:], *loud[200:]]))])
    assert together.low > 0
    assert difference(steps).low < 0 < difference(steps).high


def test_pairs_find_a_small_difference_that_two_samples_cannot() -> None:
    rng = np.random.default_rng(10)
    first = rng.random(400)
    second = first + 0.02 + 0.01 * rng.standard_normal(400)
    assert paired(Sample.of(second - first)).low > 0
    assert difference([(Sample.of(first), Sample.of(second))]).low < 0


@pytest.mark.parametrize("few", [[], [1.0], [0.5] * (LEAST - 1), [0.5] * 1000, [math.nan] * 100])
def test_too_few_rows_or_rows_that_never_differ_say_nothing(few: list[float]) -> None:
    sample = Sample.of(few)
    for seen in (difference([(sample, sample)]), paired(sample)):
        assert math.isnan(seen.value)
        assert (seen.low, seen.high, seen.pvalue) == (-math.inf, math.inf, 1.0)
