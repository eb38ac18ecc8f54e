"""The matrix a model sees, and its one encoder: from an Arrow table or from rows, bit for bit the same.

Rule: numbers and bools are float32, categories their place in the vocabulary; null, not-a-number, infinite and unseen
are NaN. Whole numbers beyond 2^24 lose their last digits: that is float32.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.signature import Input

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Floats: TypeAlias = NDArray[np.float32]
NAN = float("nan")


@dataclass(slots=True)
class Matrix:
    """Rows by inputs. `categories` holds the vocabulary of each input that is a category; NaN is absent."""

    names: tuple[str, ...]
    values: Floats
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def categorical(self) -> list[bool]:
        """For each input, whether it is a category."""
        return [name in self.categories for name in self.names]

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Matrix:
        return Matrix(self.names, self.values[rows], self.categories)

    def frame(self) -> pd.DataFrame:
        """A pandas frame: float32 columns, and categories with the whole fixed vocabulary whatever values are there."""
        import pandas as pd

        columns: dict[str, Any] = {}
        for place, name in enumerate(self.names):
            column = self.values[:, place]
            if name in self.categories:
                codes = np.where(np.isnan(column), -1, column).astype(np.int32)
                columns[name] = pd.Categorical.from_codes(codes.tolist(), categories=list(self.categories[name]))
            else:
                columns[name] = column
        return pd.DataFrame(columns, index=pd.RangeIndex(len(self)))

    @staticmethod
    def stack(parts: Sequence[Matrix]) -> Matrix:
        """The rows of several matrices of one signature, in order."""
        return Matrix(parts[0].names, np.concatenate([part.values for part in parts]), parts[0].categories)


def category_text(value: Any) -> str:
    """A category's text: `true`/`false` for bools, no `.0` for whole floats, so that JSON, SQL and Python agree."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


class Encoder:
    """Makes a Matrix of the columns of a signature's inputs."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.columns = tuple(one for one in inputs if one.column)
        self.names = tuple(one.name for one in self.columns)
        self.categories = {one.name: one.categories for one in self.columns if one.kind == "category"}
        self._plan = [(one.name, _codes(one)) for one in self.columns]

    def of_rows(self, rows: Sequence[Mapping[str, Any]]) -> Matrix:
        """From typed values by input name (numbers, bools, texts of categories); an input not there is null."""
        flat: list[Any] = [
            NAN if (value := get(name)) is None else value if codes is None else codes.get(value, NAN)
            for get in [row.get for row in rows]
            for name, codes in self._plan
        ]
        values = np.frombuffer(array("f", flat) if flat else b"", np.float32).reshape(len(rows), len(self._plan))
        return Matrix(self.names, finite(values), self.categories)

    def of_table(self, table: pa.Table) -> Matrix:
        """From a table that has every input as a column; Invalid names those it lacks."""
        missing = sorted(set(self.names) - set(table.column_names))
        if missing:
            raise Invalid(f"the table has no column {', '.join(missing)}", todo="add what the model's inputs name")
        values = np.empty((table.num_rows, len(self.columns)), dtype=np.float32, order="F")
        for place, one in enumerate(self.columns):
            values[:, place] = _encode(table.column(one.name), one)
        return Matrix(self.names, np.ascontiguousarray(values), self.categories)


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as `category_text` would spell each value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_floating(column.type):
        spelt = [None if value is None or value != value else category_text(value) for value in column.to_pylist()]
        return pa.chunked_array([spelt], pa.string())
    return pc.cast(column, pa.string())


def _codes(one: Input) -> dict[str, float] | None:
    return {value: float(code) for code, value in enumerate(one.categories)} if one.kind == "category" else None


def _encode(column: pa.ChunkedArray, one: Input) -> Floats:
    import pyarrow as pa
    import pyarrow.compute as pc

    stored = column.type
    if one.kind == "category":
        codes = pc.index_in(texts(column), value_set=pa.array(one.categories, pa.string()), skip_nulls=True)
        return np.asarray(codes.to_numpy(), dtype=np.float32)  # int32 with nulls arrives as float64 with NaN
    if pa.types.is_null(stored):
        return np.full(len(column), np.nan, dtype=np.float32)
    if pa.types.is_boolean(stored):
        column = pc.cast(column, pa.int8())
    elif not (pa.types.is_floating(stored) or pa.types.is_integer(stored) or pa.types.is_decimal(stored)):
        raise Invalid(f"the column {one.name} is {stored}, the model wants {one.type}")
    numbers = pc.cast(column, pa.float64(), safe=False).to_numpy()
    return _narrow(np.asarray(numbers, dtype=np.float64))


def _narrow(values: NDArray[np.float64]) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        return finite(values.astype(np.float32))


def finite(values: Floats) -> Floats:
    """The same array, NaN where it was infinite."""
    if np.logical_or.reduce(np.isinf(values), axis=None):
        values[np.isinf(values)] = np.nan
    return values
