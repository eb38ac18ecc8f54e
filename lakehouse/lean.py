"""Imports packages without what they can do without: for a process that is started to answer one request.

xgboost looks for scikit-learn and pandas, which our own learner does not need, and Arrow for pandas, when the first
array is made: together four fifths of such a process's time. What a model of a project's own file needs it still finds.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

XGBOOST = "xgboost"


def import_arrow() -> None:
    """Arrow, which does not look for pandas from then on; its `to_pandas` finds it all the same."""
    with hidden("pandas"):
        import pyarrow as pa

        pa.array([0])


def import_xgboost() -> None:
    """xgboost, without its faces for scikit-learn and pandas; nothing where it is imported already or cannot be."""
    if XGBOOST in sys.modules:
        return
    try:
        with hidden("sklearn", "pandas"):
            importlib.import_module(XGBOOST)
    except (ImportError, OSError, ValueError):  # whoever needs it says why
        forget_xgboost()


def forget_xgboost() -> None:
    """Let the next import of xgboost be a whole one. Models that were loaded before go on."""
    for name in [name for name in sys.modules if name.partition(".")[0] == XGBOOST]:
        del sys.modules[name]


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Packages that are not imported yet cannot be, for a while. Not for a process with other threads that import."""
    absent = _Absent(frozenset(packages))
    sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        sys.meta_path.remove(absent)


class _Absent(MetaPathFinder):
    """Says of packages that they are not installed. (None in `sys.modules` would not do: Cython takes it for one.)"""

    def __init__(self, packages: frozenset[str]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self._packages:
            raise ModuleNotFoundError(f"{fullname} is not needed here", name=fullname)
        return None
