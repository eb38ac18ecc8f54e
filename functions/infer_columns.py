"""What columns a file has: types, missing values, how many different ones. By the same casts that an ingest makes of it later.

A text is a number only if it would come back as the same text: `00123` and numbers beyond 64 bits stay text. Texts such as `NA` mean null only
where a column would not be numbers, truth or times otherwise; the source then says so for the whole file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lakeloop.lakehouse.query.session import Session, literal, quoted

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


@dataclass(frozen=True, slots=True)
class Found:
    """One column of a file.

    `type` as a source declares it, "" for what a table cannot hold. `missing` are the texts besides "" that mean null in it. `rows` counts all,
    `filled` those with a value. `whole`: every number in it is one, however it is written.
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
    name = quoted(column.name)
    with Session(None, lambda _name: None) as session:
        session.register("raw", rows)
        sql = f"select {name}::VARCHAR as v, count(*) as n from raw where {_is_filled(name, column.missing)} group by 1 order by 2 desc, 1 limit {limit}"
        return [(row["v"], int(row["n"])) for row in session.run(sql).to_pylist()]


def first_repeated(rows: pa.Table, columns: Sequence[str]) -> dict[str, Any] | None:
    """Values of these columns that several rows share, with `n`, how many; None when each row has its own. Rows without one do not count."""
    names = ", ".join(quoted(name) for name in columns)
    there = " and ".join(_is_filled(quoted(name), ()) for name in columns)
    texts = ", ".join(f"{quoted(name)}::VARCHAR as {quoted(name)}" for name in columns)
    with Session(None, lambda _name: None) as session:
        session.register("raw", rows)
        found = session.run(
            f"select {texts}, count(*) as n from raw where {there} group by {names} having n > 1 order by n desc, {names} limit 1"
        )
    return dict(found.to_pylist()[0]) if found.num_rows else None


def quantile_times(rows: pa.Table, column: str, shares: Sequence[float]) -> list[Any]:
    """The moments below which these shares of the rows lie; empty when there is no time in the column."""
    with Session(None, lambda _name: None) as session:
        session.register("raw", rows)
        sql = f"select quantile_disc(try_cast({quoted(column)}::VARCHAR as TIMESTAMPTZ), {list(shares)}) as t from raw"
        return list(session.run(sql).column("t")[0].as_py() or [])


def _found(session: Session, field: pa.Field, count: int) -> Found:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _of_text(session, field.name, count)
    name = quoted(field.name)
    declared = declared_type(kind)
    not_numbers = ("nan",) if pa.types.is_floating(kind) else ()
    filled = _is_filled(name, not_numbers)
    sql = f"select count(*) filter ({filled}) as filled, count(distinct {name}::VARCHAR) filter ({filled}) as n"
    sql += f", count(*) filter ({name}::VARCHAR = 'nan') as nan, count(*) filter ({filled} and not {_like(f'{name}::VARCHAR', WHOLE_REAL)}) as broken from raw"
    row = session.run(sql).to_pylist()[0]
    return Found(
        field.name,
        declared,
        count,
        row["filled"],
        row["n"],
        not_numbers if row["nan"] else (),
        declared != "" and not row["broken"],
    )


def _without(session: Session, found: Found, missing: Sequence[str]) -> Found:
    """A column of text, now that another one needs these texts to mean null."""
    name, filled = quoted(found.name), _is_filled(quoted(found.name), missing)
    row = session.run(
        f"select count(*) filter ({filled}) as filled, count(distinct {name}::VARCHAR) filter ({filled}) as n from raw"
    ).to_pylist()[0]
    return replace(found, filled=row["filled"], distinct=row["n"])


def _of_text(session: Session, column: str, count: int) -> Found:
    value = f"{quoted(column)}::VARCHAR"
    filled = _is_filled(quoted(column), MISSING)
    tests = {
        "int64": f"{_like(value, WHOLE)} and try_cast({value} as BIGINT) is not null",
        "float64": f"{_like(f'trim({value})', REAL)} and not ({_like(value, WHOLE)} and try_cast({value} as BIGINT) is null)",
        "whole": _like(value, WHOLE_REAL),
        "date": f"{_like(value, DAY)} and try_cast({value} as DATE) is not null",
        "timestamp": f"{_like(value, f'{DAY}([ T].*)?')} and try_cast({value} as TIMESTAMPTZ) is not null",
        "json": f"{_like(value, JSON)} and json_valid({value})",
    } | {f"{yes}/{no}": f"lower({value}) in ('{yes}', '{no}')" for yes, no in TRUTH}
    fails = ", ".join(f"count(*) filter ({filled} and not ({test})) as {quoted(kind)}" for kind, test in tests.items())
    missing = f"list_sort(list(distinct {value}) filter ({value} in ({_texts(MISSING)})))"
    sql = f"select {fails}, {missing} as missing, count(*) filter ({filled}) as filled, count(distinct {value}) filter ({filled}) as n, "
    sql += f"count(distinct lower({value})) filter ({filled}) as spellings, count(*) filter ({value} <> '') as given, "
    sql += f"count(distinct {value}) filter ({value} <> '') as given_n from raw"
    row = session.run(sql).to_pylist()[0]
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


def _is_filled(name: str, missing: Sequence[str]) -> str:
    return f"{name}::VARCHAR not in ({_texts(('', *missing))})"


def _texts(values: Sequence[str]) -> str:
    return ", ".join(literal(value) for value in values)


def _like(value: str, pattern: str) -> str:
    return f"regexp_full_match({value}, {literal(pattern)})"
