"""Learns a signature: inputs from the definition, types of features from the table, the rest from the training part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.scoring.derivation import Derive, derive_columns
from lakeloop.lakehouse.scoring.matrix import category_text, texts
from lakeloop.lakehouse.scoring.profiles import input_profile
from lakeloop.lakehouse.scoring.signature import Input, Kind, Signature, ViewUse

if TYPE_CHECKING:
    import pyarrow as pa

RESERVED = ("id", "as_of", "label", "label_known_at", "weight", "group")
VOCABULARY = 250
"""Categories kept when the definition gives no `max`: scikit-learn's trees take at most 255."""


def kind_of(type_name: str) -> Kind:
    """The kind of a declared type: `float32` → number, `int8` → integer, `date` → timestamp."""
    if type_name in ("category", "string", "bool", "timestamp"):
        return type_name  # type: ignore[return-value]
    if type_name == "date":
        return "timestamp"
    return "integer" if type_name.startswith(("int", "uint")) else "number"


def declare(model: Model, table: pa.Table, uses: Sequence[ViewUse] = ()) -> Signature:
    """The signature as far as the definition and a table's types say it, before anything is learnt.

    The table's columns that are neither reserved nor in [inputs.request] are the features. Invalid when a declared
    input is not there.
    """
    lacking = [name for name in model.inputs.request if name not in table.column_names]
    if lacking:
        raise Invalid(f"the examples of {model.name} have no column {', '.join(lacking)}", where=model.sql_path)
    keys = {column for use in uses for _, column in use.key}
    request = [_requested(model, name, name in keys) for name in model.inputs.request]
    derived = [
        Input(name, "derived", one.type, kind_of(one.type), column=_seen(one.type))
        for name, one in model.inputs.derived.items()
    ]
    taken = {*RESERVED, *model.inputs.request, *model.inputs.derived}
    features = [_feature(name, table.schema.field(name).type) for name in table.column_names if name not in taken]
    return Signature(
        problem=model.problem,
        inputs=(*request, *features, *derived),
        views=tuple(uses),
        absent=model.inputs.absent,
        derive=model.inputs.derive and bool(derived),
    )


def learn(declared: Signature, model: Model, whole: pa.Table, train: pa.Table) -> Signature:
    """Vocabularies, profiles, classes from `train`; from `whole` where null may come. Both hold the derived inputs."""
    inputs = tuple(_learnt(one, model, whole, train) for one in declared.inputs)
    classes = class_names(whole, train, declared.problem)
    positive = classes[1] if declared.problem == "binary" else ""
    return replace(declared, inputs=inputs, classes=classes, positive=positive, example=example_row(declared, train))


def with_derived(declared: Signature, derive: Derive | None, table: pa.Table) -> pa.Table:
    """The table with the derived inputs, if there are any."""
    if not declared.derive:
        return table
    if derive is None:
        todo = "add def derive(row) to models/<name>.py"
        raise Invalid("the model has derived inputs, but no derive(row)", todo=todo)
    return derive_columns(derive, declared, table)


def class_names(whole: pa.Table, train: pa.Table, problem: str) -> tuple[str, ...]:
    """Labels as text: binary (negative, positive), multiclass those of `train`, sorted. Invalid for fewer than two."""
    if problem == "regression":
        return ()
    found = _sorted_labels(train if problem == "multiclass" else whole)
    if len(found) < 2 or (problem == "binary" and len(found) != 2):
        told, wanted = ", ".join(found[:10]) or "all null", "two" if problem == "binary" else "several"
        todo = "check `label` in the examples, or `problem`"
        raise Invalid(f"the labels are {told}: a {problem} model needs {wanted} classes", todo=todo)
    return found


def example_row(signature: Signature, table: pa.Table) -> dict[str, Any]:
    """The newest row as a caller could send it with features given: JSON values."""
    names = [one.name for one in signature.inputs if one.role != "derived"]
    if not table.num_rows:
        return {}
    row = table.select(names).slice(table.num_rows - 1).to_pylist()[0]
    return {name: _json(value, kind_of_input(signature, name)) for name, value in row.items()}


def kind_of_input(signature: Signature, name: str) -> Kind:
    return next(one.kind for one in signature.inputs if one.name == name)


def _requested(model: Model, name: str, is_key: bool) -> Input:
    one = model.inputs.request[name]
    kind = kind_of(one.type)
    return Input(
        name,
        "request",
        one.type,
        kind,
        column=_seen(one.type) and not (is_key and kind == "integer"),
        range=one.range,
        values=one.values,
        unseen=one.unseen,
        default=one.default,
    )


def _seen(type_name: str) -> bool:
    return kind_of(type_name) not in ("string", "timestamp")


def _feature(name: str, stored: pa.DataType) -> Input:
    import pyarrow as pa

    if pa.types.is_boolean(stored):
        return Input(name, "feature", "bool", "bool")
    if pa.types.is_integer(stored):
        return Input(name, "feature", "int64", "integer")
    if pa.types.is_floating(stored) or pa.types.is_decimal(stored):
        return Input(name, "feature", "float64", "number")
    if pa.types.is_string(stored) or pa.types.is_large_string(stored) or pa.types.is_dictionary(stored):
        return Input(name, "feature", "category", "category")
    if pa.types.is_timestamp(stored) or pa.types.is_date(stored):
        return Input(name, "feature", "timestamp", "timestamp", column=False)
    todo = "leave it out of [inputs] features, or cast it in the view"
    raise Invalid(f"the feature {name} is {stored}, which no model takes", todo=todo)


def _learnt(one: Input, model: Model, whole: pa.Table, train: pa.Table) -> Input:
    nullable = one.role != "request" or whole.column(one.name).null_count > 0
    if one.kind == "category":
        declared = model.inputs.request.get(one.name)
        most = (declared.max if declared else None) or VOCABULARY
        one = replace(one, categories=_vocabulary(train.column(one.name), one, most))
    return replace(one, nullable=nullable, profile=input_profile(train.column(one.name), one))


def _vocabulary(column: pa.ChunkedArray, one: Input, most: int) -> tuple[str, ...]:
    """Declared values in their order; else the most frequent ones (ties by name), sorted."""
    import pyarrow.compute as pc

    if one.values:
        return tuple(category_text(value) for value in one.values)
    counted = pc.value_counts(pc.drop_null(texts(column))).to_pylist()
    ranked = sorted(counted, key=lambda pair: (-pair["counts"], pair["values"]))
    return tuple(sorted(pair["values"] for pair in ranked[:most]))


def _sorted_labels(table: pa.Table) -> tuple[str, ...]:
    import pyarrow.compute as pc

    values = [value for value in pc.unique(table.column("label")).to_pylist() if value is not None]
    return tuple(category_text(value) for value in sorted(values))


def _json(value: Any, kind: Kind) -> Any:
    if isinstance(value, datetime):
        return value.isoformat() + ("" if value.tzinfo else "+00:00")
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00+00:00"
    if value is not None and kind in ("category", "string"):
        return category_text(value)
    if value is not None and kind == "integer":
        return int(value)
    return None if isinstance(value, float) and value != value else value


def encode_labels(table: pa.Table, signature: Signature) -> Any:
    """Labels as float64: binary 0/1, multiclass the class's place (NaN: never seen), regression the value."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column("label")
    if signature.problem == "regression":
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64)
    codes = pc.index_in(texts(column), value_set=pa.array(signature.classes, pa.string()), skip_nulls=True)
    return codes.to_numpy().astype(np.float64)
