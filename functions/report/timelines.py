"""The plots over time: performance with what happened, and requests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from lakeloop.functions.report import canvas, words
from lakeloop.functions.report.canvas import INK, Plot
from lakeloop.functions.report.data import PerformancePoint, ReportData

_MARKS = {
    "alarm": ("v", INK["bad"], "alarm"),
    "training": ("o", INK["muted"], "training"),
    "promotion": ("^", INK["good"], "promotion"),
    "rollout": ("s", INK["c1"], "rollout"),
    "rollback": ("X", INK["warn"], "rollback"),
}


def performance(data: ReportData, colours: dict[str, str]) -> Plot | None:
    """The metric per window and version with its band, the bound as a line, and what happened as marks; None without a point."""
    points = [p for p in data.performance if words.known(p.value.value)]
    if not points:
        return None
    where = words.zone(data.timezone)
    versions = list(dict.fromkeys(p.version for p in sorted(points, key=lambda p: p.at)))

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for version in versions:
            mine = sorted((p for p in points if p.version == version), key=lambda p: p.at)
            _line(axes, [p for p in mine if p.kind == "realized"], version, colours[version])
            _estimate(axes, [p for p in mine if p.kind == "estimated"], colours[version])
        if words.known(data.bound):
            side = "below" if data.greater_is_better else "above"
            label = f"alarm {side} {words.plain(data.bound)}"
            axes.axhline(data.bound, color=INK["bad"], linewidth=1.3, linestyle=(0, (5, 3)), label=label)
        _marks(axes, data, min(p.at for p in points))
        axes.margins(x=0.02, y=0.14)
        axes.set_ylabel(words.metric_name(data.metric))
        canvas.time_axis(axes, where)
        canvas.legend_above(figure, axes)

    return canvas.plot(
        "performance", _performance_words(data, points), paint, width=canvas.WIDE, height=330, narrow_height=330
    )


def _line(axes: Any, points: Sequence[PerformancePoint], version: str, colour: str) -> None:
    if not points:
        return
    x, values = canvas.at_days([p.at for p in points]), [p.value.value for p in points]
    low = [p.value.low if words.known(p.value.low) else p.value.value for p in points]
    high = [p.value.high if words.known(p.value.high) else p.value.value for p in points]
    axes.plot(x, values, color=colour, marker="o", markersize=3.6, label=words.short(version))
    if len(points) == 1:
        axes.plot([x[0], x[0]], [low[0], high[0]], color=colour, linewidth=5, alpha=0.3)
    else:
        axes.fill_between(x, low, high, color=colour, alpha=0.17, linewidth=0)


def _estimate(axes: Any, points: Sequence[PerformancePoint], colour: str) -> None:
    if points:
        x, values = canvas.at_days([p.at for p in points]), [p.value.value for p in points]
        axes.plot(x, values, color=colour, linewidth=1.3, linestyle=(0, (1, 1.6)), marker=".", markersize=3)
        axes.plot([], [], color=INK["muted"], linewidth=1.3, linestyle=(0, (1, 1.6)), label="estimated, before labels")


def _marks(axes: Any, data: ReportData, since: datetime) -> None:
    for mark in sorted(data.marks, key=lambda m: m.at):
        if mark.at < since - timedelta(days=3):
            continue
        shape, colour, label = _MARKS.get(mark.kind, ("D", INK["muted"], words.short(mark.kind)))
        (x,) = canvas.at_days([mark.at])
        axes.axvline(x, color=colour, linewidth=1, alpha=0.75, linestyle=(0, (2, 2)))
        top = axes.get_xaxis_transform()
        axes.plot(
            [x],
            [1.0],
            marker=shape,
            color=colour,
            markersize=8,
            linestyle="",
            transform=top,
            clip_on=False,
            label=label,
        )


def _performance_words(data: ReportData, points: Sequence[PerformancePoint]) -> str:
    where = words.zone(data.timezone)
    realized = sorted((p for p in points if p.kind == "realized"), key=lambda p: p.at)
    last = (realized or sorted(points, key=lambda p: p.at))[-1]
    kind = "realized" if realized else "estimated"
    text = f"{words.metric_name(data.metric)} ({kind}), {len(realized or points)} windows: "
    text += f"the last, from {words.day(last.at, where)}, {words.number(last.value.value)} "
    text += f"({words.bounds(last.value) or 'no interval'}) with version {last.version}."
    if words.known(data.bound) and data.bound is not None:
        beyond = sum((p.value.value < data.bound) == data.greater_is_better for p in realized)
        text += f" Beyond the bound of {words.plain(data.bound)} in {beyond} of {len(realized)} windows."
    return text


def requests(data: ReportData, colours: dict[str, str]) -> Plot | None:
    """Answers per day, stacked by version, errors on top; None without traffic."""
    if not data.traffic:
        return None
    days = sorted({t.day for t in data.traffic})
    versions = list(dict.fromkeys(t.version for t in sorted(data.traffic, key=lambda t: t.day)))
    good = {v: dict.fromkeys(days, 0) for v in versions}
    errors = dict.fromkeys(days, 0)
    for t in data.traffic:
        good[t.version][t.day] += t.requests - t.errors
        errors[t.day] += t.errors

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        x, floor = canvas.at_days(days), [0.0] * len(days)
        width = min([b - a for a, b in pairwise(x)] or [1.0]) * 0.8
        layers = [(words.short(v), colours[v], list(good[v].values())) for v in versions]
        if any(errors.values()):
            layers.append(("errors", INK["bad"], list(errors.values())))
        for label, colour, heights in layers:
            axes.bar(x, heights, width, bottom=floor, color=colour, label=label)
            floor = [a + b for a, b in zip(floor, heights, strict=True)]
        canvas.plain_ticks(axes.yaxis, lambda v: f"{v:,.0f}")
        canvas.time_axis(axes, words.zone(data.timezone))
        canvas.legend_above(figure, axes)

    total, failed = sum(t.requests for t in data.traffic), sum(errors.values())
    alt = f"{total:,} requests over {len(days)} days, {failed:,} of them errors; {total / len(days):,.0f} a day."
    return canvas.plot("requests", alt, paint, width=canvas.HALF, height=270)
