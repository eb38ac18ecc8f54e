"""Reads a caller's row against a signature: typed values out, or every fault of it in words a caller can act on."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.matrix import category_text
from lakeloop.lakehouse.scoring.signature import Input, Signature

RESERVED = ("id", "as_of")
SHOWN = 20
SHOWN_CHARACTERS = 200
"""Of a name: to look for one like it takes longer the longer it is."""
EPOCH_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
INT_BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64, "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}

Reader: TypeAlias = Callable[[Any], Any]


class Fault(ValueError):
    """One value that breaks its input's contract."""


def read_moment(value: Any) -> datetime:
    """A UTC time from an ISO 8601 text (UTC when it names no zone), a datetime, or seconds since 1970.

    A number of 1e11 or more is milliseconds, of 1e14 microseconds, of 1e17 nanoseconds (1e11 seconds is the year 5138).
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise Fault(f"{_name_of(value)} is no time; send 2013-07-01T12:30:00Z or seconds since 1970") from None
    if isinstance(value, datetime):
        if value.tzinfo is UTC:
            return value
        try:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except OverflowError:
            raise Fault(f"{value.isoformat()} is no time in UTC between the years 1 and 9999") from None
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if number and math.isfinite(seconds := float(value)):
        unit = next((unit for least, unit in EPOCH_UNITS if abs(seconds) >= least), 1.0)
        try:
            return datetime.fromtimestamp(seconds / unit, UTC)
        except (ValueError, OverflowError, OSError):
            raise Fault(f"{value!r} seconds since 1970 is no time") from None
    raise Fault(f"{_name_of(value)} is no time; send 2013-07-01T12:30:00Z or seconds since 1970")


class RowReader:
    """Typed values of the inputs that a row gives. One per signature; keeps no state between rows."""

    def __init__(self, signature: Signature) -> None:
        self._readers = {one.name: _reader(one) for one in signature.inputs}
        self._request = [
            (one.name, one.default, _value_reader(one) if one.nullable else self._readers[one.name])
            for one in signature.named("request")
        ]
        self._required = {one.name for one in signature.named("request") if one.default is None and not one.nullable}
        self._others = {one.name for one in signature.inputs if one.role != "request"}
        self._known = {*self._readers, *RESERVED}

    def read(self, row: Mapping[str, Any], place: int) -> dict[str, Any]:
        """The request's inputs (defaults filled in, null where it may be) and what else the row gives, or Invalid."""
        values: dict[str, Any] = {}
        try:
            for name, default, reader in self._request:
                value = row.get(name, default)
                values[name] = reader(value) if value is not None or name in self._required else None
            if len(row) > len(values) or not row.keys() <= values.keys():
                for name in row.keys() - values.keys():
                    if name in self._others:
                        values[name] = self._readers[name](row[name])
                    elif name not in RESERVED:
                        raise Fault(name)
        except Fault:
            raise self._explain([row], place) from None
        return values

    def check(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """`read` of every row; one Invalid that tells the faults of all of them."""
        if not all(type(row) is dict or isinstance(row, Mapping) for row in rows):
            raise self._explain(rows, 0)
        try:
            return [self.read(row, place) for place, row in enumerate(rows)]
        except Invalid:
            raise self._explain(rows, 0) from None

    def _explain(self, rows: Sequence[Mapping[str, Any]], first: int) -> Invalid:
        told: list[str] = []
        total = 0
        for place, row in enumerate(rows, first):
            faults = self._faults(row, SHOWN - len(told))
            total += len(faults)
            told += [f"row {place}: {fault}" for fault in faults[: SHOWN - len(told)]]
        more = [f"… and {total - SHOWN} more"] if total > SHOWN else []
        return Invalid(told[0], problems=told[1:] + more)

    def _faults(self, row: Any, told: int) -> list[str]:
        """All that is wrong with a row; of names that are not there, so many are looked up, for that takes its time."""
        if not isinstance(row, Mapping):
            return [f"{type(row).__name__} is no row; send an object with a value per input"]
        strange = [str(name) for name in row if name not in self._known]
        faults = [*map(self.unknown, strange[:told]), *strange[told:]]
        for name, reader in self._readers.items():
            if name in row or name in self._required:
                default = next((value for asked, value, _ in self._request if asked == name), None)
                value = row.get(name, default)
                if value is None and name in self._required:
                    faults.append(f"{name} is missing" if name not in row else f"{name} may not be null")
                elif value is not None:
                    faults.extend(_fault_of(name, reader, value))
        return faults

    def fault(self, name: str, value: Any) -> str:
        """What is wrong with a value of an input; nothing when it may be so."""
        return next(iter(_fault_of(name, self._readers[name], value)), "")

    def unknown(self, name: str) -> str:
        """What to tell who names an input that is not there."""
        name = name[:SHOWN_CHARACTERS]
        near = difflib.get_close_matches(name, sorted(self._known), n=1)
        wanted = f"did you mean {near[0]!r}?" if near else f"inputs are {', '.join(n for n, _, _ in self._request)}"
        return f"there is no input {name!r}; {wanted}"


def _fault_of(name: str, reader: Reader, value: Any) -> list[str]:
    try:
        reader(value)
    except Fault as fault:
        return [f"{name}: {fault}"]
    return []


def _value_reader(one: Input) -> Reader:
    """Reads what is not null."""
    match one.kind:
        case "category":
            return _category(one)
        case "string":
            return _string(one)
        case "bool":
            return _bool
        case "timestamp":
            return read_moment
        case "number":
            return _number(one)
        case "integer":
            return _integer(one)


def _reader(one: Input) -> Reader:
    reader = _value_reader(one)
    if one.role == "request" and not one.nullable:
        return _never_null(reader)
    return lambda value: None if value is None else reader(value)


def _never_null(reader: Reader) -> Reader:
    def read(value: Any) -> Any:
        read_value = None if value is None else reader(value)
        if read_value is None:
            raise Fault("null is not allowed")
        return read_value

    return read


def _category(one: Input) -> Reader:
    values = frozenset(category_text(value) for value in one.values)
    known = frozenset(one.categories)
    strict = one.unseen == "error"
    allowed, seen = _some(values), _some(known)

    def read(value: Any) -> str | None:
        if type(value) is not str:
            if isinstance(value, (float, np.floating)) and not float(value).is_integer():
                if value != value:
                    return None
                raise Fault(f"{value!r} is no category; send text or a whole number")
            if not isinstance(value, (str, bool, int, float, np.integer, np.bool_)):
                raise Fault(f"{_name_of(value)} is no category; send text")
            value = category_text(value)
        if values and value not in values:
            raise Fault(f"{_name_of(value)} is not one of {allowed}")
        if strict and value not in known:
            raise Fault(f"{_name_of(value)} was never seen in training; known are {seen}")
        return str(value)

    return read


def _string(one: Input) -> Reader:
    values = frozenset(str(value) for value in one.values)
    allowed = _some(values)

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise Fault(f"{_name_of(value)} is no text")
        if values and value not in values:
            raise Fault(f"{_name_of(value)} is not one of {allowed}")
        return value

    return read


def _bool(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, float, np.integer)) and value in (0, 1):
        return bool(value)
    raise Fault(f"{_name_of(value)} is no bool; send true or false")


def _number(one: Input) -> Reader:
    low, high = one.range or (-math.inf, math.inf)
    values = frozenset(one.values)
    allowed = _some(values)

    def read(value: Any) -> float | None:
        if type(value) is not float:
            if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
                raise Fault(f"{_name_of(value)} is no number")
            value = float(value)
        if low <= value <= high:
            if values and value not in values:
                raise Fault(f"{value:g} is not one of {allowed}")
            return float(value)
        if value != value:
            return None
        raise Fault(f"{value:g} is out of range; allowed is {low:g} to {high:g}")

    return read


def _integer(one: Input) -> Reader:
    low, high = one.range or bounds(one.type)
    values = frozenset(one.values)
    allowed = _some(values)

    def read(value: Any) -> int | None:
        if type(value) is not int:
            if isinstance(value, (float, np.floating)):
                if value != value:
                    return None
                if not float(value).is_integer():
                    raise Fault(f"{value!r} is no whole number")
            elif isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
                raise Fault(f"{_name_of(value)} is no whole number")
            value = int(value)
        if not low <= value <= high:
            raise Fault(f"{value} is out of range; allowed is {int(low)} to {int(high)}")
        if values and value not in values:
            raise Fault(f"{value} is not one of {allowed}")
        return int(value)

    return read


def bounds(name: str) -> tuple[int, int]:
    """The least and the largest value of an integer type of FORMAT; of int64 for any other."""
    bits = INT_BITS.get(name, 64)
    return (0, 2**bits - 1) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _name_of(value: Any) -> str:
    match value:
        case str():
            text = repr(value[:41])
        case list() | dict():  # of a million values no more is spelt than is shown
            text = reprlib.repr(value)
        case _:
            text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…'"


def _some(values: frozenset[Any]) -> str:
    shown = sorted(map(str, values))
    return ", ".join(shown[:10]) + (f" … ({len(shown)})" if len(shown) > 10 else "")
