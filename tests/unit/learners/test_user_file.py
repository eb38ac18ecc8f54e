"""A project's own learner: what its file may leave out, and what is told when it is wrong."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Corrupt, Invalid
from lakeloop.lakehouse.learners.choosing import xgboost_fault
from lakeloop.lakehouse.learners.modules import load_module
from lakeloop.lakehouse.learners.protocol import SilentRun
from lakeloop.lakehouse.learners.user_file import UserLearner

FILE = "models/late.py"
BOOSTER = """
import xgboost as xgb

def train(data, params, run):
    train = xgb.DMatrix(data.train.X, data.train.y, enable_categorical=True)
    valid = xgb.DMatrix(data.valid.X, data.valid.y, enable_categorical=True)

    class Report(xgb.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            run.report(step=epoch, roc_auc=evals_log["valid"]["auc"][-1])
            return False

    settings = {"objective": "binary:logistic", "eval_metric": "auc", "seed": run.seed, "nthread": 1}
    return xgb.train(settings, train, params["rounds"], evals=[(valid, "valid")], early_stopping_rounds=5,
                     callbacks=[Report()], verbose_eval=False)
"""
ESTIMATOR = """
from sklearn.ensemble import HistGradientBoostingClassifier

def train(data, params, run):
    return HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=5, random_state=run.seed).fit(
        data.train.X, data.train.y)
"""
OWN = """
class Mean:
    def __init__(self, value):
        self.value = value

def train(data, params, run):
    return Mean(float(data.train.y.mean()))

def predict(model, X):
    return [model.value] * len(X)
"""
WITH_FILES = (
    OWN
    + """
def save(model, folder):
    (folder / "mean.txt").write_text(repr(model.value))

def load(folder):
    return Mean(float((folder / "mean.txt").read_text()))
"""
)


def run():
    return SilentRun(seed=1, metric="roc_auc")


@pytest.mark.skipif(bool(xgboost_fault()), reason="xgboost cannot be imported here")
def test_a_booster_needs_neither_predict_nor_save(data, tmp_path):
    import xgboost as xgb

    learner, given, seen = UserLearner(FILE, BOOSTER, "binary"), data("binary"), run()
    model = learner.fit(given, {"rounds": 40}, seen)
    assert len(seen.reports) > 5
    frame = xgb.DMatrix(given.valid.X, enable_categorical=True)
    by_xgboost = model.predict(frame, iteration_range=(0, model.best_iteration + 1))
    assert learner.predict(model, given.valid.matrix) == pytest.approx(by_xgboost, abs=1e-6)
    learner.save(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.ubj"]
    loaded = learner.load(tmp_path)
    assert np.array_equal(learner.predict(loaded, given.valid.matrix), learner.predict(model, given.valid.matrix))


def test_a_scikit_learn_estimator_needs_neither_too(data, tmp_path):
    learner, given = UserLearner(FILE, ESTIMATOR, "binary"), data("binary")
    model = learner.fit(given, {}, run())
    learner.save(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.skops"]
    assert np.array_equal(
        learner.predict(learner.load(tmp_path), given.valid.matrix), model.predict_proba(given.valid.X)[:, 1]
    )


def test_another_object_is_not_pickled_without_permission(data, tmp_path):
    learner = UserLearner(FILE, OWN, "binary")
    model = learner.fit(data("binary"), {}, run())
    with pytest.raises(Invalid, match="how to keep a Mean without pickle"):
        learner.save(model, tmp_path)


def test_a_pickled_model_finds_its_class_in_a_process_that_only_has_the_text(data, tmp_path):
    learner = UserLearner(FILE, OWN, "binary", pickle=True)
    model = learner.fit(data("binary"), {}, run())
    learner.save(model, tmp_path)
    del sys.modules[type(model).__module__]  # as in another process
    assert UserLearner(FILE, OWN, "binary", pickle=True).load(tmp_path).value == model.value


def test_a_pickle_in_the_folder_is_not_loaded_without_permission(tmp_path):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(Corrupt, match="not registered as pickled"):
        UserLearner(FILE, OWN, "binary").load(tmp_path)


def test_save_and_load_of_the_file_are_used(data, tmp_path):
    learner = UserLearner(FILE, WITH_FILES, "binary")
    model = learner.fit(data("binary"), {}, run())
    learner.save(model, tmp_path)
    assert (tmp_path / "mean.txt").exists()
    assert learner.predict(learner.load(tmp_path), data("binary").valid.matrix).tolist() == [model.value] * 300


def test_a_refit_sets_the_rounds_to_the_best_of_the_search(data):
    text = "def train(data, params, run):\n    return dict(params)\n"
    seen = SilentRun(best_step=11)
    assert UserLearner(FILE, text, "binary").fit(data("binary"), {"rounds": 400, "x": 1}, seen) == {
        "rounds": 12,
        "x": 1,
    }
    assert UserLearner(FILE, text, "binary").fit(data("binary"), {"x": 1}, seen) == {"x": 1}


@pytest.mark.parametrize(
    ("answer", "problem", "fine"),
    [
        ("[0.5] * len(X)", "binary", True),
        ("[[0.5, 0.5]] * len(X)", "binary", True),
        ("[[0.5]] * len(X)", "regression", True),
        ("[[0.5, 0.25, 0.25]] * len(X)", "multiclass", True),
        ("[0.5] * len(X)", "multiclass", False),
        ("[[0.5, 0.2, 0.3]] * len(X)", "binary", False),
    ],
)
def test_predictions_of_a_wrong_shape_are_told(data, answer, problem, fine):
    learner = UserLearner(FILE, f"def predict(model, X):\n    return {answer}\n", problem, 3)
    matrix = data("binary").valid.matrix
    if fine:
        assert len(learner.predict(None, matrix)) == 300
    else:
        with pytest.raises(Invalid, match="predictions have the shape"):
            learner.predict(None, matrix)


def test_an_object_that_nobody_can_ask_is_told(data):
    with pytest.raises(Invalid, match="not known how to ask a dict"):
        UserLearner(FILE, "", "binary").predict({}, data("binary").valid.matrix)


def test_a_file_without_train_and_a_train_without_a_model_are_told(data):
    with pytest.raises(Invalid, match="there is no def train"):
        UserLearner(FILE, "", "binary").fit(data("binary"), {}, run())
    with pytest.raises(Invalid, match="returned nothing"):
        UserLearner(FILE, "def train(data, params, run): pass", "binary").fit(data("binary"), {}, run())


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("x = 1\nimport nowhere_to_be_found\n", "models/late.py:2"),
        ("def f(:\n", "models/late.py:1"),
        ("\n\n1 / 0", "models/late.py:3"),
    ],
)
def test_a_file_that_cannot_be_run_is_told_with_its_line(text, where):
    with pytest.raises(Invalid) as caught:
        load_module(FILE, text)
    assert str(caught.value).startswith(where + ": ")


def test_the_same_text_is_the_same_module_and_another_is_another():
    assert load_module(FILE, "x = 1") is load_module("models/other.py", "x = 1")
    assert load_module(FILE, "x = 2").x == 2


def test_the_data_come_as_frame_and_as_arrow(data):
    train = data("binary").train
    table = train.arrow()
    assert table.column("kind").to_pylist() == [
        None if value is np.nan else value for value in train.X["kind"].tolist()
    ]
    assert sum(batch.num_rows for batch in train.batches()) == len(train) == 600
