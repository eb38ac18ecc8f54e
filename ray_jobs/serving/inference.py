"""One endpoint's answers, whatever the transport: choose the arm, score, log, then answer.

There are two forms of input: flat rows (`rows`) and tensors (`infer`). A request is answered only after its rows are in
the write-ahead file; Unavailable when they cannot be written. Errors are the tree's: Invalid (the request is wrong),
TooLarge, NotFound (no such version), Unavailable; anything else is the model's failure.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lakeloop.lakehouse.errors import Invalid, LakeloopError, NotFound, Unavailable
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.tensors import BYTES, InferRequest, InferResponse, Parameter, Tensor
from lakeloop.ray_jobs.serving.write_ahead import Logged, Shape

if TYPE_CHECKING:
    from lakeloop.lakehouse.scoring.scorer import Answer
    from lakeloop.lakehouse.scoring.signature import Input, Signature

MOST_ROWS = 10_000
ROWS_INLINE = 16
"""More rows than these are scored in a thread, so that health checks are answered meanwhile."""
ID_CHARACTERS = 200

Row: TypeAlias = Mapping[str, Any]
Count: TypeAlias = Callable[[int, int, float], None]
"""(status, rows, seconds) of one request for an inference, answered or not."""


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
        append: Callable[[Shape, Logged], None],
        state: Callable[[], Mapping[str, Any]],
        clock: Callable[[], datetime],
        count: Count = count_nothing,
    ) -> None:
        self.project, self.name, self.count = project, name, count
        self._loaded, self._append, self._state, self._clock = loaded, append, state, clock
        self._shapes: dict[int, tuple[Shape, frozenset[str]]] = {}

    async def rows(self, rows: Sequence[Row], request_id: str, version: str | None, began: float) -> Mapping[str, Any]:
        """The answer to flat rows, as JSON's values. `began`: when the request arrived, by `perf_counter`."""
        if len(rows) <= ROWS_INLINE:
            return self._answer_rows(rows, request_id, version, began)
        return await asyncio.to_thread(self._answer_rows, rows, request_id, version, began)

    async def infer(self, request: InferRequest, version: str | None = None) -> InferResponse:
        """The answer to tensors: one per input, of shape [n] or [n, 1]."""
        began = time.perf_counter()
        if all(tensor.shape and tensor.shape[0] <= ROWS_INLINE for tensor in request.inputs):
            return self._answer_tensors(request, version, began)
        return await asyncio.to_thread(self._answer_tensors, request, version, began)

    def ready(self, version: str | None = None) -> bool:
        """Whether this version (none: the endpoint) answers here."""
        return version is None or any(str(arm.version) == version for arm in self._loaded().arms)

    def metadata(self, version: str | None = None) -> Mapping[str, Any]:
        """The protocol's metadata of the endpoint, or of one version of it. NotFound for one that does not serve."""
        loaded = self._loaded()
        arm = loaded.champion if version is None else arm_of(loaded, version, self.name)
        signature = arm.scorer.signature
        return {
            "name": self.name,
            "versions": [str(arm.version) for arm in loaded.arms],
            "platform": "lakeloop",
            "inputs": [described(one) for one in signature.inputs],
            "outputs": outputs_of(signature),
            "parameters": {"model": loaded.model, "revision": loaded.revision},
        }

    def describe(self) -> Mapping[str, Any]:
        """What is loaded, and how many rows wait to be shipped. Reads the disk."""
        loaded = self._loaded()
        arms = [
            {"name": arm.name, "version": arm.version, "weight": arm.weight, "circuit": arm.breaker.state}
            for arm in loaded.arms
        ]
        seen = {
            "name": self.name,
            "model": loaded.model,
            "revision": loaded.revision,
            "arms": arms,
            "snapshots": loaded.snapshots,
        }
        return {**seen, **self._state()}

    def _answer_rows(
        self, rows: Sequence[Row], request_id: str, version: str | None, began: float
    ) -> Mapping[str, Any]:
        loaded, versions, answers = self._score(rows, request_id, version, began)
        mixed = len(set(versions)) > 1
        return {
            "id": request_id,
            "model": loaded.model,
            "version": loaded.champion.version if mixed else versions[0],
            "revision": loaded.revision,
            "rows": [
                {**_public(answer), "version": by} if mixed else _public(answer)
                for answer, by in zip(answers, versions, strict=True)
            ],
        }

    def _answer_tensors(self, request: InferRequest, version: str | None, began: float) -> InferResponse:
        request_id = request.id or new_id()
        check_id(request_id)
        loaded, versions, answers = self._score(rows_of(request.inputs), request_id, version, began)
        outputs = _outputs(answers, request.outputs, loaded.champion.scorer.signature)
        parameters: dict[str, Parameter] = {"revision": loaded.revision}
        if len(set(versions)) == 1:
            return InferResponse(self.name, str(versions[0]), request_id, outputs, parameters)
        parameters["versions"] = ",".join(map(str, versions))
        return InferResponse(self.name, str(loaded.champion.version), request_id, outputs, parameters)

    def _score(
        self, rows: Sequence[Row], request_id: str, version: str | None, began: float
    ) -> tuple[Loaded, list[int], list[Answer]]:
        """Choose the arm of each row, score and log. Returns the versions and the answers in the order of the rows."""
        loaded, now = self._loaded(), self._clock()
        if version is not None:
            parts: list[tuple[Arm, Sequence[int]]] = [(arm_of(loaded, version, self.name), range(len(rows)))]
        else:
            parts = loaded.split(self.name, len(rows), lambda place: loaded.key_of(rows[place], request_id))
        if len(parts) == 1:
            arm, answers = loaded.answer(parts[0][0], lambda by: by.scorer.answer(rows, now))
            self._log(loaded, arm, request_id, now, began, rows, answers, range(len(rows)))
            return loaded, [arm.version] * len(rows), answers
        answered = [(*self._part(loaded, chosen, rows, places, now), places) for chosen, places in parts]
        by_place: dict[int, tuple[int, Answer]] = {}
        for arm, answers, places in answered:  # all of a request is answered before any of it is logged
            self._log(loaded, arm, request_id, now, began, [rows[place] for place in places], answers, places)
            by_place.update({place: (arm.version, one) for place, one in zip(places, answers, strict=True)})
        ordered = [by_place[place] for place in range(len(rows))]
        return loaded, [by for by, _ in ordered], [answer for _, answer in ordered]

    def _part(
        self, loaded: Loaded, chosen: Arm, rows: Sequence[Row], places: Sequence[int], now: datetime
    ) -> tuple[Arm, list[Answer]]:
        own = [rows[place] for place in places]
        return loaded.answer(chosen, lambda by: by.scorer.answer(own, now))

    def _log(
        self,
        loaded: Loaded,
        arm: Arm,
        request_id: str,
        now: datetime,
        began: float,
        rows: Sequence[Row],
        answers: Sequence[Answer],
        places: Sequence[int],
    ) -> None:
        latency_ms = (time.perf_counter() - began) * 1000
        shape, store = self._columns(arm)
        logged = [_logged(store, row, answer) for row, answer in zip(rows, answers, strict=True)]
        if len(rows) != places[-1] + 1:  # some of the request's rows are another arm's
            logged = [{**one, "number": place} for one, place in zip(logged, places, strict=True)]
        self._append(
            shape, Logged(request_id, now, loaded.model, arm.version, arm.name, loaded.revision, latency_ms, logged)
        )

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
        case NotFound():
            return 404
        case Unavailable():
            return 503
        case _:
            return 500


def datatype_of(one: Input) -> str:
    """The protocol's datatype of an input."""
    match one.kind:
        case "category" | "string" | "timestamp":
            return BYTES
        case "bool":
            return "BOOL"
        case "integer":
            return one.type.rstrip("?").upper() if one.type.startswith(("int", "uint")) else "INT64"
        case "number":
            return "FP32" if one.type.startswith("float32") else "FP64"


def described(one: Input) -> Mapping[str, Any]:
    """An input as the protocol's metadata names it; `parameters` says what the protocol has no word for."""
    optional = one.role != "request" or one.nullable or one.default is not None
    parameters = {"type": one.type, "role": one.role, "optional": optional}
    return {"name": one.name, "datatype": datatype_of(one), "shape": [-1], "parameters": parameters}


def outputs_of(signature: Signature) -> list[Mapping[str, Any]]:
    """The outputs an endpoint gives when none is asked for."""
    shape = [-1, len(signature.classes)] if signature.problem == "multiclass" else [-1]
    prediction = {"name": "prediction", "datatype": "FP64", "shape": shape}
    match signature.problem:
        case "binary":
            return [prediction, {"name": "decision", "datatype": "BOOL", "shape": [-1]}]
        case "multiclass":
            return [prediction, {"name": "decision", "datatype": BYTES, "shape": [-1]}]
        case "regression":
            return [prediction]


def rows_of(tensors: Sequence[Tensor]) -> list[Row]:
    """Tensors of one column each as flat rows; NaN is null."""
    if not tensors:
        raise Invalid("the request has no inputs", todo="send a tensor per input")
    count = tensors[0].shape[0] if tensors[0].shape else 0
    for tensor in tensors:
        if tensor.shape not in ((count,), (count, 1)) or not count:
            raise Invalid(
                f"the tensor {tensor.name} has shape {list(tensor.shape)}",
                todo="send [n] or [n, 1], the same n for all",
            )
    check_count(count)
    names = [tensor.name for tensor in tensors]
    columns = [_values(tensor) for tensor in tensors]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(tensor: Tensor) -> list[Any]:
    if isinstance(tensor.data, np.ndarray):
        return [None if value != value else value for value in tensor.data.tolist()]
    try:
        return [value.decode() if isinstance(value, bytes) else value for value in tensor.data]
    except UnicodeDecodeError as error:
        raise Invalid(f"the tensor {tensor.name} holds bytes that are not UTF-8 ({error})") from error


def _outputs(answers: Sequence[Answer], wanted: Sequence[str], signature: Signature) -> tuple[Tensor, ...]:
    count = len(answers)
    prediction = np.array([answer.prediction for answer in answers], np.float64)
    made = {"prediction": Tensor("prediction", "FP64", prediction.shape, prediction.reshape(-1))}
    decisions = [answer.decision for answer in answers]
    if signature.problem == "binary":
        made["decision"] = Tensor("decision", "BOOL", (count,), np.array(decisions, np.bool_))
    elif signature.problem == "multiclass":
        made["decision"] = Tensor("decision", BYTES, (count,), [str(one) for one in decisions])
    for name in wanted:
        if name not in made:
            raise Invalid(f"there is no output {name!r}", todo=f"outputs are {', '.join(made)}")
    return tuple(made[name] for name in wanted) if wanted else tuple(made.values())


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
