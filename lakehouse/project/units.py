"""Durations, sizes and column types as the format writes them: `15m`, `7d`, `1GiB`, `int16?`, `list<string>`."""

from __future__ import annotations

import re
from datetime import timedelta

from lakeloop.lakehouse.project.definitions import FLOAT_TYPES, INT_TYPES, Type

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_LONGEST = timedelta(days=36_500)
_SIZES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DURATION = re.compile(r"(\d{1,12})(ms|[smhdw])")
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(B|KiB|MiB|GiB|TiB)")
_DECIMAL = re.compile(r"decimal\( *(\d{1,2}) *, *(\d{1,2}) *\)")
_LIST = re.compile(r"list< *(.+?) *>")

PLAIN_TYPES = ("bool", *INT_TYPES, *FLOAT_TYPES, "string", "date", "timestamp", "json")


def parse_duration(text: str) -> timedelta:
    """`90s`, `15m`, `3h`, `7d`, `2w` or `250ms`; ValueError for anything else and for more than a hundred years."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(text)
    count, unit = int(found.group(1)), _UNITS[found.group(2)]
    if count > _LONGEST // unit:
        raise ValueError(text)
    return count * unit


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads as this duration, cut to whole milliseconds: `1h`, not `60m`."""
    if not duration:
        return "0s"
    for name, unit in _UNITS.items():
        if name != "w" and not duration % unit:
            return f"{duration // unit}{name}"
    return f"{duration // _UNITS['ms']}ms"


def parse_size(text: str) -> int:
    """`512MiB`, `1.5GiB` as bytes; ValueError for anything else."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return int(float(found.group(1)) * _SIZES[found.group(2)])


def parse_type(text: str) -> tuple[Type, bool]:
    """A declared type and whether it ends in `?` (may be null); ValueError for a type the format does not have."""
    nullable = text.endswith("?")
    return _parse_plain(text.removesuffix("?").strip()), nullable


def _parse_plain(text: str) -> Type:
    if text in PLAIN_TYPES:
        return Type(text)
    if found := _DECIMAL.fullmatch(text):
        precision, scale = int(found.group(1)), int(found.group(2))
        if scale <= precision and 1 <= precision <= 38:
            return Type("decimal", precision=precision, scale=scale)
    elif found := _LIST.fullmatch(text):
        return Type("list", item=_parse_plain(found.group(1)))
    raise ValueError(text)
