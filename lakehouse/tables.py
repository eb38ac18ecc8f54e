"""Delta tables as compare-and-swap: a writer commits with the handle it read, and of two from one version exactly one
wins.

Every commit that adds or removes rows carries one application transaction (app id `lakeloop`, version = the handle's
+ 1) and is written *with that handle*: delta-rs then refuses a stale one in any mode. After any exception the truth
is Unknown: open the table again and ask whether the work is still to be done. Writers run no post-commit hook;
checkpoints and clean-up belong to maintenance, which alone may delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import Conflict, Corrupt, Invalid, LakeloopError, NotFound, Unknown
from lakeloop.lakehouse.store import Location

APP = "lakeloop"
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class Table:
    """One version of a table: a handle. A write leaves the handle at the version it made."""

    def __init__(self, name: str, delta: DeltaTable) -> None:
        self.name, self._delta = name, delta

    @property
    def version(self) -> int:
        return int(self._delta.version())

    @property
    def id(self) -> str:
        """Delta's own identity of the table: another when it was dropped and made anew."""
        return str(self._delta.metadata().id)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(self._delta.schema().to_arrow())

    @property
    def files(self) -> list[str]:
        return list(self._delta.file_uris())

    def append(self, rows: pa.Table, *, facts: Mapping[str, str] | None = None) -> int:
        """One commit with these rows; columns it did not have are added. Returns the version. Conflict for a stale
        handle.

        delta-rs would cast a value to its column's type without a word (1.5 → 1), so types must agree: whole numbers
        fit a column of reals; reals in a
        column of whole numbers widen it, which writes the whole table anew, in one commit that says so; any other
        difference is Invalid.
        """
        schema = self.schema
        rows = fitted(stored(rows), schema)
        widened = [
            field.name
            for field in rows.schema
            if field.name in schema.names and _widens(schema.field(field.name).type, field.type)
        ]
        if problem := misfit(rows.schema, schema):
            raise Invalid(f"{self.name}: {problem}", todo="give the column another name, or convert the values")
        if not widened:
            return self._write(rows, "append", "merge", facts)
        whole = pa.concat_tables([self.rows(), rows], promote_options="permissive")
        return self._write(whole, "overwrite", "overwrite", {**(facts or {}), "lakeloop.widened": ", ".join(widened)})

    def overwrite(self, rows: pa.Table | pa.RecordBatchReader, *, facts: Mapping[str, str] | None = None) -> int:
        """One commit whose rows and columns are the whole table. Returns the version. Conflict for a stale handle."""
        return self._write(rows, "overwrite", "overwrite", facts)

    def column(self, name: str, values: Iterable[str]) -> set[str]:
        """Those of `values` that stand in this string column; only files whose statistics admit one are read."""
        wanted = pa.array(sorted(values), pa.string())
        if name not in self.schema.names or not len(wanted):
            return set()
        import pyarrow.dataset as ds

        found = self._delta.to_pyarrow_dataset().to_table(columns=[name], filter=ds.field(name).isin(wanted))
        return set(found.column(name).unique().to_pylist())

    def rows(self) -> pa.Table:
        """All rows of this version, in memory."""
        return self._delta.to_pyarrow_table()

    def facts(self, limit: int = 50) -> list[dict[str, Any]]:
        """Commit records, newest first."""
        return list(self._delta.history(limit))

    def checkpoint(self) -> None:
        """Fold the log so far into one file, which makes opening cheap."""
        try:
            self._delta.create_checkpoint()
        except (DeltaError, OSError) as error:
            raise Unknown(
                f"no checkpoint of {self.name}: {_brief(error)}", todo="the next maintenance tries"
            ) from error

    def compact(self) -> int:
        """Few large files in place of many small ones; commutes with appends. Returns the number of files removed.

        Conflict when what it read was overwritten meanwhile.
        """
        try:
            return int(self._delta.optimize.compact(post_commithook_properties=NO_HOOKS)["numFilesRemoved"])
        except CommitFailedError as error:
            raise Conflict(f"{self.name} was overwritten meanwhile", todo="the next maintenance tries again") from error
        except (DeltaError, OSError) as error:
            raise Unknown(
                f"{self.name} may not be compacted: {_brief(error)}", todo="the next maintenance looks"
            ) from error

    def _write(
        self,
        rows: pa.Table | pa.RecordBatchReader,
        mode: Literal["append", "overwrite"],
        schema_mode: Literal["merge", "overwrite"],
        facts: Mapping[str, str] | None,
    ) -> int:
        mark = Transaction(APP, self.version + 1)
        try:
            write_deltalake(
                self._delta,
                rows,
                mode=mode,
                schema_mode=schema_mode,
                commit_properties=CommitProperties(app_transactions=[mark], custom_metadata=dict(facts or {})),
                post_commithook_properties=NO_HOOKS,
            )
        except CommitFailedError as error:
            raise Conflict(
                f"{self.name} has a newer version than {self.version}", todo="open it again and decide again"
            ) from error
        except (DeltaError, OSError) as error:
            raise Unknown(
                f"the commit to {self.name} may or may not have happened: {_brief(error)}", todo="open it and look"
            ) from error
        return self.version


def open_elsewhere(location: Location, version: int | None = None) -> Table | None:
    """A Delta table outside of the lake, to be read only; None when there is none. NotFound for a version that its
    owner has cleaned up."""
    try:
        delta = DeltaTable(location.uri, version=version, storage_options=dict(location.options) or None)
    except (DeltaError, OSError) as error:
        if version is not None and open_elsewhere(location) is not None:
            todo = "its owner cleans up old versions; train on the newest"
            raise NotFound(f"version {version} of the table is gone", where=location.uri, todo=todo) from error
        if isinstance(error, TableNotFoundError):
            return None
        what = f"the Delta table cannot be opened: {_brief(error)}"
        raise Corrupt(what, where=location.uri, todo="ask the table's owner") from error
    return Table(location.uri, delta)


class Tables:
    """All tables of the lake at a location."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def uri(self, name: str) -> str:
        return f"{self._location.uri}/{keys.table(name)}"

    def open(self, name: str) -> Table | None:
        """The newest version, or None when there is no such table."""
        try:
            return Table(name, DeltaTable(self.uri(name), storage_options=dict(self._location.options)))
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise _unreadable(name, error) from error

    def open_or_create(self, name: str, schema: pa.Schema) -> Table:
        """The newest version; an empty table with this schema is made when there is none. Losing that race is no
        error."""
        found = self.open(name)
        if found is not None:
            return found
        try:
            delta = DeltaTable.create(
                self.uri(name),
                stored_schema(schema),
                mode="error",
                storage_options=dict(self._location.options),
                commit_properties=CommitProperties(
                    max_commit_retries=0
                ),  # a retried create lands as version 1, on top of the other's
            )
            return Table(name, delta)
        except (DeltaError, OSError) as error:
            there = self.open(name)
            if there is None:
                raise _unreadable(name, error) from error
            return there


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
        raise Invalid(
            f"values cannot be stored: {_brief(error)}",
            todo="BIGINT holds -2^63 to 2^63-1; store larger numbers as text",
        ) from error


def misfit(found: pa.Schema, wanted: pa.Schema) -> str:
    """How the first column of a type that cannot join `wanted` differs, in words; empty when all can."""
    for field in found:
        if field.name in wanted.names:
            there = stored_type(wanted.field(field.name).type)
            if stored_type(field.type) != there and not _widens(there, field.type):
                return f"the column {field.name} holds {there}, and these rows bring {field.type}"
    return ""


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The same rows, with columns that hold nothing and whole numbers for reals in the types that `schema` has for
    them."""
    for at, field in enumerate(rows.schema):
        wanted = schema.field(field.name).type if field.name in schema.names else field.type
        if wanted != field.type and (rows.column(at).null_count == rows.num_rows or _widens(field.type, wanted)):
            values = rows.column(at).cast(wanted) if _widens(field.type, wanted) else pa.nulls(rows.num_rows, wanted)
            rows = rows.set_column(at, pa.field(field.name, wanted), values)
    return rows


def _widens(narrow: pa.DataType, wide: pa.DataType) -> bool:
    return bool(pa.types.is_integer(narrow) and pa.types.is_floating(wide))


def _unreadable(name: str, error: Exception) -> LakeloopError:
    return Corrupt(
        f"the table {name} cannot be opened: {_brief(error)}",
        todo="check the store, or restore tables/ from a copy of the lake",
    )


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
