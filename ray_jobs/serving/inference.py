"""One endpoint's answers, whatever the transport: choose the arm, score, log, then answer.

There are two forms of input: flat rows (`rows`) and tensors (`infer`). A request is answered only after its rows are in
the write-ahead file; Unavailable when they cannot be written. Errors are the tree's: Invalid (the request is wrong),
TooLarge, NotFound (no such version), Unavailable; anything else is the model's failure.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Denied, Invalid, LakeloopError, NotFound, Unavailable
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.batching import Batches
from lakeloop.ray_jobs.serving.limits import Admission, Limits, TooLate
from lakeloop.ray_jobs.serving.tensor_signature import (
    Answered,
    Given,
    given_of,
    metadata_of,
    output_names,
    outputs,
)
from lakeloop.ray_jobs.serving.tensors import InferRequest, InferResponse
from lakeloop.ray_jobs.serving.write_ahead import Logged, LoggedColumns, Shape

if TYPE_CHECKING:
    from lakeloop.lakehouse.scoring.scorer import Answer

MOST_ROWS = 10_000
ROWS_INLINE = 16
"""More rows than these are scored in a thread, so that health checks are answered meanwhile."""
ID_CHARACTERS = 200

Row: TypeAlias = Mapping[str, Any]
Count: TypeAlias = Callable[[int, int, float], None]
"""(status, rows, seconds) of one request for an inference, answered or not."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who answers a request, and when: `began` is when it arrived, by `perf_counter`."""

    loaded: Loaded
    arm: Arm
    request_id: str
    now: datetime
    began: float


class TooLarge(Invalid):
    """The request is larger than an endpoint takes."""


def count_nothing(status: int, rows: int, seconds: float) -> None:
    """A `Count` for who keeps none."""


class Inference:
    """Answers requests with what `loaded()` holds at that moment, after `append` has logged them.

    `state()` adds what only the process around knows to `describe`. Whoever speaks a transport calls `count` once for
    each request.
    """

    def __init__(
        self,
        project: str,
        name: str,
        *,
        loaded: Callable[[], Loaded],
        append: Callable[[Shape, Logged | LoggedColumns], None],
        state: Callable[[], Mapping[str, Any]],
        clock: Callable[[], datetime],
        count: Count = count_nothing,
        admission: Admission | None = None,
        batches: Batches | None = None,
    ) -> None:
        self.project, self.name, self.count = project, name, count
        self._admission = admission or Admission(Limits())
        self._batches = batches or Batches()
        self._loaded, self._append, self._state, self._clock = loaded, append, state, clock
        self._shapes: dict[int, tuple[Shape, frozenset[str]]] = {}

    async def rows(self, rows: Sequence[Row], request_id: str, version: str | None, began: float) -> Mapping[str, Any]:
        """The answer to flat rows, as JSON's values. `began`: when the request arrived, by `perf_counter`."""
        chosen = self._choose(request_id, version, began)
        answers = await self._answers(rows, chosen)
        return {
            "id": request_id,
            "model": chosen.loaded.model,
            "version": chosen.arm.version,
            "revision": chosen.loaded.revision,
            "rows": [_public(answer) for answer in answers],
        }

    async def infer(self, request: InferRequest, version: str | None = None) -> InferResponse:
        """The answer to tensors (tensor_signature.py says which)."""
        request_id = checked_id(request.id)
        chosen = self._choose(request_id, version, time.perf_counter())
        scorer = chosen.arm.scorer
        names = output_names(request.outputs, scorer.signature)
        given = given_of(request.inputs, scorer.signature)
        check_count(given.count)
        small = given.count <= ROWS_INLINE
        if scorer.takes_columns(given.columns) and not (small and self._batches.gains(scorer)):
            answered = await self._admission.run(small, self._score_columns, given, chosen)
        else:
            answered = answered_rows(await self._answers(given.rows(), chosen))
        made = outputs(names, answered, scorer.signature)
        parameters = {"revision": chosen.loaded.revision}
        return InferResponse(self.name, str(chosen.arm.version), request_id, made, parameters)

    def checked(self, version: str) -> str:
        """The same version, or NotFound when it does not serve here."""
        return str(arm_of(self._loaded(), version, self.name).version)

    def metadata(self, version: str | None = None) -> Mapping[str, Any]:
        """The protocol's metadata of the endpoint, or of one version of it. NotFound for one that does not serve."""
        loaded = self._loaded()
        arm = loaded.champion if version is None else arm_of(loaded, version, self.name)
        told = metadata_of(arm.scorer.signature)
        return {
            "name": self.name,
            "versions": [str(arm.version) for arm in loaded.arms],
            "platform": "lakeloop",
            **told,
            "parameters": {**told["parameters"], "model": loaded.model, "revision": loaded.revision},
        }

    def describe(self) -> Mapping[str, Any]:
        """What is loaded, and how many rows wait to be shipped. Reads the disk."""
        loaded = self._loaded()
        arms = [self._described(arm) for arm in loaded.arms]
        seen = {
            "name": self.name,
            "model": loaded.model,
            "revision": loaded.revision,
            "arms": arms,
            "snapshots": loaded.snapshots,
        }
        return {**seen, **self._state()}

    def _described(self, arm: Arm) -> Mapping[str, Any]:
        gain = self._batches.gain(arm.scorer)
        batching = {} if gain is None else {"batching": gain.describe()}
        return {"name": arm.name, "version": arm.version, "weight": arm.weight, **batching}

    def _choose(self, request_id: str, version: str | None, began: float) -> Chosen:
        loaded = self._loaded()
        arm = loaded.arm_for(self.name, request_id) if version is None else arm_of(loaded, version, self.name)
        return Chosen(loaded, arm, request_id, self._clock(), began)

    async def _answers(self, rows: Sequence[Row], chosen: Chosen) -> list[Answer]:
        """Score and log rows, with other requests of now where the model gains by it."""
        scorer, small = chosen.arm.scorer, len(rows) <= ROWS_INLINE
        if not (small and self._batches.gains(scorer)):
            return await self._admission.run(small, self._score_rows, rows, chosen)
        answers = await self._admission.share(self._batches.answer, scorer, rows, chosen.now)
        self._log_rows(rows, answers, chosen)
        return answers

    def _score_rows(self, rows: Sequence[Row], chosen: Chosen) -> list[Answer]:
        answers = chosen.arm.scorer.answer(rows, chosen.now)
        self._log_rows(rows, answers, chosen)
        return answers

    def _log_rows(self, rows: Sequence[Row], answers: Sequence[Answer], chosen: Chosen) -> None:
        loaded, arm = chosen.loaded, chosen.arm
        latency_ms = (time.perf_counter() - chosen.began) * 1000
        shape, store = self._columns(arm)
        logged = [_logged(store, row, answer) for row, answer in zip(rows, answers, strict=True)]
        self._append(
            shape,
            Logged(
                chosen.request_id,
                chosen.now,
                loaded.model,
                arm.version,
                arm.name,
                loaded.revision,
                latency_ms,
                logged,
            ),
        )

    def _score_columns(self, given: Given, chosen: Chosen) -> Answered:
        """Score and log columns that are complete."""
        loaded, arm = chosen.loaded, chosen.arm
        answers = arm.scorer.answer_columns(given.columns, given.count)
        moments = chosen.now if given.moments is None else [one or chosen.now for one in given.moments]
        latency_ms = (time.perf_counter() - chosen.began) * 1000
        shape, store = self._columns(arm)
        own = {"id": given.ids, "as_of": moments, "decision": [_text(one) for one in answers.decisions]}
        self._append(
            shape,
            LoggedColumns(
                chosen.request_id,
                chosen.now,
                loaded.model,
                arm.version,
                arm.name,
                loaded.revision,
                latency_ms,
                given.count,
                {**own, **scores_of(answers.predictions)},
                answers.inputs,
                [name for name in given.columns if name in store],
            ),
        )
        return Answered(answers.predictions, answers.decisions, moments, given.ids)

    def _columns(self, arm: Arm) -> tuple[Shape, frozenset[str]]:
        """How an arm's rows are logged, and which inputs a row may give in the store's place; once per version."""
        found = self._shapes.get(arm.version)
        if found is None:
            inputs = arm.scorer.signature.inputs
            shape = Shape(self.project, self.name, tuple((one.name, one.type) for one in inputs))
            found = self._shapes[arm.version] = shape, frozenset(one.name for one in inputs if one.role != "request")
        return found


def new_id() -> str:
    """An id for a request that has none."""
    return secrets.token_hex(16)


def checked_id(request_id: str) -> str:
    """The caller's id, or a new one for who gave none."""
    if not request_id:
        return new_id()
    check_id(request_id)
    return request_id


def check_id(request_id: Any) -> None:
    if not (isinstance(request_id, str) and 0 < len(request_id) <= ID_CHARACTERS):
        raise Invalid(f"'id' is not a text of 1 to {ID_CHARACTERS} characters", todo="leave it out to have one made")


def check_count(rows: int) -> None:
    """TooLarge for more rows than one request may have."""
    if rows > MOST_ROWS:
        raise TooLarge(
            f"{rows:,} rows in one request", todo=f"send at most {MOST_ROWS:,}; lakeloop predict scores more"
        )


def arm_of(loaded: Loaded, version: str, name: str) -> Arm:
    """The arm that serves a version, or NotFound with those that do."""
    for arm in loaded.arms:
        if str(arm.version) == version:
            return arm
    there = ", ".join(str(arm.version) for arm in loaded.arms)
    raise NotFound(f"version {version!r} of {name} does not serve here", todo=f"ask for {there}, or for none")


def status_of(error: LakeloopError) -> int:
    """The HTTP status of an error."""
    match error:
        case TooLarge():
            return 413
        case Invalid():
            return 400
        case Denied():
            return 403
        case NotFound():
            return 404
        case TooLate():
            return 504
        case Unavailable():
            return 503
        case _:
            return 500


def scores_of(predictions: NDArray[np.float64]) -> Mapping[str, Any]:
    """Predictions as the log keeps them: of several classes, the likeliest one's beside all of them."""
    if predictions.ndim == 1:
        return {"prediction": predictions}
    return {"prediction": predictions.max(axis=1), "scores": predictions}


def answered_rows(answers: Sequence[Answer]) -> Answered:
    """Answers to rows, by columns."""
    return Answered(
        np.array([one.prediction for one in answers], np.float64),
        [one.decision for one in answers],
        [one.as_of for one in answers],
        [one.id for one in answers],
        [one.ages for one in answers],
        [one.absent for one in answers],
    )


def _public(answer: Answer) -> Mapping[str, Any]:
    return {
        "id": answer.id,
        "prediction": answer.prediction,
        "decision": answer.decision,
        "as_of": answer.as_of,
        "ages": answer.ages,
        "absent": answer.absent,
    }


def _logged(store: frozenset[str], row: Row, answer: Answer) -> Mapping[str, Any]:
    scores = answer.prediction if isinstance(answer.prediction, (list, tuple)) else None
    return {
        "id": answer.id,
        "as_of": answer.as_of,
        "prediction": max(scores) if scores else answer.prediction,
        "decision": _text(answer.decision),
        "scores": scores,
        "ages": answer.ages,
        "absent": answer.absent,
        "given": [name for name in row if name in store],
        "inputs": answer.inputs,
    }


def _text(decision: Any) -> str | None:
    """A decision as SQL would spell it: true, false, or the class."""
    if decision is None or isinstance(decision, str):
        return decision
    return str(decision).lower() if isinstance(decision, bool) else str(decision)
