"""Tables and journals without a forgotten entity: its rows, the files that held them, what pins name of these, and
the statistics and conditions that the table's log keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from lakeloop.functions.forget_subject import BLOT, Held, Subject
from lakeloop.functions.maintain_lake import table_names
from lakeloop.lakehouse import forgetting, keys, pins, runs
from lakeloop.lakehouse.errors import Conflict, Unknown
from lakeloop.lakehouse.forgetting import JSON_ROWS, Entity, text_of
from lakeloop.lakehouse.prediction_columns import HASHED
from lakeloop.lakehouse.query.quoting import literal, quoted
from lakeloop.lakehouse.records import JOURNALS
from lakeloop.lakehouse.tables import DataFile, Table

TRIES = 20
AT_ONCE = 200
"""Values named in one condition."""
FOLDS = 5
REMOVED = ("metrics", "verdicts", "monitor_results", "quarantine", "shadow_predictions")
"""Journals in which, as in predictions, a row whose text tells the entity goes; in the others the text is blotted
out."""
IDS = ("id", "prediction_id", "request_id")
OWN = "lakeloop/"


def forget_tables(subject: Subject) -> Iterator[Held]:
    """Every table of every project."""
    for name in table_names(subject.lake):
        if not name.startswith(OWN):
            yield from _forget_table(subject, name)


def forget_journals(subject: Subject) -> Iterator[Held]:
    """Every journal: folded first, so that all of it is one table."""
    lake = subject.lake
    inboxes = {entry.key.split("/")[1] for entry in lake.store.list(keys.INBOX, delimiter="/")}
    tables = {name.removeprefix(OWN) for name in table_names(lake) if name.startswith(OWN)}
    for journal in sorted(inboxes | tables):
        if subject.dry:
            yield from _look_at_segments(subject, journal)
        else:
            _fold_all(subject, journal)
        yield from _forget_table(subject, OWN + journal)


@dataclass(frozen=True, slots=True)
class _Rows:
    """How the entity's rows are told in one table."""

    subject: Subject
    model: str = ""
    """project.model, where `id` is an example's."""
    whole: tuple[str, ...] = ()
    """Columns that hold whole rows as JSON."""
    texts: tuple[str, ...] = ()
    """Columns of free text."""
    blot: bool = False
    """Only the text goes, not the row."""

    def concern(self, schema: pa.Schema) -> bool:
        return self.by_value or self.subject.tombstones.concern(schema.names, self.model)

    @property
    def by_value(self) -> bool:
        """Whether more than an equality decides."""
        return bool(self.whole or self.texts or self.subject.tombstones.ids.get(self.model))

    def count(self, folder: FileSystem, path: str) -> int:
        """Rows of the entity in one file; only its footer is read where its statistics say that there are none."""
        try:
            file = _File(path, folder)
            if self.by_value:
                mask = self.mask(file.rows(self.needed(file.schema)))
                return 0 if mask is None else int(pc.sum(mask).as_py() or 0)
            values = self.subject.entity.scalars(file.schema)
            return file.count(values) if values else 0
        except FileNotFoundError:
            return 0

    def needed(self, schema: pa.Schema) -> list[str]:
        columns = self.subject.entity.columns
        private = [name + HASHED for name in columns] if self.model else []
        wanted = {*columns, *private, *self.whole, *self.texts, *(("id",) if self.model else ())}
        return [name for name in schema.names if name in wanted]

    def mask(self, rows: pa.Table) -> pa.Array | None:
        found = self.subject.tombstones.mask(rows, model=self.model, json_columns=self.whole)
        private = _private(self.subject, rows.schema) if self.model else None
        if private:
            told = reduce(pc.and_, (reduce(pc.or_, (_same(rows, *one) for one in either)) for either in private))
            found = told if found is None else pc.or_(found, told)
        for name in self.texts:
            hits = self._telling(rows, name)
            if hits:
                told = pc.fill_null(pc.is_in(rows.column(name), value_set=pa.array(hits, pa.string())), False)
                found = told if found is None else pc.or_(found, told)
        return found

    def hits(self, rows: pa.Table) -> dict[str, set[str]]:
        """By column: the texts that tell the entity."""
        marks, trace = self.subject.tombstones, self.subject.trace
        found: dict[str, set[str]] = {}
        if "id" in rows.column_names and (wanted := marks.ids.get(self.model)):
            found["id"] = {one for one in _distinct(rows, "id") if marks.of_id(one) in wanted}
        for name in (name for name in self.whole if name in rows.column_names):
            found[name] = {one for one in _distinct(rows, name) if marks.tell_text(one) or trace.in_text(one)}
        for name in self.texts:
            found.setdefault(name, set()).update(self._telling(rows, name))
        return {name: texts for name, texts in found.items() if texts}

    def _telling(self, rows: pa.Table, name: str) -> list[str]:
        if name not in rows.column_names:
            return []
        return [one for one in _distinct(rows, name) if self.subject.trace.in_text(one)]


class _File:
    """One Parquet file of a table's folder, in stored types."""

    def __init__(self, path: str, folder: FileSystem) -> None:
        import pyarrow.dataset as ds

        self._fragment = ds.ParquetFileFormat().make_fragment(path, folder)

    @cached_property
    def schema(self) -> pa.Schema:
        """delta-rs writes views of strings where it removes rows; Arrow can read them and not compare them."""
        return pa.schema([field.with_type(_plain(field.type)) for field in self._fragment.physical_schema])

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        return self._fragment.to_table(self.schema, columns=list(columns) if columns is not None else None)

    def count(self, values: Mapping[str, pa.Scalar]) -> int:
        """How many rows have these values."""
        if self.schema == self._fragment.physical_schema:
            import pyarrow.dataset as ds

            return int(self._fragment.count_rows(filter=reduce(and_, (ds.field(n) == v for n, v in values.items()))))
        rows = self.rows(list(values))
        same = reduce(pc.and_, (pc.equal(rows.column(name), value) for name, value in values.items()))
        return int(pc.sum(same).as_py() or 0)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    return pa.string() if pa.types.is_string_view(kind) or pa.types.is_large_string(kind) else kind


def _rows_of(subject: Subject, name: str) -> _Rows:
    journal = name.removeprefix(OWN) if name.startswith(OWN) else ""
    if journal.startswith("predictions."):
        return _Rows(subject, model=journal.removeprefix("predictions."), texts=IDS)
    if journal in JOURNALS:
        whole = JSON_ROWS.get(journal, ())
        texts = [field.name for field in JOURNALS[journal] if pa.types.is_string(field.type)]
        plain = tuple(text for text in texts if text not in whole)
        return _Rows(subject, whole=whole, texts=plain, blot=journal not in REMOVED)
    return _Rows(subject)


def _forget_table(subject: Subject, name: str) -> Iterator[Held]:
    lake, rows = subject.lake, _rows_of(subject, name)
    table = lake.table(name)
    if table is None:
        return
    kind = "journal" if name.startswith(OWN) else "table"
    concerned, folder = rows.concern(table.schema), lake.tables.folder(name)
    live = {file.path for file in table.data_files()}
    if subject.dry:
        held = sum(rows.count(folder, path) for path in live) if concerned else 0
    else:
        held = _remove(rows, name) if concerned else 0
        newest = lake.table(name)
        live = live if newest is None else {file.path for file in newest.data_files()}
    if held:
        yield Held(kind, name, held)
    older = {path: count for path in _older(subject, name, live) if (count := rows.count(folder, path))}
    if older and not subject.dry:
        _delete_files(rows, name, older)
    if older:
        yield Held(f"older files of a {kind}", name, len(older))
    if (concerned or older) and (told := _scrub_log(subject, name)):
        yield Held("log of a table", name, told)


def _remove(rows: _Rows, name: str) -> int:
    """Live rows that went (or whose text was blotted out). Where there were none, a commit all the same: a writer that
    has not seen the tombstone is refused by it."""
    subject, done, written = rows.subject, 0, False
    for _ in range(TRIES):
        table = subject.lake.table(name)
        assert table is not None
        before = table.version
        try:
            done += _remove_from(rows, table)
            written = written or table.version > before
            if not written and subject.fresh:
                table.fence(facts={"lakeloop.forgotten": subject.id})
            return done
        except (Conflict, Unknown):
            continue
    raise Conflict(f"{name} is written by many at once", todo="run the command again: it goes on")


def _remove_from(rows: _Rows, table: Table) -> int:
    subject, done = rows.subject, 0
    facts = {"lakeloop.forgotten": subject.id}
    conditions = [_condition(subject, table.schema), _private_condition(subject, table.schema) if rows.model else ""]
    for condition in filter(None, conditions):
        done += table.remove(condition, facts=facts)
    if not rows.by_value:
        return done
    folder = subject.lake.tables.folder(table.name)
    needed = rows.needed(table.schema)
    for path in [file.path for file in table.data_files()]:
        file = _File(path, folder)
        found = file.rows([name for name in needed if name in file.schema.names])
        for name, texts in rows.hits(found).items():
            if name in rows.texts and rows.blot:
                done += sum(table.replace(name, one, str(subject.trace.blotted(one)), facts=facts) for one in texts)
                continue
            for part in _parts(sorted(texts)):
                done += table.remove(f"{quoted(name)} in ({', '.join(map(literal, part))})", facts=facts)
    return done


def _older(subject: Subject, name: str, live: set[str]) -> list[str]:
    """Files in a table's folder that its newest version does not name."""
    root = f"{keys.table(name)}/"
    paths = [entry.key.removeprefix(root) for entry in subject.lake.store.list(root)]
    return [path for path in paths if path.endswith(".parquet") and path not in live and not path.startswith("_")]


def _delete_files(rows: _Rows, name: str, held: Mapping[str, int]) -> None:
    """Files of older versions go at once; where a pin names one, another without the rows takes its place."""
    lake, root = rows.subject.lake, f"{keys.table(name)}/"
    pinned = {file.path for pin in pins.pins_of(lake, name, held_only=False) for file in pin.files} & set(held)
    made = {path: _rewritten(rows, name, path) for path in sorted(pinned)}
    for _ in range(2):  # once more for a run that pinned the version meanwhile
        for owner, count in pins.owners_of(lake, name, held).items():
            runs.mark_redacted(lake, owner, rows.subject.id, count)
        pins.redact(lake, name, made, held)
        lake.store.delete(f"{root}{path}" for path in sorted(held))


def _rewritten(rows: _Rows, name: str, path: str) -> DataFile | None:
    """A file beside another, without the rows; None when none are left. Its name follows from both, at every try."""
    lake = rows.subject.lake
    whole = _File(path, lake.tables.folder(name)).rows()
    mask = rows.mask(whole)
    kept = whole if mask is None else whole.filter(pc.invert(mask))
    if not kept.num_rows:
        return None
    sink = pa.BufferOutputStream()
    pq.write_table(kept, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    other = f"redacted-{hashlib.sha256(f'{path} {rows.subject.id}'.encode()).hexdigest()[:32]}.parquet"
    lake.store.put(f"{keys.table(name)}/{other}", data)
    return DataFile(other, len(data), kept.num_rows)


# -- the log ---


def _scrub_log(subject: Subject, name: str) -> int:
    """Log entries and checkpoints that told a value. Entries stay, for a commit's name protects only while its object
    is there; older checkpoints are replaced by a new one."""
    store, root, told = subject.lake.store, f"{keys.table(name)}/_delta_log/", 0
    entries = [entry.key for entry in store.list(root)]
    for key in (key for key in entries if key.endswith(".json")):
        lines = store.get(key).decode().splitlines()
        scrubbed = [_scrubbed(subject, line) for line in lines]
        if scrubbed != lines:
            told += 1
            if not subject.dry:
                store.put(key, ("\n".join(scrubbed) + "\n").encode())
    old = [key for key in entries if ".checkpoint" in key or key.endswith(".crc") or "/_sidecars/" in key]
    telling = sum(_checkpoint_tells(subject, store.get(key)) for key in old if key.endswith(".parquet"))
    if telling and not subject.dry:
        table = subject.lake.table(name)
        if table is not None:
            table.checkpoint()
            store.delete(key for key in old if f"/{table.version:020d}." not in key)
    return told + telling


def _scrubbed(subject: Subject, line: str) -> str:
    """A line of a log entry without what it tells of the entity."""
    action = json.loads(line)
    info = action.get("commitInfo")
    if info is not None:
        clean = {**info, "operationParameters": _without_condition(subject, info.get("operationParameters") or {})}
        if clean["operationParameters"] != (info.get("operationParameters") or {}):
            return json.dumps({"commitInfo": clean}, separators=(",", ":"))
    statistics = _statistics(action.get("add"))
    if statistics and _tell(subject, statistics):
        action["add"]["stats"] = json.dumps(_cleared(subject, statistics), separators=(",", ":"))
        return json.dumps(action, separators=(",", ":"))
    return line


def _without_condition(subject: Subject, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`forget` itself removes rows by a condition, which Delta notes."""
    tells = isinstance(parameters.get("predicate"), str) and _in_condition(subject, parameters["predicate"])
    return {**parameters, **({"predicate": BLOT} if tells else {})}


def _in_condition(subject: Subject, text: str) -> bool:
    return subject.trace.in_text(text) or all(value in text for value in subject.entity.values.values())


def _statistics(add: Mapping[str, Any] | None) -> dict[str, Any]:
    text = (add or {}).get("stats")
    return json.loads(text) if text else {}


def _tell(subject: Subject, statistics: Mapping[str, Any]) -> bool:
    sides = (statistics.get("minValues") or {}, statistics.get("maxValues") or {})
    return any(_is_told(subject, value) for side in sides for value in side.values())


def _is_told(subject: Subject, value: Any) -> bool:
    if isinstance(value, str):
        return subject.trace.may_begin(value)
    return text_of(value) in subject.entity.values.values()


def _cleared(subject: Subject, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Without the least and the greatest value of each column that tells one."""
    sides = {side: statistics.get(side) or {} for side in ("minValues", "maxValues")}
    columns = {name for side in sides.values() for name, value in side.items() if _is_told(subject, value)}
    kept = {side: {n: v for n, v in values.items() if n not in columns} for side, values in sides.items()}
    return {**statistics, **kept}


def _checkpoint_tells(subject: Subject, data: bytes) -> bool:
    actions = pq.read_table(pa.BufferReader(data)).to_pylist()
    adds = [action["add"] for action in actions if action.get("add")]
    return any(_tell(subject, _statistics(add)) for add in adds)


# -- segments ---


def _look_at_segments(subject: Subject, journal: str) -> Iterator[Held]:
    pending = subject.lake.journal(journal).snapshot().pending
    if pending is None:
        return
    mask = _rows_of(subject, OWN + journal).mask(pending)
    if mask is not None:
        yield Held("segments of a journal", journal, int(pc.sum(mask).as_py() or 0))


def _fold_all(subject: Subject, journal: str) -> None:
    """The segments' rows are in the table, but for the forgotten ones, and the segments are gone."""
    for _ in range(FOLDS):
        subject.lake.journal(journal).fold(grace_s=-1)
        if not subject.lake.journal(journal).waiting():
            return


# -- conditions ---


def _condition(subject: Subject, schema: pa.Schema) -> str:
    """SQL for the entity's rows; empty where a table's types cannot hold it."""
    values = subject.entity.scalars(schema)
    return " and ".join(f"{quoted(name)} = {_literal(value)}" for name, value in (values or {}).items())


def _private(subject: Subject, schema: pa.Schema) -> list[list[tuple[str, pa.Scalar]]] | None:
    """How predictions tell the entity where one of its columns is private at least: for each of its columns, the
    columns of the log and their values, one of which must be there. None where they cannot."""
    found = []
    for name, text in subject.entity.values.items():
        plain = Entity({name: text}).scalars(schema) or {}
        mark = forgetting.hashed(subject.tombstones.key, name, text)
        hashes = {name + HASHED: pa.scalar(mark)} if name + HASHED in schema.names else {}
        found.append([*plain.items(), *hashes.items()])
    hidden = any(column.endswith(HASHED) for either in found for column, _ in either)
    return found if hidden and all(found) else None


def _private_condition(subject: Subject, schema: pa.Schema) -> str:
    """`_private` as SQL; empty where there is nothing to tell."""
    sides = [
        " or ".join(f"{quoted(column)} = {_literal(value)}" for column, value in either)
        for either in _private(subject, schema) or ()
    ]
    return " and ".join(f"({side})" for side in sides)


def _same(rows: pa.Table, column: str, value: pa.Scalar) -> pa.Array:
    return pc.fill_null(pc.equal(rows.column(column), value), False)


def _literal(value: pa.Scalar) -> str:
    if pa.types.is_string(value.type):
        return literal(value.as_py())
    if pa.types.is_date(value.type):
        return f"cast({literal(value.as_py().isoformat())} as date)"
    if pa.types.is_timestamp(value.type):
        return f"cast({literal(value.as_py().isoformat())} as timestamp)"
    return str(text_of(value.as_py()))


def _distinct(rows: pa.Table, name: str) -> list[str]:
    return [one for one in pc.unique(rows.column(name)).to_pylist() if one]


def _parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(values), AT_ONCE):
        yield values[at : at + AT_ONCE]
