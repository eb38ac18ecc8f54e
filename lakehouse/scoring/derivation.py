"""Calls the user's derive(row): for one row when serving, for whole tables in training, with the same typed values.

A table may have 170,000 rows and few different ones. So derive is watched: the row it gets tells which columns it
reads, and it is called once for each different combination of those. A derive that asks its row for everything is
called for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.matrix import texts
from lakeloop.lakehouse.scoring.rows import Fault, read_moment
from lakeloop.lakehouse.scoring.signature import Input, Kind, Signature

if TYPE_CHECKING:
    import pyarrow as pa

Derive: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]


def read_derived(derive: Derive, row: dict[str, Any], wanted: Sequence[Input]) -> dict[str, Any]:
    """What derive made of one typed row, typed; Fault if it raised, or returned anything but the inputs it should."""
    try:
        made = derive(row)
    except Exception as error:  # the user's code may raise anything; the caller is told where
        raise Fault(f"derive() raised {type(error).__name__}: {error}") from error
    if not isinstance(made, Mapping) or not {one.name for one in wanted} <= made.keys():
        names = ", ".join(one.name for one in wanted)
        raise Fault(f"derive() must return a dict with {names}; it returned {made!r:.80}")
    return {one.name: _typed(one, made[one.name]) for one in wanted}


def derive_columns(derive: Derive, signature: Signature, table: pa.Table) -> pa.Table:
    """The table with the derived inputs as columns, in place of any it has. Invalid names the row that failed."""
    wanted = signature.named("derived")
    made, inverse = _made(derive, _Rows(table, signature), wanted)
    for one in wanted:
        column = _column(one, [row[one.name] for row in made])
        column = column if inverse is None else column.take(_indices(inverse))
        place = table.column_names.index(one.name) if one.name in table.column_names else -1
        table = table.set_column(place, one.name, column) if place >= 0 else table.append_column(one.name, column)
    return table


def _made(derive: Derive, rows: _Rows, wanted: Sequence[Input]) -> tuple[list[dict[str, Any]], Any]:
    """What derive makes of one row per combination of the columns it reads; and which of those each row has.

    The columns it reads are widened until calls on one row per combination of them read nothing else. When it reads
    them all, every row is called for, and the second is None.
    """
    watched: set[str] = set()
    while len(watched) < len(rows.columns) or not watched:
        before = frozenset(watched)
        representatives, inverse = rows.distinct(tuple(sorted(before)))
        made = []
        for index in representatives.tolist():
            made.append(_read(derive, WatchedRow(rows, index, watched), index, wanted))
            if watched > before:
                break
        else:
            return made, inverse
    return [_read(derive, row, index, wanted) for index, row in enumerate(rows.plain())], None


def _read(derive: Derive, row: dict[str, Any], index: int, wanted: Sequence[Input]) -> dict[str, Any]:
    try:
        return read_derived(derive, row, wanted)
    except Fault as fault:
        todo = "make derive() return a value, or None, for every row"
        raise Invalid(f"row {index}: {fault}", todo=todo) from fault.__cause__


class WatchedRow(dict[str, Any]):
    """A row that fetches its values when they are asked for, and notes which were."""

    def __init__(self, rows: _Rows, index: int, watched: set[str]) -> None:
        super().__init__()
        self._rows, self._index, self._watched = rows, index, watched

    def __missing__(self, name: str) -> Any:
        self._watched.add(name)
        value = self._rows.value(name, self._index)
        super().__setitem__(name, value)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        if name in self._rows.columns or dict.__contains__(self, name):
            return self[name]
        return default

    def __contains__(self, name: object) -> bool:
        return name in self._rows.columns or dict.__contains__(self, name)

    def _all(self) -> dict[str, Any]:
        return {name: self[name] for name in {**self._rows.columns, **dict.fromkeys(dict.keys(self))}}

    def keys(self) -> Any:
        return self._all().keys()

    def values(self) -> Any:
        return self._all().values()

    def items(self) -> Any:
        return self._all().items()

    def __iter__(self) -> Any:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def copy(self) -> dict[str, Any]:
        return self._all()

    def __or__(self, other: Any) -> Any:
        return self._all() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._all()

    def __eq__(self, other: object) -> bool:
        return self._all() == other

    __hash__ = None

    def __repr__(self) -> str:
        return repr(self._all())

    def pop(self, name: str, *default: Any) -> Any:
        if name in self._rows.columns:
            self[name]
        return super().pop(name, *default)


class _Rows:
    """A table's columns that derive may read, in the types a request's values have."""

    def __init__(self, table: pa.Table, signature: Signature) -> None:
        kinds: dict[str, Kind] = {one.name: one.kind for one in signature.inputs if one.role != "derived"}
        if "as_of" in table.column_names:
            kinds["as_of"] = "timestamp"
        self._table, self._kinds = table, kinds
        self.columns: dict[str, None] = dict.fromkeys(name for name in kinds if name in table.column_names)
        self._lists: dict[str, list[Any]] = {}
        self._codes: dict[str, np.ndarray[Any, Any]] = {}

    def value(self, name: str, index: int) -> Any:
        if name not in self._lists:
            if name not in self.columns:
                raise KeyError(name)
            self._lists[name] = typed_list(self._table.column(name), self._kinds[name])
        return self._lists[name][index]

    def plain(self) -> Iterator[dict[str, Any]]:
        """Every row as an ordinary dict."""
        names = tuple(self.columns)
        lists = [typed_list(self._table.column(name), self._kinds[name]) for name in names]
        return (dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True))

    def distinct(self, names: tuple[str, ...]) -> tuple[Any, Any]:
        """One row for each combination of these columns' values, and for every row which of them it is."""
        rows = self._table.num_rows
        known = [name for name in names if name in self.columns]
        if not rows:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        combined = np.zeros(rows, dtype=np.int64)
        for name in known:
            codes = self._coded(name)
            _, combined = np.unique(combined * (int(codes.max()) + 1) + codes, return_inverse=True)
        _, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
        return first, inverse

    def _coded(self, name: str) -> np.ndarray[Any, Any]:
        import pyarrow.compute as pc

        if name not in self._codes:
            column = self._table.column(name)
            plain = texts(column) if self._kinds[name] in ("category", "string") else column
            encoded = pc.dictionary_encode(plain, null_encoding="encode").unify_dictionaries().combine_chunks()
            self._codes[name] = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
        return self._codes[name]


def typed_list(column: pa.ChunkedArray, kind: Kind) -> list[Any]:
    """A column's values as Python values of the kind: aware datetimes, texts, bools, ints, floats; None for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    match kind:
        case "timestamp":
            if not pa.types.is_timestamp(column.type) and not pa.types.is_date(column.type):
                return [None if value is None else read_moment(value) for value in column.to_pylist()]
            moments = pc.cast(column, pa.timestamp("us", None if pa.types.is_date(column.type) else column.type.tz))
            return [None if value is None else read_moment(value) for value in moments.to_pylist()]
        case "category" | "string":
            return list(texts(column).to_pylist())
        case "bool":
            return list(pc.cast(column, pa.bool_()).to_pylist())
        case "integer":
            return list(pc.cast(column, pa.int64(), safe=False).to_pylist())
        case "number":
            values = pc.cast(column, pa.float64(), safe=False).to_pylist()
            return [None if value is None or value != value else value for value in values]


def _typed(one: Input, value: Any) -> Any:
    if value is None or (isinstance(value, float) and value != value):
        return None
    match one.kind:
        case "timestamp":
            return read_moment(value)
        case "category" | "string":
            return str(value)
        case "bool":
            return bool(value)
        case "integer" | "number":
            if not isinstance(value, (int, float, np.integer, np.floating)):
                raise Fault(f"derive() returned {one.name} = {value!r}, which is no {one.type}")
            return int(value) if one.kind == "integer" else float(value)


def _column(one: Input, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    types = {
        "timestamp": pa.timestamp("us", "UTC"),
        "category": pa.string(),
        "string": pa.string(),
        "bool": pa.bool_(),
        "integer": pa.int64(),
        "number": pa.float64(),
    }
    return pa.array(values, types[one.kind])


def _indices(inverse: Any) -> pa.Array:
    import pyarrow as pa

    return pa.array(inverse, pa.int64())
