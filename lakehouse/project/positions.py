"""On which line each key of a TOML text stands, since `tomllib` keeps no lines.

The scanner runs over text that `tomllib` has already accepted, so it only has to find its way, not to refuse anything.
A path is the keys from the root; an element of a list, or of an array of tables, is its index:
("gate", "rule", 1, "metric").
"""

from __future__ import annotations

import re
import tomllib
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING = re.compile(
    r'"{3}(?:\\.|[^\\])*?"{3,5}|' + r"'{3}[\s\S]*?'{3,5}|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}\s#]+(?: [0-9:.Z+-]+)?")


def line_numbers(text: str) -> dict[Path, int]:
    """Every key's first line, counted from 1; tables that only a deeper header opens have the line of that header."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.lines: dict[Path, int] = {}
        self.lengths: dict[Path, int] = {}  # of arrays of tables, as far as they have been read

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self.skip_blank():
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def skip_blank(self) -> bool:
        """Past spaces, line ends and comments; False at the end of the text."""
        found = _BLANK.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.at < len(self.text)

    def header(self) -> Path:
        start, double = self.at, self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        path: Path = ()
        names = self.dotted()
        for i, name in enumerate(names):
            path = (*path, name)
            if double and i == len(names) - 1:
                self.note(path, start)
                self.lengths[path] = self.lengths.get(path, 0) + 1
            if path in self.lengths:
                path = (*path, self.lengths[path] - 1)
            self.note(path, start)
        self.at += 2 if double else 1
        return path

    def pair(self, table: Path) -> None:
        start = self.at
        path = table
        for name in self.dotted():
            path = (*path, name)
            self.note(path, start)
        self.at += 1  # the =
        self.value(path)

    def dotted(self) -> list[str]:
        names: list[str] = []
        while found := _KEY.match(self.text, self.at):
            names.append(_plain_key(found.group().strip()))
            self.at = found.end()
            if not self.text.startswith(".", self.at):
                break
            self.at += 1
        return names

    def value(self, path: Path) -> None:
        self.skip_blank()
        first = self.text[self.at]
        if first in "[{":
            self.items(path, closing="]" if first == "[" else "}")
            return
        found = (_STRING if first in "\"'" else _PLAIN).match(self.text, self.at)
        self.at = found.end() if found else self.at + 1

    def items(self, path: Path, closing: str) -> None:
        """The elements of a list or of an inline table."""
        self.at += 1
        index = 0
        while self.skip_blank() and self.text[self.at] != closing:
            if self.text[self.at] == ",":
                self.at += 1
            elif closing == "]":
                self.note((*path, index), self.at)
                self.value((*path, index))
                index += 1
            else:
                self.pair(path)
        self.at += 1

    def note(self, path: Path, offset: int) -> None:
        self.lines.setdefault(path, self.text.count("\n", 0, offset) + 1)


def _plain_key(key: str) -> str:
    if key[0] in "\"'":
        return str(tomllib.loads(f"key = {key}")["key"])
    return key
