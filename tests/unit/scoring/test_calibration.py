"""Calibration and thresholds against known answers and other people's code."""

from __future__ import annotations

import numpy as np
import pytest

from lakeloop.lakehouse.project.definitions import Cost, Maximize
from lakeloop.lakehouse.scoring.calibration import calibrate, learn_calibration, learn_threshold
from lakeloop.lakehouse.scoring.signature import Isotonic, Sigmoid


def test_without_calibration_scores_stay():
    scores = np.array([0.25, 0.5])
    assert calibrate(None, scores) is scores
    assert learn_calibration("none", np.array([0.0, 1.0]), scores) is None


def test_isotonic_pools_adjacent_violators():
    # Barlow et al. 1972: violators become their mean (1, 0 → 1/2 each). Ends are kept off 0 and 1.
    y = np.array([0.0, 1.0, 0.0, 1.0])
    found = learn_calibration("isotonic", y, np.array([0.1, 0.2, 0.3, 0.4]))
    assert isinstance(found, Isotonic)
    assert calibrate(found, np.array([0.1, 0.2, 0.3, 0.4])).tolist() == pytest.approx([0.1, 0.5, 0.5, 0.9])
    assert calibrate(found, np.array([0.0, 1.0])).tolist() == pytest.approx([0.1, 0.9])


def test_calibrated_scores_mean_what_they_say():
    random = np.random.default_rng(0)
    truth = random.uniform(size=20_000)
    y = (random.uniform(size=20_000) < truth).astype(float)
    odds = np.log(truth / (1 - truth))
    for method, scores in (("isotonic", truth**3), ("sigmoid", 1 / (1 + np.exp(-2 * odds - 1)))):
        found = calibrate(learn_calibration(method, y, scores), scores)
        high = found > 0.7
        assert y[high].mean() == pytest.approx(found[high].mean(), abs=0.02)


def test_sigmoid_is_the_logistic_regression_of_the_log_odds():
    linear = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(1)
    scores = random.uniform(0.01, 0.99, 5_000)
    odds = np.log(scores / (1 - scores))
    y = (random.uniform(size=5_000) < 1 / (1 + np.exp(-(0.5 * odds - 1)))).astype(float)
    found = learn_calibration("sigmoid", y, scores)
    oracle = linear.LogisticRegression(C=1e9).fit(odds[:, None], y)
    assert isinstance(found, Sigmoid)
    assert (found.a, found.b) == pytest.approx((oracle.coef_[0, 0], oracle.intercept_[0]), abs=5e-3)


def test_sigmoid_survives_scores_that_separate_the_classes():
    y = np.array([0.0] * 50 + [1.0] * 50)
    found = calibrate(learn_calibration("sigmoid", y, y), y)
    assert (0 < found[0] < 0.05, 0.95 < found[-1] < 1) == (True, True)


def test_weights_count_as_rows():
    y, scores = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.3, 0.3, 0.6, 0.7])
    once = learn_calibration("sigmoid", y, scores, np.array([2.0, 1.0, 1.0, 1.0]))
    twice = learn_calibration("sigmoid", y[[0, 0, 1, 2, 3]], scores[[0, 0, 1, 2, 3]])
    assert (once.a, once.b) == pytest.approx((twice.a, twice.b))


def test_one_class_alone_cannot_be_calibrated():
    assert learn_calibration("isotonic", np.zeros(3), np.array([0.1, 0.2, 0.3])) is None


def test_a_threshold_is_a_number_or_learnt():
    y, scores = np.array([0.0, 0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.9])
    assert learn_threshold(0.25, y, scores) == 0.25
    assert 0.2 < learn_threshold(Maximize("f1"), y, scores) <= 0.3  # F1 0.8 there, 2/3 above 0.4
    assert 0.2 < learn_threshold(Maximize("youden"), y, scores) <= 0.3
    assert 0.4 < learn_threshold(Cost(fp=5, fn=1), y, scores) <= 0.9
    assert 0.2 < learn_threshold(Cost(fp=1, fn=5), y, scores) <= 0.3
