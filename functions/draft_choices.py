"""What a draft chooses for a person: how the file is read, and what names a row. What is learnt: `draft_target`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import pyarrow as pa

from lakeloop.functions.decoding import csv_lines, open_file
from lakeloop.functions.draft_target import ID_LIKE, Input, Target, choose_inputs, choose_target, may_be_key
from lakeloop.functions.infer_columns import Found, first_repeated, infer_columns
from lakeloop.functions.spelling import plain_name, unique_names
from lakeloop.functions.spooling import plain_name as plain_file_name
from lakeloop.functions.spooling import unpacked
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import Read
from lakeloop.lakehouse.project.documents import did_you_mean
from lakeloop.lakehouse.project.readers import COLUMN


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks of a draft. `file` is the name that a file is landed under."""

    name: str
    owner: str
    file: str = ""
    label: str = ""
    time: str = ""
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choices:
    """All that the texts of a draft say. `others`: columns that are no inputs, with the reason."""

    wish: Wish
    source: str
    read: Read
    columns: Mapping[str, Found]
    key: tuple[str, ...] = ()
    target: Target | None = None
    inputs: tuple[Input, ...] = ()
    others: Mapping[str, str] | None = None


def choose(wish: Wish, data: bytes) -> tuple[Choices, pa.Table, list[str]]:
    """The choices for a file, its rows, and what a person should be told.

    Invalid for a file that cannot be read, and for a wish that does not fit it.
    """
    with TemporaryDirectory(prefix="lakeloop-") as scratch:
        given = Path(scratch, "given")
        given.write_bytes(data)
        plain = unpacked(wish.file, given, Path(scratch))
        read = _reading(wish.file, plain)
        file = open_file(read, plain_file_name(wish.file), plain)
        rows = file.reader(file.columns).read_all()
    broken = file.broken
    if not rows.num_rows:
        raise Invalid("the file has no rows", where=wish.file, todo="give one with some, as many as there are")
    _check_names(wish, read, rows.column_names)
    columns = {one.name: one for one in infer_columns(rows)}
    _check_wish(wish, columns)
    notes = [f"{len(broken)} lines cannot be read; an ingest will set them aside"] if broken else []
    notes += [f"{one.name} is left out: a table cannot hold it" for one in columns.values() if not one.type]
    columns = {name: one for name, one in columns.items() if one.type}
    key = _key(wish, rows, columns)
    target = choose_target(rows, columns[wish.label], wish.file) if wish.label else None
    for name in (*key, *((wish.label,) if target and target.whole else ())):
        if columns[name].whole:
            columns[name] = replace(columns[name], type="int64")
    for name in dict.fromkeys((*key, *((wish.time,) if wish.time else ()))):
        if columns[name].nullable:
            notes.append(
                f"{columns[name].rows - columns[name].filled} rows have no {name}; an ingest will set them aside"
            )
    inputs, others = choose_inputs(columns, key, wish.label, wish.time, wish.file) if target else ((), {})
    return Choices(wish, _source_name(wish), read, columns, key, target, inputs, others), rows, notes


def _source_name(wish: Wish) -> str:
    """The file's, unless the query layer has another meaning for it."""
    name = plain_name(wish.file.split(".")[0], "source")
    return f"{name}_rows" if name in ("predictions", "predictions_labelled", f"{wish.name}_examples") else name


def _reading(file: str, path: Path) -> Read:
    """How a file is read, by its name; the delimiter of a CSV file is the one that makes most columns of the header."""
    ending = PurePath(plain_file_name(file)).suffix.lower()
    match ending:
        case ".parquet" | ".pq":
            return Read(format="parquet")
        case ".jsonl" | ".ndjson":
            return Read(format="jsonl")
        case ".csv" | ".tsv" | ".txt":
            with open(path, "rb") as whole:
                first = whole.read(1 << 16)
            return Read(delimiter=max(",;\t|", key=lambda d: len(next(csv_lines(BytesIO(first), d), []))))
        case _:
            raise Invalid(
                f"a file that ends in {ending!r} cannot be read",
                where=file,
                todo="give a .csv, .jsonl or .parquet file",
            )


def _check_names(wish: Wish, read: Read, names: Sequence[str]) -> None:
    names = [name for name in names if name not in ("", "_line")]
    wrong = [name for name in names if not COLUMN.fullmatch(name)]
    if wrong:
        better = unique_names(
            [name if COLUMN.fullmatch(name) else plain_name(name, "column", lower=False) for name in names]
        )
        line = read.delimiter.join(better)
        todo = (
            f"begin the file with this line instead: {line}"
            if read.format == "csv"
            else f"call them: {', '.join(better)}"
        )
        raise Invalid(
            f"a column's name begins with a letter and has no spaces, quotes or brackets, unlike {_listed(wrong)}",
            where=wish.file,
            todo=todo,
        )
    for at, name in enumerate(names):
        twin = next((other for other in names[:at] if other.lower() == name.lower()), None)
        if twin is not None:
            raise Invalid(
                f'SQL cannot tell the columns "{twin}" and "{name}" apart',
                where=wish.file,
                todo="rename one of them in the file",
            )


def _check_wish(wish: Wish, columns: Mapping[str, Found]) -> None:
    for option, name in (("--label", wish.label), ("--time", wish.time), *(("--key", name) for name in wish.key)):
        if name and name not in columns:
            hint = did_you_mean(name, list(columns)).removeprefix("; ") or f"it has: {', '.join(columns)}"
            raise Invalid(f"{option}: the file has no column {name!r}", where=wish.file, todo=hint)
        if name and not columns[name].type:
            raise Invalid(
                f"{option}: a table cannot hold the column {name!r}",
                where=wish.file,
                todo="write it as text, numbers or times",
            )
    if wish.label and wish.label in (wish.time, *wish.key):
        raise Invalid(
            f"{wish.label!r} cannot be the label and tell rows apart, too",
            where=wish.file,
            todo="name another --label, --time or --key",
        )
    if wish.time and not columns[wish.time].is_time:
        raise Invalid(
            f"--time: {wish.time} is {columns[wish.time].type}, not a date or a time",
            where=wish.file,
            todo="write it as 2013-07-01 or 2013-07-01T12:30:00Z",
        )


def _key(wish: Wish, rows: pa.Table, columns: Mapping[str, Found]) -> tuple[str, ...]:
    """The columns that name a row: those that were given, else those called like a key that do; () when none are."""
    if wish.key:
        if (repeated := first_repeated(rows, wish.key)) is not None:
            times, values = repeated
            told = ", ".join(f"{name} {value}" for name, value in values.items())
            todo = "name more columns with --key, or none"
            raise Invalid(f"{times:,} rows share the key: {told}", where=wish.file, todo=todo)
        return wish.key
    named = [
        name
        for name, one in columns.items()
        if ID_LIKE.fullmatch(name) and may_be_key(one) and name not in (wish.label, wish.time)
    ]
    with_time = (wish.time,) if wish.time else ()
    for found in [*((name, *with_time) for name in named), (*named, *with_time)]:
        if named and not first_repeated(rows, found):
            return tuple(found)
    return ()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
