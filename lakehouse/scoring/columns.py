"""Reads a caller's columns against a signature: the contract of rows.py, a column at a time.

A column is a numpy array of numbers or bools, or a list of texts or bytes (UTF-8). NaN and None are null. What a row
reader accepts or refuses, these accept or refuse, in its words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.matrix import Floats, Matrix, category_text, finite
from lakeloop.lakehouse.scoring.rows import SHOWN, Fault, RowReader, bounds, read_moment
from lakeloop.lakehouse.scoring.signature import Input, Signature

Column: TypeAlias = "NDArray[Any] | Sequence[str | bytes | None]"
Mask: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True, slots=True)
class Typed:
    """A column as it was understood: its values, its numbers in the matrix, and which rows break the contract."""

    values: Any
    codes: NDArray[Any] | None = None
    wrong: Mask | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Typed columns by input (one that is not there is null in every row), and the matrix of them."""

    values: Mapping[str, Any]
    matrix: Matrix


Read: TypeAlias = Callable[[Column], Typed]


class ColumnReader:
    """Typed columns of the inputs that a request gives. One per signature; keeps no state between requests."""

    def __init__(self, signature: Signature, rows: RowReader) -> None:
        self._rows = rows
        self._readers: dict[str, Read] = {one.name: _reader(one) for one in signature.inputs}
        self._inputs = signature.inputs
        self._places = {one.name: place for place, one in enumerate(signature.columns)}
        self._names = tuple(self._places)
        self._categories = {one.name: one.categories for one in signature.columns if one.kind == "category"}

    def read(self, columns: Mapping[str, Column], count: int) -> Columns:
        """The columns of `count` rows each, defaults filled in; Invalid for all that is wrong with them."""
        strange = [name for name in columns if name not in self._readers]
        faults = [self._rows.unknown(name) for name in strange[:SHOWN]]
        more = [f"… and {len(strange) - SHOWN} more"] if len(strange) > SHOWN else []
        typed: dict[str, Typed] = {}
        for one in self._inputs:
            given = columns.get(one.name)
            if given is not None:
                typed[one.name] = self._readers[one.name](given)
            elif one.default is not None:
                typed[one.name] = self._readers[one.name](_constant(one.default, count))
            elif one.role == "request" and not one.nullable:
                faults.append(f"{one.name} is missing")
        if faults:
            raise Invalid(faults[0], problems=faults[1:] + more)
        self._refuse(typed, columns)
        values = {name: column.values for name, column in typed.items()}
        return Columns(values, Matrix(self._names, self._encode(typed, count), self._categories))

    def _encode(self, typed: Mapping[str, Typed], count: int) -> Floats:
        matrix = np.full((count, len(self._places)), np.nan, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for name, place in self._places.items():
                column = typed.get(name)
                if column is not None:
                    matrix[:, place] = column.codes
        return finite(matrix)

    def _refuse(self, typed: Mapping[str, Typed], columns: Mapping[str, Column]) -> None:
        wrong = [(name, one.wrong) for name, one in typed.items() if one.wrong is not None and one.wrong.any()]
        if not wrong:
            return
        places = [(int(place), name) for name, mask in wrong for place in np.flatnonzero(mask)[:SHOWN]]
        total = sum(int(mask.sum()) for _, mask in wrong)
        faults = [self._fault(place, name, columns) for place, name in sorted(places)[:SHOWN]]
        more = [f"… and {total - SHOWN} more"] if total > SHOWN else []
        raise Invalid(faults[0], problems=faults[1:] + more)

    def _fault(self, place: int, name: str, columns: Mapping[str, Column]) -> str:
        value = plain(columns[name][place])
        if value is None:
            return f"row {place}: {name} may not be null"
        return f"row {place}: {self._rows.fault(name, value) or f'{name}: {value!r} is not allowed'}"


def plain(value: Any) -> Any:
    """A column's value as JSON would have given it; of bytes that are no UTF-8, what there is to be shown."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.generic):
        value = value.item()
    return None if value != value else value


def _constant(value: Any, count: int) -> Column:
    return [value] * count if isinstance(value, str) else np.full(count, value)


def _reader(one: Input) -> Read:
    match one.kind:
        case "category":
            read = _category(one)
        case "string":
            read = _string(one)
        case "bool":
            read = _bool
        case "timestamp":
            read = _timestamp
        case "number":
            read = _number(one)
        case "integer":
            read = _integer(one)
    return _never_null(read) if one.role == "request" and not one.nullable else read


def _never_null(read: Read) -> Read:
    def strict(column: Column) -> Typed:
        typed = read(column)
        return Typed(typed.values, typed.codes, _either(typed.wrong, _null(column)))

    return strict


def _null(column: Column) -> Mask | None:
    if not isinstance(column, np.ndarray):
        return np.array([value is None for value in column], np.bool_) if None in column else None
    return np.isnan(column) if column.dtype.kind == "f" else None


def _either(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return other if one is None else one
    return one | other


def _of_another_type(column: Column) -> Typed:
    """Every value is wrong that is not null."""
    null = _null(column)
    wrong = np.ones(len(column), np.bool_) if null is None else ~null
    return Typed([None] * len(column), np.full(len(column), np.nan), wrong)


def _number(one: Input) -> Read:
    low, high = one.range or (-math.inf, math.inf)
    allowed = np.array(one.values, np.float64) if one.values else None

    def read(column: Column) -> Typed:
        if not isinstance(column, np.ndarray) or column.dtype.kind == "b":
            return _of_another_type(column)
        numbers = column.astype(np.float64, copy=False)
        wrong: Mask | None = None
        if one.range is not None:
            wrong = (numbers < low) | (numbers > high)
        if allowed is not None:
            wrong = _either(wrong, ~np.isin(numbers, allowed) & ~np.isnan(numbers))
        return Typed(column, numbers, wrong)

    return read


def _integer(one: Input) -> Read:
    low, high = bounds(one.type)
    if one.range is not None:
        low, high = math.ceil(max(one.range[0], -(2**64))), math.floor(min(one.range[1], 2**64))
    allowed = np.array(one.values) if one.values else None

    def read(column: Column) -> Typed:
        if not isinstance(column, np.ndarray) or column.dtype.kind == "b":
            return _of_another_type(column)
        if column.dtype.kind == "f":
            column = column.astype(np.float64, copy=False)
            fraction = ~np.isfinite(column) | (column != np.floor(column))
            wrong = (fraction | (column < low) | (column >= float(high + 1))) & ~np.isnan(column)
        else:
            wrong = (column < low) | (column > high)
        if allowed is not None:
            wrong |= ~np.isin(column, allowed) & ~np.isnan(column)
        return Typed(column, column, wrong)

    return read


def _bool(column: Column) -> Typed:
    if not isinstance(column, np.ndarray):
        return _of_another_type(column)
    if column.dtype.kind == "b":
        return Typed(column, column)
    null = np.isnan(column)
    wrong = (column != 0) & (column != 1) & ~null
    values = [None if value != value else bool(value) for value in column.tolist()]
    return Typed(values, column, wrong)


def _category(one: Input) -> Read:
    codes = {text: float(code) for code, text in enumerate(one.categories)}
    known = {text.encode(): text for text in one.categories}
    allowed = frozenset(category_text(value) for value in one.values)
    strict = one.unseen == "error"

    def read(column: Column) -> Typed:
        if isinstance(column, np.ndarray):
            values, wrong = _spelt(column)
        else:
            values, wrong = decoded(column, known), None
        coded = np.array([codes.get(value, math.nan) for value in values], np.float64)  # type: ignore[arg-type]
        if allowed:
            wrong = _either(wrong, _mask(values, lambda value: value not in allowed))
        if strict:
            wrong = _either(wrong, _mask(values, lambda value: value not in codes))
        return Typed(values, coded, wrong)

    return read


def _mask(values: Sequence[Any], wrong: Callable[[Any], bool]) -> Mask:
    return np.array([value is not None and wrong(value) for value in values], np.bool_)


def _spelt(column: NDArray[Any]) -> tuple[list[str | None], Mask | None]:
    """Numbers as texts of categories; wrong where one has a fraction."""
    different, inverse = np.unique(column, return_inverse=True)
    spelt = [None if value != value else category_text(value) for value in different.tolist()]
    places = inverse.reshape(-1)
    wrong = None
    if column.dtype.kind == "f":
        wrong = (~np.isfinite(column) | (column != np.floor(column))) & ~np.isnan(column)
    return [spelt[place] for place in places.tolist()], wrong


def _string(one: Input) -> Read:
    allowed = frozenset(str(value) for value in one.values)

    def read(column: Column) -> Typed:
        if isinstance(column, np.ndarray):
            return _of_another_type(column)
        values = decoded(column, {})
        return Typed(values, None, _mask(values, lambda value: value not in allowed) if allowed else None)

    return read


def _timestamp(column: Column) -> Typed:
    values: list[Any] = []
    wrong = np.zeros(len(column), np.bool_)
    for place, value in enumerate(column.tolist() if isinstance(column, np.ndarray) else decoded(column, {})):
        try:
            values.append(None if value is None or value != value else read_moment(value))
        except Fault:
            values.append(None)
            wrong[place] = True
    return Typed(values, None, wrong)


def decoded(column: Sequence[str | bytes | None], known: Mapping[bytes, str]) -> list[str | None]:
    """Texts of a column; Invalid for bytes that are not UTF-8. `known` saves decoding what comes often."""
    get = known.get
    try:
        return [(get(value) or value.decode()) if isinstance(value, bytes) else value for value in column]
    except UnicodeDecodeError as error:
        raise Invalid(f"a text is not UTF-8 ({error.reason}: {error.object[:20]!r})", todo="send UTF-8") from error
