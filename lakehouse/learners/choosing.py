"""From a definition to its learner, and from a registered name to the learner that can load it."""

from __future__ import annotations

from dataclasses import dataclass

from lakeloop.lakehouse.errors import Invalid, Unavailable
from lakeloop.lakehouse.learners.protocol import Learner
from lakeloop.lakehouse.learners.sklearn_trees import SklearnLearner
from lakeloop.lakehouse.learners.user_file import UserLearner
from lakeloop.lakehouse.learners.xgboost_trees import XGBoostLearner
from lakeloop.lakehouse.project.definitions import Model


@dataclass(frozen=True, slots=True)
class Chosen:
    """A learner, and what a person should know of how it was chosen."""

    learner: Learner
    note: str = ""


def choose(model: Model, classes: int) -> Chosen:
    """The learner a definition asks for; where xgboost cannot be imported (macOS has no wheel), sklearn instead."""
    threads = max(1, int(model.trial.cpu))
    why = xgboost_fault() if model.learner == "xgboost" else ""
    if why:
        note = f"learner xgboost cannot be used here ({why}); sklearn was, with its parameters translated"
        return Chosen(SklearnLearner(model.problem, classes, threads), note)
    return Chosen(learner_named(model.learner, model.problem, classes, threads, model.python, model.pickle))


def learner_named(
    name: str, problem: str, classes: int, threads: int = 1, text: str | None = None, pickle: bool = False
) -> Learner:
    """The learner that a version was made with. Unavailable when this machine lacks its package."""
    if name == "xgboost":
        why = xgboost_fault()
        if why:
            raise Unavailable(f"this model needs xgboost ({why})", todo="pip install 'lakeloop[ml]', on Linux")
        return XGBoostLearner(problem, classes, threads)
    if name == "sklearn":
        return SklearnLearner(problem, classes, threads)
    if name.endswith(".py") and text is not None:
        return UserLearner(f"models/{name}", text, problem, classes, pickle)
    raise Invalid(f"there is no learner {name!r}", todo='use "xgboost", "sklearn", or the model\'s own "<name>.py"')


def xgboost_fault() -> str:
    """Why xgboost cannot be imported; empty when it can."""
    try:
        import xgboost  # noqa: F401
    except ImportError as error:
        return str(error)
    except (
        OSError,
        ValueError,
    ) as error:  # its shared library is there, but not what that needs (XGBoostError is a ValueError)
        return str(error).strip().split("\n")[0]
    return ""
