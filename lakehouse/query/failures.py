"""DuckDB's errors as ours: what is wrong with the question, with the store, or with what is stored."""

from __future__ import annotations

import re

import duckdb

from lakeloop.lakehouse.errors import Corrupt, Invalid, LakeloopError, NotFound, Unavailable

_TABLE = re.compile(r"tables/([^/'\"]+/[^/'\"]+)/")
_NO_FILE = ("No such file", "404", "NoSuchKey")
_STORE = ("object store", "Generic S3 error", "Connection", "Could not establish", "timed out")
_DAMAGED = ("magic bytes", "Parquet", "parquet", "thrift", "Snappy", "decompress", "DeltaKernel")
RESTORE = "restore the table's folder from a copy of the lake, or ask for an earlier version: name@3"

GONE = "of an older version: vacuum deleted it, or rows in it were forgotten; of the newest: restore it from a copy"


def translated(error: Exception, where: str) -> LakeloopError:
    """DuckDB's error as one of ours: its first sentence, and its hint as the way out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = lines[0] if lines else type(error).__name__
    if isinstance(error, duckdb.OutOfMemoryException) or what.startswith("Out of Memory"):
        return Unavailable(
            "the query needs more memory than it may use", where=where, todo="select fewer rows or columns"
        )
    if isinstance(error, duckdb.NotImplementedException):
        return Invalid(what, where=where or "the query", todo="give the column another type")
    if found := _of_a_table(error, what, where):
        return found
    if isinstance(error, duckdb.HTTPException | duckdb.IOException | OSError) and not _of_the_question(error, what):
        return Unavailable(what, where=where, todo="check the store, then try again")
    hint = next((line for line in lines[1:] if line.startswith(("Did you mean", "Candidate"))), "")
    return Invalid(what, where=where or "the query", todo=hint or "mend the SQL")


def _of_a_table(error: Exception, what: str, where: str) -> LakeloopError | None:
    """What is wrong with a stored table: a file of it is gone, or its bytes are not those of a table."""
    table = _TABLE.search(str(error))
    name = f"the table {table[1]}" if table else "a table"
    if "No files in log segment" in what or "specified end version" in what:
        return NotFound(f"{name} is not kept at this version", todo="see `lakeloop tables history`")
    if any(sign in str(error) for sign in _STORE):
        return None
    if isinstance(error, duckdb.HTTPException | duckdb.IOException | OSError) and any(s in what for s in _NO_FILE):
        return Corrupt(f"a file of {name} is not there: {_short(what)}", todo=GONE)
    if ("DeltaKernel" in what or table) and any(sign in what for sign in _DAMAGED):
        return Corrupt(f"{name} cannot be read: {_short(what)}", todo=RESTORE)
    return None


def _of_the_question(error: Exception, what: str) -> bool:
    """While an answer streams, every error is an OSError whose text begins with DuckDB's own name for it."""
    return not isinstance(error, duckdb.Error) and not what.startswith(("IO Error", "HTTP Error"))


def _short(what: str) -> str:
    """Without the kind in front, and what Rust prints of a whole path."""
    text = re.sub(r"^(?:IO|Invalid Input|HTTP) Error: |DeltaKernel \w+ \(\d+\): ", "", what)
    text = re.sub(r"DeltaKernel \w+ \(\d+\): ", "", text)
    return text.partition(": ParsedLogPath")[0][:200]
