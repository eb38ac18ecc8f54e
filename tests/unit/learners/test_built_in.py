"""The built-in learners: they learn, the same twice, and what was saved answers as before."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.learners.choosing import choose, learner_named, xgboost_fault
from lakeloop.lakehouse.learners.protocol import Part, SilentRun
from lakeloop.lakehouse.learners.sklearn_trees import SklearnLearner, left_out, translated
from lakeloop.lakehouse.learners.xgboost_trees import XGBoostLearner
from lakeloop.lakehouse.project.definitions import Model, Search, Split
from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.statistics import evaluate

METRIC = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
LEARNERS = {"sklearn": SklearnLearner} | ({} if xgboost_fault() else {"xgboost": XGBoostLearner})
PARAMS = {"rounds": 60, "learning_rate": 0.2, "max_depth": 3}


@pytest.fixture(params=list(LEARNERS))
def kind(request):
    return LEARNERS[request.param]


@pytest.fixture(params=list(METRIC))
def problem(request):
    return request.param


def fitted(kind, problem, data, params=PARAMS):
    learner = kind(problem, 3 if problem == "multiclass" else 2)
    run = SilentRun(seed=3, metric=METRIC[problem])
    return learner, learner.fit(data, params, run), run


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_it_learns_more_than_nothing(kind, problem, data):
    learner, model, _ = fitted(kind, problem, data(problem))
    valid = data(problem).valid
    found = learner.predict(model, valid.matrix)
    assert found.shape == ((300, 3) if problem == "multiclass" else (300,))
    if problem == "regression":
        assert evaluate(problem, "r2", valid.y, found) > 0.8
    elif problem == "binary":
        assert evaluate(problem, "roc_auc", valid.y, found) > 0.75
        assert ((found >= 0) & (found <= 1)).all()
    else:
        assert evaluate(problem, "accuracy", valid.y, found) > 0.5
        assert found.sum(axis=1) == pytest.approx(np.ones(300), abs=1e-5)


def test_the_same_fit_gives_the_same_bytes(kind, problem, data, tmp_path):
    for name in ("one", "two"):
        learner, model, _ = fitted(kind, problem, data(problem))
        (tmp_path / name).mkdir()
        learner.save(model, tmp_path / name)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_loaded_model_answers_as_the_fitted_one(kind, problem, data, tmp_path):
    learner, model, _ = fitted(kind, problem, data(problem))
    learner.save(model, tmp_path)
    valid = data(problem).valid.matrix
    assert np.array_equal(learner.predict(learner.load(tmp_path), valid), learner.predict(model, valid))


def test_one_row_is_predicted_as_among_others(kind, problem, data):
    learner, model, _ = fitted(kind, problem, data(problem))
    valid = data(problem).valid.matrix
    alone = learner.predict(model, valid.take(slice(7, 8)))
    assert alone[0] == pytest.approx(learner.predict(model, valid)[7])


def test_progress_is_reported_every_ten_rounds_in_the_searchs_metric(kind, problem, data):
    _, _, run = fitted(kind, problem, data(problem))
    steps = [step for step, _ in run.reports]
    assert steps[:2] == [9, 19]
    assert all(set(metrics) == {METRIC[problem]} for _, metrics in run.reports)
    assert 0 <= run.facts["best_step"] < 60


def test_a_refit_takes_the_rounds_of_the_search_and_does_not_stop_early(kind, data):
    learner = kind("binary")
    run = SilentRun(seed=3, metric="roc_auc", best_step=4)
    model = learner.fit(data("binary"), PARAMS, run)
    rounds = model.n_iter_ if kind is SklearnLearner else model.num_boosted_rounds()
    assert (rounds, run.reports) == (5, [])


def test_weights_are_heard(kind, data):
    given = data("binary")
    learner = kind("binary")

    def mean_with(positive: float, negative: float) -> float:
        weight = np.where(given.train.y > 0, positive, negative)
        weighted = replace(given, train=replace(given.train, weight=weight))
        return float(learner.predict(fitted(kind, "binary", weighted)[1], given.valid.matrix).mean())

    assert mean_with(50.0, 1.0) > mean_with(1.0, 1.0) > mean_with(1.0, 50.0)
    assert mean_with(50.0, 1.0) > mean_with(1.0, 50.0) + 0.05


def test_a_class_without_rows_still_has_its_column(kind, data):
    given = data("multiclass")
    without = given.train.y != 1
    train = Part(given.train.matrix.take(without), given.train.y[without])
    learner, model, _ = fitted(kind, "multiclass", replace(given, train=train))
    found = learner.predict(model, given.valid.matrix)
    assert found.shape == (300, 3)
    assert found[:, 1].max() < 0.1


def test_a_category_of_the_vocabulary_that_training_never_had_can_be_asked(kind, data):
    learner, model, _ = fitted(kind, "binary", data("binary"))
    row = Matrix(("x", "kind", "noisy"), np.array([[0.5, 3, np.nan]], np.float32), {"kind": ("a", "b", "c", "d")})
    assert np.isfinite(learner.predict(model, row)).all()


def test_bytes_that_are_no_model_are_corrupt(kind, data, tmp_path):
    learner, model, _ = fitted(kind, "binary", data("binary"))
    learner.save(model, tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"{}" * 10)
    with pytest.raises(Corrupt):
        learner.load(tmp_path)


def test_the_default_space_and_params_can_be_fitted(kind, problem, data):
    from lakeloop.lakehouse.learners.space import point

    learner = kind(problem, 3 if problem == "multiclass" else 2)
    for params in (learner.default_params(problem, 600), point(learner.default_space(problem, 600), 0, 0)):
        fitted(kind, problem, data(problem), {**params, "rounds": 10})


def test_xgboosts_parameters_are_translated_for_sklearn_and_what_has_no_name_there_is_told():
    params = {"rounds": 9, "min_child_weight": 2.6, "reg_lambda": 1.0, "subsample": 0.5, "learning_rate": 0.1}
    assert translated(params) == {
        "max_iter": 9,
        "min_samples_leaf": 3,
        "l2_regularization": 1.0,
        "learning_rate": 0.1,
    }
    assert left_out(params) == ["subsample"]


MODEL = Model(
    name="late",
    problem="binary",
    owner="ops",
    learner="xgboost",
    examples_sql="",
    sql_path="",
    split=Split("random", 0.2, 0.2),
    search=Search("roc_auc", "max"),
)


@pytest.mark.skipif("xgboost" not in LEARNERS, reason="xgboost cannot be imported here")
def test_xgboost_is_chosen_where_it_can_be_imported():
    chosen = choose(MODEL, 2)
    assert (chosen.learner, chosen.note) == (XGBoostLearner("binary", 2, 1), "")


def test_where_xgboost_cannot_be_imported_sklearn_is_chosen_and_said_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xgboost", None)
    chosen = choose(MODEL, 2)
    assert isinstance(chosen.learner, SklearnLearner)
    assert "xgboost cannot be used here" in chosen.note
    with pytest.raises(Exception, match="this model needs xgboost"):
        learner_named("xgboost", "binary", 2)


def test_an_unknown_learner_is_named():
    with pytest.raises(Exception, match="no learner 'lightgbm'"):
        learner_named("lightgbm", "binary", 2)
