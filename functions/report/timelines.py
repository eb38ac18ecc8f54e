"""The plots over time: performance with what happened, and requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from lakeloop.functions.report import canvas, words
from lakeloop.functions.report.canvas import INK, Plot
from lakeloop.functions.report.data import Mark, PerformancePoint, ReportData

_MARKS = {
    "alarm": ("v", INK["bad"], "alarm"),
    "training": ("o", INK["muted"], "training"),
    "promotion": ("^", INK["good"], "promotion"),
    "rollout": ("s", INK["c1"], "rollout"),
    "rollback": ("X", INK["warn"], "rollback"),
}

_DAYS = 120


def performance(data: ReportData, colours: dict[str, str]) -> Plot | None:
    """The metric per window and version with its band, the bound, and what happened as marks; None without a point."""
    points = [p for p in data.performance if words.known(p.value.value)]
    if not points:
        return None
    where = words.zone(data.timezone)
    versions = list(dict.fromkeys(p.version for p in sorted(points, key=lambda p: p.at)))

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for version in versions:
            mine = sorted((p for p in points if p.version == version), key=lambda p: p.at)
            name = canvas.legend_name(version, colours)
            _line(axes, [p for p in mine if p.kind == "realized"], name, colours[version])
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


def _line(axes: Any, points: Sequence[PerformancePoint], label: str, colour: str) -> None:
    if not points:
        return
    x, values = canvas.at_days([p.at for p in points]), [p.value.value for p in points]
    low = [p.value.low if words.known(p.value.low) else p.value.value for p in points]
    high = [p.value.high if words.known(p.value.high) else p.value.value for p in points]
    axes.plot(x, values, color=colour, marker="o", markersize=3.6, label=label)
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
    shown = sorted((m for m in data.marks if m.at >= since - timedelta(days=3)), key=lambda m: m.at)
    for (at, kind), above in _stacked(shown).items():
        shape, colour, label = _MARKS.get(kind, ("D", INK["muted"], words.short(kind)))
        (x,) = canvas.at_days([at])
        axes.axvline(x, color=colour, linewidth=1, alpha=0.75, linestyle=(0, (2, 2)))
        top = axes.get_xaxis_transform()
        axes.plot(
            [x],
            [1.0 + 0.06 * above],
            marker=shape,
            color=colour,
            markersize=8,
            linestyle="",
            transform=top,
            clip_on=False,
            label=label,
        )


def _stacked(marks: Sequence[Mark]) -> dict[tuple[datetime, str], int]:
    """Each kind of mark once a moment, and how many other kinds stand below it."""
    places: dict[tuple[datetime, str], int] = {}
    for at, kind in dict.fromkeys((mark.at, mark.kind) for mark in marks):
        places[at, kind] = sum(moment == at for moment, _ in places)
    return places


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
    """Answers per day, by week over long times, stacked by version, errors on top; None without traffic."""
    if not data.traffic:
        return None
    first = min(t.day for t in data.traffic)
    span = (max(t.day for t in data.traffic) - first).days + 1
    step = 1 if span <= _DAYS else 7
    layers = _layers(data, colours, first, step)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        floor: Counter[int] = Counter()
        (start,) = canvas.at_days([first])
        for (label, colour), heights in layers.items():
            steps = sorted(heights)
            x = [start + step * (i + (0.5 if step > 1 else 0.0)) for i in steps]
            axes.bar(x, [heights[i] for i in steps], 0.8 * step, [floor[i] for i in steps], color=colour, label=label)
            floor.update(heights)
        axes.set_ylabel("a day" if step == 1 else "a week")
        canvas.plain_ticks(axes.yaxis, lambda v: f"{v:,.10g}")
        canvas.time_axis(axes, words.zone(data.timezone))
        canvas.legend_above(figure, axes)

    total, failed = sum(t.requests for t in data.traffic), sum(t.errors for t in data.traffic)
    alt = f"{total:,} requests over {span} days, {failed:,} of them errors; {total / span:,.0f} a day."
    return canvas.plot("requests", alt, paint, width=canvas.HALF, height=290, narrow_height=250)


def _layers(
    data: ReportData, colours: dict[str, str], first: datetime, step: int
) -> dict[tuple[str, str], Counter[int]]:
    """Requests by step since the first day, for each (name, colour) from the bottom; errors are the last."""
    layers: dict[tuple[str, str], Counter[int]] = {}
    errors: Counter[int] = Counter()
    for t in sorted(data.traffic, key=lambda t: t.day):
        name = canvas.legend_name(t.version, colours), colours[t.version]
        place = round((t.day - first) / timedelta(days=1)) // step  # a day of 23 hours is one too
        layers.setdefault(name, Counter())[place] += t.requests - t.errors
        errors[place] += t.errors
    return {**layers, ("errors", INK["bad"]): +errors} if any(errors.values()) else layers
