"""What of the format is not built in this release: the one place that says so.

Keys are paths as the tables of keys spell them, after the kind of file; a name the user chose is `*`. The value lists
what is built: anything else is refused with "not built yet", never ignored. NOTHING means that the key itself is not
built.
A stage that is built takes its lines out of here.
"""

from __future__ import annotations

from typing import Any, Final

from lakeloop.lakehouse.project.documents import show

NOTHING: Final[tuple[Any, ...]] = ()

BUILT: Final[dict[str, tuple[Any, ...]]] = {
    # lakeloop.toml
    "project.python": ("requirements.lock",),
    "project.uses": ([],),
    "project.channels": ({},),
    "project.notify": ({},),
    "project.environments.*.reads": ("",),
    "project.environments.*.apply": NOTHING,
    "project.environments.*.trial": ({},),
    "project.environments.*.replicas": ({},),
    "project.environments.*.ray": ("",),
    "project.environments.*.log_level": ("info",),
    # sources/<name>.toml
    "source.read.kind": ("landing", "delta", "parquet"),
    "source.read.sql": ("",),
    "source.read.connection": NOTHING,
    "source.read.cursor": ("",),
    "source.read.every": ("",),
    "source.unlisted": ("drop", "stop"),
    "source.expect": NOTHING,
    "source.keep": ("",),
    # features/<name>.sql
    "feature-view.publish": (False,),
    "feature-view.on_change": ("new version",),
    "feature-view.tests": ([],),
    # models/<name>.toml
    "model.learner": ("xgboost", "sklearn", "<name>.py"),
    "model.split.by": ("time", "group", "random"),
    "model.split.train": ("all",),
    "model.search.searcher": ("random",),
    "model.search.scheduler": ("none", "asha"),
    "model.trial.gpu": (0,),
    "model.trial.workers": (1,),
    "model.evaluate.groups": ([],),
    "model.evaluate.repeat": ("last",),
    "model.gate.rule.sql": NOTHING,
    "model.gate.rule.each": ("", "slice"),
    "model.serving.absent": NOTHING,
    "model.monitor.watch": ("inputs", "outputs", "performance"),
    "model.monitor.stat": ("psi",),
    "model.monitor.against": ("training",),
    "model.monitor.notify": ("",),
    "model.retrain.schedule": ("",),
    # reports/<name>.sql
    "report.every": ("1d",),
    "report.alarm": ("",),
}

NOT_BUILT = "is part of the format but not built yet"


def refusal(pattern: str, value: Any) -> str:
    """Why a sound value is refused all the same: its stage is not built; empty when it is."""
    built = BUILT.get(pattern)
    if built is None or value in built or (isinstance(value, str) and value.endswith(".py") and "<name>.py" in built):
        return ""
    words = [show(word) for word in built if word]
    if not words:
        return f"{NOT_BUILT}; leave it out"
    return f"{show(value)} {NOT_BUILT}; built: {', '.join(words)}"
