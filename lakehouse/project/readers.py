"""The vocabulary that the tables of keys are written in: what a value may be, and how it becomes a Python value.

A reader takes a TOML value and the place it stands at. It returns the value, or notes a problem there and returns BAD;
it never raises for what a user wrote, so one pass finds every problem. `Section` reads a table of known keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Protocol

from lakeloop.lakehouse.project.documents import Document, did_you_mean, show
from lakeloop.lakehouse.project.not_yet import refusal
from lakeloop.lakehouse.project.positions import Path
from lakeloop.lakehouse.project.units import parse_duration, parse_size, parse_type

BAD: Final = object()
NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
COLUMN: Final = re.compile(r"[^\W_][^\s,;{}()=\"\[\]<>]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: its document and path, and the path as `not_yet` spells it (names as `*`)."""

    document: Document
    path: Path
    pattern: str
    shorthand: str = ""  # the one key whose value stands for its whole table

    def key(self, key: str) -> Place:
        """A known key of the table that stands here."""
        path = self.path if key == self.shorthand else (*self.path, key)
        return Place(self.document, path, f"{self.pattern}.{key}")

    def entry(self, name: str | int) -> Place:
        """An element of a list, or a table's key that the user named."""
        return Place(self.document, (*self.path, name), self.pattern if isinstance(name, int) else f"{self.pattern}.*")

    def problem(self, what: str) -> Any:
        """Note a problem here; gives BAD, to be returned."""
        self.document.problem(self.path, what)
        return BAD


class Reader(Protocol):
    """One kind of value."""

    def read(self, value: Any, at: Place) -> Any:
        """The value, or BAD with the problem noted."""

    def schema(self) -> dict[str, Any]:
        """What editors are told about it, as JSON Schema."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string; `filled`: not an empty one; `like`: must match this pattern wholly, described by `expected`."""

    filled: bool = False
    like: re.Pattern[str] | None = None
    expected: str = "text in quotes"

    def read(self, value: Any, at: Place) -> Any:
        if not isinstance(value, str):
            return at.problem(f"{show(value)} is not {self.expected}")
        if self.filled and not value.strip():
            return at.problem("is empty; say what it is")
        if self.like is not None and not self.like.fullmatch(value):
            return at.problem(f"{show(value)} is not {self.expected}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string"} | ({"pattern": f"^{self.like.pattern}$"} if self.like else {})


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: Any, at: Place) -> Any:
        return value if isinstance(value, bool) else at.problem(f"{show(value)} is not true or false")

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`, both included; whole numbers only when `whole`; more than `low` when `above`."""

    low: float | None = None
    high: float | None = None
    whole: bool = False
    above: bool = False

    def read(self, value: Any, at: Place) -> Any:
        kinds = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not _is_plain(value):
            return at.problem(f"{show(value)} is not a {'whole ' if self.whole else ''}number")
        low_broken = self.low is not None and (value <= self.low if self.above else value < self.low)
        if low_broken or (self.high is not None and value > self.high):
            return at.problem(f"{show(value)} is not {self.span()}")
        return value

    def span(self) -> str:
        """The allowed numbers, in words."""
        least = f"more than {self.low:g}" if self.above else f"at least {self.low:g}" if self.low is not None else ""
        most = f"at most {self.high:g}" if self.high is not None else ""
        return " and ".join(part for part in (least, most) if part)

    def schema(self) -> dict[str, Any]:
        bounds: dict[str, Any] = {"type": "integer" if self.whole else "number"}
        if self.low is not None:
            bounds["exclusiveMinimum" if self.above else "minimum"] = self.low
        return bounds | ({"maximum": self.high} if self.high is not None else {})


def _is_plain(value: float) -> bool:
    """Neither infinite nor nan, and small enough that JSON and a double hold it exactly."""
    return -(2**53) <= value <= 2**53


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: Any, at: Place) -> Any:
        if isinstance(value, str) and value in self.words:
            return value
        near = did_you_mean(value, self.words) if isinstance(value, str) else ""
        hint = near if "did you mean" in near else "; one of: " + ", ".join(self.words)
        return at.problem(f"{show(value)} is not one of its values{hint}")

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A string that a parser turns into a value, its ValueError being a problem. `or_empty`: "" is None."""

    parse: Callable[[str], Any]
    expected: str
    or_empty: bool = False

    def read(self, value: Any, at: Place) -> Any:
        if self.or_empty and value == "":
            return None
        if not isinstance(value, str):
            return at.problem(f"{show(value)} is not {self.expected}")
        try:
            return self.parse(value)
        except ValueError:
            return at.problem(f"{show(value)} is not {self.expected}")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "description": self.expected}


def duration(*, or_empty: bool = False, positive: bool = False) -> Parsed:
    """A duration, as a timedelta; `positive` refuses 0s."""
    if positive:
        return Parsed(_positive_duration, 'a duration above 0; write "15m", "3h" or "7d"', or_empty)
    return Parsed(parse_duration, 'a duration; write "15m", "3h" or "7d"', or_empty)


def _positive_duration(text: str) -> timedelta:
    found = parse_duration(text)
    if not found:
        raise ValueError(text)
    return found


def size(*, positive: bool = False) -> Parsed:
    """A size, as bytes; "" is None, unless it must be `positive`."""
    if positive:
        return Parsed(_positive_size, 'a size above 0; write "512MiB" or "2GiB"')
    return Parsed(parse_size, 'a size; write "512MiB" or "2GiB"', or_empty=True)


def _positive_size(text: str) -> int:
    found = parse_size(text)
    if not found:
        raise ValueError(text)
    return found


def declared_type() -> Parsed:
    """A column type, as (Type, nullable)."""
    names = "bool, int8…int64, uint8…, float32, float64, decimal(p,s), string, date, timestamp, json or list<…>"
    return Parsed(parse_type, f'a type; one of {names}, with "?" if it may be null')


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list, as a tuple; `distinct` refuses an element that comes twice; `exactly` is the length when it is fixed."""

    item: Reader
    distinct: bool = False
    exactly: int | None = None
    filled: bool = False

    def read(self, value: Any, at: Place) -> Any:
        if not isinstance(value, list):
            return at.problem(f"{show(value)} is not a list; write [{show(value)}]")
        if self.exactly is not None and len(value) != self.exactly:
            return at.problem(f"{show(value)} has {len(value)} elements, not {self.exactly}")
        if self.filled and not value:
            return at.problem("is empty; give at least one")
        found = [self.item.read(element, at.entry(i)) for i, element in enumerate(value)]
        if any(element is BAD for element in found):
            return BAD
        if self.distinct and (twice := [v for i, v in enumerate(value) if v in value[:i]]):
            return at.problem(f"{show(twice[0])} is there twice")
        return tuple(found)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema()} | ({"uniqueItems": True} if self.distinct else {})


@dataclass(frozen=True, slots=True)
class Either:
    """The first case whose Python type fits decides; `expected` names them all."""

    cases: tuple[tuple[tuple[type, ...], Reader], ...]
    expected: str

    def read(self, value: Any, at: Place) -> Any:
        for kinds, reader in self.cases:
            if isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds):
                return reader.read(value, at)
        return at.problem(f"{show(value)} is not {self.expected}")

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [reader.schema() for _, reader in self.cases]}


@dataclass(frozen=True, slots=True)
class Scalar:
    """Any single value: true, 3, 0.5 or "text"."""

    def read(self, value: Any, at: Place) -> Any:
        if isinstance(value, str) or (isinstance(value, (int, float)) and _is_plain(value)):
            return value
        return at.problem(f"{show(value)} is not a single value")

    def schema(self) -> dict[str, Any]:
        return {"type": ["boolean", "number", "string"]}


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a section. `attr` is the attribute it fills: its own name by default; None is checked and left out."""

    reader: Reader
    required: bool = False
    attr: str | None = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A table of known keys. `build` gets those that were given, so defaults are its own."""

    build: Callable[..., Any]
    keys: Mapping[str, Key]

    def read(self, value: Any, at: Place, **given: Any) -> Any:
        """BAD only after every key has been looked at. `given` are further arguments of build, such as a name."""
        if not isinstance(value, Mapping):
            return at.problem(f"{show(value)} is not a table; write {{ … }} with keys of: {', '.join(self.keys)}")
        found: dict[str, Any] = {}
        sound = self.required_are_given(value, at)
        for name, element in value.items():
            key = self.keys.get(name)
            if key is None:
                at.key(name).problem("unknown key" + did_you_mean(name, list(self.keys)))
                sound = False
                continue
            read = key.reader.read(element, at.key(name))
            if read is not BAD and (refused := refusal(at.key(name).pattern, element)):
                read = at.key(name).problem(refused)
            sound = sound and read is not BAD
            if key.attr is not None:
                found[key.attr or name] = read
        return self.build(**found, **given) if sound else BAD

    def required_are_given(self, value: Mapping[str, Any], at: Place) -> bool:
        """Note each required key that is missing, where its table stands."""
        missing = [name for name, key in self.keys.items() if key.required and name not in value]
        for name in missing:
            at.key(name).problem("is required and not given")
        return not missing

    def schema(self) -> dict[str, Any]:
        required = [name for name, key in self.keys.items() if key.required]
        properties = {name: key.reader.schema() for name, key in self.keys.items()}
        return {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }


@dataclass(frozen=True, slots=True)
class Shorthand:
    """A table, or the value of its one most used key standing for it: "int16?" for { type = "int16?" }."""

    section: Section
    key: str

    def read(self, value: Any, at: Place, **given: Any) -> Any:
        if isinstance(value, Mapping):
            return self.section.read(value, at, **given)
        return self.section.read({self.key: value}, replace(at, shorthand=self.key), **given)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self.section.keys[self.key].reader.schema(), self.section.schema()]}


class Entry(Protocol):
    """The reader of one entry of a table whose keys the user chose."""

    def read(self, value: Any, at: Place, *, name: str) -> Any:
        """The value, or BAD with the problem noted."""

    def schema(self) -> dict[str, Any]:
        """As of a Reader."""


@dataclass(frozen=True, slots=True)
class Named:
    """A table whose keys the user chose: each entry is read with its name. `like` is what a name may be."""

    entry: Entry
    like: re.Pattern[str] = field(default=NAME)
    expected: str = "a name: small letters, digits and _, a letter first"

    def read(self, value: Any, at: Place) -> Any:
        if not isinstance(value, Mapping):
            return at.problem(f"{show(value)} is not a table of names")
        found: dict[str, Any] = {}
        for name, element in value.items():
            place = at.entry(name)
            good = self.like.fullmatch(name) is not None
            if not good:
                place.problem(f"{show(name)} is not {self.expected}")
            if any(name != other and name.lower() == other.lower() for other in found):
                place.problem("is there twice: SQL does not tell small letters from capitals")
                good = False
            read = self.entry.read(element, place, name=name)
            found[name] = read if good else BAD
        return BAD if any(read is BAD for read in found.values()) else found

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.entry.schema()}
