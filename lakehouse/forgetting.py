"""What is forgotten: tombstones that tell a forgotten entity's rows and do not hold its values.

A tombstone is the document `forgotten/<id>`; its id is the HMAC-SHA256 of the entity's columns and values under a key
of this lake (`_lake/forget.key`). Every writer that could bring rows back loads the tombstones after it opened the
table it writes to, and leaves out what they tell: either it saw the tombstone, or its commit meets the one that
`forget` makes, and is refused.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import islice, product
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import AlreadyExists, NotFound, Unknown
from lakeloop.lakehouse.prediction_columns import HASHED
from lakeloop.lakehouse.store import Store

KIND = "forgotten"
KEY_BYTES = 32
MOST_TOKENS = 10_000
"""Combinations of a broken line's words that are tried; a line with more is taken for a forgotten one."""
WORD = re.compile(r"""[^\s,;|\t"'{}\[\]:=]+""")
JSON_ROWS: Mapping[str, tuple[str, ...]] = {"quarantine": ("row",)}
"""Columns of journals that hold whole rows as JSON."""
_BODIES: dict[str, Mapping[str, Any]] = {}
"""Tombstones by the key of their revision, which is never written twice."""


def text_of(value: Any) -> str | None:
    """A stored value as the text it is hashed by: whole numbers in decimal, times in ISO 8601, texts as they are."""
    match value:
        case None | list() | dict() | bytes():
            return None
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() else repr(value)
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
        case date():
            return value.isoformat()
        case _:
            return str(value)


@dataclass(frozen=True, slots=True)
class Entity:
    """Rows whose columns all have these values: column → text."""

    values: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(sorted(self.values))

    def scalars(self, schema: pa.Schema) -> dict[str, pa.Scalar] | None:
        """The values in the types that a schema has for the columns; None where no row of it can be the entity's."""
        if not set(self.values) <= set(schema.names):
            return None
        found = {}
        for name, text in self.values.items():
            try:
                found[name] = pa.scalar(text).cast(schema.field(name).type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                return None
            if text_of(found[name].as_py()) != text:
                return None
        return found

    def __str__(self) -> str:
        return ", ".join(f"{name}={self.values[name]}" for name in self.columns)


@dataclass(frozen=True, slots=True)
class Tombstones:
    """All tombstones of a lake at a moment, or those of one entity."""

    key: bytes = field(default=b"", repr=False)
    marks: Mapping[tuple[str, ...], frozenset[str]] = field(default_factory=dict)
    """By columns: the ids of entities."""
    ids: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By `project.model`: hashes of the ids of examples that were the entities'."""

    @property
    def entities(self) -> frozenset[str]:
        """The ids of all: differs when another came meanwhile."""
        return frozenset().union(*self.marks.values())

    def __bool__(self) -> bool:
        return bool(self.marks)

    def concern(self, names: Iterable[str], model: str = "") -> bool:
        """Whether rows with these columns (of this `project.model`) may be forgotten ones."""
        there = {name.removesuffix(HASHED) for name in names} | set(names)
        return any(there.issuperset(columns) for columns in self.marks) or ("id" in there and bool(self.ids.get(model)))

    def mask(
        self, rows: pa.Table, *, model: str = "", json_columns: Sequence[str] = (), read: Read | None = None
    ) -> pa.BooleanArray | None:
        """True for each row of a forgotten entity; None when there is none.

        `json_columns` hold whole rows as text; `read` gives other forms that a value of a column may have.
        """
        found: pa.Array | None = None
        for columns, wanted in self.marks.items():
            if set(columns) <= set(rows.column_names):
                found = _either(found, self._of_columns(rows, columns, wanted, read))
            if len(columns) == 1 and columns[0] + HASHED in rows.column_names:
                found = _either(found, _hashed_among(rows.column(columns[0] + HASHED), wanted))
        if self.ids.get(model) and "id" in rows.column_names:
            wanted = self.ids[model]
            hits = [v for v in pc.unique(rows.column("id")).to_pylist() if v is not None and self.of_id(v) in wanted]
            found = _either(found, _among(rows.column("id"), hits))
        for name in json_columns:
            if self.marks and name in rows.column_names:
                hits = [text for text in pc.unique(rows.column(name)).to_pylist() if text and self.tell_text(text)]
                found = _either(found, _among(rows.column(name), hits))
        return found

    def drop(self, rows: pa.Table, *, model: str = "", json_columns: Sequence[str] = ()) -> pa.Table:
        """The rows without those of forgotten entities."""
        mask = self.mask(rows, model=model, json_columns=json_columns) if self else None
        return rows if mask is None else rows.filter(pc.invert(mask))

    def tell(self, row: Mapping[str, Any], read: Read | None = None) -> bool:
        """Whether a row, by its column names, is a forgotten entity's."""
        for columns, wanted in self.marks.items():
            if all(name in row for name in columns) and self._tells(columns, [row[n] for n in columns], wanted, read):
                return True
        return False

    def tell_text(self, text: str) -> bool:
        """Whether a row as JSON, or what is left of a broken one, is a forgotten entity's."""
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            return self.tell(row, bare)
        words = list(dict.fromkeys([*WORD.findall(text), *text.split(",")]))
        for columns, wanted in self.marks.items():
            tries = product(words, repeat=len(columns))
            if any(self.of(dict(zip(columns, one, strict=True))) in wanted for one in islice(tries, MOST_TOKENS)):
                return True
            if len(words) ** len(columns) > MOST_TOKENS:
                return True
        return False

    def tell_words(self, text: str) -> bool:
        """Whether a word of a text that is no row is the value of a forgotten entity of one column."""
        words = set(WORD.findall(text))
        single = [(columns[0], wanted) for columns, wanted in self.marks.items() if len(columns) == 1]
        return any(self.of({name: word}) in wanted for name, wanted in single for word in words)

    def of(self, values: Mapping[str, str]) -> str:
        """The id of an entity."""
        return _of(self.key, values)

    def of_id(self, example: str) -> str:
        """The hash of an example's id."""
        return self._hash(f"id {example}")

    def _hash(self, text: str) -> str:
        return _digest(self.key, text)

    def _of_columns(
        self, rows: pa.Table, columns: tuple[str, ...], wanted: frozenset[str], read: Read | None
    ) -> pa.Array | None:
        chosen = rows.select(list(columns))
        if any(pa.types.is_nested(kind) for kind in chosen.schema.types):
            return None
        distinct = chosen.group_by(list(columns)).aggregate([]).to_pylist()
        found: pa.Array | None = None
        for values in distinct:
            if self._tells(columns, [values[name] for name in columns], wanted, read):
                hit: pa.Array | None = None
                for name in columns:
                    same = pc.equal(rows.column(name), pa.scalar(values[name], rows.schema.field(name).type))
                    hit = same if hit is None else pc.and_(hit, same)
                found = _either(found, pc.fill_null(hit, False))
        return found

    def _tells(self, columns: Sequence[str], values: Sequence[Any], wanted: frozenset[str], read: Read | None) -> bool:
        forms = [_forms(name, value, read) for name, value in zip(columns, values, strict=True)]
        return any(self.of(dict(zip(columns, one, strict=True))) in wanted for one in product(*forms))


Read = Callable[[str, str], Iterable[str]]
"""(column, raw text) → the texts that the value may be stored as."""


def bare(column: str, text: str) -> Iterable[str]:
    """A raw value of a column whose type is not known: without blanks, and 12.0 as 12."""
    yield text.strip()
    if re.fullmatch(r"-?[1-9]\d*\.0+", text.strip()):
        yield text.strip().split(".")[0]


def numeric(column: str, text: str) -> Iterable[str]:
    """A raw value of a column that may not be text: without blanks, and as a whole number or a day where it is one."""
    bare = text.strip()
    yield bare
    if re.fullmatch(r"[+-]?\d+(\.0*)?", bare):
        yield str(int(bare.split(".")[0]))
    if re.fullmatch(r"\d{4}-\d\d-\d\d[T ]00:00.*", bare):
        yield bare[:10]


def load(store: Store) -> Tombstones:
    """Every tombstone of the lake: one LIST, and where there are any, a GET of the key and one of each that this
    process has not read before."""
    newest: dict[str, str] = {}
    for entry in store.list(keys.documents(KIND)):
        newest.setdefault(entry.key.rsplit("/", 1)[0], entry.key)
    if not newest:
        return Tombstones()
    marks: dict[tuple[str, ...], set[str]] = {}
    ids: dict[str, set[str]] = {}
    for document, revision in newest.items():
        if revision not in _BODIES:
            _BODIES[revision] = json.loads(store.get(revision))["body"]
        body = _BODIES[revision]
        marks.setdefault(tuple(body["columns"]), set()).add(document.rsplit("/", 1)[1])
        for model, hashes in body["ids"].items():
            ids.setdefault(model, set()).update(hashes)
    return Tombstones(
        store.get(keys.FORGET_KEY),
        {columns: frozenset(found) for columns, found in marks.items()},
        {model: frozenset(found) for model, found in ids.items()},
    )


def hashed(key: bytes, column: str, value: Any) -> str | None:
    """A private value as the prediction log keeps it: the id of the entity that has this value in this one column, so
    that a tombstone tells it; None for a null, and for NaN."""
    text = text_of(value)
    return None if text is None or value != value else _of(key, {column: text})


def known_secret(store: Store) -> bytes | None:
    """The key of this lake, or None before it was needed."""
    try:
        return store.get(keys.FORGET_KEY)
    except NotFound:
        return None


def secret(store: Store) -> bytes:
    """The key of this lake, made when it is first needed."""
    if there := known_secret(store):
        return there
    made = secrets.token_bytes(KEY_BYTES)
    with suppress(AlreadyExists, Unknown):
        store.put(keys.FORGET_KEY, made, if_absent=True)
    return store.get(keys.FORGET_KEY)


def only(key: bytes, entity: Entity, ids: Mapping[str, Iterable[str]]) -> Tombstones:
    """The tombstone of one entity, whether it is stored or not; `ids` are hashes by `project.model`."""
    one = Tombstones(key)
    hashes = {model: frozenset(found) for model, found in ids.items()}
    return Tombstones(key, {entity.columns: frozenset([one.of(entity.values)])}, hashes)


def _of(key: bytes, values: Mapping[str, str]) -> str:
    return _digest(key, json.dumps(sorted(values.items())))


def _digest(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def _forms(name: str, value: Any, read: Read | None) -> list[str]:
    text = text_of(value)
    if text is None:
        return []
    return list(dict.fromkeys([text, *read(name, text)])) if read else [text]


def _among(column: pa.ChunkedArray, hits: Sequence[Any]) -> pa.Array | None:
    return pc.fill_null(pc.is_in(column, value_set=pa.array(hits, column.type)), False) if hits else None


def _hashed_among(column: pa.ChunkedArray, wanted: frozenset[str]) -> pa.Array | None:
    """A private column of predictions holds the ids of entities."""
    return _among(column, sorted(wanted)) if pa.types.is_string(column.type) else None


def _either(one: pa.Array | None, other: pa.Array | None) -> pa.Array | None:
    if one is None or other is None:
        return other if one is None else one
    return pc.or_(one, other)
