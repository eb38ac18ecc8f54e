"""What is measured, and against which baseline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import Evaluate, Gate, Model, Rule, Search, Slice, Split
from lakeloop.lakehouse.scoring import evaluation
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.lakehouse.statistics import evaluate

MODEL = Model(
    name="late",
    problem="binary",
    owner="ops",
    learner="sklearn",
    examples_sql="",
    sql_path="",
    split=Split("random", 0.2, 0.2),
    search=Search("roc_auc", "max"),
)
BINARY = Signature("binary", (Input("share", "feature", "float64", "number"),), classes=("0", "1"), positive="1")
THREE = Signature("multiclass", (), classes=("a", "b", "c"))
TEST = pa.table({"share": [0.5, None, 2.0], "most": ["b", None, "z"]})
Y = np.array([0.0, 1.0, 1.0, 1.0])


def with_baseline(sql):
    return replace(MODEL, evaluate=Evaluate(baseline=sql))


def test_without_a_baseline_it_is_the_share_or_the_mean_of_the_training_part():
    assert evaluation.baseline_of(MODEL, BINARY, TEST, Y).tolist() == [0.75] * 3
    regression = Signature("regression", ())
    assert evaluation.baseline_of(MODEL, regression, TEST, Y * 10).tolist() == [7.5] * 3
    codes = np.array([0.0, 1.0, 1.0, np.nan])
    assert evaluation.baseline_of(MODEL, THREE, TEST, codes).tolist() == [pytest.approx([1 / 3, 2 / 3, 0])] * 3


def test_a_baseline_is_sql_over_the_inputs_and_a_probability_stays_one():
    assert evaluation.baseline_of(with_baseline("share"), BINARY, TEST, Y).tolist() == [0.5, 0.75, 1.0]
    assert evaluation.baseline_of(with_baseline("coalesce(share, 0.2)"), BINARY, TEST, Y).tolist() == [0.5, 0.2, 1.0]


def test_a_multiclass_baseline_names_a_class():
    found = evaluation.baseline_of(with_baseline("most"), THREE, TEST, np.array([0.0, 0.0, 1.0, 2.0]))
    assert found.tolist() == [[0, 1, 0], [0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]


def test_a_baseline_that_is_no_number_is_refused():
    with pytest.raises(Invalid, match=r"baseline is .*string"):
        evaluation.baseline_of(with_baseline("most"), BINARY, TEST, Y)


def test_what_rules_ask_for_is_measured_too():
    model = replace(
        MODEL,
        evaluate=Evaluate(metrics=("brier",)),
        gate=Gate(rules=(Rule("ece", at_most=0.1), Rule("latency_p99_ms", at_most=5), Rule("brier", at_most=1))),
    )
    assert evaluation.metrics_of(model) == ("brier", "roc_auc", "ece")


def test_every_metric_of_every_subject_is_measured_whole_and_by_slice():
    random = np.random.default_rng(0)
    y = (random.uniform(size=400) < 0.4).astype(float)
    model = replace(MODEL, evaluate=Evaluate(metrics=("brier",), slices=(Slice("side", ("side",)),)))
    rows = pa.table({"side": ["left"] * 150 + ["right"] * 249 + ["rare"]})
    subjects = {"model": np.clip(y * 0.2 + random.uniform(size=400) * 0.8, 0, 1), "baseline": np.full(400, 0.4)}
    found = {
        (one.subject, one.metric, one.slice): one for one in evaluation.measure(model, BINARY, rows, y, subjects, None)
    }
    assert set(found) == {
        (subject, metric, name)
        for subject in subjects
        for metric in ("brier", "roc_auc")
        for name in ("", "side=left", "side=right")
    }
    left = found["model", "roc_auc", "side=left"]
    assert left.value == evaluate("binary", "roc_auc", y[:150], subjects["model"][:150])
    assert (left.low < left.value < left.high, left.rows) == (True, 150)
    assert found["baseline", "roc_auc", ""].value == 0.5


def test_what_is_undefined_is_null_and_not_a_number():
    one_class = evaluation.measure(
        MODEL, BINARY, pa.table({"x": [1, 2]}), np.ones(2), {"model": np.array([0.1, 0.9])}, None
    )
    values = {one.metric: one.value for one in one_class}
    assert values["roc_auc"] is None
    assert values["brier"] is not None


def test_scores_keep_all_that_another_model_needs():
    table = pa.table(
        {"id": ["a"], "as_of": [0], "label": [True], "share": [0.5], "_part": [2], "weight": [1.0], "other": [1]}
    )
    scores = evaluation.scores_table(table, BINARY, np.array([0.25]), np.array([0.75]))
    assert scores.column_names == ["id", "as_of", "label", "weight", "share", "prediction", "baseline"]
    assert evaluation.predictions_of(scores).tolist() == [0.25]
    several = evaluation.scores_table(table, BINARY, np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]]))
    assert evaluation.predictions_of(several, "prediction").tolist() == [[0.25, 0.75]]
