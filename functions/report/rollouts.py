"""The plot of an endpoint's history: which version answered when, and with what share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from lakeloop.functions.report import canvas, words
from lakeloop.functions.report.canvas import Plot
from lakeloop.functions.report.data import EndpointChange, ReportData

_ROWS = 8
_THINNEST = 0.004
"""A bar is no thinner than this part of the axis, so that a change of just now is seen."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a version had one share of an endpoint; a share of 0 is shadow."""

    endpoint: str
    version: str
    start: datetime
    end: datetime
    share: float


def spans(changes: Sequence[EndpointChange], end: datetime) -> list[Span]:
    """The time between changes, per endpoint and version; neighbours with the same share are one."""
    found: list[Span] = []
    for span in sorted(_pieces(changes, end), key=lambda s: (s.endpoint, s.version, s.start)):
        last = found[-1] if found else None
        if last and replace(last, start=span.start, end=span.end) == span and last.end == span.start:
            found[-1] = replace(last, end=span.end)
        else:
            found.append(span)
    return found


def _pieces(changes: Sequence[EndpointChange], end: datetime) -> Iterator[Span]:
    for endpoint in dict.fromkeys(c.endpoint for c in changes):
        mine = sorted((c for c in changes if c.endpoint == endpoint), key=lambda c: c.at)
        for change, until in zip(mine, [*(c.at for c in mine[1:]), end], strict=True):
            shares = {**dict.fromkeys(change.shadow, 0.0), **{v: s for v, s in change.shares.items() if s > 0}}
            yield from (Span(endpoint, version, change.at, until, share) for version, share in shares.items())


def rollouts(data: ReportData, colours: dict[str, str]) -> Plot | None:
    """A row for each version, newest on top: height is share, a dashed outline is shadow; None without a change."""
    if not data.endpoint:
        return None
    begin = min(c.at for c in data.endpoint)
    end = max(data.generated_at, *(c.at for c in data.endpoint))
    total = max(end - begin, timedelta(hours=1))
    found = spans(data.endpoint, end)
    rows = list(dict.fromkeys((s.endpoint, s.version) for s in sorted(found, key=lambda s: s.start)))[-_ROWS:]
    several = len({c.endpoint for c in data.endpoint}) > 1

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for span in found:
            if (span.endpoint, span.version) in rows:
                wide = (span.end - span.start) / total > 0.03
                seen = replace(span, start=min(span.start, span.end - total * _THINNEST))
                _bar(axes, rows.index((span.endpoint, span.version)), seen, colours[span.version], wide)
        labels = [words.short(f"{endpoint}: {version}" if several else version, 24) for endpoint, version in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(visible=False)
        axes.set_xlim(*canvas.at_days([begin - total * 0.01, end + total * 0.01]))
        canvas.time_axis(axes, words.zone(data.timezone))

    now = [f"{s.version} {words.percent(s.share)}" for s in found if s.end == end and s.share > 0]
    alt = f"{len(data.endpoint)} changes of the endpoint; answering now: {', '.join(now) or 'no version'}."
    height = 62 + 36 * len(rows)
    return canvas.plot("endpoint", alt, paint, width=canvas.WIDE, height=height, narrow_height=height)


def _bar(axes: Any, row: int, span: Span, colour: str, wide: bool) -> None:
    start, stop = canvas.at_days([span.start, span.end])
    if span.share > 0:
        axes.barh(row, stop - start, left=start, height=0.08 + 0.6 * span.share, color=colour)
    else:
        outline = {"facecolor": "none", "edgecolor": colour, "linestyle": (0, (3, 2)), "linewidth": 1.3}
        axes.barh(row, stop - start, left=start, height=0.34, **outline)
    if wide and span.share < 1:
        text = words.percent(span.share) if span.share else "shadow"
        axes.text((start + stop) / 2, row + 0.45, text, ha="center", va="center", fontsize=9)
