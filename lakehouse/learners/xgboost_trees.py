"""The built-in learner `xgboost`: gradient-boosted trees by xgboost's own loop, kept as UBJ.

The matrix goes in as numbers with its categories marked as such, so training and one row of a request take the same way
and the model knows nothing of pandas. `xgboost-cpu` carries its OpenMP; on macOS there is no wheel, and `choose`
falls back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.learners.protocol import Part, Run, TrainingData
from lakeloop.lakehouse.project.definitions import Constant, Dimension, IntRange, LogUniform, Uniform
from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.statistics import evaluate

FILE = "model.ubj"
REPORT_EVERY = 10
PATIENCE = 30
ROUNDS = 400
METRICS = {
    "roc_auc": "auc",
    "average_precision": "aucpr",
    "log_loss": "logloss",
    "brier": "logloss",
    "ece": "logloss",
    "accuracy": "logloss",
    "rmse": "rmse",
    "mae": "mae",
    "r2": "rmse",
}
OURS = ("rounds", "early_stopping_rounds")


@dataclass(frozen=True, slots=True)
class XGBoostLearner:
    """`classes` is their number. `threads` are a trial's: with another number of them, sums may round differently."""

    problem: str
    classes: int = 2
    threads: int = 1
    name: str = "xgboost"

    def fit(self, data: TrainingData, params: Mapping[str, Any], run: Run) -> Any:
        """A booster cut at its best round. In a refit (`run.best_step`), as many rounds as the search found."""
        import xgboost as xgb

        train = self._data(data.train)
        rounds = int(params.get("rounds", ROUNDS)) if run.best_step is None else run.best_step + 1
        settings = self._settings(params, run)
        if run.best_step is not None or not len(data.valid):
            return xgb.train(settings, train, rounds, verbose_eval=False)
        valid = self._data(data.valid, train)
        booster = xgb.train(
            settings,
            train,
            rounds,
            evals=[(valid, "valid")],
            early_stopping_rounds=int(params.get("early_stopping_rounds", PATIENCE)),
            callbacks=[_reporter(self.problem, data.valid, valid, run)],
            verbose_eval=False,
        )
        run.log(best_step=booster.best_iteration)
        return booster[: booster.best_iteration + 1]

    def predict(self, model: Any, matrix: Matrix) -> NDArray[np.floating[Any]]:
        found = model.inplace_predict(matrix.values, validate_features=False)
        return np.asarray(found)

    def save(self, model: Any, folder: Path) -> None:
        _without_history(model).save_model(folder / FILE)

    def load(self, folder: Path) -> Any:
        import xgboost as xgb

        booster = xgb.Booster({"nthread": self.threads})
        try:
            booster.load_model(folder / FILE)
        except xgb.core.XGBoostError as error:
            raise Corrupt(f"{FILE} is no xgboost model", todo="train again") from error
        return booster

    def default_space(self, problem: str, rows: int) -> Mapping[str, Dimension]:
        return {
            "learning_rate": LogUniform(0.02, 0.3),
            "max_depth": IntRange(3, 8 if rows >= 5_000 else 5),
            "min_child_weight": LogUniform(1.0, 100.0 if rows >= 5_000 else 10.0),
            "subsample": Uniform(0.6, 1.0),
            "colsample_bytree": Uniform(0.5, 1.0),
            "reg_lambda": LogUniform(0.1, 10.0),
            "rounds": Constant(ROUNDS),
        }

    def default_params(self, problem: str, rows: int) -> Mapping[str, Any]:
        depth = 6 if rows >= 5_000 else 4
        return {"learning_rate": 0.1, "max_depth": depth, "subsample": 0.9, "reg_lambda": 1.0, "rounds": ROUNDS}

    def _data(self, part: Part, bins_of: Any = None) -> Any:
        import xgboost as xgb

        kinds = ["c" if categorical else "q" for categorical in part.matrix.categorical]
        return xgb.QuantileDMatrix(
            part.matrix.values,
            part.y,
            weight=part.weight,
            feature_names=[f"f{place}" for place in range(len(kinds))],
            feature_types=kinds,
            enable_categorical=True,
            nthread=self.threads,
            ref=bins_of,
        )

    def _settings(self, params: Mapping[str, Any], run: Run) -> dict[str, Any]:
        objective = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}
        settings: dict[str, Any] = {
            "objective": objective[self.problem],
            "tree_method": "hist",
            "nthread": self.threads,
            "seed": run.seed,
            "verbosity": 0,
            "eval_metric": "mlogloss" if self.problem == "multiclass" else METRICS.get(run.metric, self._usual()),
        }
        if self.problem == "multiclass":
            settings["num_class"] = self.classes
        return settings | {name: value for name, value in params.items() if name not in OURS}

    def _usual(self) -> str:
        return "logloss" if self.problem == "binary" else "rmse"


def _reporter(problem: str, part: Part, valid: Any, run: Run) -> Any:
    """A callback that reports our own metric every few rounds; xgboost keeps its predictions, so it is cheap."""
    import xgboost as xgb

    class Reporter(xgb.callback.TrainingCallback):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if run.metric and (epoch + 1) % REPORT_EVERY == 0:
                value = evaluate(problem, run.metric, part.y, model.predict(valid), weight=part.weight)
                run.report(epoch, **{run.metric: value})
            return False

    return Reporter()


def _without_history(model: Any) -> Any:
    """Best score and iteration are attributes of a booster, but not of what it answers: equal trees, equal bytes."""
    kept = model.copy()
    kept.set_attr(**dict.fromkeys(model.attributes()))
    return kept
