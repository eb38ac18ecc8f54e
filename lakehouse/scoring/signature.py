"""The signature: all that must be known to turn a row into what a model sees, and its output into an answer.

It is learnt on the training part, stored as JSON next to the model, and applied the same way in training, in batch and
in the endpoint. Numbers, bools and categories are the columns of the model's matrix. Strings and timestamps, and
integers that are the key of a feature view, are carried along: derive() and lookups read them, the model does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from lakeloop.lakehouse.errors import Corrupt

Kind: TypeAlias = Literal["number", "integer", "bool", "category", "string", "timestamp"]
Role: TypeAlias = Literal["request", "feature", "derived"]
Scalar: TypeAlias = bool | int | float | str
FORMAT = 1


@dataclass(frozen=True, slots=True)
class NumberProfile:
    """What a number looked like: bin i holds x with edges[i-1] < x <= edges[i]; `counts` has one more than `edges`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    nulls: int = 0
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True, slots=True)
class CategoryProfile:
    """How often each value came; `other` is every value that is not named."""

    counts: Mapping[str, int]
    other: int = 0
    nulls: int = 0


Profile: TypeAlias = NumberProfile | CategoryProfile


@dataclass(frozen=True, slots=True)
class Input:
    """One named input. `column` says that it is a column of the matrix; `nullable` that a caller may send null.

    `categories` is the vocabulary: a category's code is its place in it. `values` and `range` (ends included) bound
    what a caller may send; `unseen` says what becomes of a category outside the vocabulary.
    """

    name: str
    role: Role
    type: str
    kind: Kind
    column: bool = True
    nullable: bool = True
    categories: tuple[str, ...] = ()
    unseen: Literal["null", "error"] = "null"
    range: tuple[float, float] | None = None
    values: tuple[Scalar, ...] = ()
    default: Scalar | None = None
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class ViewUse:
    """One use of a feature view. `key` pairs its entity columns with the request's; `columns` its columns with inputs.

    `label` names the use in answers: the view's name, with the prefix when a model uses one view twice.
    """

    label: str
    view: str
    version: str
    key: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A step-free monotone map through points: np.interp(p, x, y)."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """Platt's map of the log-odds: 1 / (1 + exp(-(a * logit(p) + b)))."""

    a: float
    b: float


Calibration: TypeAlias = Isotonic | Sigmoid


@dataclass(frozen=True, slots=True)
class Signature:
    """See the module. `classes` are labels as text in the order of the model's outputs; binary: (negative, positive).

    `views` may hold columns that no input names. `absent`: what happens when a key is unknown to the store. `example`
    is a real row as a caller would send it, features included. `prediction` profiles the predictions on the test
    part.
    """

    problem: Literal["binary", "multiclass", "regression"]
    inputs: tuple[Input, ...]
    views: tuple[ViewUse, ...] = ()
    classes: tuple[str, ...] = ()
    positive: str = ""
    threshold: float = 0.5
    calibration: Calibration | None = None
    absent: Literal["null", "error"] = "null"
    derive: bool = False
    example: Mapping[str, Any] = field(default_factory=dict)
    prediction: Profile | None = None

    @property
    def columns(self) -> tuple[Input, ...]:
        """The inputs that are columns of the matrix, in its order."""
        return tuple(one for one in self.inputs if one.column)

    def named(self, role: Role) -> tuple[Input, ...]:
        return tuple(one for one in self.inputs if one.role == role)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives an equal signature."""
        return {"format": FORMAT, **_plain(asdict(self))}

    def to_bytes(self) -> bytes:
        """The canonical text: equal signatures have equal bytes."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Signature:
        try:
            return Signature.from_json(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt(f"a signature cannot be read ({type(error).__name__}: {error})") from error

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Signature:
        """From `to_json`; Corrupt for a format of a later version."""
        fields = dict(body)
        if fields.pop("format", None) != FORMAT:
            raise Corrupt(f"a signature of format {body.get('format')!r}", todo="use a newer lakeloop to read it")
        fields["inputs"] = tuple(_input(one) for one in fields["inputs"])
        fields["views"] = tuple(_view(one) for one in fields["views"])
        fields["classes"] = tuple(fields["classes"])
        fields["calibration"] = _calibration(fields["calibration"])
        fields["prediction"] = _profile(fields["prediction"])
        return Signature(**fields)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _:
            return value


def _input(body: Mapping[str, Any]) -> Input:
    fields = dict(body)
    fields["categories"] = tuple(fields["categories"])
    fields["values"] = tuple(fields["values"])
    fields["range"] = tuple(fields["range"]) if fields["range"] else None
    fields["profile"] = _profile(fields["profile"])
    return Input(**fields)


def _view(body: Mapping[str, Any]) -> ViewUse:
    fields = dict(body)
    fields["key"] = tuple((entity, column) for entity, column in fields["key"])
    fields["columns"] = tuple((column, name) for column, name in fields["columns"])
    return ViewUse(**fields)


def _profile(body: Mapping[str, Any] | None) -> Profile | None:
    if body is None:
        return None
    if "edges" in body:
        return NumberProfile(**{**body, "edges": tuple(body["edges"]), "counts": tuple(body["counts"])})
    return CategoryProfile(**body)


def _calibration(body: Mapping[str, Any] | None) -> Calibration | None:
    if body is None:
        return None
    return Isotonic(tuple(body["x"]), tuple(body["y"])) if "x" in body else Sigmoid(**body)
