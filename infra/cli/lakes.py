"""`lake init|doctor|usage|maintain|copy|forget`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption, QuietOption, WhyOption, YesOption
from lakeloop.infra.cli.output import say, show
from lakeloop.infra.place import find_place
from lakeloop.lakehouse.errors import Invalid, LakeloopError, Refused

if TYPE_CHECKING:
    from lakeloop.functions.copy_lake import Copied
    from lakeloop.functions.forget_subject import Held


def register(app: typer.Typer) -> None:
    lake = typer.Typer(help="The bucket or folder that holds everything", no_args_is_help=True)
    lake.command("init")(init)
    lake.command("doctor")(doctor)
    lake.command("usage")(usage)
    lake.command("maintain")(maintain)
    lake.command("copy")(copy)
    lake.command("forget")(forget)
    app.add_typer(lake, name="lake", rich_help_panel="Lake")


def init(lake: LakeOption = None, env: EnvOption = None, quiet: QuietOption = False) -> None:
    """Prove that the store keeps its promises, and make a lake in it."""
    from lakeloop.lakehouse.probing import init_lake

    place = find_place(lake, env)
    proofs, made = init_lake(place.lake)
    for proof in proofs:
        say(f"  holds: {proof.promise}", quiet=quiet)
    say(
        f"made a lake in {place.lake.url}\nnext: lakeloop apply" if made else f"{place.lake.url} is a lake already",
        quiet=quiet,
    )


def doctor(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Probe the store, and say what it guarantees. Exit code 3 when a promise does not hold."""
    from lakeloop.lakehouse.probing import is_lake, probe

    place = find_place(lake, env)
    proofs = probe(place.lake.store)
    rows = [{"promise": proof.promise, "holds": proof.held, "detail": proof.detail} for proof in proofs]
    rows.append({"promise": "a lake was made here", "holds": is_lake(place.lake), "detail": place.lake.url})
    show(rows, as_json=as_json)
    broken = [proof.promise for proof in proofs if not proof.held]
    if broken:
        raise Refused(f"the store does not keep: {'; '.join(broken)}", where=place.lake.url, todo="use another store")


def usage(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """How many objects and bytes each part of the lake has."""
    from collections import Counter

    place = find_place(lake, env)
    objects: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in place.lake.store.list():
        part = "/".join(entry.key.split("/")[:2])
        objects[part] += 1
        sizes[part] += entry.size
    rows = [{"part": part, "objects": objects[part], "MiB": round(sizes[part] / 2**20, 3)} for part in sorted(objects)]
    show(rows, as_json=as_json, empty=f"{place.lake.url} is empty")


def maintain(
    lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Fold every journal; remove predictions that are too old; compact, checkpoint and vacuum every table."""
    from lakeloop.functions.expire_predictions import expire_predictions
    from lakeloop.functions.maintain_lake import maintain_lake, maintain_table, table_names
    from lakeloop.lakehouse import applied
    from lakeloop.lakehouse.pins import RETENTION

    place = find_place(lake, env)
    done = maintain_lake(place.lake, fold_at=1)
    for project in applied.names(place.lake):
        done += expire_predictions(place.lake, applied.load(place.lake, project)[0])
    for name in table_names(place.lake):
        done += maintain_table(place.lake, name, now=True)
    show(
        [{"name": one.name, "what": one.what, "count": one.count} for one in done],
        as_json=as_json,
        empty="nothing to do",
    )
    say(f"files of older versions stay for {RETENTION.days} days, and those that a run has pinned", quiet=quiet)


def copy(
    target: Annotated[str, typer.Argument(metavar="DEST", help="An empty folder, or s3://bucket/prefix")],
    lake: LakeOption = None,
    env: EnvOption = None,
    quiet: QuietOption = False,
) -> None:
    """Copy the whole lake to another place, while its writers go on. A copy that was stopped is gone on with by the
    same command."""
    from lakeloop.functions.copy_lake import copy_lake
    from lakeloop.infra.progress import bars
    from lakeloop.lakehouse.lake import open_lake

    place = find_place(lake, env)
    dest = open_lake(target)
    say(f"copying {place.lake.url} to {dest.url}", quiet=quiet)
    with bars(quiet=quiet) as shown:
        row = shown.add_task("copying", total=None, note="")

        def watch(done: Copied) -> None:
            shown.update(row, completed=done.objects + done.there, note=f"{done.size / 2**20:,.1f} MiB  {done.part}")

        done = copy_lake(place.lake, dest, progress=watch)
        shown.update(row, total=done.objects + done.there, note=f"{done.size / 2**20:,.1f} MiB")
    if done.finished_before:
        say(f"{dest.url} is a whole copy of this lake already; nothing was written", quiet=quiet)
    else:
        before = f" ({done.there:,} of them by an earlier try)" if done.there else ""
        total = f"{done.objects + done.there:,} objects{before}, {done.size / 2**20:,.1f} MiB, {done.tables} tables"
        say(f"copied {total}", quiet=quiet)
    say(f"next: lakeloop status --lake {dest.url}", quiet=quiet)


def forget(
    entity: Annotated[
        list[str],
        typer.Argument(metavar="COLUMN=VALUE...", help="Rows in which all of these columns have these values"),
    ],
    why: WhyOption = "",
    lake: LakeOption = None,
    env: EnvOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Forget an entity: its rows leave every table, file, snapshot and artifact, whatever is pinned, and cannot come
    back. Exit code 1 when something still holds it, which is named."""
    from lakeloop.functions.forget_entity import find_entity, forget_entity
    from lakeloop.lakehouse.forgetting import Entity

    place = find_place(lake, env)
    wanted = Entity(dict(map(_pair, entity)))
    if not yes:
        _show_held(find_entity(place.lake, wanted), as_json=False, empty="nothing in the lake holds it today")
        say("This cannot be undone: older versions and what runs have pinned lose these rows too.")
        typer.confirm(f"Forget {wanted}?", abort=True, err=True)
    forgotten = forget_entity(
        place.lake, wanted, why=why, progress=lambda one: say(f"  {one.kind} {one.name}: {one.rows}", quiet=quiet)
    )
    _show_held(forgotten.done, as_json=as_json, empty="nothing held it; from now on it is left out of all that comes")
    say(f"forgotten as {forgotten.tombstone[:12]}: what comes late is left out", quiet=quiet)
    for one in forgotten.left:
        say(f"  {one.cannot or f'{one.kind} {one.name}: {one.rows}'}")
    if forgotten.left:
        raise LakeloopError(f"{len(forgotten.left)} places still hold it", todo="see above; then run this again")


def _pair(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals or not column or not value:
        raise Invalid(f"{text!r} names no entity", todo="write it as COLUMN=VALUE, e.g. customer_id=4711")
    return column, value


def _show_held(held: Sequence[Held], *, as_json: bool, empty: str) -> None:
    rows = [{"kind": one.kind, "name": one.name, "rows": one.rows, "note": one.note or one.cannot} for one in held]
    show(rows, as_json=as_json, empty=empty)
