"""The built-in learner `sklearn`: HistGradientBoosting, kept with skops. Runs wherever scikit-learn does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.learners.estimators import load_estimator, save_estimator
from lakeloop.lakehouse.learners.protocol import Part, Run, TrainingData
from lakeloop.lakehouse.project.definitions import Constant, Dimension, IntRange, LogUniform, Uniform
from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.statistics import evaluate, metric_of

REPORT_EVERY = 10
PATIENCE = 30
ROUNDS = 300
USUAL = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}
FROM_XGBOOST = {
    "rounds": "max_iter",
    "min_child_weight": "min_samples_leaf",
    "reg_lambda": "l2_regularization",
    "colsample_bytree": "max_features",
    "max_leaves": "max_leaf_nodes",
}


@dataclass(frozen=True, slots=True)
class SklearnLearner:
    """Takes scikit-learn's parameters, and those that xgboost names otherwise; what it has none for is left out.

    `classes` is their number.
    """

    problem: str
    classes: int = 2
    threads: int = 1
    name: str = "sklearn"

    def fit(self, data: TrainingData, params: Mapping[str, Any], run: Run) -> Any:
        """An estimator of the rounds that were best on `valid`. In a refit, as many rounds as the search found."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        settings = translated(params)
        rounds = int(settings.pop("max_iter", ROUNDS))
        with threadpool_limits(self.threads):
            if run.best_step is None and len(data.valid):
                rounds = self._best_rounds(data, settings, rounds, run)
                run.log(best_step=rounds - 1)
            elif run.best_step is not None:
                rounds = run.best_step + 1
            return _fitted(self._estimator(data.train, settings, run, max_iter=rounds), data.train)

    def predict(self, model: Any, matrix: Matrix) -> NDArray[np.floating[Any]]:
        return predict_estimator(model, matrix.values, self.problem, self.classes)

    def save(self, model: Any, folder: Path) -> None:
        save_estimator(model, folder)

    def load(self, folder: Path) -> Any:
        return load_estimator(folder)

    def default_space(self, problem: str, rows: int) -> Mapping[str, Dimension]:
        return {
            "learning_rate": LogUniform(0.02, 0.3),
            "max_depth": IntRange(3, 8 if rows >= 5_000 else 5),
            "min_samples_leaf": IntRange(5, 100 if rows >= 5_000 else 20),
            "l2_regularization": LogUniform(0.01, 10.0),
            "max_features": Uniform(0.5, 1.0),
            "rounds": Constant(ROUNDS),
        }

    def default_params(self, problem: str, rows: int) -> Mapping[str, Any]:
        return {"learning_rate": 0.1, "max_depth": 6 if rows >= 5_000 else 4, "rounds": ROUNDS}

    def _best_rounds(self, data: TrainingData, settings: Mapping[str, Any], rounds: int, run: Run) -> int:
        """Grow ten rounds at a time until `valid` has not improved for a while."""
        metric = run.metric or USUAL[self.problem]
        sign = 1.0 if metric_of(self.problem, metric).greater_is_better else -1.0
        estimator = self._estimator(data.train, settings, run, warm_start=True)
        best, best_rounds = -np.inf, 1
        for grown in _steps(rounds):
            estimator.set_params(max_iter=grown)
            _fitted(estimator, data.train)
            value = evaluate(
                self.problem, metric, data.valid.y, self.predict(estimator, data.valid.matrix), weight=data.valid.weight
            )
            run.report(grown - 1, **{metric: value})
            if sign * value > best:
                best, best_rounds = sign * value, grown
            if grown - best_rounds >= PATIENCE:
                break
        return best_rounds

    def _estimator(self, part: Part, settings: Mapping[str, Any], run: Run, **more: Any) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingRegressor if self.problem == "regression" else HistGradientBoostingClassifier
        categorical = part.matrix.categorical
        return kind(
            random_state=run.seed % 2**32,
            early_stopping=False,
            categorical_features=categorical if any(categorical) else None,
            **settings,
            **more,
        )


def translated(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as HistGradientBoosting names them."""
    known = {"learning_rate", "max_iter", "max_leaf_nodes", "max_depth", "min_samples_leaf", "l2_regularization"}
    known |= {"max_features", "max_bins", "interaction_cst", "class_weight", "loss", "quantile", "monotonic_cst"}
    settings = {FROM_XGBOOST.get(name, name): value for name, value in params.items()}
    settings = {name: value for name, value in settings.items() if name in known}
    if "min_samples_leaf" in settings:
        settings["min_samples_leaf"] = max(1, round(settings["min_samples_leaf"]))
    return settings


def left_out(params: Mapping[str, Any]) -> list[str]:
    """Parameters that `translated` has no name for."""
    return sorted(name for name in params if not translated({name: params[name]}))


def predict_estimator(model: Any, inputs: Any, problem: str, classes: int) -> NDArray[np.floating[Any]]:
    """A scikit-learn estimator's predictions in the platform's shapes, with a column for classes it never saw."""
    if problem == "regression":
        return np.asarray(model.predict(inputs), dtype=np.float64).reshape(-1)
    shares = np.asarray(model.predict_proba(inputs), dtype=np.float64)
    seen = np.asarray(model.classes_, dtype=np.float64).astype(np.int64)
    if len(seen) < classes:
        whole = np.zeros((len(shares), classes))
        whole[:, seen] = shares
        shares = whole
    return shares[:, 1] if problem == "binary" else shares


def _steps(rounds: int) -> list[int]:
    return [*range(REPORT_EVERY, rounds, REPORT_EVERY), rounds]


def _fitted(estimator: Any, part: Part) -> Any:
    return estimator.fit(part.matrix.values, part.y, sample_weight=part.weight)
