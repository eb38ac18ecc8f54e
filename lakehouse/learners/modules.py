"""A project's Python file as a module, made from its text: what the lake holds is what runs, wherever it runs."""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from types import ModuleType

from lakeloop.lakehouse.errors import Invalid


def load_module(file: str, text: str) -> ModuleType:
    """The module of a text; the same text is the same module. Invalid, with the line, when it cannot be imported.

    Its name follows from the text, so that a pickled object finds its class again, and only with the text it came from.
    """
    name = f"lakeloop_project_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = file
    shown = f"<{file} {name[-16:]}>"
    linecache.cache[shown] = (len(text), None, text.splitlines(keepends=True), shown)
    sys.modules[name] = module
    try:
        exec(compile(text, shown, "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise Invalid(
            f"{type(error).__name__}: {error}",
            where=f"{file}:{_line(error, shown)}",
            todo="it is run from what the lake holds: import installed packages, not the project's other files",
        ) from error
    return module


def _line(error: Exception, shown: str) -> int:
    if isinstance(error, SyntaxError):
        return error.lineno or 1
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == shown]
    return lines[-1] or 1 if lines else 1
