"""The types in which rows are kept, and how rows of other types come into them. Pure functions of Arrow's types: no
engine is imported."""

from __future__ import annotations

import pyarrow as pa

from lakeloop.lakehouse.errors import Invalid

SQL_TYPES = {
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type a value is kept in: BIGINT, DOUBLE, VARCHAR, BOOLEAN, DATE, TIMESTAMP µs UTC, and lists of these."""
    if pa.types.is_dictionary(kind):
        return stored_type(kind.value_type)
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC")
    if pa.types.is_date(kind):
        return pa.date32()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(stored_type(kind.value_type))
    return pa.bool_() if pa.types.is_boolean(kind) else pa.string()


def stored_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(field.name, stored_type(field.type)) for field in schema])


def stored(rows: pa.Table) -> pa.Table:
    """The same rows in the types that are stored; times are cut to microseconds. Invalid for a number beyond 64 bits
    with a sign."""
    for at, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            rows = rows.set_column(at, field.name, rows.column(at).cast(pa.timestamp("us", field.type.tz), safe=False))
    try:
        return rows.cast(stored_schema(rows.schema))
    except pa.ArrowInvalid as error:
        first = str(error).partition("\n")[0][:200]
        raise Invalid(
            f"values cannot be stored: {first}",
            todo="BIGINT holds -2^63 to 2^63-1; store larger numbers as text",
        ) from error


def misfit(found: pa.Schema, wanted: pa.Schema) -> str:
    """How the first column of a type that cannot join `wanted` differs, in words; empty when all can."""
    for field in found:
        if field.name in wanted.names:
            there = stored_type(wanted.field(field.name).type)
            if stored_type(field.type) != there and not widens(there, field.type):
                return f"the column {field.name} holds {there}, and these rows bring {field.type}"
    return ""


def other_types(there: pa.Schema, wanted: pa.Schema) -> dict[str, pa.DataType]:
    """The columns of `there` that `wanted` has in another type, with that type."""
    kinds = {field.name: stored_type(field.type) for field in wanted}
    return {f.name: kinds[f.name] for f in there if kinds.get(f.name, f.type) != stored_type(f.type)}


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The same rows, with columns that hold nothing and whole numbers for reals in the types that `schema` has for
    them."""
    for at, field in enumerate(rows.schema):
        wanted = schema.field(field.name).type if field.name in schema.names else field.type
        if wanted != field.type and (rows.column(at).null_count == rows.num_rows or widens(field.type, wanted)):
            values = rows.column(at).cast(wanted) if widens(field.type, wanted) else pa.nulls(rows.num_rows, wanted)
            rows = rows.set_column(at, pa.field(field.name, wanted), values)
    return rows


def duckdb_type(kind: pa.DataType) -> str:
    """The name that SQL has for a stored type."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{duckdb_type(kind.value_type)}[]"
    return SQL_TYPES[stored_type(kind)]


def widens(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Whether whole numbers come into a column of reals."""
    return bool(pa.types.is_integer(narrow) and pa.types.is_floating(wide))
