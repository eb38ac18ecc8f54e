"""SQL text for tables outside of the lake: how they are scanned, and how their columns become the declared ones.

Pure functions. A column that is not there, or holds another type than declared, is an error that names it; nothing is
cast that could lose a part of a value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import FLOAT_TYPES, INT_TYPES, Column, Source, Type
from lakeloop.lakehouse.query.quoting import literal, quoted

INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
REALS = ("FLOAT", "DOUBLE")
TEXTS = ("VARCHAR", "JSON", "UUID")


def scan_delta(uri: str, version: int) -> str:
    """A Delta table at one version."""
    return f"delta_scan({literal(uri)}, version => {version})"


def scan_parquet(uris: Sequence[str], partitions: Collection[str]) -> str:
    """Parquet files as one table, columns by name; `partitions` are in their paths (`day=2026-01-01`), as text."""
    hive = "true, hive_types_autocast => false" if partitions else "false"
    return f"read_parquet([{', '.join(map(literal, uris))}], union_by_name => true, hive_partitioning => {hive})"


def select_declared(source: Source, partitions: Collection[str], found: Mapping[str, str]) -> str:
    """The list of a SELECT that gives the declared columns in their stored types, of columns `found` (name → type).

    Invalid, with every column that does not fit.
    """
    there = {name.lower(): (name, kind) for name, kind in found.items()}
    of_path = {name.lower() for name in partitions}
    parts, problems = [], []
    for name, column in source.columns.items():
        if name.lower() not in there:
            if not column.nullable:
                problems.append(f"{name}: is not there (there are: {', '.join(sorted(found)[:12])})")
            parts.append(f"null::{column.type.stored} as {quoted(name)}")
            continue
        spelled, kind = there[name.lower()]
        if name.lower() not in of_path and not holds(column.type, kind):
            problems.append(f"{name}: is {kind} there, and {column.type} is declared")
        parts.append(f"{_value(source, column, spelled)} as {quoted(name)}")
    if problems:
        raise Invalid(
            f"the table at {source.read.uri} is not as sources/{source.name}.toml declares it",
            where=source.name,
            todo='mend [columns] there: the type, or "?" for a column that may be missing',
            problems=problems,
        )
    return ", ".join(parts)


def _value(source: Source, column: Column, spelled: str) -> str:
    """One column; a row that does not say when it was known could leak, and stops the query."""
    value = f"{quoted(spelled)}::{column.type.stored}"
    if column.name != source.known_at:
        return value
    message = literal(f"{source.name}: {column.name} is null, so nobody knows when this row was known")
    return f"case when {quoted(spelled)} is null then error({message}) else {value} end"


def holds(declared: Type, found: str) -> bool:
    """Whether every value of DuckDB's type `found` is one of the declared type's stored values."""
    if declared.item is not None:
        return found.endswith("[]") and holds(declared.item, found[:-2])
    if declared.name in INT_TYPES:
        return found in INTEGERS
    if declared.name in FLOAT_TYPES or declared.name == "decimal":
        return found in (*INTEGERS, *REALS) or found.startswith("DECIMAL(")
    if declared.name == "date":
        return found == "DATE"
    if declared.name == "timestamp":
        return found == "DATE" or found.startswith("TIMESTAMP")
    if declared.name == "bool":
        return found == "BOOLEAN"
    return found in TEXTS or found.startswith("ENUM(")
