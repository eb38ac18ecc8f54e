"""`batch-predict`: a table, a query or a file through a model, into a table."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakeloop.infra.cli.options import AsOfOption, EnvOption, JsonOption, LakeOption, QuietOption, moment
from lakeloop.infra.cli.output import facts, say
from lakeloop.infra.place import Place, find_place
from lakeloop.lakehouse.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import pyarrow as pa

    from lakeloop.lakehouse.batch.record import Batch
    from lakeloop.lakehouse.batch.rows import BatchRows
    from lakeloop.lakehouse.lake import Lake
    from lakeloop.ray_jobs.batch_predict import Compute

PANEL = "Serving"
REPEATED = "done before; nothing has changed since (--again scores it anew)"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(batch_predict)


def batch_predict(
    model: Annotated[str, typer.Argument(help="A model of the project; `model@3` names a version. Default: champion")],
    table: Annotated[
        str | None, typer.Option("--input", help="What SQL calls the rows: flights, flights@3, a view, project.table")
    ] = None,
    sql: Annotated[str | None, typer.Option("--sql", help="One SELECT that gives the rows")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A .parquet, .csv or .jsonl file with the rows")] = None,
    output: Annotated[str, typer.Option("--output", help="The table that predictions are appended to")] = "",
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help='Columns to copy, besides id, the keys and as_of: a,b or "*". Default: none'),
    ] = None,
    as_of: AsOfOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Begin anew, also when nothing has changed or a batch is under way")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray")] = False,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score many rows into a table, on Ray: of a table, a query or a file. For a few rows, use `lakeloop predict`.

    Features are looked up as of each row's `as_of` (else --as-of, else now), as in training. The same command goes on
    where it was stopped; every row is in the table once. When nothing has changed since, it does nothing.
    """
    from lakeloop.infra.progress import batch_progress
    from lakeloop.lakehouse.batch.record import BatchRequest
    from lakeloop.ray_jobs.batch_predict import batch_predict as run

    place = find_place(lake, env)
    project = place.applied()
    name, version = parse_model(model)
    rows = rows_of(table, sql, file)
    kept = tuple(part.strip() for one in keep or [] for part in one.split(",") if part.strip())
    request = BatchRequest(
        project.name,
        name,
        rows.told,
        output_table(project.name, output),
        version,
        moment(as_of) if as_of is not None else None,
        kept,
    )
    with ExitStack() as stack:
        watch = stack.enter_context(batch_progress(f"{name} → {output}", quiet=quiet or as_json))
        try:
            done = run(
                place.lake,
                project,
                request,
                rows,
                compute=_compute(place, stack, local=local, quiet=quiet),
                watch=watch,
                again=again,
            )
        except KeyboardInterrupt:
            say("stopped; the same command goes on from here", quiet=quiet)
            raise
    batch = done.batch
    told: dict[str, Any] = {
        "batch": batch.id,
        "model": batch.model,
        "version": batch.version,
        "rows": batch.rows,
        "parts": len(batch.parts),
        "output": batch.output.replace("/", "."),
        "as_of": batch.as_of,
        "note": REPEATED if batch.rows and done.repeated else "",
    }
    facts({name: value for name, value in told.items() if as_json or value != ""}, as_json=as_json)
    say(f"next: lakeloop query \"select * from {told['output']} where _batch = '{batch.id}' limit 10\"", quiet=quiet)


def rows_of(table: str | None, sql: str | None, file: Path | None) -> BatchRows:
    """The one of the three that is given."""
    from lakeloop.lakehouse.batch.rows import FileRows, QueryRows, TableRows

    given = [one for one in (table, sql, file) if one is not None]
    if len(given) != 1:
        raise Invalid(
            f"{len(given)} kinds of rows are given", todo="name one of --input TABLE, --sql QUERY, --file FILE"
        )
    if table is not None:
        return TableRows(table)
    return QueryRows(sql) if sql is not None else FileRows(file or Path())


def parse_model(text: str) -> tuple[str, int | None]:
    """`model@3` → (model, 3); `model` → (model, None)."""
    model, at, version = text.partition("@")
    if at and not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        raise Invalid(f"{version!r} is not a version", todo=f"{model}@3 is version 3")
    return model, int(version) if at else None


def output_table(project: str, text: str) -> str:
    """`project/table`: the project is this one, whether it is named or not."""
    from lakeloop.lakehouse.keys import check_name

    if not text:
        raise Invalid("no table is named for the predictions", todo="--output scored")
    name = check_name(text.removeprefix(f"{project}."), "table")
    return f"{project}/{name}"


def _compute(place: Place, stack: ExitStack, *, local: bool, quiet: bool) -> Compute:
    """On Ray when there is more than one part to do, and Ray is here; it starts only then."""
    from importlib.util import find_spec

    from lakeloop.infra.training import LocalRay
    from lakeloop.ray_jobs.batch_predict import in_process, on_ray

    def compute(lake: Lake, batch: Batch, numbers: Sequence[int]) -> Generator[tuple[int, pa.Table]]:
        if local or len(numbers) < 2 or find_spec("ray") is None:
            return in_process(lake, batch, numbers)
        ray = LocalRay(place.lake, place.folder, say=lambda text: say(text, quiet=quiet))
        stack.enter_context(ray).start()
        return on_ray(lake, batch, numbers)

    return compute
