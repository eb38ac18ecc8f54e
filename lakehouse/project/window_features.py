"""The [windows] section of a view: `avg(late::int) filter (where origin = 'EWR')` parsed, and put back into SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, get_args

from lakeloop.lakehouse.project.definitions import Aggregate, WindowFeature, Windows
from lakeloop.lakehouse.project.documents import show
from lakeloop.lakehouse.project.readers import BAD, NAME, ListOf, Place, Text
from lakeloop.lakehouse.project.units import parse_duration

AGGREGATES: Final[tuple[str, ...]] = get_args(Aggregate)
_CALL = re.compile(r"\s*([a-z_]+)\s*\(")
_FILTER = re.compile(r"\s*filter\s*\(\s*where\b", re.IGNORECASE)
_DISTINCT = re.compile(r"\s*distinct\b", re.IGNORECASE)
_WORDS: Final = (
    "an aggregate; write " + ", ".join(f"{a}(x)" for a in AGGREGATES[1:]) + " or count(*), then filter (where …)"
)


def parse_window_feature(name: str, text: str) -> WindowFeature:
    """`aggregate(expression) [filter (where condition)]`; ValueError, with what is wrong, for anything else."""
    call = _CALL.match(text.lower())
    aggregate = call.group(1) if call else ""
    if call is None or aggregate not in AGGREGATES:
        raise ValueError(f"{show(text)} is not {_WORDS}")
    inside, rest = _balanced(text, call.end())
    where = ""
    if found := _FILTER.match(rest):
        where, rest = _balanced(rest, found.end())
        if not where:
            raise ValueError(f"{show(text)}: the filter has no condition")
    if rest.strip():
        raise ValueError(f"{show(text)}: {show(rest.strip())} after the aggregate is not understood")
    if distinct := _DISTINCT.match(inside):
        if aggregate != "count":
            raise ValueError(f"{show(text)}: distinct goes with count only")
        aggregate, inside = "count_distinct", inside[distinct.end() :].strip()
    if aggregate == "count" and inside == "*":
        inside = ""
    elif not inside or inside == "*":
        raise ValueError(f"{show(text)}: {aggregate}(…) needs an expression over the view's columns")
    return WindowFeature(name, aggregate, inside, where)  # type: ignore[arg-type]


def _balanced(text: str, start: int) -> tuple[str, str]:
    """What stands up to the parenthesis that closes the one before `start`, and what follows it; quotes are skipped."""
    depth, quote = 1, ""
    for i in range(start, len(text)):
        char = text[i]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "()":
            depth += 1 if char == "(" else -1
            if depth == 0:
                return text[start:i].strip(), text[i + 1 :]
    raise ValueError(f"{show(text)}: a parenthesis or a quote is not closed")


def aggregate_sql(feature: WindowFeature, event_time: str) -> str:
    """The feature as a DuckDB aggregate over the events in scope; first and last are by event time."""
    order = f' order by "{event_time}"'
    match feature.aggregate:
        case "count" if not feature.expression:
            call = "count(*)"
        case "count_distinct":
            call = f"count(distinct {feature.expression})"
        case "stddev":
            call = f"stddev_samp({feature.expression})"
        case "first" | "last":
            call = f"{feature.aggregate}({feature.expression}{order})"
        case _:
            call = f"{feature.aggregate}({feature.expression})"
    return f"{call} filter (where {feature.where})" if feature.where else call


class WindowsReader:
    """[windows]: `over`, and every other key a feature."""

    def read(self, value: Any, at: Place) -> Any:
        if not isinstance(value, Mapping):
            return at.problem(f"{show(value)} is not a table")
        over = self.over(value.get("over"), at.key("over"))
        features = [self.feature(name, text, at.key(name)) for name, text in value.items() if name != "over"]
        if over is BAD or BAD in features:
            return BAD
        if not features:
            return at.problem('has no feature; write, for example, landed = "count(*)"')
        return Windows(over, tuple(features))

    def over(self, value: Any, at: Place) -> Any:
        if value is None:
            return at.problem('is required and not given; write over = ["3h", "24h"]')
        texts = ListOf(Text(), distinct=True, filled=True).read(value, at)
        if texts is BAD:
            return BAD
        found = {}
        for text in texts:
            try:
                found[text] = parse_duration(text)
            except ValueError:
                return at.problem(f'{show(text)} is not a duration; write "15m", "3h" or "7d"')
        if not all(found.values()):
            return at.problem("a window of no length holds no events")
        return found

    def feature(self, name: str, text: Any, at: Place) -> Any:
        if not NAME.fullmatch(name):
            return at.problem(f"{show(name)} is not a name: small letters, digits and _, a letter first")
        if not isinstance(text, str):
            return at.problem(f"{show(text)} is not {_WORDS}")
        try:
            return parse_window_feature(name, text)
        except ValueError as error:
            return at.problem(str(error))

    def schema(self) -> dict[str, Any]:
        over = {"type": "array", "items": {"type": "string"}}
        return {
            "type": "object",
            "properties": {"over": over},
            "required": ["over"],
            "additionalProperties": {"type": "string"},
        }
