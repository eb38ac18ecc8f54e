"""Slices of evaluated rows: one per combination of a slice's columns, or the rows for which its condition holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakeloop.lakehouse.project.definitions import Slice
from lakeloop.lakehouse.query.asking import sql_over
from lakeloop.lakehouse.query.quoting import quoted

MOST = 50
"""Values of a slice's columns looked at, the most frequent first."""


def slice_masks(rows: pa.Table, slices: Sequence[Slice], *, min_rows: int = 1) -> dict[str, npt.NDArray[np.bool_]]:
    """By name (`carrier=UA`, `bad weather`): which rows belong to it.

    Slices of fewer than `min_rows` rows are left out.
    """
    expressions = {f"s{at}": _expression(one) for at, one in enumerate(slices)}
    if not expressions or not rows.num_rows:
        return {}
    found = sql_over(rows, expressions, where="[evaluate] slices")
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for at, one in enumerate(slices):
        column = found.column(f"s{at}")
        if one.where:
            masks[one.name] = np.asarray(column.fill_null(False).to_numpy(), dtype=bool)
        else:
            values = np.array(column.to_pylist(), dtype=object)
            counts = sorted(
                column.value_counts().to_pylist(), key=lambda entry: (-entry["counts"], str(entry["values"]))
            )
            masks |= {str(entry["values"]): values == entry["values"] for entry in counts[:MOST]}
    return {name: mask for name, mask in masks.items() if int(mask.sum()) >= min_rows}


def _expression(one: Slice) -> str:
    if one.where:
        return f"({one.where})::BOOLEAN"
    parts = [f"'{name}=' || coalesce({quoted(name)}::VARCHAR, 'none')" for name in one.columns]
    return " || ', ' || ".join(parts)
