"""What a label poses as a problem, and which columns are inputs of its model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from lakeloop.functions.infer_columns import Found, different_values
from lakeloop.functions.spelling import plain_name, sql_name
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import Problem
from lakeloop.lakehouse.project.model_keys import INPUT_NAME
from lakeloop.lakehouse.project.model_rules import RESERVED_INPUTS
from lakeloop.lakehouse.query.quoting import literal

CLASSES: Final = 20
"""Whole numbers with at most so many values are classes; with more, an amount."""
TEXT_CLASSES: Final = 50
CATEGORIES: Final = 250
NAMES_THE_ROW: Final = "it names the row; if it says more than that, add it here and in the query"
POSITIVE: Final = ("yes", "y", "true", "t", "1", "positive", "pos")
ID_LIKE: Final = re.compile(r"(?:.*_)?(?:id|Id|ID|key|Key|KEY|uuid|UUID|guid|GUID)|.*[a-z0-9](?:Id|ID|Key)")


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted: the SQL of the label, and a remark on it. `whole`: its source must hold whole numbers."""

    problem: Problem
    sql: str
    remark: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """One column as the model is sent it."""

    column: str
    name: str
    type: str


def may_be_key(one: Found) -> bool:
    """Whether a column can name rows: always there, and text or whole numbers."""
    return not one.nullable and (
        one.type == "string" or one.type.startswith(("int", "uint")) or (one.is_number and one.whole)
    )


def choose_target(rows: pa.Table, column: Found, file: str) -> Target:
    """The problem that a label poses: two values, a few, or an amount."""
    name, few = sql_name(column.name), column.distinct <= max(10, column.filled // 2)
    if column.distinct < 2:
        raise Invalid(
            f"{column.name} has {'one value' if column.distinct else 'no value'}, so there is nothing to learn",
            where=file,
            todo="name another --label",
        )
    if not (column.is_number or column.type in ("bool", "string")):
        raise Invalid(
            f"{column.name} is {column.type}, and a label is truth, a class or a number",
            where=file,
            todo="name another --label",
        )
    if column.type == "bool":
        return Target("binary", name)
    values = [value for value, _ in different_values(rows, column, TEXT_CLASSES)]
    if column.distinct == 2 and not column.whole:
        return _of_two(name, column, values)
    if column.distinct == 2:
        return Target("binary", name, f"{max(values, key=float)} is what is predicted", whole=True)
    if column.type == "string" and column.distinct <= TEXT_CLASSES and few:
        return Target("multiclass", name)
    if column.type == "string":
        told = f"{column.distinct:,} different texts in {column.filled:,} rows"
        raise Invalid(
            f"{column.name} has {told}: neither classes nor numbers",
            where=file,
            todo="name another --label, or mend its values",
        )
    if column.whole and column.distinct <= CLASSES and few:
        return Target("multiclass", name, 'an amount rather than a class? Then problem = "regression"', whole=True)
    return Target("regression", name)


def _of_two(name: str, column: Found, values: Sequence[str]) -> Target:
    """Two texts: the positive one is the one that says so, else the rarer."""
    positive = next((value for value in values if value.lower() in POSITIVE), values[1])
    other = values[0] if positive == values[1] else values[1]
    spelled = literal(positive) if column.type == "string" else positive
    return Target("binary", f"{name} = {spelled}", f"the other value is {other!r}")


def choose_inputs(
    columns: Mapping[str, Found], key: Sequence[str], label: str, time: str, file: str
) -> tuple[tuple[Input, ...], dict[str, str]]:
    """The inputs, and the columns that are none, with the reason."""
    kinds: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, one in columns.items():
        if name in (label, time):
            continue
        kind, reason = ("", NAMES_THE_ROW) if name in key else _input(one)
        if kind:
            kinds[name] = kind
        else:
            others[name] = reason
    if not kinds:
        raise Invalid(
            "no column is left that a model could use",
            where=file,
            todo="bring more columns than the label, the time and the key",
        )
    names = _input_names(list(kinds))
    return tuple(Input(column, names[column], kind) for column, kind in kinds.items()), others


def _input(one: Found) -> tuple[str, str]:
    """The type of an input, or the reason why a column is none."""
    if not one.filled:
        return "", "empty in this file"
    if one.type == "bool":
        return "bool", ""
    if ID_LIKE.fullmatch(one.name) and one.whole:
        return ("category", "") if _is_few(one) else ("", f"{one.distinct:,} different numbers that are names")
    if one.is_number:
        return "float32", ""
    if one.type == "string":
        return ("category", "") if _is_few(one) else ("", f"{one.distinct:,} different texts in {one.filled:,} rows")
    example = f", such as month({sql_name(one.name)})" if one.is_time else ""
    return "", f"{one.type}; make numbers or categories of it in the query{example}"


def _is_few(one: Found) -> bool:
    """Few enough values, each of them in several rows, to be categories."""
    return one.distinct <= CATEGORIES and one.distinct <= max(CLASSES, one.filled // 2)


def _input_names(columns: Sequence[str]) -> dict[str, str]:
    """A name for each: the column's own, where an input may be called so."""
    taken = {name.lower() for name in columns if _may_be_input(name)}
    found = {}
    for column in columns:
        name = column
        if not _may_be_input(column):
            wanted = plain_name(column, "input", lower=False)
            wanted = wanted if _may_be_input(wanted) else f"{wanted}_value"
            name = next(n for n in (wanted, *(f"{wanted}_{i}" for i in range(2, 10_000))) if n.lower() not in taken)
            taken.add(name.lower())
        found[column] = name
    return found


def _may_be_input(name: str) -> bool:
    return INPUT_NAME.fullmatch(name) is not None and name.lower() not in RESERVED_INPUTS
