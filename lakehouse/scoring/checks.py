"""The checks of a training table: what must not be trained on stops it, what a person should know is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.scoring.matrix import category_text, texts
from lakeloop.lakehouse.scoring.signature import Input, Signature

if TYPE_CHECKING:
    import pyarrow as pa


def check_examples(model: Model, declared: Signature, table: pa.Table) -> list[str]:
    """Warnings, in words. Invalid, with every fault, for a table that must not be trained on."""
    faults = [*_empty(table), *_banned(model, declared), *_lacking(table), *_weights(table), *_labels(declared, table)]
    if faults:
        where = f"the examples of {model.name}"
        raise Invalid(faults[0], where=where, todo=f"correct {model.sql_path}", problems=faults[1:])
    warnings = _early(table)
    for one in declared.inputs:
        if one.role != "derived":
            warnings += _values(one, table.column(one.name))
    return warnings


def _empty(table: pa.Table) -> list[str]:
    return [] if table.num_rows else ["there is no labelled example"]


def _banned(model: Model, declared: Signature) -> list[str]:
    return [f"{one.name} is banned, but is an input" for one in declared.inputs if one.name in model.inputs.banned]


def _early(table: pa.Table) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if "label_known_at" not in table.column_names:
        return []
    moments = [table[name].cast(pa.timestamp("us", "UTC")) for name in ("label_known_at", "as_of")]
    early = pc.sum(pc.less(*moments)).as_py() or 0
    return [f"{early:,} labels were known before as_of: a prediction then comes too late"] if early else []


def _lacking(table: pa.Table) -> list[str]:
    names = [name for name in ("id", "as_of", "label", "label_known_at") if name in table.column_names]
    return [f"{table[name].null_count:,} rows have no {name}" for name in names if table[name].null_count]


def _weights(table: pa.Table) -> list[str]:
    import pyarrow.compute as pc

    if "weight" not in table.column_names:
        return []
    weight = table["weight"].cast("float64")
    wrong = table.num_rows - (pc.sum(pc.and_(pc.is_finite(weight), pc.greater_equal(weight, 0.0))).as_py() or 0)
    return [f"{wrong:,} weights are negative, null or not finite"] if wrong else []


def _labels(declared: Signature, table: pa.Table) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    label = table["label"]
    if declared.problem == "regression":
        if not (pa.types.is_integer(label.type) or pa.types.is_floating(label.type) or pa.types.is_decimal(label.type)):
            return [f"the label is {label.type}, and a regression needs numbers"]
        wrong = table.num_rows - (pc.sum(pc.is_finite(label.cast("float64"))).as_py() or 0)
        return [f"{wrong:,} labels are not finite"] if wrong else []
    classes = pc.count_distinct(label).as_py()
    if table.num_rows and classes < 2:
        return [f"all labels are {label[0].as_py()!r}"]
    return (
        [f"the labels have {classes} values, and binary needs two"]
        if declared.problem == "binary" and classes > 2
        else []
    )


def _values(one: Input, column: pa.ChunkedArray) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(column) and column.null_count == len(column):
        return [f"{one.name} is null in every row"]
    found = []
    if one.range is not None and one.kind in ("number", "integer"):
        numbers = pc.cast(column, pa.float64(), safe=False)
        outside = pc.or_(pc.less(numbers, one.range[0]), pc.greater(numbers, one.range[1]))
        count = pc.sum(outside).as_py() or 0
        found += [f"{one.name}: {count:,} values outside {one.range[0]:g} to {one.range[1]:g}"] if count else []
    if one.values and one.kind in ("category", "string"):
        allowed = pa.array([category_text(value) for value in one.values], pa.string())
        strange = pc.sum(pc.invert(pc.is_in(pc.drop_null(texts(column)), value_set=allowed))).as_py() or 0
        found += [f"{one.name}: {strange:,} values that [inputs.request] does not list"] if strange else []
    return found
