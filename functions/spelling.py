"""Names and values as TOML and SQL spell them, for files that are written for a person to edit."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from lakeloop.lakehouse.query.quoting import quoted
from lakeloop.lakehouse.query.statements import reserved_words


def entries(given: Sequence[tuple[str, str, str]]) -> str:
    """Lines `name = value  # remark`, with values and remarks below each other."""
    width = max((len(name) for name, _, _ in given), default=0)
    value_width = max((len(value) for _, value, remark in given if remark), default=0)
    lines = [
        f"{name:<{width}} = {f'{value:<{value_width}}  # {remark}' if remark else value}\n"
        for name, value, remark in given
    ]
    return "".join(lines)


def toml_value(value: Any) -> str:
    """A text, a list of texts or a number; where JSON has it, TOML spells it the same."""
    return json.dumps(value, ensure_ascii=False)


def toml_key(name: str) -> str:
    """A key, in quotes where it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def sql_name(name: str) -> str:
    """A name in SQL, in quotes where it must be."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in reserved_words() else quoted(name)


def plain_name(name: str, kind: str, *, lower: bool = True) -> str:
    """The nearest name of letters, digits and `_`, a letter first: `Prix (€)` gives `prix`, `24` `<kind>_24`."""
    text = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    text = re.sub(r"[^A-Za-z0-9]+", "_", text.lower() if lower else text).strip("_")
    return text if re.match(r"[A-Za-z]", text) else f"{kind}_{text}".rstrip("_")


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, with `_2`, `_3` after those that come again."""
    found: list[str] = []
    for name in names:
        taken = {other.lower() for other in found}
        found.append(next(n for n in (name, *(f"{name}_{i}" for i in range(2, 10_000))) if n.lower() not in taken))
    return found
