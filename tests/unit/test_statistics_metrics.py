"""Metrics against scikit-learn, which shares no code with them, and against answers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.statistics import METRICS, evaluate, metric_of

BINARY = {
    "roc_auc": lambda y, p, w: oracle.roc_auc_score(y, p, sample_weight=w),
    "average_precision": lambda y, p, w: oracle.average_precision_score(y, p, sample_weight=w),
    "log_loss": lambda y, p, w: oracle.log_loss(y, p, sample_weight=w, labels=[0, 1]),
    "brier": lambda y, p, w: oracle.brier_score_loss(y, p, sample_weight=w, pos_label=1),
    "accuracy": lambda y, p, w: oracle.accuracy_score(y, p >= 0.5, sample_weight=w),
    "f1": lambda y, p, w: oracle.f1_score(y, p >= 0.5, sample_weight=w, zero_division=np.nan),
    "precision": lambda y, p, w: oracle.precision_score(y, p >= 0.5, sample_weight=w, zero_division=np.nan),
    "recall": lambda y, p, w: oracle.recall_score(y, p >= 0.5, sample_weight=w, zero_division=np.nan),
}
REGRESSION = {
    "rmse": lambda y, p, w: oracle.root_mean_squared_error(y, p, sample_weight=w),
    "mae": lambda y, p, w: oracle.mean_absolute_error(y, p, sample_weight=w),
    "r2": lambda y, p, w: oracle.r2_score(y, p, sample_weight=w),
}


@st.composite
def binary_rows(draw):
    """Labels of both classes, scores with many ties, weights or none."""
    seed, rows = draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 60))
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, rows)
    y[:2] = 0, 1
    steps = draw(st.sampled_from([2, 5, 1000]))
    p = random.integers(0, steps + 1, rows) / steps
    return y, p, draw(st.sampled_from([None, random.uniform(0.1, 3, rows)]))


@pytest.mark.parametrize("metric", BINARY)
@given(rows=binary_rows())
def test_binary_metric_equals_scikit_learn_with_ties_and_weights(metric, rows):
    y, p, w = rows
    assert evaluate("binary", metric, y, p, weight=w) == pytest.approx(
        BINARY[metric](y, p, w), nan_ok=True, rel=1e-9, abs=1e-12
    )


@given(rows=binary_rows())
def test_auc_is_the_share_of_pairs_in_the_right_order(rows):
    y, p, _ = rows
    above = np.sign(p[y == 1][:, None] - p[y == 0][None, :])
    assert evaluate("binary", "roc_auc", y, p) == pytest.approx(((above + 1) / 2).mean())


@given(rows=binary_rows(), counts=st.lists(st.integers(0, 4), min_size=60, max_size=60))
def test_an_integer_weight_is_the_row_that_often(rows, counts):
    y, p, _ = rows
    often = np.array(counts[: len(y)])
    for metric in METRICS["binary"]:
        repeated = evaluate("binary", metric, np.repeat(y, often), np.repeat(p, often))
        assert evaluate("binary", metric, y, p, weight=often) == pytest.approx(repeated, nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("metric", REGRESSION)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 50), weighted=st.booleans())
def test_regression_metric_equals_scikit_learn(metric, seed, rows, weighted):
    random = np.random.default_rng(seed)
    y, p, w = random.normal(1e3, 5, rows), random.normal(1e3, 5, rows), random.uniform(0.1, 3, rows)
    w = w if weighted else None
    assert evaluate("regression", metric, y, p, weight=w) == pytest.approx(REGRESSION[metric](y, p, w), rel=1e-7)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(3, 50), weighted=st.booleans())
def test_multiclass_metrics_equal_scikit_learn(seed, rows, weighted):
    random = np.random.default_rng(seed)
    y, p = random.integers(0, 3, rows), random.dirichlet([1, 1, 1], rows)
    w = random.uniform(0.1, 3, rows) if weighted else None
    guess = p.argmax(axis=1)
    wanted = {
        "accuracy": oracle.accuracy_score(y, guess, sample_weight=w),
        "macro_f1": oracle.f1_score(y, guess, average="macro", sample_weight=w),
        "log_loss": oracle.log_loss(y, p, labels=[0, 1, 2], sample_weight=w),
    }
    assert {name: evaluate("multiclass", name, y, p, weight=w) for name in METRICS["multiclass"]} == pytest.approx(
        wanted
    )


def test_a_class_the_model_does_not_know_is_wrong_and_no_error():
    p = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert evaluate("multiclass", "accuracy", [0, 7], p) == 0.5
    assert evaluate("multiclass", "log_loss", [7], p[:1]) == pytest.approx(-math.log(np.finfo(float).eps))
    assert evaluate("multiclass", "macro_f1", [0, 7], p) == pytest.approx((2 / 3 + 0) / 2)


def test_ece_by_hand():
    # Bin .1-.2: mean P .15, none positive; bin .8-.9: mean P .85, one of two positive.
    assert evaluate("binary", "ece", [0, 0, 1, 0], [0.12, 0.18, 0.82, 0.88]) == pytest.approx(0.5 * 0.15 + 0.5 * 0.35)
    assert evaluate("binary", "ece", [0, 1], [0.0, 1.0]) == 0


def test_threshold_is_inclusive():
    assert evaluate("binary", "recall", [1, 1], [0.3, 0.29], threshold=0.3) == 0.5


@pytest.mark.parametrize(
    ("problem", "metric", "y", "p"),
    [
        ("binary", "roc_auc", [1, 1], [0.2, 0.3]),
        ("binary", "roc_auc", [0, 0], [0.2, 0.3]),
        ("binary", "average_precision", [0, 0], [0.2, 0.3]),
        ("binary", "precision", [1, 0], [0.2, 0.3]),
        ("binary", "recall", [0, 0], [0.2, 0.9]),
        ("binary", "f1", [0, 0], [0.2, 0.3]),
        ("binary", "brier", [1, 0], [0.2, math.nan]),
        ("binary", "brier", [1, None], [0.2, 0.3]),
        ("regression", "r2", [0.1, 0.1, 0.1], [1, 2, 3]),
        ("regression", "rmse", [1], [math.inf]),
    ],
)
def test_undefined_is_nan(problem, metric, y, p):
    assert math.isnan(evaluate(problem, metric, y, p))


@pytest.mark.parametrize(("problem", "metric"), [(p, m) for p in METRICS for m in METRICS[p]])
def test_no_rows_or_no_weight_is_nan(problem, metric):
    empty = np.empty((0, 3)) if problem == "multiclass" else []
    one = [[0.2, 0.8]] if problem == "multiclass" else [0.5]
    assert math.isnan(evaluate(problem, metric, [], empty))
    assert math.isnan(evaluate(problem, metric, [1], one, weight=[0]))


def test_errors_are_losses_and_the_rest_is_to_be_large():
    down = {name for metrics in METRICS.values() for name, metric in metrics.items() if not metric.greater_is_better}
    assert down == {"log_loss", "brier", "ece", "rmse", "mae"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metric_of("binary", "roc_acu"), "did you mean 'roc_auc'"),
        (lambda: metric_of("ranking", "ndcg"), "binary, multiclass, regression"),
        (lambda: evaluate("binary", "brier", [1, 0], [0.5]), "not of the same rows"),
        (lambda: evaluate("binary", "brier", [1], [[0.5, 0.5]]), "no shape (1, 2)"),
        (lambda: evaluate("multiclass", "accuracy", [1], [0.5]), "no shape (1,)"),
    ],
)
def test_a_callers_mistake_says_what_to_do(call, words):
    with pytest.raises(Invalid) as raised:
        call()
    assert words in str(raised.value)
