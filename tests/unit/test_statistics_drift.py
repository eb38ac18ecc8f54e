"""Distances and tests on counts: published answers, scipy as an oracle, and what must hold of any distance."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import spatial, stats

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.statistics import (
    benjamini_hochberg,
    chi2_fit,
    chi2_homogeneity,
    chi2_survival,
    hellinger,
    js_distance,
    ks,
    psi,
    psi_pvalue,
    wasserstein,
)

HALF, SHIFTED = (50, 50), (60, 40)
EVEN, RISING = (25, 25, 25, 25), (10, 20, 30, 40)
SCIPY = (16, 18, 16, 14, 12, 12), (16, 16, 16, 16, 16, 8)

counts = st.lists(st.integers(0, 500), min_size=2, max_size=12)
pairs = st.integers(2, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 500), min_size=n, max_size=n).filter(any)] * 2)
)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (psi(HALF, SHIFTED), 0.0405465108),
        (psi(EVEN, RISING), 0.2282174097),
        (js_distance(HALF, SHIFTED), 0.0711293886),
        (js_distance(HALF, SHIFTED, base=2), 0.0854351026),
        (hellinger(HALF, SHIFTED), 0.0711607124),
        (chi2_fit(*SCIPY).statistic, 3.1746031746),
        (chi2_fit(*SCIPY).pvalue, 0.6730876007),
        (chi2_homogeneity(*SCIPY).statistic, 1.6224089636),
        (chi2_homogeneity(*SCIPY).pvalue, 0.8985262394),
    ],
)
def test_published_answer(found, wanted):
    assert found == pytest.approx(wanted, abs=1e-9)


def test_ks_and_wasserstein_of_shifted_integers():
    low, high = ([1] * 100 + [0] * 20), ([0] * 20 + [1] * 100)
    assert ks(low, high) == pytest.approx(0.20)
    assert wasserstein(low, high, range(120)) == pytest.approx(20)


def test_ks_and_wasserstein_of_two_normals_in_fine_bins():
    edges = np.linspace(-8, 9, 3401)
    below, above = np.diff(stats.norm.cdf(edges)), np.diff(stats.norm.cdf(edges - 1))
    assert ks(below, above) == pytest.approx(0.3829249225, abs=1e-5)
    assert wasserstein(below, above, edges[:-1]) == pytest.approx(1, abs=1e-6)


@given(pair=pairs)
def test_distances_equal_scipy(pair):
    expected, actual = pair
    assert js_distance(expected, actual, base=2) == pytest.approx(
        spatial.distance.jensenshannon(expected, actual, base=2), abs=1e-7
    )
    places = np.arange(len(expected))
    assert wasserstein(expected, actual, places) == pytest.approx(
        stats.wasserstein_distance(places, places, expected, actual), abs=1e-9
    )
    occupied = [i for i in places if expected[i] or actual[i]]
    if len(occupied) > 1:
        table = np.array([expected, actual])[:, occupied]
        wanted = stats.chi2_contingency(table, correction=False)
        found = chi2_homogeneity(expected, actual)
        assert (found.statistic, found.pvalue) == pytest.approx((wanted.statistic, wanted.pvalue), rel=1e-7, abs=1e-12)


@given(pair=pairs)
def test_a_distance_is_zero_to_itself_and_the_same_both_ways(pair):
    expected, actual = pair
    for distance in (psi, js_distance, hellinger, ks):
        assert distance(expected, expected) == pytest.approx(0, abs=1e-7)
        assert 0 <= distance(expected, actual) == pytest.approx(distance(actual, expected), abs=1e-9)
        assert math.isfinite(distance(expected, actual))
    assert max(js_distance(expected, actual, base=2), hellinger(expected, actual), ks(expected, actual)) <= 1 + 1e-9


def test_a_bin_empty_on_one_side_counts_as_half_a_row_and_on_both_not_at_all():
    assert psi((100, 0), (90, 10)) == pytest.approx(psi((100, 0.5), (90, 10)))
    assert psi((50, 0, 50), (60, 0, 40)) == psi(HALF, SHIFTED)
    assert psi((1000, 0), (990, 10)) > psi((100, 0), (99, 1))


def test_psi_without_drift_fires_on_small_samples_and_its_p_value_does_not():
    random = np.random.default_rng(0)
    pairs = [(random.multinomial(100, [0.1] * 10), random.multinomial(100, [0.1] * 10)) for _ in range(1000)]
    assert np.mean([psi(*pair) for pair in pairs]) == pytest.approx(0.18, abs=0.03)
    assert np.mean([psi(*pair) > 0.1 for pair in pairs]) > 0.8
    assert np.mean([psi_pvalue(*pair) < 0.01 for pair in pairs]) < 0.03


def test_psi_of_large_samples_is_judged_by_its_size():
    # FACTS: at 100,000 rows each and 10 bins the 95% point is 0.00034.
    even = np.full(10, 10_000)
    moved = even + np.array([200, -200] * 5)
    assert psi(even, moved) == pytest.approx(0.0004, abs=1e-5)
    assert 0.001 < psi_pvalue(even, moved) < 0.05


def test_one_bin_cannot_drift_and_no_rows_say_nothing():
    assert psi_pvalue([10, 0], [20, 0]) == 1
    assert chi2_homogeneity([10, 0], [20, 0]).pvalue == 1
    for measure in (psi, psi_pvalue, js_distance, hellinger, ks):
        assert math.isnan(measure([0, 0], [1, 2]))
        assert math.isnan(measure([], []))
    assert math.isnan(chi2_fit([0, 0], [1, 2]).pvalue)
    assert math.isnan(chi2_homogeneity([1, 2], [0, 0]).pvalue)
    assert math.isnan(wasserstein([0], [0], [1]))


def test_a_row_where_none_can_be_is_certain_drift():
    found = chi2_fit([10, 0], [9, 1])
    assert (found.statistic, found.pvalue) == (math.inf, 0)


@given(x=st.floats(0, 500), degrees=st.integers(1, 200))
def test_chi2_survival_equals_scipy(x, degrees):
    assert chi2_survival(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize(
    ("x", "degrees", "wanted"),
    [(3.841458820694124, 1, 0.05), (16.918977604620448, 9, 0.05), (2.0, 2, math.exp(-1)), (0, 3, 1), (-1, 3, 1)],
)
def test_chi2_survival_of_table_values(x, degrees, wanted):
    assert chi2_survival(x, degrees) == pytest.approx(wanted, rel=1e-12)


def test_chi2_survival_far_out_and_outside():
    assert chi2_survival(1000, 1) == pytest.approx(stats.chi2.sf(1000, 1), rel=1e-8)
    assert chi2_survival(math.inf, 3) == 0
    assert math.isnan(chi2_survival(math.nan, 3))
    assert math.isnan(chi2_survival(1, 0))


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_equals_scipy(p):
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


def test_benjamini_hochberg_leaves_out_what_was_not_tested():
    adjusted = benjamini_hochberg([0.01, math.nan, 0.02])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])
    assert len(benjamini_hochberg([])) == 0


def test_wrong_counts_are_named():
    with pytest.raises(Invalid, match="not of the same bins"):
        psi([1, 2], [1, 2, 3])
    with pytest.raises(Invalid, match="negative"):
        ks([1, -2], [1, 2])
    with pytest.raises(Invalid, match="2 positions"):
        wasserstein([1, 2, 3], [1, 2, 3], [0, 1])
