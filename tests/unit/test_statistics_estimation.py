"""CBPE, thresholds, histograms and calibration bins: published answers, brute force, and simulation."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.statistics import (
    best_threshold,
    calibration_bins,
    cbpe,
    evaluate,
    histogram,
    quantile_edges,
)

PUBLISHED = [0.9, 0.8, 0.6, 0.4, 0.2, 0.1]
values = st.lists(st.one_of(st.floats(-1e6, 1e6), st.integers(-3, 3)), min_size=1, max_size=200)


def test_cbpe_published_answer():
    found = cbpe(PUBLISHED, 0.5)
    for metric in ("accuracy", "precision", "recall", "f1"):
        assert found[metric] == pytest.approx(2.3 / 3)
    assert found["roc_auc"] == pytest.approx(0.833333, abs=1e-6)
    assert found["rows"] == 6


def test_cbpe_of_calibrated_probabilities_is_the_realized_performance():
    random = np.random.default_rng(0)
    p = random.beta(1, 3, 100_000)
    y = random.random(100_000) < p
    found = cbpe(p, 0.4)
    for metric in ("accuracy", "precision", "recall", "f1", "roc_auc", "brier", "log_loss"):
        assert found[metric] == pytest.approx(evaluate("binary", metric, y, p, threshold=0.4), abs=0.012)


def test_cbpe_weight_is_the_row_that_often():
    assert cbpe([0.2, 0.7], weight=[3, 2])["roc_auc"] == pytest.approx(cbpe([0.2] * 3 + [0.7] * 2)["roc_auc"])


def test_cbpe_leaves_out_unknown_and_copes_with_nothing():
    assert cbpe([*PUBLISHED, math.nan], 0.5) == cbpe(PUBLISHED, 0.5)
    assert all(math.isnan(value) for name, value in cbpe([], 0.5).items() if name != "rows")
    certain = cbpe([1.0, 1.0], 0.5)
    assert (certain["precision"], certain["log_loss"]) == (1, 0)
    assert math.isnan(certain["roc_auc"])


def score_of(y, p, cut, rule):
    """The rule's score of a cut, by counting rows one by one."""
    tp = sum(a and b >= cut for a, b in zip(y, p, strict=True))
    fp = sum((not a) and b >= cut for a, b in zip(y, p, strict=True))
    fn = sum(a and b < cut for a, b in zip(y, p, strict=True))
    if rule == {"maximize": "f1"}:
        return 2 * tp / (2 * tp + fp + fn)
    if rule == {"maximize": "youden"}:
        return tp / sum(y) - fp / (len(y) - sum(y))
    return -(rule["cost"]["fp"] * fp + rule["cost"]["fn"] * fn)


@pytest.mark.parametrize("rule", [{"maximize": "f1"}, {"maximize": "youden"}, {"cost": {"fp": 1, "fn": 5}}])
@given(rows=st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=1, max_size=25))
def test_no_other_cut_serves_the_rule_better(rule, rows):
    y, p = [True, False] + [a for a, _ in rows], [0.5, 0.5] + [b / 10 for _, b in rows]
    best = score_of(y, p, best_threshold(y, p, rule), rule)
    assert best == pytest.approx(max(score_of(y, p, cut, rule) for cut in [*np.unique(p), 2.0]))


def test_a_cut_lies_between_scores():
    assert best_threshold([0, 1], [0.2, 0.6], {"maximize": "f1"}) == pytest.approx(0.4)
    near = np.nextafter(0.5, 1)
    assert best_threshold([0, 1], [0.5, near], "youden") == near


def test_costs_can_flag_nobody_or_everybody():
    y, p = [0, 1, 0, 0], [0.1, 0.3, 0.2, 0.9]
    assert best_threshold(y, p, {"cost": {"fp": 100, "fn": 1}}) > 0.9
    assert best_threshold(y, [0.1, 0.3, 0.2, 1.0], {"cost": {"fp": 100, "fn": 1}}) > 1
    assert best_threshold(y, [0.3, 0.1, 0.2, 0.9], {"cost": {"fp": 1, "fn": 100}}) == 0


def test_weight_counts_in_a_threshold():
    y, p = [0, 1, 0], [0.2, 0.5, 0.7]
    assert best_threshold(y, p, {"cost": {"fp": 1, "fn": 1}}, weight=[1, 1, 0.1]) == pytest.approx(0.35)


def test_a_fixed_threshold_stays_and_one_class_gives_a_half():
    assert best_threshold([1, 0], [0.1, 0.9], 0.25) == 0.25
    assert best_threshold([1, 1], [0.1, 0.9], "f1") == 0.5
    assert best_threshold([], [], "f1") == 0.5


@pytest.mark.parametrize("rule", ["f2", {"maximise": "f1"}, {"cost": {"fp": 1}}, {"cost": 3}])
def test_an_unknown_rule_says_what_there_is(rule):
    with pytest.raises(Invalid, match="threshold rule") as raised:
        best_threshold([0, 1], [0.1, 0.2], rule)
    assert "youden" in str(raised.value)


@given(given_values=values)
def test_edges_ascend_and_every_value_has_one_bin(given_values):
    edges = quantile_edges(given_values)
    assert (np.diff(edges) > 0).all()
    assert len(edges) <= 9
    assert histogram(given_values, edges).sum() == len(given_values)


@given(given_values=values, edges=st.lists(st.integers(-5, 5), unique=True).map(sorted))
def test_a_bin_holds_values_up_to_and_with_its_edge(given_values, edges):
    bounds = [-math.inf, *edges, math.inf]
    wanted = [sum(low < v <= high for v in given_values) for low, high in pairwise(bounds)]
    assert histogram(given_values, edges).tolist() == wanted


def test_bins_of_a_continuous_reference_hold_the_same_share():
    counts = histogram(sample := np.random.default_rng(0).normal(size=10_000), quantile_edges(sample))
    assert counts.tolist() == [1000] * 10


def test_few_distinct_values_have_a_bin_each():
    assert quantile_edges([0, 1] * 50).tolist() == [0]
    assert histogram([0, 0, 1, 2], quantile_edges([0, 1, 2])).tolist() == [2, 1, 1]


def test_a_constant_shows_what_leaves_it_either_way():
    edges = quantile_edges([7.0] * 20)
    assert histogram([6.9, 7, 7, 7.1], edges).tolist() == [1, 2, 1]


@pytest.mark.parametrize("common", [0, 100])
def test_a_very_common_value_is_kept_apart_from_the_rest(common):
    sample = [common] * 950 + list(range(1, 51))
    counts = histogram(sample, quantile_edges(sample))
    assert len(counts) == 2
    assert max(counts) == 950


def test_nulls_are_in_no_bin_and_infinities_in_the_outer_ones():
    assert histogram([math.nan, -math.inf, 0.5, math.inf], [0, 1]).tolist() == [1, 1, 1]
    assert quantile_edges([math.nan, math.inf]).tolist() == []
    assert histogram([1, 2], []).tolist() == [2]
    assert histogram([], [0]).tolist() == [0, 0]


def test_calibration_bins_by_hand():
    found = calibration_bins([0, 1, 1, math.nan], [0.12, 0.18, 1.0, 0.5])
    assert [(b.predicted, b.observed, b.rows) for b in found] == [(pytest.approx(0.15), 0.5, 2), (1.0, 1.0, 1)]
    # Wilson's interval of 1 in 2: (0.0945, 0.9055).
    assert (found[0].low, found[0].high) == pytest.approx((0.0945, 0.9055), abs=1e-4)
    assert found[1].high == 1
    assert calibration_bins([], []) == []


def test_calibration_bins_add_up_to_the_ece():
    random = np.random.default_rng(3)
    p = random.random(500)
    y = random.random(500) < p**2
    curve = calibration_bins(y, p)
    ece = sum(b.rows * abs(b.predicted - b.observed) for b in curve) / 500
    assert ece == pytest.approx(evaluate("binary", "ece", y, p))
