"""A source's rules as SQL: what each raw row becomes, and every reason why it is wrong.

Pure functions that return text.

The input is a relation `raw` whose columns are all VARCHAR (CSV) or already typed (JSON Lines, Parquet), and `_line`.
"""

from __future__ import annotations

from collections.abc import Sequence

from lakeloop.lakehouse.project.definitions import INT_TYPES, Column, Source, Type
from lakeloop.lakehouse.query.session import literal, quoted

WHOLE = r"^[+-]?[0-9]+(\.0*)?$"
DAY = r"^[^T ]+([T ]00:00(:00(\.0*)?)?(Z|[+-]00(:?00)?)?)?$"
NO_SECONDS = r"^(\d+-\d+-\d+[T ]\d+:\d+)(Z|[+-]\d\d.*)$"


def decoded(source: Source, present: Sequence[str]) -> str:
    """SQL: `_line`, `_row` (the raw row as JSON), `_reasons` (a list, empty when the row is right), and every declared
    column, typed."""
    raw = ", ".join(f"{_text(source, name)} as {_raw(name)}" for name in present)
    names = [name for name in source.columns if name in present]
    typed = [f"{_typed(source.columns[name].type, _raw(name))} as {quoted(name)}" for name in names]
    typed += [
        f"null::{column.type.stored} as {quoted(name)}"
        for name, column in source.columns.items()
        if name not in present
    ]
    kept = ", ".join(f"{quoted(name)} := {_raw(name)}" for name in present)
    reasons = ", ".join(
        f"case when {condition} then {message} end"
        for name in names
        for condition, message in _rules(source.columns[name])
    )
    reasons = reasons or "null::VARCHAR"
    declared = ", ".join(map(quoted, source.columns))
    return f"""
select _line, to_json(struct_pack({kept})) as _row, list_filter([{reasons}], lambda r: r is not null) as _reasons,
    {declared}
from (select *, {", ".join(typed)} from (select _line, {raw} from raw))"""


def integer_bounds(kind: str) -> tuple[int, int]:
    """Least and greatest value of `int16`, `uint8`, …"""
    bits = int(kind.lstrip("uint"))
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _raw(name: str) -> str:
    """The raw value beside the typed one, under a name that no column can have: they are identifiers."""
    return quoted(f"raw {name}")


def _text(source: Source, name: str) -> str:
    """The raw value as text, null where the source says so."""
    value = f"{quoted(name)}::VARCHAR"
    nulls = ", ".join(literal(text) for text in source.read.null)
    return f"case when {value} in ({nulls}) then null else {value} end" if nulls else value


def _typed(kind: Type, raw: str, depth: int = 0) -> str:
    if kind.item is not None:
        # Item by item: a cast of the whole list would make null of an item that is wrong, and round 1.5.
        item = _typed(kind.item, f"e{depth}", depth + 1)
        return f"list_transform(try_cast({raw} as VARCHAR[]), lambda e{depth}: {item})"
    if kind.name in INT_TYPES:
        return f"case when regexp_matches({raw}, '{WHOLE}') then try_cast(split_part({raw}, '.', 1) as BIGINT) end"
    if kind.name == "date":  # a time of day that is not midnight would be dropped without a word
        return f"case when regexp_matches({raw}, '{DAY}') then try_cast({raw} as DATE) end"
    if kind.name == "timestamp":  # DuckDB wants seconds before a zone
        return f"try_cast(regexp_replace({raw}, '{NO_SECONDS}', '\\1:00\\2') as TIMESTAMP WITH TIME ZONE)"
    if kind.name == "json":
        return f"case when json_valid({raw}) then {raw} end"
    return f"try_cast({raw} as {kind.stored})" if kind.stored != "VARCHAR" else raw


def _rules(column: Column) -> list[tuple[str, str]]:
    """(condition under which a value is wrong, SQL text of the reason)."""
    value, raw = quoted(column.name), _raw(column.name)
    prefix = literal(f"{column.name}: ")
    lost = f"{value} is null"
    if column.type.item is not None:
        lost += f" or list_aggregate({value}, 'count') <> list_aggregate(try_cast({raw} as VARCHAR[]), 'count')"
    rules = [(f"{raw} is not null and ({lost})", f"{prefix} || {raw} || ' is not {_article(str(column.type))}'")]
    if not column.nullable:
        rules.append((f"{raw} is null", f"{prefix} || 'missing'"))
    if column.type.name in INT_TYPES:
        low, high = integer_bounds(column.type.name)
        rules.append((f"{value} not between {low} and {high}", f"{prefix} || {raw} || ' does not fit {column.type}'"))
    if column.range is not None:
        low_, high_ = column.range
        rules.append(
            (
                f"{value} not between '{low_!r}'::DOUBLE and '{high_!r}'::DOUBLE",
                f"{prefix} || {raw} || ' is outside {low_:g} to {high_:g}'",
            )
        )
    if column.values:
        allowed = ", ".join(literal(str(v)) for v in column.values)
        rules.append(
            (
                f"{value}::VARCHAR not in ({allowed})",
                f"{prefix} || {raw} || ' is not one of ' || {literal(', '.join(map(str, column.values)))}",
            )
        )
    if column.matches:
        rules.append(
            (
                f"not regexp_full_match({raw}, {literal(column.matches)})",
                f"{prefix} || {raw} || ' does not match ' || {literal(column.matches)}",
            )
        )
    if column.unique:
        rules.append(
            (
                f"count({value}) over (partition by {value}) > 1",
                f"{prefix} || {raw} || ' stands in the file more than once'",
            )
        )
    return rules


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
