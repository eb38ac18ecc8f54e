"""A project's own learner: models/<name>.py with train(data, params, run), and predict, save and load if it wants.

Without them, a model that is an xgboost booster or a scikit-learn estimator is asked and kept as the built-in ones are.
Anything else is pickled, and only with `pickle = true`; it is loaded only after its bytes were checked against the
registry.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Corrupt, Invalid
from lakeloop.lakehouse.learners.estimators import FILE as ESTIMATOR
from lakeloop.lakehouse.learners.estimators import load_estimator, save_estimator
from lakeloop.lakehouse.learners.modules import load_module
from lakeloop.lakehouse.learners.protocol import Run, TrainingData
from lakeloop.lakehouse.learners.sklearn_trees import predict_estimator
from lakeloop.lakehouse.project.definitions import Dimension
from lakeloop.lakehouse.scoring.matrix import Matrix

BOOSTER = "model.ubj"
PICKLE = "model.pkl"


@dataclass(frozen=True, slots=True)
class UserLearner:
    """`file` names the text for messages. The text travels with the learner, so any process can load it."""

    file: str
    text: str
    problem: str
    classes: int = 2
    pickle: bool = False

    @property
    def name(self) -> str:
        return self.file.rsplit("/", 1)[-1]

    @property
    def module(self) -> ModuleType:
        return load_module(self.file, self.text)

    def derive(self) -> Callable[[dict[str, Any]], Mapping[str, Any]] | None:
        """The file's derive(row), if there is one."""
        return getattr(self.module, "derive", None)

    def fit(self, data: TrainingData, params: Mapping[str, Any], run: Run) -> Any:
        """What train(data, params, run) returns. In a refit, a parameter `rounds` is the search's best step + 1."""
        settings = dict(params)
        if run.best_step is not None and "rounds" in settings:
            settings["rounds"] = run.best_step + 1
        model = self._function("train")(data, settings, run)
        if model is None:
            raise Invalid("train() returned nothing", where=self.file, todo="return the model")
        return model

    def predict(self, model: Any, matrix: Matrix) -> NDArray[np.floating[Any]]:
        """predict(model, X) if the file has it. Binary may be P(positive) or two columns."""
        own = getattr(self.module, "predict", None)
        if own is not None:
            return self._shaped(np.asarray(own(model, matrix.frame()), dtype=np.float64))
        match _kind(model):
            case "booster":
                return self._shaped(_ask_booster(model, matrix))
            case "estimator":
                return predict_estimator(model, matrix.frame(), self.problem, self.classes)
        raise Invalid(
            f"it is not known how to ask a {type(model).__name__}",
            where=self.file,
            todo="add def predict(model, X), which returns one probability or value per row",
        )

    def save(self, model: Any, folder: Path) -> None:
        own = getattr(self.module, "save", None)
        if own is not None:
            own(model, folder)
            return
        kind = _kind(model)
        if kind == "booster":
            getattr(model, "get_booster", lambda: model)().save_model(folder / BOOSTER)
        elif kind == "estimator" and not self.pickle:
            save_estimator(model, folder)
        elif self.pickle:
            (folder / PICKLE).write_bytes(pickle.dumps(model, protocol=5))
        else:
            raise Invalid(
                f"it is not known how to keep a {type(model).__name__} without pickle",
                where=self.file,
                todo="add save(model, folder) and load(folder), or set pickle = true in the model's .toml",
            )

    def load(self, folder: Path) -> Any:
        """The model. The caller has checked every file against the registry's hash, as `scoring.loading` does."""
        own = getattr(self.module, "load", None)
        if own is not None and hasattr(self.module, "save"):
            return own(folder)
        if (folder / BOOSTER).exists():
            return _load_booster(folder / BOOSTER)
        if (folder / ESTIMATOR).exists():
            return load_estimator(folder)
        if (folder / PICKLE).exists():
            if not self.pickle:
                raise Corrupt(f"{PICKLE} is there, but the model is not registered as pickled", todo="train again")
            self.module  # noqa: B018 - the classes of what was pickled live there
            return pickle.loads((folder / PICKLE).read_bytes())
        raise Corrupt("the model's files hold nothing to load", where=self.file, todo="train again")

    def default_space(self, problem: str, rows: int) -> Mapping[str, Dimension]:
        return {}

    def default_params(self, problem: str, rows: int) -> Mapping[str, Any]:
        return {}

    def _function(self, name: str) -> Any:
        found = getattr(self.module, name, None)
        if found is None:
            what = f"there is no def {name}(data, params, run)"
            raise Invalid(what, where=self.file, todo='add it, or say learner = "xgboost" or "sklearn"')
        return found

    def _shaped(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.problem == "binary" and found.ndim == 2 and found.shape[1] == 2:
            return found[:, 1]
        wanted = 2 if self.problem == "multiclass" else 1
        if wanted == 1 and found.ndim == 2 and found.shape[1] == 1:
            return found[:, 0]
        if found.ndim != wanted:
            raise Invalid(
                f"predictions have the shape {found.shape}; a {self.problem} model gives "
                + ("(rows, classes)" if wanted == 2 else "(rows,)"),
                where=self.file,
                todo="correct predict(model, X)",
            )
        return found


def _kind(model: Any) -> str:
    """`booster` (xgboost's, or its scikit-learn wrapper), `estimator` or nothing, by where its class comes from."""
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "xgboost" in packages:
        return "booster"
    return "estimator" if "sklearn" in packages else ""


def _ask_booster(model: Any, matrix: Matrix) -> NDArray[np.float64]:
    """Categories go in as their codes, which are the frame's codes: a frame would cost a millisecond for one row."""
    booster = getattr(model, "get_booster", lambda: model)()
    best = booster.attr("best_iteration")
    rounds = (0, int(best) + 1) if best is not None else (0, 0)
    found = booster.inplace_predict(matrix.values, iteration_range=rounds, validate_features=False)
    return np.asarray(found, dtype=np.float64)


def _load_booster(path: Path) -> Any:
    import xgboost as xgb

    booster = xgb.Booster({"nthread": 1})
    booster.load_model(path)
    return booster
