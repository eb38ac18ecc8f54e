"""How the types of a query's answer are stored, and which of them fit an input, a label, a time."""

from __future__ import annotations

from typing import Final

from lakeloop.lakehouse.project.definitions import FLOAT_TYPES, INT_TYPES, Problem

TIMESTAMP: Final = "TIMESTAMP WITH TIME ZONE"
TIMES: Final = (TIMESTAMP, "DATE")
NUMBERS: Final = ("BIGINT", "DOUBLE")
# What a model can be given: numbers, truth, and text as categories. Times and lists are for derive() and SQL.
FEATURES: Final = (*NUMBERS, "BOOLEAN", "VARCHAR")
LABELS: Final[dict[Problem, tuple[str, ...]]] = {
    "binary": ("BOOLEAN", "BIGINT"),
    "multiclass": ("VARCHAR", "BIGINT", "BOOLEAN"),
    "regression": NUMBERS,
}
_INTEGERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_REALS: Final = ("FLOAT", "DOUBLE", "HUGEINT", "UHUGEINT")


def stored_type(duckdb_type: str) -> str | None:
    """The type a table keeps a query's column in; None for what is not stored (a struct, an interval, an untyped null).

    128-bit integers (the sum of integers) and decimals become DOUBLE; a timestamp without a zone is UTC.
    """
    if duckdb_type.endswith("[]"):
        item = stored_type(duckdb_type[:-2])
        return f"{item}[]" if item else None
    if duckdb_type in _INTEGERS:
        return "BIGINT"
    if duckdb_type in _REALS or duckdb_type.startswith("DECIMAL("):
        return "DOUBLE"
    if duckdb_type.startswith("TIMESTAMP"):
        return TIMESTAMP
    if duckdb_type in ("UUID", "JSON") or duckdb_type.startswith("ENUM("):
        return "VARCHAR"
    return duckdb_type if duckdb_type in ("VARCHAR", "BOOLEAN", "DATE") else None


def input_type(declared: str) -> str:
    """The stored type of a request or derived input."""
    if declared in INT_TYPES:
        return "BIGINT"
    if declared in FLOAT_TYPES:
        return "DOUBLE"
    return {"bool": "BOOLEAN", "timestamp": TIMESTAMP}.get(declared, "VARCHAR")


def accepts(declared: str, stored: str) -> bool:
    """Whether a column of the examples can be sent as an input of this declared type."""
    match declared:
        case "category":
            return stored in ("VARCHAR", "BIGINT", "BOOLEAN")
        case "timestamp":
            return stored in TIMES
        case _ if declared in FLOAT_TYPES:
            return stored in NUMBERS
        case _:
            return stored == input_type(declared)
