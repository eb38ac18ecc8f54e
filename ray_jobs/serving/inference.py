"""One endpoint's answers, whatever the transport: choose the arm, score, log, then answer.

There are two forms of input: flat rows (`rows`) and tensors (`infer`). A request is answered only after its rows are in
the write-ahead file; Unavailable when they cannot be written. Errors are the tree's: Invalid (the request is wrong),
TooLarge, NotFound (no such version), Unavailable; anything else is the model's failure.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Denied, Invalid, LakeloopError, NotFound, Unavailable
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.batching import Batches
from lakeloop.ray_jobs.serving.limits import Admission, Limits, TooLarge, TooLate, check_count
from lakeloop.ray_jobs.serving.tensor_signature import (
    Answered,
    Given,
    given_of,
    metadata_of,
    output_names,
    outputs,
)
from lakeloop.ray_jobs.serving.tensors import InferRequest, InferResponse, Parameter, Tensor
from lakeloop.ray_jobs.serving.tracing import TRACE
from lakeloop.ray_jobs.serving.write_ahead import Logged, LoggedColumns, Shape

if TYPE_CHECKING:
    from concurrent.futures import Future

    from lakeloop.lakehouse.scoring.scorer import Answer

ROWS_INLINE = 16
"""More rows than these are scored in a thread, so that health checks are answered meanwhile."""
ID_CHARACTERS = 200

T = TypeVar("T")
Row: TypeAlias = Mapping[str, Any]
Count: TypeAlias = Callable[[int, int, float], None]
"""(status, rows, seconds) of one request for an inference, answered or not."""


Append: TypeAlias = "Callable[[Shape, Logged | LoggedColumns], Future[None] | None]"
"""Logs a request, or raises Unavailable. What it returns must be done, too, before the answer leaves."""
COMMIT_S = 10.0
"""So long an answer waits for the lake at most, where the log is `sync`."""


@dataclass(slots=True)
class Chosen:
    """Who answers a request, and when: `began` is when it arrived, by `perf_counter`.

    `places`: which of the request's rows, where others are another arm's; None for all of them.
    """

    loaded: Loaded
    arm: Arm
    request_id: str
    now: datetime
    began: float
    places: Sequence[int] | None = None
    named: bool = False
    """The caller asks for this version and no other."""
    marks: list[float] = field(default_factory=list)
    """When its rows were checked, and looked up and derived."""
    written: list[Future[None]] = field(default_factory=list)
    """What must be done, too, before the answer leaves."""

    def about(self, by: Arm) -> Mapping[str, Any]:
        """What the log says of the request beside its rows, which `by` has just answered."""
        answered, loaded = time.perf_counter(), self.loaded
        checked, looked_up = self.marks[-2:]
        return {
            "request_id": self.request_id,
            "at": self.now,
            "model": loaded.model,
            "version": by.version,
            "arm": by.name,
            "revision": loaded.revision,
            "latency_ms": (answered - self.began) * 1000,
            "parts_ms": ((checked - self.began) * 1000, (looked_up - checked) * 1000, (answered - looked_up) * 1000),
            "answered": answered,
            "feature_versions": by.feature_versions,
            "trace_id": TRACE.get(),
        }

    async def answer(self, score: Callable[[Arm], Awaitable[T]]) -> tuple[Arm, T]:
        """`Loaded.answer` of its arm."""
        return await self.loaded.answer(self.arm, score, named=self.named)

    async def committed(self) -> None:
        """Wait until what was logged is where it must be."""
        for one in self.written:
            await committed(one)


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
        append: Append,
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
        self._ids = Ids()
        self._shapes: dict[int, tuple[Shape, frozenset[str]]] = {}

    async def rows(self, rows: Sequence[Row], request_id: str, version: str | None, began: float) -> Mapping[str, Any]:
        """The answer to flat rows, as JSON's values. No id: one is made. `began`: when they arrived, by `perf_counter`.

        Rows whose keys have several arms name the version of each; the request's is then the champion's.
        """
        request_id, loaded = self._id_of(request_id), self._loaded()
        parts = self._choose(
            loaded, request_id, version, began, len(rows), lambda at: loaded.key_of(rows[at], request_id)
        )
        answers, versions = await self._answers(rows, parts)
        mixed = len(set(versions)) > 1
        said = [_public(answer) for answer in answers]
        return {
            "id": request_id,
            "model": loaded.model,
            "version": loaded.champion.version if mixed else versions[0],
            "revision": loaded.revision,
            "rows": [{**one, "version": by} for one, by in zip(said, versions, strict=True)] if mixed else said,
        }

    async def infer(self, request: InferRequest, version: str | None = None) -> InferResponse:
        """The answer to tensors (tensor_signature.py says which).

        Where the rows' keys have several arms, the version is the champion's, and the parameter `versions` those of
        the rows. Where the arms' classes differ, no tensor holds the answers of several: the first row's arm answers.
        """
        request_id, loaded, began = self._id_of(request.id), self._loaded(), time.perf_counter()
        signature, rows = loaded.champion.scorer.signature, list[Row]()
        if version is None and len(loaded.arms) > 1:  # only then does it matter which row is whose
            given = given_of(request.inputs, signature)
            check_count(given.count)
            rows = given.rows()
        alike = len({arm.scorer.signature.classes for arm in loaded.arms}) == 1
        parts = self._choose(
            loaded,
            request_id,
            version,
            began,
            len(rows) if alike else 1,
            lambda at: loaded.key_of(rows[at], request_id),
        )
        parameters: dict[str, Parameter] = {"revision": loaded.revision}
        if len(parts) == 1:
            arm, made = await parts[0].answer(lambda by: self._infer(request, parts[0], by))
            await parts[0].committed()
            return InferResponse(self.name, str(arm.version), request_id, made, parameters)
        names = output_names(request.outputs, signature)
        answers, versions = await self._answers(rows, parts)
        if len(set(versions)) > 1:
            parameters["versions"] = ",".join(map(str, versions))
        by = versions[0] if len(set(versions)) == 1 else loaded.champion.version
        return InferResponse(
            self.name, str(by), request_id, outputs(names, answered_rows(answers), signature), parameters
        )

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
        told = {"name": arm.name, "version": arm.version, "weight": arm.weight, "circuit": arm.breaker.state}
        return {**told, **batching}

    def _id_of(self, given: str) -> str:
        """The caller's id, or a new one for who gave none."""
        if not given:
            return self._ids.new()
        check_id(given)
        return given

    def _choose(
        self,
        loaded: Loaded,
        request_id: str,
        version: str | None,
        began: float,
        count: int,
        key: Callable[[int], str],
    ) -> list[Chosen]:
        """Who answers which rows; `key` gives the key of the row at a place. One version is asked for by name."""
        now = self._clock()
        if version is not None:
            return [Chosen(loaded, arm_of(loaded, version, self.name), request_id, now, began, named=True)]
        if len(loaded.arms) == 1:
            return [Chosen(loaded, loaded.arms[0], request_id, now, began)]
        parts = loaded.split(self.name, count, key)
        if len(parts) == 1:
            return [Chosen(loaded, parts[0][0], request_id, now, began)]
        return [Chosen(loaded, arm, request_id, now, began, places) for arm, places in parts]

    async def _infer(self, request: InferRequest, chosen: Chosen, by: Arm) -> tuple[Tensor, ...]:
        """The outputs of one arm for a whole request."""
        scorer = by.scorer
        names = output_names(request.outputs, scorer.signature)
        given = given_of(request.inputs, scorer.signature)
        check_count(given.count)
        small = given.count <= ROWS_INLINE
        together = small and self._batches.gains(scorer)
        if scorer.takes_columns(given.columns) and not together:
            answered = await self._admission.run(small, self._score_columns, given, chosen, by)
        else:
            answered = answered_rows(await self._score(given.rows(), chosen, by, together=together))
        return outputs(names, answered, scorer.signature)

    async def _answers(self, rows: Sequence[Row], parts: Sequence[Chosen]) -> tuple[list[Answer], list[int]]:
        """The answers and their versions, in the order of the rows, after all of them are logged."""
        if len(parts) == 1:
            arm, answers = await self._answer(rows, parts[0])
            await parts[0].committed()
            return answers, [arm.version] * len(rows)
        scored = []
        for chosen in parts:
            own = [rows[place] for place in chosen.places or ()]
            arm, answers = await self._answer(own, chosen)
            scored.append((chosen, arm, own, answers))
        by_place: dict[int, tuple[Answer, int]] = {}
        for chosen, arm, own, answers in scored:  # nothing of a request is logged before all of it is answered
            self._log_rows(own, answers, chosen, arm)
            for place, answer in zip(chosen.places or (), answers, strict=True):
                by_place[place] = answer, arm.version
        for chosen in parts:
            await chosen.committed()
        ordered = [by_place[place] for place in range(len(rows))]
        return [answer for answer, _ in ordered], [by for _, by in ordered]

    async def _answer(self, rows: Sequence[Row], chosen: Chosen) -> tuple[Arm, list[Answer]]:
        """Answers to rows of one arm, and the arm that gave them; logged where they are the whole request."""
        small = len(rows) <= ROWS_INLINE

        def score(by: Arm) -> Awaitable[list[Answer]]:
            return self._score(rows, chosen, by, together=small and self._batches.gains(by.scorer))

        return await chosen.answer(score)

    async def _score(self, rows: Sequence[Row], chosen: Chosen, by: Arm, *, together: bool) -> list[Answer]:
        """`together`: with other requests of now."""
        if not together:
            return await self._admission.run(len(rows) <= ROWS_INLINE, self._score_rows, rows, chosen, by)
        quick = self._batches.is_quick(by.scorer)
        answers = await self._admission.share(quick, self._batches.answer, by.scorer, rows, chosen.now, chosen.marks)
        if chosen.places is None:
            self._log_rows(rows, answers, chosen, by)
        return answers

    def _score_rows(self, rows: Sequence[Row], chosen: Chosen, by: Arm) -> list[Answer]:
        answers = by.scorer.answer(rows, chosen.now, chosen.marks)
        if chosen.places is None:
            self._log_rows(rows, answers, chosen, by)
        return answers

    def _log_rows(self, rows: Sequence[Row], answers: Sequence[Answer], chosen: Chosen, by: Arm) -> None:
        about = chosen.about(by)
        shape, store = self._columns(by)
        logged = [_logged(store, row, answer) for row, answer in zip(rows, answers, strict=True)]
        if chosen.places is not None:
            logged = [{**one, "number": place} for one, place in zip(logged, chosen.places, strict=True)]
        self._write(shape, Logged(**about, rows=logged), chosen)

    def _score_columns(self, given: Given, chosen: Chosen, by: Arm) -> Answered:
        """Score and log columns that are complete."""
        answers = by.scorer.answer_columns(given.columns, given.count, chosen.marks)
        moments = chosen.now if given.moments is None else [one or chosen.now for one in given.moments]
        about = chosen.about(by)
        shape, store = self._columns(by)
        own = {"id": given.ids, "as_of": moments, "decision": _texts(answers.decisions)}
        logged = LoggedColumns(
            **about,
            count=given.count,
            own={**own, **scores_of(answers.predictions)},
            inputs=answers.inputs,
            given=[name for name in given.columns if name in store],
        )
        self._write(shape, logged, chosen)
        return Answered(answers.predictions, answers.decisions, moments, given.ids)

    def _write(self, shape: Shape, logged: Logged | LoggedColumns, chosen: Chosen) -> None:
        written = self._append(shape, logged)
        if written is not None:
            chosen.written.append(written)

    def _columns(self, arm: Arm) -> tuple[Shape, frozenset[str]]:
        """How an arm's rows are logged, and which inputs a row may give in the store's place; once per version."""
        found = self._shapes.get(arm.version)
        if found is None:
            inputs = arm.scorer.signature.inputs
            shape = Shape(self.project, self.name, tuple((one.name, one.type) for one in inputs))
            found = self._shapes[arm.version] = shape, frozenset(one.name for one in inputs if one.role != "request")
        return found


async def committed(written: Future[None]) -> None:
    """Wait until what was logged is in the lake; Unavailable if that failed, or takes too long."""
    try:
        await asyncio.wait_for(asyncio.wrap_future(written), COMMIT_S)
    except TimeoutError as error:
        raise Unavailable(
            f"the prediction was not in the lake after {COMMIT_S:.0f} s, and [serving] log is sync",
            todo="send the request again, with the same id",
        ) from error


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids for requests that have none: 20 hexadecimal digits of this process, 12 of the request."""

    process: str = field(default_factory=lambda: secrets.token_hex(10))
    next: Callable[[], int] = field(default_factory=lambda: itertools.count().__next__)

    def new(self) -> str:
        return f"{self.process}{self.next():012x}"


def check_id(request_id: Any) -> None:
    """Invalid for what cannot be the id of a request."""
    if not (isinstance(request_id, str) and 0 < len(request_id) <= ID_CHARACTERS):
        raise Invalid(f"'id' is not a text of 1 to {ID_CHARACTERS} characters", todo="leave it out to have one made")


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


def _texts(decisions: Sequence[Any]) -> list[str | None]:
    """Of many, of which few differ."""
    texts = {one: _text(one) for one in set(decisions)}
    return [texts[one] for one in decisions]


def _text(decision: Any) -> str | None:
    """A decision as SQL would spell it: true, false, or the class."""
    if decision is None or isinstance(decision, str):
        return decision
    return str(decision).lower() if isinstance(decision, bool) else str(decision)
