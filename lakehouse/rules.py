"""A source's rules as SQL: what each raw row becomes, whether it is wrong, and every reason why.

Pure functions that return text. The input is a relation LANDED with the file's columns, as text (CSV, JSON Lines) or
typed (Parquet), and `_line`. Whether a row is wrong is a handful of comparisons; its reasons are spelled out only
where it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lakeloop.lakehouse.project.definitions import FLOAT_TYPES, INT_TYPES, Column, OnError, Source, Type
from lakeloop.lakehouse.query.quoting import literal, quoted

LANDED = "landed rows"
"""What a file's rows are called: no source's name, since those hold no blank."""
REAL = re.compile(r"\d|nan|inf", re.IGNORECASE)
NAN = re.compile(r"^[+-]?nan$", re.IGNORECASE)
WHOLE = r"^[+-]?[0-9]+(\.0*)?$"
DAY = r"^\d{4}[^\dT (][^T (]*([T ]00:00(:00(\.0*)?)?(Z|[+-]00(:?00)?)?)?$"
NO_SECONDS = r"^(\d+-\d+-\d+[T ]\d+:\d+)(Z|[+-]\d\d.*)$"
MOMENT = r"^\s*\d{4}[^\d(][^(]*$"
"""Of four digits the year, and of this era: "infinity", "epoch" and "(BC)" are moments to DuckDB."""
BOUNDS = {  # what Python, Arrow and delta-rs can say of a time
    "date": ("date '0001-01-01'", "date '9999-12-31'"),
    "timestamp": ("timestamptz '0001-01-01 00:00:00+00'", "timestamptz '9999-12-31 23:59:59.999999+00'"),
}
LONG = ("1e15", "-9223372036854775808", "9223372036854774784")
"""From where DuckDB may write a whole real with an exponent, and the least and greatest reals that a BIGINT holds."""
SEVERITIES: tuple[OnError, ...] = ("stop", "quarantine", "warn")


@dataclass(frozen=True, slots=True)
class Rule:
    """A row is wrong where `condition` is true; `message` is SQL for the reason."""

    condition: str
    message: str
    on_error: OnError


def decoded(source: Source, present: Mapping[str, pa.DataType], more: Sequence[Rule] = ()) -> str:
    """SQL: `_line`, every declared column in its stored type, `_bad` (some rule is broken), `_out` (and the row is kept
    out), `_stop` (and the file stops); where bad `_reasons` (a list) and `_row` (the raw row as JSON).

    `present` are the columns of the file with their types; `more` are rules beside those of the columns.
    """
    raws = {name: _Raw(source, source.columns[name], present[name]) for name in source.columns if name in present}
    typed = [f"{raw.typed} as {quoted(name)}" for name, raw in raws.items()]
    typed += [f"null::{c.type.stored} as {quoted(n)}" for n, c in source.columns.items() if n not in raws]
    rules = [rule for raw in raws.values() for rule in raw.rules(source)] + list(more)
    flags = {severity: _any(rule.condition for rule in rules if rule.on_error == severity) for severity in SEVERITIES}
    reasons = ", ".join(f"case when {rule.condition} then {rule.message} end" for rule in rules) or "null::VARCHAR"
    kept = ", ".join(f"{quoted(name)} := {raw.text}" for name, raw in raws.items())
    out = f"{flags['stop']} or {flags['quarantine']}"
    return f"""
select _line, {", ".join(map(quoted, source.columns))}, _bad, _out, _stop,
    case when _bad then list_filter([{reasons}], lambda r: r is not null) end as _reasons,
    case when _bad then to_json(struct_pack({kept}))::VARCHAR end as _row
from (select *, {out} or {flags["warn"]} as _bad, {out} as _out, {flags["stop"]} as _stop from (
    select *, {", ".join(typed)} from (
        select _line, {", ".join(raw.source for raw in raws.values())} from {quoted(LANDED)})))"""


def repeated_values(source: Source, column: Column, kind: pa.DataType) -> str:
    """SQL: the values of a column of LANDED that stand there more than once, in their stored type, as `v`."""
    raw = _Raw(source, column, kind)
    typed = f"select {raw.typed} as v from (select {raw.source} from {quoted(LANDED)})"
    return f"select v from ({typed}) where v is not null group by v having count(*) > 1"


def _any(conditions: Iterator[str]) -> str:
    found = " or ".join(f"({condition})" for condition in conditions)
    return f"coalesce({found}, false)" if found else "false"


class _Raw:
    """A column of the file: how it is read, and what may be wrong with it.

    A value that comes in a type that fits is taken as it is; any other goes through its text. Names with a blank are
    no column's: those are identifiers.
    """

    def __init__(self, source: Source, column: Column, kind: pa.DataType) -> None:
        self.column, self.kind = column, kind.value_type if pa.types.is_dictionary(kind) else kind
        self._nulls = source.read.null
        self.direct = _fits(column.type, self.kind) and not self._may_mean_null()
        self._value = quoted(f"raw {column.name}")
        self.text = f"{self._value}::VARCHAR" if self.direct else self._value

    @property
    def source(self) -> str:
        """The raw value under its own name, null where the source says so."""
        name = quoted(self.column.name)
        value = name if self.direct and not pa.types.is_string(self.kind) else self._spelled(name)
        if _is_number(self.kind):
            null = self._null_numbers(name)
        else:
            nulls = ", ".join(map(literal, self._nulls))
            null = f"{value} in ({nulls})" if nulls and value != name else ""
        return f"{f'case when {null} then null else {value} end' if null else value} as {self._value}"

    def _spelled(self, name: str) -> str:
        """A value's text. A whole real keeps all its digits where a whole number is declared."""
        text = f"{name}::VARCHAR"
        if not (pa.types.is_floating(self.kind) and self.column.type.name in INT_TYPES):
            return text
        from_, least, most = LONG
        long = f"abs({name}) >= {from_} and {name} between {least} and {most}"
        return f"case when {long} then {name}::BIGINT::VARCHAR else {text} end"

    def _null_numbers(self, name: str) -> str:
        """SQL: a number is one that means null. By its value: 1.0 is no other number than 1."""
        if pa.types.is_integer(self.kind):
            whole = [text.split(".")[0] for text in self._nulls if re.search(WHOLE, text)]
            return f"{name} in ({', '.join(str(int(text)) for text in whole)})" if whole else ""
        kind = "FLOAT" if pa.types.is_float32(self.kind) else "DOUBLE"
        numbers = [f"try_cast({literal(text)} as {kind})" for text in self._nulls if REAL.search(text)]
        found = [f"{name}::{kind} in ({', '.join(numbers)})"] if numbers else []
        # Not by a comparison: see the rule of a range.
        found += [f"isnan({name}::{kind})"] if any(NAN.search(text) for text in self._nulls) else []
        return " or ".join(found)

    @property
    def typed(self) -> str:
        kind = self.column.type
        if not self.direct:
            return _typed(kind, self._value)
        return _cast(kind, self._value) if self._may_be_lost() else f"{self._value}::{kind.stored}"

    def rules(self, source: Source) -> Iterator[Rule]:
        """Everything that is declared of the column and that its type in the file does not grant."""
        on_error = self.column.on_error or source.on_error
        for condition, message in _rules(self):
            yield Rule(condition, f"{literal(f'{self.column.name}: ')} || {message}", on_error)

    def lost(self) -> str:
        """SQL: a value was there and none came out; empty where that cannot be."""
        value = quoted(self.column.name)
        if self.direct and not self._may_be_lost():
            return ""
        lost = f"{value} is null"
        if self.column.type.item is not None:
            lost += f" or list_aggregate({value}, 'count') <> list_aggregate({_items(self.text)}, 'count')"
        return f"{self._value} is not null and ({lost})"

    def missing(self) -> str:
        return f"{self._value} is null"

    def within(self) -> bool:
        """Whether the file's own type allows no integer that the declared one does not."""
        if not (self.direct and pa.types.is_integer(self.kind)):
            return False
        low, high = integer_bounds(self.column.type.name)
        mine = integer_bounds(str(self.kind))
        return low <= mine[0] and mine[1] <= high

    def _may_be_lost(self) -> bool:
        return bool(pa.types.is_uint64(self.kind) or pa.types.is_timestamp(self.kind) or pa.types.is_date(self.kind))

    def _may_mean_null(self) -> bool:
        """Whether a text that means null can only be known by its text, and be that of a value of this type."""
        if pa.types.is_string(self.kind) or _is_number(self.kind):
            return False
        return any(re.search(r"\d|true|false", text, re.IGNORECASE) for text in self._nulls)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _fits(declared: Type, kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are values of the declared one without a look at their text."""
    if declared.item is not None:
        return False
    if declared.name in INT_TYPES:
        return bool(pa.types.is_integer(kind))
    if declared.name in FLOAT_TYPES:
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
    match declared.name:
        case "bool":
            return bool(pa.types.is_boolean(kind))
        case "date":
            return bool(pa.types.is_date32(kind))
        case "timestamp":
            return bool(pa.types.is_timestamp(kind))
        case "string":
            return bool(pa.types.is_string(kind))
        case _:
            return False


def integer_bounds(kind: str) -> tuple[int, int]:
    """Least and greatest value of `int16`, `uint8`, …"""
    bits = int(kind.lstrip("uint"))
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _typed(kind: Type, raw: str, depth: int = 0) -> str:
    if kind.item is not None:
        # Item by item: a cast of the whole list would make null of an item that is wrong, and round 1.5.
        item = _typed(kind.item, f"e{depth}", depth + 1)
        return f"list_transform({_items(raw)}, lambda e{depth}: {item})"
    if kind.name in INT_TYPES:
        return f"case when regexp_matches({raw}, '{WHOLE}') then try_cast(split_part({raw}, '.', 1) as BIGINT) end"
    if kind.name == "date":  # a time of day that is not midnight would be dropped without a word
        return f"case when regexp_matches({raw}, '{DAY}') then {_cast(kind, raw)} end"
    if kind.name == "timestamp":  # DuckDB wants seconds before a zone
        text = f"regexp_replace({raw}, '{NO_SECONDS}', '\\1:00\\2')"
        return f"case when regexp_matches({raw}, '{MOMENT}') then {_cast(kind, text)} end"
    if kind.name == "json":
        return f"case when json_valid({raw}) then {raw} end"
    return f"try_cast({raw} as {kind.stored})" if kind.stored != "VARCHAR" else raw


def _items(raw: str) -> str:
    """A list's items as texts. JSON where it is that: DuckDB's own spelling of lists knows other escapes. Numbers keep
    their digits."""
    cast = f"try_cast({raw} as VARCHAR[])"
    is_json = f"contains({raw}, chr(34)) and json_valid({raw})"
    return f"coalesce(case when {is_json} then try_cast(try_cast({raw} as JSON) as VARCHAR[]) end, {cast})"


def _cast(kind: Type, value: str) -> str:
    """A value in its stored type, or null; also where it is a time that none of the table's readers could say."""
    cast = f"try_cast({value} as {kind.stored})"
    if kind.name not in BOUNDS:
        return cast
    least, most = BOUNDS[kind.name]
    return f"case when {cast} between {least} and {most} then {cast} end"


def _rules(raw: _Raw) -> Iterator[tuple[str, str]]:
    """(condition under which a value is wrong, SQL text of the reason behind the column's name)."""
    column, value, text = raw.column, quoted(raw.column.name), raw.text
    if lost := raw.lost():
        yield lost, f"{text} || ' is not {_article(str(column.type))}'"
    if not column.nullable:
        yield raw.missing(), "'missing'"
    if column.type.name in INT_TYPES and not raw.within():
        low, high = integer_bounds(column.type.name)
        yield f"{value} not between {low} and {high}", f"{text} || ' does not fit {column.type}'"
    if column.range is not None:
        least, most = column.range
        # DuckDB decides a comparison by the least and the greatest value that a Parquet file notes: NaN is neither.
        nan = f" or isnan({value})" if column.type.stored == "DOUBLE" else ""
        yield (
            f"{value} not between '{least!r}'::DOUBLE and '{most!r}'::DOUBLE{nan}",
            f"{text} || ' is outside {least:g} to {most:g}'",
        )
    if column.values:
        spelled = [str(v).lower() if isinstance(v, bool) else str(v) for v in column.values]
        yield (
            _not_among(value, column.type, spelled),
            f"{text} || ' is not one of ' || {literal(', '.join(spelled))}",
        )
    if column.matches:
        yield (
            f"not regexp_full_match({text}, {literal(column.matches)})",
            f"{text} || ' does not match ' || {literal(column.matches)}",
        )


def _not_among(value: str, kind: Type, spelled: Sequence[str]) -> str:
    if kind.stored == "VARCHAR" and kind.item is None:
        # A function, which DuckDB asks once for each word of a Parquet dictionary; IN it asks for each row.
        return f"not list_contains([{', '.join(map(literal, spelled))}], {value})"
    stored = kind.stored if kind.item is None else "VARCHAR"
    allowed = ", ".join(f"try_cast({literal(v)} as {stored})" for v in spelled)
    return f"{value} is not null and not coalesce({value}::{stored} in ({allowed}), false)"


def unique_rule(source: Source, column: Column, repeated: str) -> Rule:
    """A value that stands in the file more than once; `repeated` is a table of those values, as `v`."""
    value = quoted(column.name)
    return Rule(
        f"{value} in (select v from {repeated})",
        f"{literal(f'{column.name}: ')} || {value}::VARCHAR || ' stands in the file more than once'",
        column.on_error or source.on_error,
    )


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
