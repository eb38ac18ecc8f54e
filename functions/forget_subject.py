"""Who is to be forgotten, as the steps of `forget` need it: how to tell rows, and how to tell a value in free text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lakeloop.lakehouse.forgetting import Entity, Tombstones, text_of
from lakeloop.lakehouse.lake import Lake

BLOT = "[forgotten]"
SHORT = 6
"""A shorter value, or a plain number, is told in free text only beside its column's name."""
BEGINNING = 8
"""So many characters of a value, at the begin of a cut statistic, may be it."""


@dataclass(frozen=True, slots=True)
class Held:
    """One place that holds the entity, or held it: what kind of place, its name, and how many rows (or texts)."""

    kind: str
    name: str
    rows: int
    note: str = ""
    cannot: str = ""
    """Why it cannot be rewritten, and what to do."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One entity in one lake."""

    lake: Lake
    entity: Entity
    tombstones: Tombstones
    """Its own only, whether stored yet or not."""
    dry: bool
    """Only look."""
    fresh: bool = True
    """Whether writers may be at work that have not seen the tombstone."""

    @property
    def id(self) -> str:
        return self.tombstones.of(self.entity.values)

    @property
    def trace(self) -> Trace:
        return Trace(self.entity)


class Trace:
    """The values of an entity in texts and bytes that are no rows."""

    def __init__(self, entity: Entity) -> None:
        self._values = entity.values
        self._texts = [_pattern(name, text) for name, text in entity.values.items()]
        self._bytes = [re.compile(pattern.pattern.encode()) for pattern in self._texts]
        self._begins = [text[:BEGINNING] for text in entity.values.values()]

    def in_text(self, text: str) -> bool:
        return all(pattern.search(text) for pattern in self._texts)

    def in_bytes(self, data: bytes) -> bool:
        return all(pattern.search(data) for pattern in self._bytes)

    def may_begin(self, text: str) -> bool:
        """Whether a text that may be cut off holds the beginning of a value; a short one is not cut."""
        return self.in_text(text) or any(
            begin in text if len(begin) == BEGINNING else begin == text for begin in self._begins
        )

    def is_value(self, name: str, value: Any) -> bool:
        return name in self._values and text_of(value) == self._values[name]

    def blotted(self, value: Any) -> Any:
        """A JSON value with the entity's values replaced; the very same where it holds none."""
        if isinstance(value, str):
            if not self.in_text(value):
                return value
            for pattern in self._texts:
                value = pattern.sub(lambda found: f"{found.group('before') or ''}{BLOT}", value)
            return value
        if isinstance(value, list):
            changed = [self.blotted(one) for one in value]
            return value if all(a is b for a, b in zip(changed, value, strict=True)) else changed
        if isinstance(value, dict):
            whole = all(self.is_value(name, value.get(name)) for name in self._values)
            new = {
                self.blotted(name): BLOT if whole and name in self._values else self.blotted(one)
                for name, one in value.items()
            }
            return value if list(new) == list(value) and all(new[name] is value[name] for name in value) else new
        return value


def _pattern(name: str, text: str) -> re.Pattern[str]:
    forms = "|".join(re.escape(form) for form in dict.fromkeys([text, json.dumps(text)[1:-1]]))
    told = len(text) >= SHORT and re.search(r"[^\W\d_]", text)
    if told:
        return re.compile(rf"(?P<before>)(?<![A-Za-z0-9])(?:{forms})(?![A-Za-z0-9])")
    return re.compile(
        rf"(?P<before>(?<![A-Za-z0-9_]){re.escape(name)}[^A-Za-z0-9_\-]{{1,6}})(?:{forms})(?![A-Za-z0-9_]|\.\d)"
    )


def total(found: Iterator[Held] | list[Held]) -> int:
    return sum(one.rows for one in found)
