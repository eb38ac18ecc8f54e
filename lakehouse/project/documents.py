"""One file of a project as TOML with the lines of its keys, and the list that problems are collected in.

A SQL file carries its TOML in a comment header at the top, the grammar of PEP 723 with `--`:

    -- /// feature-view
    -- owner = "ops"
    -- ///
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.positions import Path, line_numbers

_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_OPENING = re.compile(r"^-- /// ([a-z][a-z-]*)\s*$")


class Problems:
    """What is wrong with a project, in the order it was found; raised together."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, str]] = []

    def add(self, file: str, line: int, what: str) -> None:
        """Note a problem once. `line` 0 is the file as a whole."""
        what = what.replace("\n", "\\n")
        if (file, line, what) not in self.found:
            self.found.append((file, line, what))

    def lines(self) -> list[str]:
        """One `file:line: what` for each problem, by file and line."""
        return [f"{file}:{line}: {what}" if line else f"{file}: {what}" for file, line, what in sorted(self.found)]

    def raise_if_any(self, name: str) -> None:
        """Raise one Invalid that carries them all."""
        if not self.found:
            return
        lines = self.lines()
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise Invalid(f"{count} in project {name}" if name else f"{count} in the project", problems=lines)


@dataclass(frozen=True, slots=True)
class Document:
    """A TOML text that was read: its data, its keys' lines, and where problems with it go."""

    path: str
    kind: str
    data: Mapping[str, Any]
    problems: Problems
    positions: Mapping[Path, int] = field(default_factory=dict)
    offset: int = 0  # lines of the file before the TOML's first

    def line(self, path: Path) -> int:
        """The line of a key, else of the nearest table around it; 0 when nothing of it is in the file."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions[path] + self.offset if path else 0

    def problem(self, path: Path, what: str) -> None:
        """Note that the value at `path` is wrong."""
        self.problems.add(self.path, self.line(path), f"{spell(path)}: {what}" if path else what)


def spell(path: Path) -> str:
    """A path as one finds it in the file: `[split] test`, `[[gate.rule]] metric`, `[inputs] features`."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    *table, key = path
    names = [part for part in table if isinstance(part, str)]
    if not names:
        return str(key)
    head = ".".join(names)
    return f"[[{head}]] {key}" if isinstance(table[-1], int) else f"[{head}] {key}"


def show(value: Any) -> str:
    """A TOML value as the user would write it, cut to a readable length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}…"'
    if isinstance(value, list):
        return "[" + ", ".join(show(v) for v in value[:6]) + (", …]" if len(value) > 6 else "]")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {show(v)}" for k, v in list(value.items())[:4]) + " }"
    return str(value)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of a message: the nearest known word, or the few there are; empty when there is nothing to say."""
    near = get_close_matches(word, known, n=1, cutoff=0.6) or get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    if 0 < len(known) <= 12:
        return "; known: " + ", ".join(sorted(set(known)))
    return ""


def toml_document(path: str, kind: str, text: str, problems: Problems, offset: int = 0) -> Document | None:
    """Parse a TOML text; None, with the problem noted, when it is broken."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = _AT_LINE.search(message)
        line = int(found.group(1)) if found else len(text.rstrip("\n").split("\n"))
        what = _AT_LINE.sub("", message).replace(" (at end of document)", " at the end")
        what = what.replace("Illegal character '\\n'", "a text in quotes is not closed")
        problems.add(path, line + offset, f"this is not TOML: {what[0].lower()}{what[1:]}")
        return None
    return Document(path, kind, data, problems, line_numbers(text), offset)


def header_document(path: str, kind: str, text: str, problems: Problems) -> Document | None:
    """The TOML of a SQL file's header; None, with the problem noted, when there is none or it is broken."""
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if line.strip()), 0)
    opening = _OPENING.match(lines[start])
    if opening is None:
        problems.add(
            path, start + 1, f'the header is missing; begin the file with "-- /// {kind}" and end it with "-- ///"'
        )
        return None
    if opening.group(1) != kind:
        problems.add(path, start + 1, f'the header says "{opening.group(1)}"; files in this folder are "{kind}"')
        return None
    content: list[str] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if line.rstrip() == "-- ///":
            return toml_document(path, kind, "\n".join(content), problems, offset=start + 1)
        if line != "--" and not line.startswith("-- "):
            problems.add(path, number, 'the header is not closed; end it with a line "-- ///"')
            return None
        content.append(line[3:])
    problems.add(path, len(lines), 'the header is not closed; end it with a line "-- ///"')
    return None
