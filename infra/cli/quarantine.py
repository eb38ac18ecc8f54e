"""`quarantine list|show|retry|drop`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption, QuietOption, WhyOption, YesOption
from lakeloop.infra.cli.output import say, show, sure
from lakeloop.infra.place import Place, find_place
from lakeloop.lakehouse.errors import Invalid

SourceArgument = Annotated[str, typer.Argument(help="A source, or inbox/JOURNAL for segments that could not be read")]
FileOption = Annotated[str, typer.Option("--file", help="Only what came in this file")]
AllOption = Annotated[bool, typer.Option("--all", help="Also what was retried or dropped, and rows that only warned")]


def register(app: typer.Typer, panel: str) -> None:
    group = typer.Typer(help="Rows and files that broke a rule", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show_)
    group.command("retry")(retry)
    group.command("drop")(drop)
    app.add_typer(group, name="quarantine", rich_help_panel=panel)


def list_(
    every: AllOption = False, lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """What is open, by source and rule: wrong rows, files and journal segments that could not be read."""
    from lakeloop.lakehouse.quarantine import segments, set_aside

    place = find_place(lake, env)
    name = place.applied().name
    states = "" if every else "and state = 'open'"
    counted = place.lake.sql(
        "select source, state, regexp_extract(reason, '^[^:]*') as rule, count(*) as rows, "
        "any_value(reason) as example, max(logged_at) as last from lakeloop.quarantine_state "
        f"where project = ? and reason not like 'file:%' {states} group by all order by source, rows desc",
        [name],
    ).to_pylist()
    rows = [{"kind": "rows", **row} for row in counted]
    for kind, found in (("file", set_aside(place.lake, name)), ("segment", segments(place.lake))):
        rows += [
            {"kind": kind, "source": one.owner, "state": "open", "rule": kind, "rows": None, "example": _named(one)}
            for one in found
        ]
    columns = ["kind", "source", *(["state"] if every else []), "rule", "rows", "example", "last"]
    show([{c: row.get(c) for c in columns} for row in rows], as_json=as_json, empty="nothing is in quarantine")


def _named(one: Any) -> str:
    return f"{one.name}: {one.reason.removeprefix('file: ')}"


def show_(
    source: str,
    every: AllOption = False,
    limit: Annotated[int, typer.Option(help="Rows shown")] = 20,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """The rows themselves, newest first, each with every reason; and who decided what of them."""
    place = find_place(lake, env)
    decided, states = (", state, who, why", "") if every else ("", "and state = 'open'")
    answer = place.lake.sql(
        f"select file, line, reason, row{decided} from lakeloop.quarantine_state where project = ? and source = ? "
        f"{states} order by logged_at desc, file, line limit ?",
        [place.applied().name, source, limit],
    )
    show(answer.to_pylist(), as_json=as_json, empty=f"nothing of {source} is in quarantine")


def retry(
    source: SourceArgument,
    file: FileOption = "",
    why: WhyOption = "",
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Judge open rows anew, by the rules that are applied now; put files that could not be read back first."""
    from lakeloop.functions.ingest_data import ingest_data
    from lakeloop.functions.retry_quarantined import SEGMENTS, retry_quarantined
    from lakeloop.lakehouse import events

    place = find_place(lake, env)
    project = place.applied()
    _known(place, source)
    if place.differs():
        say("the folder says something that is not applied yet; `lakeloop apply` does that", quiet=quiet)
    back = retry_quarantined(place.lake, project.name, source, file=file, why=why)
    if source.startswith(SEGMENTS):
        again = [{"segment": one.file, "note": "in the inbox again; the next fold reads it"} for one in back]
        show(again, as_json=as_json, empty=f"no segment of {source} is in quarantine")
        return
    done = ingest_data(place.lake, project, [source])
    events.wake(place.lake, "data", project.name)
    rows = [
        {"source": one.source, "file": one.file, "went_in": one.rows, "wrong_again": one.quarantined}
        | {"note": one.problem}
        for one in done
    ]
    show(rows, as_json=as_json, empty=f"nothing of {source} can be judged anew")
    if any(one.quarantined or one.problem for one in done):
        say(f"next: lakeloop quarantine show {source}", quiet=quiet)


def drop(
    source: SourceArgument,
    file: FileOption = "",
    why: WhyOption = "",
    yes: YesOption = False,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Give up open rows, which stay in the journal as dropped, and delete files that could not be read."""
    from lakeloop.functions.retry_quarantined import SEGMENTS, drop_quarantined, found_aside

    place = find_place(lake, env)
    name = place.applied().name
    _known(place, source)
    files = found_aside(place.lake, name, source, file)
    count = 0 if source.startswith(SEGMENTS) else _open_rows(place, name, source, file)
    if not count and not files:
        show([], as_json=as_json, empty=f"nothing of {source} is in quarantine")
        return
    what = "segments" if source.startswith(SEGMENTS) else "files"
    say(f"{count:,} rows of {source} will be given up, and {len(files)} {what} deleted", quiet=quiet)
    sure("drop them?", yes=yes)
    done = drop_quarantined(place.lake, name, source, file=file, why=why)
    show([{"source": one.owner, "file": one.file, "rows": one.rows} for one in done], as_json=as_json)


def _open_rows(place: Place, project: str, source: str, file: str) -> int:
    answer = place.lake.sql(
        "select count(*) as n from lakeloop.quarantine_state where project = ? and source = ? and state = 'open' "
        "and line is not null and (? = '' or split_part(file, '#', 1) = ?)",
        [project, source, file, file],
    )
    return int(answer.column("n")[0].as_py())


def _known(place: Place, source: str) -> None:
    from lakeloop.functions.retry_quarantined import SEGMENTS

    there = place.applied().sources
    if source not in there and not source.startswith(SEGMENTS):
        raise Invalid(f"there is no source {source!r}", todo=f"name one of: {', '.join(there)}, or inbox/JOURNAL")
