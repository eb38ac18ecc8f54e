"""The scorer: rows in, answers out. Training, the gate, batch jobs and the endpoint all score through this class."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.calibration import calibrate
from lakeloop.lakehouse.scoring.columns import Column, ColumnReader
from lakeloop.lakehouse.scoring.derivation import Derive, derive_columns, read_derived
from lakeloop.lakehouse.scoring.matrix import Encoder, Matrix
from lakeloop.lakehouse.scoring.rows import Fault, RowReader, read_moment
from lakeloop.lakehouse.scoring.signature import Signature, ViewUse

if TYPE_CHECKING:
    import pyarrow as pa

Decision: TypeAlias = bool | str | None
Ages: TypeAlias = dict[str, float | None]


class Lookup(Protocol):
    """Values of a feature view by key, as they were known at a moment. TTL and refresh are its business."""

    newest: datetime | None
    """When the youngest of all its values became visible."""

    def at(self, key: tuple[Any, ...], as_of: datetime) -> tuple[dict[str, Any] | None, datetime | None]:
        """Values by column (None: the key is unknown, or too old) and the event time they are from."""
        ...


class Predictor(Protocol):
    """The part of a learner that scoring needs."""

    def predict(self, model: Any, matrix: Matrix) -> NDArray[np.floating[Any]]:
        """Binary: P(positive) of shape (n,); multiclass: (n, classes); regression: (n,)."""
        ...


@dataclass(slots=True)  # not frozen: setting seven fields of a frozen one costs more than the answer's JSON
class Answer:
    """What one row got. `ages`: seconds from the event time of each view read to as_of; None if it had nothing.

    `absent` names the features that were looked up and came out null. `inputs` is what the model saw, typed, by name;
    one that is not there is null.
    """

    id: str | None
    as_of: datetime
    prediction: float | list[float]
    decision: Decision
    ages: Ages = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Prepared:
    """Rows that lack only the model's word: read, checked, looked up and derived."""

    rows: Sequence[Mapping[str, Any]]
    values: list[dict[str, Any]]
    moments: list[datetime]
    ages: list[Ages]
    absent: list[list[str]]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class ColumnAnswers:
    """What a request of columns got; `inputs` is what the model saw, typed, by name: null in every row if not there."""

    predictions: NDArray[np.float64]
    decisions: list[Decision]
    inputs: Mapping[str, Any]


class Scorer:
    """A model with all that is needed to answer a row. Holds no state that an answer changes: threads may share it."""

    def __init__(
        self,
        signature: Signature,
        learner: Predictor,
        model: Any,
        derive: Derive | None,
        lookups: Mapping[str, Lookup],
        version: int,
    ) -> None:
        self.signature, self.learner, self.model, self.version = signature, learner, model, version
        self.lookups, self.derive = lookups, derive if signature.derive else None
        self._reader, self._encoder = RowReader(signature), Encoder(signature.inputs)
        self._columns = ColumnReader(signature, self._reader)
        self._derived = signature.named("derived")
        self._stored = frozenset(one.name for one in signature.inputs if one.role != "request")
        wanted = {one.name for one in signature.named("feature")}
        self._uses = [_Use(use, [(c, n) for c, n in use.columns if n in wanted]) for use in signature.views]

    def answer(
        self, rows: Sequence[Mapping[str, Any]], now: datetime, marks: list[float] | None = None
    ) -> list[Answer]:
        """Answers in the order of the rows, or one Invalid for all that is wrong with them. `marks` gets the moments,
        by `perf_counter`, at which all rows were checked, and were looked up and derived.

        A row is flat: the request's inputs, optional `id` and `as_of` (default: now). A feature or derived input that
        the row gives wins; what it does not give is looked up as of `as_of`, or derived.
        """
        return self.finish([self.prepare(rows, now, marks)])[0]

    def prepare(self, rows: Sequence[Mapping[str, Any]], now: datetime, marks: list[float] | None = None) -> Prepared:
        """All of `answer` that comes before the model. Invalid as there."""
        typed = self._reader.check(rows)
        checked = perf_counter()
        moments, ages, absent = [], [], []
        for place, (row, values) in enumerate(zip(rows, typed, strict=True)):
            given = row.get("as_of")
            as_of = now if given is None else _moment(given, place)
            found_ages, found_absent = self._look_up(values, as_of, place)
            if self.derive is not None and not all(one.name in values for one in self._derived):
                self._derive(values, as_of, place)
            moments.append(as_of)
            ages.append(found_ages)
            absent.append(found_absent)
        if marks is not None:
            marks += (checked, perf_counter())
        return Prepared(rows, typed, moments, ages, absent)

    def finish(self, requests: Sequence[Prepared]) -> list[list[Answer]]:
        """The answers of each request, with one call of the model for all of them."""
        typed = requests[0].values if len(requests) == 1 else [one for asked in requests for one in asked.values]
        predictions = self.predict(self._encoder.of_rows(typed))
        decisions = self.decide(predictions)
        answers, at = [], 0
        for asked in requests:
            end = at + len(asked)
            answers.append(self._answers(asked, predictions[at:end], decisions[at:end]))
            at = end
        return answers

    def _answers(
        self, asked: Prepared, predictions: NDArray[np.float64], decisions: Sequence[Decision]
    ) -> list[Answer]:
        moments, ages, absent, values = asked.moments, asked.ages, asked.absent, asked.values
        plain = predictions.tolist()
        return [
            Answer(_id(row), moments[i], plain[i], decisions[i], ages[i], absent[i], values[i])
            for i, row in enumerate(asked.rows)
        ]

    def takes_columns(self, names: Collection[str]) -> bool:
        """Whether a request that gives these inputs leaves nothing to look up or to derive."""
        return self._stored <= set(names)

    def answer_columns(
        self, columns: Mapping[str, Column], count: int, marks: list[float] | None = None
    ) -> ColumnAnswers:
        """Answers to `count` rows given as columns, with no object per row. Only where `takes_columns`.

        Invalid as `answer`.
        """
        read = self._columns.read(columns, count)
        if marks is not None:
            marks += [perf_counter()] * 2
        predictions = self.predict(read.matrix)
        return ColumnAnswers(predictions, self.decide(predictions), read.values)

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Calibrated predictions: (n,) or (n, classes)."""
        if not len(matrix):
            return np.zeros((0, len(self.signature.classes)) if self.signature.problem == "multiclass" else 0)
        # contiguous: a learner may give a column of its own array, which nothing writes as JSON
        raw = np.ascontiguousarray(self.learner.predict(self.model, matrix), dtype=np.float64)
        return calibrate(self.signature.calibration, raw)

    def decide(self, predictions: NDArray[np.float64]) -> list[Decision]:
        """Binary: whether the threshold is reached; multiclass: the likeliest class; regression: None."""
        match self.signature.problem:
            case "binary":
                return list((predictions >= self.signature.threshold).tolist())
            case "multiclass":
                return [self.signature.classes[i] for i in np.argmax(predictions, axis=1)] if len(predictions) else []
            case "regression":
                return [None] * len(predictions)

    def predict_table(self, table: pa.Table) -> NDArray[np.float64]:
        """Predictions for a table that has the request's inputs and the features as columns.

        Derived inputs that the table lacks are derived (from its `as_of`, if it has one). Values are taken as they are:
        ranges are a matter of the data's checks.
        """
        return self.predict(self._encoder.of_table(self.with_derived(table)))

    def with_derived(self, table: pa.Table) -> pa.Table:
        """The table with every derived input that it lacks."""
        if self.derive is None or all(one.name in table.column_names for one in self._derived):
            return table
        return derive_columns(self.derive, self.signature, table)

    def _look_up(self, values: dict[str, Any], as_of: datetime, place: int) -> tuple[Ages, list[str]]:
        ages: Ages = {}
        absent: list[str] = []
        for use in self._uses:
            if use.names <= values.keys():
                continue
            key = tuple(values.get(column) for column in use.key)
            lookup = self.lookups.get(use.view)
            found, event_time = lookup.at(key, as_of) if lookup is not None else (None, None)
            if found is None and self.signature.absent == "error":
                told = ", ".join(f"{column} = {value!r}" for column, value in zip(use.key, key, strict=True))
                what = f"row {place}: {use.view} knows nothing of {told or 'this moment'}"
                raise Invalid(what, todo="send its features in the row")
            ages[use.label] = (as_of - event_time).total_seconds() if event_time is not None else None
            for column, name in use.columns:
                if name not in values:
                    value = found.get(column) if found else None
                    values[name] = read_moment(value) if isinstance(value, datetime) else value
                    if value is None:
                        absent.append(name)
        return ages, absent

    def _derive(self, values: dict[str, Any], as_of: datetime, place: int) -> None:
        assert self.derive is not None
        try:
            made = read_derived(self.derive, {**values, "as_of": as_of}, self._derived)
        except Fault as fault:
            raise Invalid(f"row {place}: {fault}") from fault.__cause__
        for name, value in made.items():
            values.setdefault(name, value)


class _Use:
    """A view's use, laid out for one row at a time."""

    __slots__ = ("columns", "key", "label", "names", "view")

    def __init__(self, use: ViewUse, columns: Sequence[tuple[str, str]]) -> None:
        self.label, self.view = use.label, use.view
        self.key = tuple(column for _, column in use.key)
        self.columns = tuple(columns)
        self.names = frozenset(name for _, name in columns)


def _id(row: Mapping[str, Any]) -> str | None:
    given = row.get("id")
    return None if given is None else str(given)


def _moment(given: Any, place: int) -> datetime:
    try:
        return read_moment(given)
    except Fault as fault:
        raise Invalid(f"row {place}: as_of: {fault}") from None
