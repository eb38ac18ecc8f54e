"""Values as words for people: numbers, times and lists, short and the same everywhere on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from lakeloop.lakehouse.statistics import Interval

NOTHING = "–"
_NAMES = {
    "roc_auc": "ROC AUC",
    "average_precision": "Average precision",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "f1": "F1",
    "macro_f1": "Macro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}


def known(x: float | None) -> bool:
    """Whether there is a number to show."""
    return x is not None and math.isfinite(x)


def number(x: Any, digits: int = 3) -> str:
    """A measured number with so many digits after the point, more for one that would vanish; – where there is none."""
    if not isinstance(x, int | float) or not math.isfinite(x):
        return NOTHING
    if isinstance(x, int) or abs(x) >= 1000:
        return f"{x:,.0f}"
    if abs(x) >= 1:
        return f"{x:.{digits + 1}g}"
    return f"{x:.{digits}f}" if x == 0 or abs(x) >= 10**-digits else f"{x:.2g}"


def plain(x: float | None) -> str:
    """A number that somebody set, as it was written, or nearly."""
    return NOTHING if x is None or not math.isfinite(x) else f"{x:.4g}"


def signed(x: float | None) -> str:
    """A difference with its sign; a minus sign, not a hyphen."""
    return NOTHING if x is None or not math.isfinite(x) else f"{x:+.4f}".replace("-", "−")


def bounds(interval: Interval | None, *, sign: bool = False) -> str:
    """The two ends of an interval."""
    if interval is None or not (known(interval.low) and known(interval.high)):
        return ""
    word = signed if sign else number
    return f"{word(interval.low)} to {word(interval.high)}"


def percent(share: float) -> str:
    """A share of 1 in percent, with a digit after the point where it is small."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def duration(seconds: float | None) -> str:
    """Seconds in the unit one would say."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def zone(name: str) -> tzinfo:
    """The time zone of that name; UTC where this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def moment(at: datetime | None, where: tzinfo) -> str:
    """A date and a time to the minute."""
    return NOTHING if at is None else f"{at.astimezone(where):%-d %b %Y %H:%M}"


def day(at: datetime | None, where: tzinfo) -> str:
    """A date."""
    return NOTHING if at is None else f"{at.astimezone(where):%-d %b %Y}"


def metric_name(metric: str) -> str:
    """A metric as people write it."""
    return _NAMES.get(metric, metric.replace("_", " ").capitalize())


def short(text: Any, length: int = 26) -> str:
    """At most so many characters, the middle left out, without control characters: for the axis of a plot."""
    clean = "".join(c if c.isprintable() else " " for c in str(text))
    keep = (length - 1) // 2
    return clean if len(clean) <= length else f"{clean[:keep]}…{clean[-keep:]}"


def settings(values: Mapping[str, Any]) -> str:
    """Parameters on one line."""
    return ", ".join(f"{name}={plain(x) if isinstance(x, float) else x}" for name, x in values.items())
