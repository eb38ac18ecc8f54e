"""The one error tree: each class is a fact about what happened, and each message says what, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class LakeloopError(Exception):
    """What went wrong, where, and the way out, as attributes and as at most two lines of text."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what, self.where, self.todo = what, where, todo
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  → {self.todo}" if self.todo else head


class NotFound(LakeloopError):
    """The thing asked for is not there."""


class AlreadyExists(LakeloopError):
    """The key was taken before this call."""


class Conflict(LakeloopError):
    """A race was lost: what was decided rests on a state that is no longer the newest. Load again and decide again."""


class Unknown(LakeloopError):
    """The call may or may not have taken effect. Look before repeating it."""

    exit_code = 4


class Denied(LakeloopError):
    """The store or a rule does not permit this caller to do it."""


class Unavailable(LakeloopError):
    """The other side could not be reached or is overloaded; nothing is wrong with the request. Try again."""

    exit_code = 4


class NoAnswer(Unavailable):
    """The request was sent and its answer never came: it may have taken effect. Try again where a repeat changes
    nothing; else look first."""


class Corrupt(LakeloopError):
    """Stored bytes are not what their record says they are."""


class Invalid(LakeloopError):
    """The input breaks its contract. `problems` lists every one of them, when there are several."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", todo: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(what, where=where, todo=todo)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.problems])


class Refused(LakeloopError):
    """A rule of the project (a check, the gate, a freeze) says no."""

    exit_code = 3
