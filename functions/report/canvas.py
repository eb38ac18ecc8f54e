"""Matplotlib figures as inline SVG that follows the page: its fonts, its colours in light and dark, its ids.

A figure is drawn with the colours of `INK`, which stand for the page's CSS variables and are replaced by them in the
SVG, so one drawing is right on both backgrounds. No pyplot: no state is shared between figures. Text is never read as
mathematics, since names may hold a "$".
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from html import escape
from typing import Any

from lakeloop.functions.report.words import short

INK = {
    "ink": "#2b3440",
    "muted": "#67727f",
    "grid": "#d3d9e0",
    "reference": "#93a0ad",
    "bad": "#c4321b",
    "warn": "#b87514",
    "good": "#1f8560",
    "c1": "#0f6fb8",
    "c2": "#d9641e",
    "c3": "#12937f",
    "c4": "#a9479f",
    "c5": "#6d8a1e",
    "c6": "#4aa3d8",
    "card": "#fefefe",
}
SERIES = ("c1", "c2", "c3", "c4", "c5", "c6")
WIDE, NARROW, HALF, SMALL = 1060, 400, 500, 300
"""Widths in px at which text has its own size: the page's full width, a phone's, half the page, a small multiple."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_THEME = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK["grid"],
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK["muted"],
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "grid.color": INK["grid"],
    "grid.linewidth": 0.6,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.color": INK["ink"],
    "text.parse_math": False,
    "xtick.color": INK["grid"],
    "xtick.labelcolor": INK["muted"],
    "ytick.color": INK["grid"],
    "ytick.labelcolor": INK["muted"],
    "ytick.major.size": 0,
}

Paint = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """SVG to be put into HTML as it is, and the same in words; `narrow`, where there is one, is for a phone."""

    svg: str
    alt: str
    narrow: str = ""


def plot(name: str, alt: str, paint: Paint, *, width: int, height: int, narrow_height: int = 0) -> Plot:
    """Draw a figure, and for `narrow_height` once more as wide as a phone. `name` must be unique on the page."""
    narrow = _svg(f"{name}-narrow", alt, paint, NARROW, narrow_height) if narrow_height else ""
    return Plot(_svg(name, alt, paint, width, height), alt, narrow)


def _svg(name: str, alt: str, paint: Paint, width: int, height: int) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_THEME, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that DejaVu lacks is only measured with it, not drawn
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure)
        out = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return _inline(out.getvalue(), name, alt, width, height)


def _inline(svg: str, name: str, alt: str, width: int, height: int) -> str:
    """The figure's SVG without its prolog, with ids of its own, short coordinates, and the page's colours and fonts."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'url\(#|xlink:href="#', lambda found: f"{found.group()}{name}-", body).replace("xlink:href", "href")
    body = re.sub(r'\b(?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found.group()), body)
    body = re.sub(r"\s*\n\s*", "\n", body).replace("'DejaVu Sans'", _FONT)
    for variable, colour in INK.items():
        body = body.replace(colour, f"var(--{variable},{colour})")
    label = escape(alt, quote=True)
    attributes = (
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{label}" style="max-width:{width * 1.15:.0f}px"'
    )
    return f"<svg {attributes}>{body}"


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each of the newest six names (the last ones), the one for older ones."""
    distinct = list(dict.fromkeys(names))
    recent = distinct[-len(SERIES) :]
    first = len(distinct) - len(recent)
    return {
        name: INK[SERIES[i % len(SERIES)]] if name in recent else INK["reference"]
        for i, name in enumerate(distinct, start=-first)
    }


def legend_name(version: str, colours: Mapping[str, str]) -> str:
    """What the legend calls a version: those too old for a colour of their own have one name together."""
    return "older versions" if colours[version] == INK["reference"] else short(version)


def colour_of(name: str, colours: Mapping[str, str], fallback: str) -> str:
    """The colour of the version whose name `name` begins with, so that a version looks the same in all plots."""
    versions = [version for version in colours if version and name.startswith(version)]
    return colours[max(versions, key=len)] if versions else INK[fallback]


def at_days(moments: Sequence[datetime]) -> list[float]:
    """Times as the numbers of a time axis."""
    from matplotlib.dates import date2num

    return [float(x) for x in date2num(list(moments))]


def time_axis(axes: Any, where: tzinfo) -> None:
    """Dates on the x axis, with hours or years only where they matter, in that time zone."""
    from matplotlib.dates import AutoDateLocator, DateFormatter

    narrow = axes.figure.get_figwidth() * 72 <= HALF
    locator = AutoDateLocator(tz=where, minticks=3, maxticks=5 if narrow else 10)
    axes.xaxis.set_major_locator(locator)
    low, high = axes.get_xlim()
    form = "%-d %b %H:%M" if high - low < 3 else "%-d %b" if high - low < 400 else "%b %Y"
    axes.xaxis.set_major_formatter(DateFormatter(form, tz=where))


def plain_ticks(axis: Any, word: Callable[[float], str] = lambda x: f"{x:g}") -> None:
    """Tick labels by a function, never as mathematics (a logarithmic axis would write powers of ten so)."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda x, _: word(x)))
    axis.set_minor_formatter(NullFormatter())


def share_axis(axis: Any, parts: int = 6) -> None:
    """Shares in percent, in about so many steps."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=parts))
    plain_ticks(axis, lambda share: f"{100 * share:.4g}%")


def log_axis(axis: Any) -> None:
    """A logarithmic axis with labels at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator

    axis.axes.set_xscale("log")
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))


def beside(axes: Any, x: float, y: float, text: str) -> None:
    """A bar's value right of its end, on the card's own ground, so that no line runs through it."""
    ground = {"facecolor": INK["card"], "edgecolor": "none", "pad": 0.8}
    axes.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center", fontsize=10, bbox=ground)


def legend_above(figure: Any, axes: Any) -> None:
    """The legend over the plot, each name once, in as many columns as there is room for."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(reversed(labels), reversed(handles), strict=True))
    names = [label for label in dict.fromkeys(labels) if label]
    room, widths = figure.get_figwidth() * 72, [len(name) * 6.4 + 44 for name in names]
    columns = len(names) if sum(widths) <= room else max(1, int(room / max(widths)))
    if names:
        figure.legend([once[name] for name in names], names, loc="outside upper left", ncols=columns, columnspacing=1.4)
