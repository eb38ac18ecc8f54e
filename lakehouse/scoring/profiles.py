"""Reference profiles: what an input, or the predictions, looked like in training. Drift is measured against them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.scoring.matrix import texts
from lakeloop.lakehouse.scoring.signature import CategoryProfile, Input, NumberProfile, Profile
from lakeloop.lakehouse.statistics import histogram, quantile_edges

if TYPE_CHECKING:
    import pyarrow as pa

BINS = 10


def number_profile(values: NDArray[np.floating[Any]]) -> NumberProfile:
    """Deciles as edges, each once; with at most ten different values, a bin for each. NaN and infinities are nulls."""
    numbers = np.asarray(values, dtype=np.float64)
    there = numbers[np.isfinite(numbers)]
    nulls = len(numbers) - len(there)
    if not len(there):
        return NumberProfile((), (0,), nulls)
    edges = quantile_edges(there, BINS)
    counts = histogram(there, edges)
    low, high, mean, std = float(there.min()), float(there.max()), float(there.mean()), float(there.std())
    return NumberProfile(tuple(edges.tolist()), tuple(counts.tolist()), nulls, low, high, mean, std)


def category_profile(values: pa.ChunkedArray, vocabulary: tuple[str, ...]) -> CategoryProfile:
    """Counts of the vocabulary's values, those that never came too."""
    import pyarrow.compute as pc

    counted = {one["values"]: one["counts"] for one in pc.value_counts(texts(values)).to_pylist()}
    nulls = counted.pop(None, 0)
    counts = {value: counted.pop(value, 0) for value in vocabulary}
    return CategoryProfile(counts, other=sum(counted.values()), nulls=nulls)


def input_profile(column: pa.ChunkedArray, one: Input) -> Profile | None:
    """The profile of a column of the matrix; None for what the model does not see."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not one.column:
        return None
    if one.kind == "category":
        return category_profile(column, one.categories)
    numbers = pc.cast(column, pa.int8()) if pa.types.is_boolean(column.type) else column
    return number_profile(pc.cast(numbers, pa.float64(), safe=False).to_numpy())
