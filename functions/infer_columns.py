"""What columns a file has: types, missing values, how many different ones. By the casts that an ingest makes later.

A text is a whole number only if it comes back as the same text: `00123` and what is beyond 64 bits stay text. Texts
such as `NA` mean null only where a column would not be numbers, truth or times otherwise; the source then says so for
the whole file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lakeloop.lakehouse.query.quoting import literal, quoted
from lakeloop.lakehouse.query.session import Session

MISSING = (
    "NA",
    "N/A",
    "n/a",
    "na",
    "#N/A",
    "NaN",
    "nan",
    "NULL",
    "null",
    "Null",
    "None",
    "none",
    "\\N",
    "?",
    "-",
    ".",
    " ",
)
"""Texts that stand for no value in files people send. Never in a column that is text anyway."""
WHOLE = r"[+-]?(0|[1-9][0-9]*)"
WHOLE_REAL = r"[+-]?(0|[1-9][0-9]*)(\.0*)?"
REAL = r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|Inf|infinity|Infinity)"
DAY = "[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"
JSON = r"[{\[][\s\S]*"
TRUTH = (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"))
NUMBERS = ("int64", "float64")


def _like(value: str, pattern: str) -> str:
    return f"regexp_full_match({value}, {literal(pattern)})"


TESTS = {
    "int64": f"{_like('v', WHOLE)} and try_cast(v as BIGINT) is not null",
    "float64": f"{_like('trim(v)', REAL)} and not ({_like('v', WHOLE)} and try_cast(v as BIGINT) is null)",
    "whole": _like("v", WHOLE_REAL),
    "date": f"{_like('v', DAY)} and try_cast(v as DATE) is not null",
    "timestamp": f"{_like('v', f'{DAY}([ T].*)?')} and try_cast(v as TIMESTAMPTZ) is not null",
    "json": f"{_like('v', JSON)} and json_valid(v)",
}
"""Conditions on a text `v` under which it is a value of the type."""


@dataclass(frozen=True, slots=True)
class Found:
    """One column of a file.

    `type` as a source declares it, "" for what a table cannot hold. `missing` are the texts besides "" that mean null
    in it. `rows` counts all, `filled` those with a value. `whole`: all its numbers are whole, however they are written.
    """

    name: str
    type: str
    rows: int
    filled: int
    distinct: int
    missing: tuple[str, ...] = ()
    whole: bool = False

    @property
    def nullable(self) -> bool:
        return self.filled < self.rows

    @property
    def is_number(self) -> bool:
        return self.type.startswith(("int", "uint", "float", "decimal"))

    @property
    def is_time(self) -> bool:
        return self.type in ("date", "timestamp")


def infer_columns(rows: pa.Table) -> list[Found]:
    """The columns of a file as `decoding.read_rows` gives it; `_line` and columns without a name are left out."""
    with Session(None, lambda _name: None) as session:
        session.register("raw", rows)
        found = [_found(session, field, rows.num_rows) for field in rows.schema if field.name not in ("", "_line")]
        missing = missing_texts(found)
        return [_without(session, one, missing) if one.type == "string" and missing else one for one in found]


def missing_texts(columns: Sequence[Found]) -> list[str]:
    """The texts, besides the empty one, that mean null in some column; a source says it for all of its columns."""
    return sorted({text for one in columns for text in one.missing})


def different_values(rows: pa.Table, column: Found, limit: int) -> list[tuple[str, int]]:
    """The values of a column as text with their counts, the most frequent first."""
    values = _values(column.name, column.missing)
    with Session(None, lambda _name: None) as session:
        session.register("raw", rows)
        sql = f"select v, count(*) as times from {values} where filled group by v order by times desc, v limit {limit}"
        return [(row["v"], int(row["times"])) for row in session.run(sql).to_pylist()]


def first_repeated(rows: pa.Table, columns: Sequence[str]) -> tuple[int, dict[str, str]] | None:
    """How many rows share the most repeated values of these columns, and the values; None when each row has its own.

    Rows that lack one of them do not count.
    """
    texts = [f"{quoted(name)}::VARCHAR" for name in columns]
    there = " and ".join(f"{text} <> ''" for text in texts)
    with Session(None, lambda _name: None) as session:
        session.register("raw", rows)
        values = f"(select [{', '.join(texts)}] as v from raw where {there})"
        sql = f"select v, count(*) as times from {values} group by v"
        found = session.run(f"{sql} having times > 1 order by times desc, v limit 1").to_pylist()
    return (int(found[0]["times"]), dict(zip(columns, found[0]["v"], strict=True))) if found else None


def quantile_times(rows: pa.Table, column: str, shares: Sequence[float], label: Found) -> list[Any]:
    """The moments below which these shares of the labelled rows lie; empty when there is no time in the column."""
    time, labels = f"try_cast({quoted(column)}::VARCHAR as TIMESTAMPTZ)", f"{quoted(label.name)}::VARCHAR"
    with Session(None, lambda _name: None) as session:
        session.register("raw", rows)
        labelled = f"{labels} not in ({_texts(('', *label.missing))})"
        sql = f"select quantile_disc({time}, {list(shares)}) as t from raw where {labelled}"
        return list(session.run(sql).column("t")[0].as_py() or [])


def _found(session: Session, field: pa.Field, count: int) -> Found:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _of_text(session, field.name, count)
    name, declared = field.name, declared_type(kind)
    not_numbers = ("nan",) if pa.types.is_floating(kind) else ()
    values = _values(name, not_numbers)
    counts = "count(*) filter (filled) as filled, count(distinct v) filter (filled) as n, count(*) as rows"
    broken = f"count(*) filter (filled and not {_like('v', WHOLE_REAL)}) as broken, count(*) filter (v = 'nan') as nan"
    row = session.run(f"select {counts}, {broken} from {values}").to_pylist()[0]
    whole = declared != "" and not row["broken"]
    return Found(name, declared, count, row["filled"], row["n"], not_numbers if row["nan"] else (), whole)


def _without(session: Session, found: Found, missing: Sequence[str]) -> Found:
    """A column of text, now that another one needs these texts to mean null."""
    counts = "count(*) filter (filled) as filled, count(distinct v) filter (filled) as n"
    row = session.run(f"select {counts} from {_values(found.name, missing)}").to_pylist()[0]
    return replace(found, filled=row["filled"], distinct=row["n"])


def _of_text(session: Session, column: str, count: int) -> Found:
    tests = TESTS | {f"{yes}/{no}": f"lower(v) in ('{yes}', '{no}')" for yes, no in TRUTH}
    fails = [f"count(*) filter (filled and not ({test})) as {quoted(kind)}" for kind, test in tests.items()]
    missing = f"list_sort(list(v) filter (v in ({_texts(MISSING)}))) as missing"
    counts = "coalesce(sum(times) filter (filled), 0)::BIGINT as filled, count(*) filter (filled) as n"
    given = "coalesce(sum(times) filter (v <> ''), 0)::BIGINT as given, count(*) filter (v <> '') as given_n"
    spellings = "count(distinct lower(v)) filter (filled) as spellings"
    asked = ", ".join([*fails, missing, counts, given, spellings])
    different = f"(select v, filled, count(*) as times from {_values(column, MISSING)} group by all)"
    row = session.run(f"select {asked} from {different}").to_pylist()[0]
    kind = _kind_of_text(row)
    if kind == "string":
        return Found(column, "string", count, row["given"], row["given_n"])
    return Found(column, kind, count, row["filled"], row["n"], tuple(row["missing"] or ()), whole=not row["whole"])


def _kind_of_text(row: dict[str, Any]) -> str:
    """The first type that every value of a column fits; one letter alone is no truth value."""
    if not row["filled"]:
        return "string"
    for yes, no in TRUTH:
        if not row[f"{yes}/{no}"] and (len(yes) > 1 or row["spellings"] == 2):
            return "bool"
    return next((kind for kind in (*NUMBERS, "date", "timestamp", "json") if not row[kind]), "string")


def declared_type(kind: pa.DataType) -> str:
    """The type of the format for an Arrow type; "" for one that a table cannot hold."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = declared_type(kind.value_type)
        return f"list<{item}>" if item else ""
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})" if 0 <= kind.scale <= kind.precision <= 38 else "float64"
    if pa.types.is_dictionary(kind):
        return declared_type(kind.value_type)
    names = (
        (pa.types.is_boolean, "bool"),
        (pa.types.is_timestamp, "timestamp"),
        (pa.types.is_date, "date"),
        (pa.types.is_string, "string"),
        (pa.types.is_large_string, "string"),
        (pa.types.is_null, "string"),
        (pa.types.is_float64, "float64"),
        (pa.types.is_floating, "float32"),
        (pa.types.is_integer, str(kind)),
    )
    return next((name for test, name in names if test(kind)), "")


def _values(column: str, missing: Sequence[str]) -> str:
    """SQL: a column as text `v`, and whether it is `filled`: neither null nor a text that stands for it."""
    name = f"{quoted(column)}::VARCHAR"
    return f"(select {name} as v, coalesce({name} not in ({_texts(('', *missing))}), false) as filled from raw)"


def _texts(values: Sequence[str]) -> str:
    return ", ".join(literal(value) for value in values)
