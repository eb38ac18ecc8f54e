"""`init` and `schema`: a project's first files, and what editors need to check them while one types."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lakeloop.infra.cli.options import QuietOption
from lakeloop.infra.cli.output import say
from lakeloop.lakehouse.errors import Invalid, NotFound

if TYPE_CHECKING:
    from lakeloop.functions.draft_project import Draft

SCHEMAS = Path(".lakeloop", "schema")
IGNORED = ".lake/\n.lakeloop/\n"


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new project, and the folder to make for it")],
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A .csv, .jsonl or .parquet file to begin with")
    ] = None,
    label: Annotated[str, typer.Option(metavar="COL", help="The column to predict")] = "",
    time: Annotated[str, typer.Option(metavar="COL", help="The column that says when a row happened")] = "",
    key: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="A column that names a row; may be given several times")
    ] = None,
    owner: Annotated[str, typer.Option(help="Who answers for it. Default: you")] = "",
    quiet: QuietOption = False,
) -> None:
    """Write the smallest project for a file: its source, and a model of its label. Without one, a project to fill."""
    from lakeloop.functions.draft_choices import Wish
    from lakeloop.functions.draft_project import draft_project
    from lakeloop.lakehouse.lake import user_name

    folder = Path(name)
    _check_free(folder)
    if file is not None and not file.is_file():
        raise NotFound(f"there is no file {file}", todo="check the path")
    called = folder.resolve().name
    wish = Wish(called, owner.strip() or user_name(), file.name if file else "", label, time, tuple(key or ()))
    draft = draft_project(wish, file.read_bytes() if file else None)
    written = _command(called, file, label, time, key or [])
    for path, text in {**draft.files, ".gitignore": IGNORED}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            f"# Written by `{written}`.\n{text}" if path.startswith("sources/") else text, encoding="utf-8"
        )
    say(f"made {called} in {folder}: {', '.join(draft.files)}", quiet=quiet)
    for note in draft.notes:
        say(f"  {note}", quiet=quiet)
    say("\n".join(_next(draft, folder, file)), quiet=quiet)


def schema(
    folder: Annotated[Path | None, typer.Argument(help="A project's folder. Default: the one around here")] = None,
    quiet: QuietOption = False,
) -> None:
    """Write JSON Schemas of the project's files to .lakeloop/schema, for editors."""
    import json

    from lakeloop.lakehouse.project import find_project
    from lakeloop.lakehouse.project.schema import KINDS, json_schema

    there = find_project(folder or Path.cwd()) / SCHEMAS
    there.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        text = json.dumps(json_schema(kind), indent=2, ensure_ascii=False)
        (there / f"{kind}.json").write_text(text + "\n", encoding="utf-8")
    say(f"wrote {', '.join(f'{kind}.json' for kind in KINDS)} to {there}", quiet=quiet)
    say(f"in lakeloop.toml, first line: #:schema {(SCHEMAS / 'project.json').as_posix()}", quiet=quiet)
    say(
        f"in sources/*.toml and models/*.toml: #:schema ../{SCHEMAS.as_posix()}/source.json (or model.json)",
        quiet=quiet,
    )


def _check_free(folder: Path) -> None:
    if folder.is_file():
        raise Invalid("this is a file", where=str(folder), todo="name a folder that is not there yet")
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if there:
        shown = ", ".join(there[:3]) + (", …" if len(there) > 3 else "")
        raise Invalid(
            f"the folder is not empty ({shown}), and nothing is overwritten", where=str(folder), todo="name another one"
        )


def _command(name: str, file: Path | None, label: str, time: str, key: list[str]) -> str:
    """The command line that makes the same files."""
    words = ["lakeloop", "init", name]
    words += ["--from", file.name] if file else []
    words += [word for option, value in (("--label", label), ("--time", time)) if value for word in (option, value)]
    words += [word for value in key for word in ("--key", value)]
    return "".join(letter if letter.isprintable() else "?" for letter in shlex.join(words))


def _next(draft: Draft, folder: Path, file: Path | None) -> list[str]:
    """The commands that come after."""
    lines = [] if folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    if file is None:
        return [
            "next:",
            *(f"  {line}" for line in lines),
            "  write sources/NAME.toml and models/NAME.toml with NAME.sql, then: lakeloop check",
        ]
    landed = file if file.is_absolute() else Path(os.path.relpath(file.resolve(), folder.resolve()))
    lines += ["lakeloop apply", f"lakeloop ingest {draft.source} {shlex.quote(str(landed))}"]
    lines += [f"lakeloop train {draft.model}"] if draft.model else []
    return ["next:", *(f"  {line}" for line in lines)]
