"""Rules of a source's place: files that land in the lake, or a table elsewhere that is read in place.

What is read in place is not judged, so a key that would judge it is refused; and nobody saw its rows come, so it says
itself when they were known.
"""

from __future__ import annotations

import re
from typing import Final

from lakeloop.lakehouse.project.definitions import Source
from lakeloop.lakehouse.project.documents import Document

_BUCKET_AND_PATH: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]+/[^/].*")
_PATTERN: Final = re.compile(r"[*?\[\]{}]|[\x00-\x1f]")
_OF_FILES: Final = ("format", "null", "delimiter")
_OF_COLUMNS: Final = ("range", "values", "matches", "unique", "on_error")


def check_place(source: Source, document: Document) -> None:
    """The keys of a source are those of its place."""
    if source.foreign:
        _check_uri(source.read.uri, document)
        _check_nothing_judges(source, document)
        _check_knowledge(source, document)
    elif source.read.uri:
        document.problem(("read", "uri"), 'is for tables elsewhere; write kind = "delta" or "parquet", or take it away')


def _check_uri(uri: str, document: Document) -> None:
    path = ("read", "uri")
    if not uri:
        document.problem(
            path, "is required and not given; write where the table is: a path from /, or s3://bucket/path"
        )
    elif _PATTERN.search(uri) or any(part in (".", "..") for part in uri.split("/")):
        document.problem(path, f'"{uri}" is not a plain path; write it without "..", and name a folder instead of *')
    elif not uri.strip("/") or not (uri.startswith("/") or _BUCKET_AND_PATH.fullmatch(uri)):
        what = "is neither a path from / nor s3://bucket/path"
        document.problem(path, f'"{uri}" {what}; whoever reads it may stand in another folder')


def _check_nothing_judges(source: Source, document: Document) -> None:
    """A rule that nobody enforces is refused."""
    what = "is for rows that land; a table that is read in place is not judged; take it away"
    read = document.data["read"]
    for key in _OF_FILES:
        if key in read:
            document.problem(("read", key), "is for files that land; take it away")
    for key in ("on_error", "unlisted", "check"):
        if key in document.data:
            document.problem((key,), what)
    for name, column in document.data["columns"].items():
        for key in _OF_COLUMNS:
            if isinstance(column, dict) and key in column:
                document.problem(("columns", name, key), what)
    if source.rows == "replace":
        document.problem(("rows",), 'is for files that land; a table that is read in place is read whole: "append"')


def _check_knowledge(source: Source, document: Document) -> None:
    timed = source.known_at or source.lag is not None
    if source.event_time and not timed:
        todo = 'write known_at = "<column>", or lag = "1h" if they come an hour after their event time'
        document.problem(("known_at",), f"is required: nobody here saw when the rows came; {todo}")
    if source.rows == "latest" and source.timeless and not source.known_at:
        document.problem(("rows",), '"latest" needs to know which row is newer; write event_time or known_at')
