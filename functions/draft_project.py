"""The smallest project for a file: its source, and a model of its label that trains as it is.

Texts only; the caller writes them. What a draft says has been read and bound like any project, and its split was tried
on the file's own times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lakeloop.functions.draft_choices import Choices, Wish, choose
from lakeloop.functions.draft_split import choose_split
from lakeloop.functions.draft_texts import examples_text, model_text, project_text, source_text
from lakeloop.functions.spelling import plain_name
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project import parse_project
from lakeloop.lakehouse.project.binding import bind
from lakeloop.lakehouse.project.readers import NAME


@dataclass(frozen=True, slots=True)
class Draft:
    """The project's files by their path. `source` and `model` are names, "" for none; `notes` are for the person."""

    files: Mapping[str, str]
    source: str = ""
    model: str = ""
    notes: tuple[str, ...] = ()


def draft_project(wish: Wish, data: bytes | None = None) -> Draft:
    """The files of a new project, from the bytes of a file if there is one.

    Invalid for a file that cannot be read, and for a wish that does not fit it.
    """
    if not NAME.fullmatch(wish.name):
        todo = f"use small letters, digits and _, a letter first: {plain_name(wish.name, 'project')}"
        raise Invalid(f"{wish.name!r} cannot be the name of a project", todo=todo)
    draft = _of_nothing(wish) if data is None else _of_file(wish, data)
    bind(parse_project(draft.files))
    return draft


def _of_nothing(wish: Wish) -> Draft:
    if wish.label or wish.time or wish.key:
        raise Invalid("--label, --time and --key name columns of a file", todo="give the file, too: --from FILE")
    return Draft({"lakeloop.toml": project_text(wish)}, notes=("there is no source yet",))


def _of_file(wish: Wish, data: bytes) -> Draft:
    choices, rows, notes = choose(wish, data)
    files = {"lakeloop.toml": project_text(wish), f"sources/{choices.source}.toml": source_text(choices)}
    if choices.target is None:
        return Draft(files, choices.source, "", (*notes, "no --label was given, so there is no model yet"))
    delay, parts, remark = choose_split(rows, wish.time, choices.columns[wish.label])
    files[f"models/{wish.name}.toml"] = model_text(choices, choices.target, parts, remark)
    files[f"models/{wish.name}.sql"] = examples_text(choices, choices.target, delay)
    return Draft(files, choices.source, wish.name, (*notes, *_told(choices)))


def _told(choices: Choices) -> list[str]:
    """The choices that a person should look at."""
    target, wish = choices.target, choices.wish
    values = choices.columns[wish.label].distinct
    told = [f"{wish.label} is the label, with {values:,} values: {target.problem}" if target else ""]
    if not choices.key:
        return [*told, "no key was given or found: a row is named by what it holds (--key names its columns)"]
    return [*told, f"{' and '.join(choices.key)} name{'s' if len(choices.key) == 1 else ''} a row"]
