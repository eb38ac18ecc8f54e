"""A split by time that leaves rows for every part of a file, found by trying it with what training splits with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from lakeloop.functions.infer_columns import Found, quantile_times
from lakeloop.functions.spelling import entries, toml_value
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.learners.splitting import split
from lakeloop.lakehouse.project import parse_project
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.project.units import format_duration

DELAYS: Final = (
    (timedelta(days=20), timedelta(days=1), "1 day"),
    (timedelta(hours=20), timedelta(hours=1), "1 hour"),
    (timedelta(0), timedelta(minutes=1), "1 minute"),
)
"""How long a label takes when nobody has said it, by the least span of the times it is for."""
BY_CHANCE: Final[Mapping[str, Any]] = {"by": "random", "test": 0.2}
POINTS: Final = 200


def choose_split(rows: pa.Table, time: str, label: Found) -> tuple[str, Mapping[str, Any], str]:
    """The label's delay as an interval of SQL, the keys of [split], and a remark; by chance without enough times."""
    times = quantile_times(rows, time, [i / POINTS for i in range(POINTS + 1)], label) if time else []
    if not times:
        return DELAYS[0][2], BY_CHANCE, ""
    delay, words = next((later, words) for least, later, words in DELAYS if times[-1] - times[0] >= least)
    for share in (0.2, 0.3, 0.4):
        for own_valid in (False, True):
            parts = _durations(times, share, own_valid)
            if parts and _leaves_rows(parts, times, delay):
                return words, parts, ""
    return words, BY_CHANCE, "the times in the file are too few to split by them"


def _durations(times: Sequence[datetime], share: float, own_valid: bool) -> dict[str, Any]:
    """The newest share of the rows to test; the validation part as long, or as long as the same share before it."""
    begins, before = (times[round((1 - part) * (len(times) - 1))] for part in (share, 2 * share))
    if begins == times[-1] or (own_valid and before == begins):
        return {}
    parts = {"by": "time", "test": _rounded(times[-1] - begins)}
    first_of_test = next(time for time in times if time > begins)
    return parts | {"valid": _rounded(first_of_test - before)} if own_valid else parts


def _rounded(duration: timedelta) -> str:
    """A duration in its largest unit, rounded up."""
    units = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1))
    unit = next((u for u in units if duration >= 2 * u), timedelta(seconds=1))
    return format_duration(-(-duration // unit) * unit)


def _leaves_rows(parts: Mapping[str, Any], times: Sequence[datetime], delay: timedelta) -> bool:
    stamp = pa.timestamp("us", "UTC")
    table = pa.table(
        {"as_of": pa.array(times, stamp), "label_known_at": pa.array([time + delay for time in times], stamp)}
    )
    try:
        split(_model(parts), table, times[-1] + delay)
    except Invalid:
        return False
    return True


def _model(parts: Mapping[str, Any]) -> Model:
    """A model of which only the split matters."""
    keys = entries([(name, toml_value(value), "") for name, value in parts.items()])
    files = {
        "lakeloop.toml": 'name = "draft"\nowner = "draft"\n',
        "models/draft.toml": f'problem = "regression"\nlearner = "sklearn"\ninputs.request.x = "int8"\n[split]\n{keys}',
        "models/draft.sql": "select 1",
    }
    return parse_project(files).models["draft"]
