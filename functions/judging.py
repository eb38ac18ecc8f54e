"""What a source's rules make of a landed file: good rows as a stream, wrong rows with their reasons.

The file is read once for its rows, and once before for each column that must be unique and each check. Memory is
bounded: wrong rows are kept in a file until they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lakeloop.functions.decoding import LandedFile
from lakeloop.lakehouse.errors import Invalid, LakeloopError, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Check, Source
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.quoting import literal, quoted
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.rules import LANDED, Rule, decoded, repeated_values, unique_rule

SHOWN = 3
CHUNK = 10_000
"""Wrong rows in one piece, the same at every try."""
MEMORY = "1GiB"
FILE, TIME = pa.dictionary(pa.int32(), pa.string()), pa.timestamp("us", "UTC")
WRONG = pa.schema([("line", pa.int64()), ("reason", pa.string()), ("row", pa.string()), ("kept", pa.bool_())])


class Judged:
    """One file under its source's rules. Use as a context manager.

    `good` may be read several times; `wrong` and the counts are those of the last reading, once it has ended.
    """

    def __init__(
        self,
        lake: Lake,
        project: Project,
        source: Source,
        file: LandedFile,
        scratch: Path,
        watch: Callable[[int], None] = lambda rows: None,
        *,
        stops: bool = True,
    ) -> None:
        """`watch` is told how many rows were judged so far. Without `stops`, a row that would stop the file is only
        kept out."""
        self._stops = stops
        self._source, self._file, self._where, self._watch = source, file, f"{source.name}/{file.path.name}", watch
        self._present = {name: kind for name, kind in file.columns.items() if name in source.columns}
        self._rules: list[Rule] = []
        self._findings: list[str] = []
        self._wrong = _Wrong(scratch / "wrong")
        self._stopping: list[str] = []
        self._stopped = 0
        self._session = Session(
            lake.store.location() if source.checks else None,
            LakeCatalog(lake, project),
            memory=MEMORY,
            scratch=scratch,
            views=True,
        )
        self.rows = self.quarantined = self.warned = 0

    def __enter__(self) -> Judged:
        with ExitStack() as closing:
            closing.push(self)
            try:
                self._rules += unique_rules(self._session, self._source, self._present, self._attach)
                for number, check in enumerate(self._source.checks):
                    self._apply_check(number, check)
            except LakeloopError as error:
                raise self._cause(error) from None
            closing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, value, trace)
        self._file.broken.close()

    def good(self, identity: str, at: datetime) -> pa.RecordBatchReader:
        """Rows for the table: the declared columns, `_line`, `_file`, `_ingested_at`.

        Ends with Refused when rules or checks stop the file, with Invalid when it cannot be read to its end.
        """
        names = ", ".join(map(quoted, self._source.columns))
        sql = f"select {names}, _line, _bad, _out, _stop from ({self._sql()})"
        self._register(pa.schema([*self._present.items(), ("_line", pa.int64())]).empty_table())
        rows = pa.schema(list(self._session.run(sql).schema)[: len(self._source.columns) + 1])
        schema = rows.append(pa.field("_file", FILE)).append(pa.field("_ingested_at", TIME))

        def marked() -> Iterator[pa.RecordBatch]:
            for batch in self._sorted_out(sql, rows):
                yield pa.RecordBatch.from_arrays([*batch.columns, *_marks(batch.num_rows, identity, at)], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, marked())

    def wrong(self) -> Iterator[pa.Table]:
        """Wrong rows (line, reason, row, kept: in the table all the same), in pieces."""
        return self._wrong.pieces()

    def _sql(self) -> str:
        return decoded(self._source, self._present, self._rules)

    @property
    def _direct(self) -> bool:
        """Whether DuckDB reads the file by itself."""
        return self._file.format == "parquet" and "file_row_number" not in map(str.lower, self._file.columns)

    def _parts(self) -> Iterator[Callable[[int, int], None]]:
        """The file part by part as LANDED (DuckDB computes an answer ahead of who reads it, without a bound); and what
        leaves of the part only the lines from one to another."""
        if self._direct:
            for begin, end in self._file.parts:
                self._attach_lines(begin + 1, end)
                yield self._attach_lines
            return
        for batch in self._file.reader(self._present):
            part = pa.Table.from_batches([batch])
            self._register(part)
            yield partial(self._register_lines, part)

    def _attach_lines(self, first: int, last: int) -> None:
        self._session.attach_file(LANDED, self._file.path, (first - 1, last), where=self._where)

    def _register_lines(self, part: pa.Table, first: int, last: int) -> None:
        self._register(part.filter((pc.field("_line") >= first) & (pc.field("_line") <= last)))

    def _attach(self) -> None:
        """A new reading of the file, as LANDED."""
        if self._direct:
            self._session.attach_file(LANDED, self._file.path, where=self._where)
        else:
            self._register(self._file.reader(self._present))

    def _register(self, rows: pa.Table | pa.RecordBatchReader) -> None:
        self._session.register(LANDED, rows, where=self._where)

    def _sorted_out(self, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        self.rows = self.quarantined = self.warned = 0
        self._stopping, self._stopped, halted = [], 0, False
        self._wrong.start(self._findings)
        self.warned += len(self._findings)
        seen = 0
        try:
            for narrow in self._parts():
                bad = _Lines()
                for batch in self._session.stream(sql, where=self._where):
                    good = self._good_part(batch, schema, bad)
                    self._watch(seen := seen + batch.num_rows)
                    halted = halted or (self._stops and pc.any(batch.column("_stop")).as_py())
                    if good.num_rows and not halted:
                        yield good
                if bad.last:
                    narrow(bad.first, bad.last)
                    self._note_bad()
        except LakeloopError as error:
            raise self._cause(error) from None
        self._note_broken()
        self._wrong.end()
        if self._stopped:
            raise self._refused()

    def _good_part(self, batch: pa.RecordBatch, schema: pa.Schema, bad: _Lines) -> pa.RecordBatch:
        good = pa.RecordBatch.from_arrays(batch.columns[: len(schema)], schema=schema)
        if pc.any(batch.column("_bad")).as_py():
            bad.add(batch.column("_line").filter(batch.column("_bad")))
            kept = batch.cast(_without_views(batch.schema))  # Arrow filters no views
            kept = kept.filter(pc.invert(kept.column("_out")))
            columns = zip(kept.columns, schema, strict=False)
            good = pa.RecordBatch.from_arrays([column.cast(field.type) for column, field in columns], schema=schema)
        self.rows += good.num_rows
        return good

    def _note_bad(self) -> None:
        """Why rows of LANDED are wrong: asked for where there are such, since a column of reasons costs by itself."""
        reasons = "array_to_string(_reasons, '; ') as reason, _row as row, not _out as kept"
        sql = f"select _line as line, {reasons}, _stop from ({self._sql()}) where _bad"
        for batch in self._session.stream(sql, where=self._where):
            self._note(batch.cast(_without_views(batch.schema)))

    def _note(self, bad: pa.RecordBatch) -> None:
        self._wrong.add(bad.select(WRONG.names).cast(WRONG))
        stopping = bad.filter(bad.column("_stop"))
        self._stop(stopping.column("line").to_pylist(), stopping.column("reason").to_pylist())
        self.warned += (warned := pc.sum(bad.column("kept")).as_py() or 0)
        self.quarantined += bad.num_rows - warned

    def _note_broken(self) -> None:
        """Lines that are no rows follow the rule of the source; nothing of them could be kept."""
        for broken in self._file.broken.pieces():
            rows = [{**one, "kept": False} for one in broken]
            self._wrong.add(pa.RecordBatch.from_pylist(rows, schema=WRONG))
            self.quarantined += len(rows)
            if self._source.on_error == "stop":
                self._stop([one["line"] for one in rows], [one["reason"] for one in rows])

    def _stop(self, lines: list[Any], reasons: list[Any]) -> None:
        if not self._stops:
            return
        self._stopped += len(lines)
        found = [f"line {line}: {reason}" for line, reason in zip(lines[:SHOWN], reasons[:SHOWN], strict=True)]
        self._stopping = [*self._stopping, *found][:SHOWN]

    def _cause(self, error: LakeloopError) -> LakeloopError:
        """Why a reading broke: the file's own fault, found by reading it once more alone, or what DuckDB says."""
        if self._direct and not isinstance(error, Refused):
            try:
                for _ in self._file.reader(self._present):
                    pass
            except Invalid as problem:
                return problem
        return self._file.problem or error

    def _refused(self) -> Refused:
        return Refused(
            f"{self._stopped} wrong rows, and the source says stop: {'; '.join(self._stopping)}",
            where=self._source.name,
            todo="mend the file in landing/, or set on_error",
        )

    # -- before the rows ---------------------------------------------------------------------------------------------

    def _apply_check(self, number: int, check: Check) -> None:
        """A check's query sees the file's rows under the source's name, and other sources as they are. Rows that come
        back with their line are wrong.

        Without lines nobody can tell which are: that stops the file, or is one finding where the check only warns.
        """
        self._attach()
        columns = ", ".join(map(quoted, self._source.columns))
        keep = self._session.define if self._direct else self._session.keep  # a check may read its rows twice
        keep(self._source.name, f"select {columns}, _line from ({self._sql()}) where not _out")
        table = f"_found {number}"
        self._session.keep(table, check.sql, where=f"the check {check.name!r} of {self._source.name}")
        found = self._session.run(f"select * from {quoted(table)} limit 1")
        if not found.num_rows:
            return
        if "_line" in found.column_names:
            condition = f"_line in (select _line from {quoted(table)})"
            self._rules.append(Rule(condition, literal(f"check: {check.name}"), check.on_error))
            return
        count = self._session.run(f"select count(*) as n from {quoted(table)}").to_pylist()[0]["n"]
        what = f"the check {check.name!r} found {count} wrong rows"
        if check.on_error != "warn":
            raise Refused(
                what, where=self._source.name, todo="select * in the check, so that the rows can be told apart"
            )
        self._findings.append(what)


@dataclass(slots=True)
class _Lines:
    """From the first to the last of some lines; 0 where there is none."""

    first: int = 0
    last: int = 0

    def add(self, lines: pa.Array) -> None:
        """Lines that come behind those that are known."""
        self.first, self.last = self.first or lines[0].as_py(), lines[-1].as_py()


def _marks(rows: int, identity: str, at: datetime) -> tuple[pa.Array, pa.Array]:
    """`_file` and `_ingested_at`, which are the same in every row of a file."""
    file = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([identity]))
    return file, pa.repeat(pa.scalar(at, TIME), rows)


def _without_views(schema: pa.Schema) -> pa.Schema:
    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(plain(kind.value_type))
        return pa.string() if pa.types.is_string_view(kind) else kind

    return pa.schema([pa.field(field.name, plain(field.type)) for field in schema])


def unique_rules(
    session: Session, source: Source, present: Mapping[str, pa.DataType], attach: Callable[[], None]
) -> list[Rule]:
    """Rules for the columns that must be unique and are not; `attach` makes LANDED readable once more."""
    rules = []
    for name, column in source.columns.items():
        if column.unique and name in present:
            attach()
            table = f"_repeated {name}"
            session.keep(table, repeated_values(source, column, present[name]))
            if session.run(f"select 1 from {quoted(table)} limit 1").num_rows:
                rules.append(unique_rule(source, column, quoted(table)))
    return rules


@dataclass(slots=True)
class _Wrong:
    """Wrong rows of one reading, in a local file."""

    path: Path
    _writer: pa.ipc.RecordBatchFileWriter | None = None

    def start(self, findings: list[str]) -> None:
        self.end()
        self._writer = pa.ipc.new_file(pa.OSFile(str(self.path), "wb"), WRONG)
        for finding in findings:
            self.add(pa.RecordBatch.from_pylist([{"reason": finding, "row": "", "kept": True}], schema=WRONG))

    def add(self, rows: pa.RecordBatch) -> None:
        assert self._writer is not None
        if rows.num_rows:
            self._writer.write_batch(rows)

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def pieces(self) -> Iterator[pa.Table]:
        with pa.OSFile(str(self.path), "rb") as file:
            reader, waiting = pa.ipc.open_file(file), WRONG.empty_table()
            for number in range(reader.num_record_batches):
                waiting = pa.concat_tables([waiting, pa.Table.from_batches([reader.get_batch(number)])])
                while waiting.num_rows >= CHUNK:
                    yield waiting.slice(0, CHUNK)
                    waiting = waiting.slice(CHUNK)
            if waiting.num_rows:
                yield waiting
