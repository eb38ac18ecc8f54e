"""Begins a batch, or finds the one that goes on: everything that its answer rests on is fixed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from lakeloop.lakehouse import applied, endpoints, pins, registry
from lakeloop.lakehouse.batch import record
from lakeloop.lakehouse.batch.part import check_types, output_schema
from lakeloop.lakehouse.batch.record import BATCH, PART, TRIES, Batch, BatchRequest
from lakeloop.lakehouse.batch.rows import PART_ROWS, BatchRows, OpenRows, needed_columns, open_rows, stage
from lakeloop.lakehouse.column_types import misfit
from lakeloop.lakehouse.documents import LostRace, Revision
from lakeloop.lakehouse.errors import Conflict, Invalid, NotFound, Refused, Unknown
from lakeloop.lakehouse.features.training_set import pinned
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.quoting import quoted
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.scoring.loading import signature_of
from lakeloop.lakehouse.scoring.signature import Signature


def open_batch(
    lake: Lake,
    project: Project,
    request: BatchRequest,
    rows: BatchRows,
    *,
    again: bool = False,
    part_rows: int = PART_ROWS,
) -> Batch:
    """The batch that answers a request: the one that is open, the last one (done) when a new one would come out the
    same, else a new one whose rows are staged."""
    found = record.newest(lake, request)
    if found is not None and found[1].status == "open":
        if not again:
            return found[1]
        record.close(lake, request, found[1], "abandoned")
        found = record.newest(lake, request)
    if found is not None and found[1].status == "abandoned":
        _take_out(lake, found[1])
    revision, previous = found or (None, None)
    number, body = _version(lake, project, request)
    signature = signature_of(lake, body)
    with open_rows(lake, project, rows) as opened:
        columns, kept = needed_columns(signature, opened, request.keep)
        check_types(opened.schema, signature)
        batch = _batch(lake, project, request, number, body, signature, opened, kept, previous)
        if previous is not None and not again and opened.settled and previous.answers_too(batch):
            return previous
        _prepare_output(lake, project, request.output, output_schema(opened.schema, kept, signature))
        parts = stage(lake, batch.id, opened.read(columns), part_rows)
    _hold_features(lake, batch)
    return _begin(lake, request, replace(batch, parts=parts), revision)


def _begin(lake: Lake, request: BatchRequest, batch: Batch, revision: Revision | None) -> Batch:
    try:
        return record.begin(lake, request, batch, revision)
    except LostRace as race:  # another began it at the same moment: go on with theirs
        return Batch.from_json(race.won.body)


def _version(lake: Lake, project: Project, request: BatchRequest) -> tuple[int, Mapping[str, Any]]:
    if request.model not in project.models:
        todo = f"name one of: {', '.join(project.models)}"
        raise NotFound(f"{project.name} has no model {request.model!r}", todo=todo)
    number = request.version or endpoints.answering(lake, project.name, request.model)
    if number is None:
        raise NotFound(f"{request.model} has no champion yet", todo=f"lakeloop train {request.model}")
    return number, registry.version(lake, project.name, request.model, number).body


def _batch(
    lake: Lake,
    project: Project,
    request: BatchRequest,
    number: int,
    body: Mapping[str, Any],
    signature: Signature,
    opened: OpenRows,
    kept: tuple[str, ...],
    previous: Batch | None,
) -> Batch:
    batch = Batch(
        id=record.next_id(request, previous),
        project=project.name,
        model=request.model,
        version=number,
        model_hash=str(body["model_hash"]),
        definition=str(body["lineage"]["definition"]),
        rows_from=request.rows,
        as_of=request.as_of or lake.clock(),
        output=request.output,
        kept=kept,
        tables=dict(opened.tables or {}),
    )
    return _with_features(lake, project, batch, signature) if signature.views else batch


def _with_features(lake: Lake, project: Project, batch: Batch, signature: Signature) -> Batch:
    """With the versions that features are looked up in: the views as they are built, or, when what is built follows
    other rules than the model was trained with, what those rules read."""
    own = applied.load_hash(lake, project.name, batch.definition)
    built = applied.bound(project).views
    same = all(use.view in built and built[use.view].version == use.version for use in signature.views)
    catalog = LakeCatalog(lake, own, from_sources=not same, record=True)
    with Session(lake.store.location(), catalog) as session:
        for view in sorted({use.view for use in signature.views}):
            session.run(f"select * from {quoted(view)} limit 0", where=view)
    return replace(batch, features=catalog.versions, from_sources=not same)


def _hold_features(lake: Lake, batch: Batch) -> None:
    """The tables that features are looked up in stay as they are until the batch is over; those that are not ours
    cannot be held."""
    if batch.features:
        own = applied.load_hash(lake, batch.project, batch.definition)
        for pin in pinned(lake, own, batch.features).values():
            if isinstance(pin, pins.Pin):
                pins.hold(lake, pin, batch.owner)


def _prepare_output(lake: Lake, project: Project, output: str, schema: pa.Schema) -> None:
    """The output is there, and takes these columns."""
    name = output.partition("/")[2]
    if name in project.sources or name in project.views:
        raise Refused(f"{name} is a source or a view of {project.name}", todo="name another table with --output")
    table = lake.tables.open_or_create(output, schema)
    if PART not in table.schema.names:
        raise Refused(f"the table {output} holds what no batch made", todo="name another table with --output")
    if problem := misfit(schema, table.schema):
        raise Invalid(f"{output}: {problem}", todo="keep other columns, or name another table with --output")


def _take_out(lake: Lake, batch: Batch) -> None:
    """No row of an abandoned batch is left in its output, or comes to it: whoever still works at it is stopped by the
    fence, and finds that it is abandoned. Safe to repeat."""
    for _ in range(TRIES):
        table = lake.table(batch.output)
        if table is None:
            break
        try:
            table.fence(facts={"batch": batch.id})
            table.remove(f"{BATCH} = '{batch.id}'", facts={"batch": batch.id})
            break
        except (Conflict, Unknown):
            continue
    record.let_go(lake, batch)
