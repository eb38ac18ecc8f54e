"""Bootstrap intervals: they cover the truth as often as they say, in pairs and in groups, and repeat with the seed."""

import math

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.statistics import bootstrap, evaluate, paired_bootstrap


def two_normals(random, rows, distance=1.0):
    """Scores of N(0,1) and N(distance,1) as classes 0 and 1: their AUC is Φ(distance / √2)."""
    y = np.arange(rows) % 2
    return y, random.normal(y * distance, 1)


def test_auc_interval_covers_the_truth_as_often_as_it_says():
    truth = 0.5 * (1 + math.erf(1.0 / 2))  # Φ(1/√2)
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        found = bootstrap("binary", "roc_auc", *two_normals(random, 300), resamples=200, confidence=0.9, seed=trial)
        covered += found.low <= truth <= found.high
    assert 165 <= covered <= 194  # 180 expected, standard deviation 4.2


def test_mean_interval_is_the_textbook_one():
    random = np.random.default_rng(2)
    y = random.normal(0, 1, 4000)
    found = bootstrap("regression", "mae", y, np.zeros(4000), resamples=2000)
    standard_error = np.abs(y).std() / math.sqrt(4000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * standard_error, rel=0.06)
    assert found.value == pytest.approx(np.abs(y).mean())
    assert found.rows == 4000


def test_same_seed_same_interval_and_another_seed_another():
    y, p = two_normals(np.random.default_rng(3), 200)
    one, again, other = (bootstrap("binary", "roc_auc", y, p, resamples=50, seed=seed) for seed in (5, 5, 6))
    assert one == again
    assert one != other


def test_a_model_has_no_gain_over_itself():
    y, p = two_normals(np.random.default_rng(4), 200)
    found = paired_bootstrap("binary", "roc_auc", y, p, p.copy(), resamples=50)
    assert (found.value, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("metric", ["roc_auc", "brier", "log_loss", "average_precision"])
def test_gain_is_positive_for_the_better_model_whichever_way_the_metric_points(metric):
    random = np.random.default_rng(5)
    truth = random.beta(2, 4, 3000)
    y = random.random(3000) < truth
    blurred = np.clip(truth + random.normal(0, 0.3, 3000), 0.01, 0.99)
    found = paired_bootstrap("binary", metric, y, truth, blurred, resamples=200)
    assert found.low > 0
    back = paired_bootstrap("binary", metric, y, blurred, truth, resamples=200)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    difference = evaluate("binary", metric, y, truth) - evaluate("binary", metric, y, blurred)
    assert found.value == pytest.approx(abs(difference))


def test_pairing_sees_a_small_steady_gain_that_separate_intervals_hide():
    random = np.random.default_rng(6)
    y, p = two_normals(random, 1000)
    worse = p + random.normal(0, 0.25, 1000)
    ours, theirs = (bootstrap("binary", "roc_auc", y, score, resamples=200) for score in (p, worse))
    gain = paired_bootstrap("binary", "roc_auc", y, p, worse, resamples=200)
    assert ours.low < theirs.high
    assert gain.high - gain.low < (ours.high - ours.low) / 2


def test_each_model_keeps_its_own_threshold():
    y = np.array([0, 1] * 20)
    high, low = np.where(y, 0.9, 0.6), np.where(y, 0.4, 0.1)
    found = paired_bootstrap("binary", "accuracy", y, high, low, threshold=0.7, their_threshold=0.3, resamples=20)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_groups_that_err_together_widen_the_interval():
    random = np.random.default_rng(7)
    day = np.repeat(np.arange(60), 50)
    y = random.normal(0, 1, 60)[day] + random.normal(0, 0.2, 3000)
    single = bootstrap("regression", "rmse", y, np.zeros(3000), resamples=300)
    grouped = bootstrap("regression", "rmse", y, np.zeros(3000), resamples=300, groups=day)
    assert grouped.high - grouped.low > 3 * (single.high - single.low)


def test_a_group_of_each_row_is_the_plain_bootstrap():
    y, p = two_normals(np.random.default_rng(8), 100)
    plain = bootstrap("binary", "roc_auc", y, p, resamples=50)
    assert bootstrap("binary", "roc_auc", y, p, resamples=50, groups=np.arange(100)) == plain


def test_weight_moves_the_value_and_its_interval():
    y, p, weight = [1.0, 3.0] * 50, np.zeros(100), [1.0, 0.0] * 50
    found = bootstrap("regression", "mae", y, p, weight=weight, resamples=50)
    assert (found.value, found.low, found.high) == (1, 1, 1)


@pytest.mark.parametrize(("y", "p"), [([], []), ([1], [0.4]), ([1, 1, 1], [0.1, 0.5, 0.9])])
def test_an_undefined_metric_has_an_undefined_interval(y, p):
    found = bootstrap("binary", "roc_auc", y, p, resamples=20)
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.rows == len(y)


def test_a_value_without_enough_resamples_has_no_bounds():
    # One of each among 50 rows without weight: both are drawn in 1 − 2/e + 1/e² = 40% of the resamples.
    y, p, weight = [1, 0] + [0] * 50, [0.9, 0.1] + [0.5] * 50, [1, 1] + [0] * 50
    found = bootstrap("binary", "roc_auc", y, p, weight=weight, resamples=400)
    assert found.value == 1
    assert np.isnan([found.low, found.high]).all()


def test_resamples_without_a_value_are_left_out():
    # The only positive is drawn in 1 − 1/e = 63% of the resamples.
    found = bootstrap("binary", "roc_auc", [1] + [0] * 50, [0.9] + [0.1] * 50, resamples=400)
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_wrong_arguments_are_named():
    with pytest.raises(Invalid, match="confidence"):
        bootstrap("binary", "brier", [1, 0], [0.5, 0.5], confidence=95)
    with pytest.raises(Invalid, match="3 groups"):
        bootstrap("binary", "brier", [1, 0], [0.5, 0.5], groups=[1, 2, 3])
