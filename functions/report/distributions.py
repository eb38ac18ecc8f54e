"""The plots of distributions: drift of the inputs, scores, and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from lakeloop.functions.report import canvas, words
from lakeloop.functions.report.canvas import INK, Plot
from lakeloop.functions.report.data import ColumnDrift, Distribution
from lakeloop.lakehouse.statistics import CalibrationBin

SOME, MUCH = 0.1, 0.2
_BARS, _CATEGORIES = 20, 8
_END = 0.6


def by_drift(columns: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """The columns with a PSI, the largest first."""
    return sorted((c for c in columns if words.known(c.psi)), key=lambda c: (-c.psi, c.column))


def drift(columns: Sequence[ColumnDrift]) -> Plot | None:
    """PSI of the twenty that moved most as bars, with the lines people know; None without a column."""
    ranked = by_drift(columns)[:_BARS]
    if not ranked:
        return None
    end = min(max(0.26, ranked[0].psi * 1.2), _END)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        shown = ranked[::-1]
        colour = [INK["bad"] if c.psi > MUCH else INK["warn"] if c.psi > SOME else INK["reference"] for c in shown]
        axes.barh(range(len(shown)), [c.psi for c in shown], height=0.66, color=colour)
        axes.set_yticks(range(len(shown)), [words.short(c.column, 24) for c in shown])
        axes.set_xlim(0, end)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        for place, column in enumerate(shown):
            flag = " ●" if column.drifted else ""
            beyond = " →" if column.psi > end else ""
            canvas.beside(axes, min(column.psi, end * 0.84), place, f"{column.psi:.3f}{beyond}{flag}")
        room = figure.get_figwidth() * 72 > canvas.NARROW
        for x, word, ink in ((SOME, " some", "warn"), (MUCH, " much", "bad")):
            axes.axvline(x, color=INK[ink], linewidth=1.1, linestyle=(0, (5, 3)))
            top = axes.get_xaxis_transform()
            axes.text(
                x,
                1.01,
                f"{x}{word if room else ''}",
                transform=top,
                ha="center",
                va="bottom",
                fontsize=10,
                color=INK[ink],
            )
        axes.grid(visible=False)
        axes.set_xlabel("Population stability index")

    drifted, height = [c.column for c in columns if c.drifted], 74 + 27 * len(ranked)
    alt = f"PSI of {len(columns)} inputs; largest {ranked[0].column} with {ranked[0].psi:.3f}. "
    alt += f"Drifted: {', '.join(drifted)}." if drifted else "None is called drifted."
    return canvas.plot("drift", alt, paint, width=canvas.HALF, height=height, narrow_height=height)


def columns(columns: Sequence[ColumnDrift], limit: int = 6) -> list[Plot]:
    """Reference against window for the columns that moved most, a small plot each."""
    counted = [c for c in by_drift(columns) if sum(c.reference) > 0 and sum(c.current) > 0]
    shown = [c for c in counted if len(c.reference) == len(c.current) >= len(c.edges or c.categories)][:limit]
    return [_column(f"column-{i}", column) for i, column in enumerate(shown)]


def _column(name: str, column: ColumnDrift) -> Plot:
    names = _names(column)
    before, now = ([x / sum(counts) for x in counts] for counts in (column.reference, column.current))
    if not column.edges:
        names, before, now = _largest(names, before, now)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        places = range(len(before))
        axes.bar([x - 0.2 for x in places], before, 0.4, color=INK["reference"])
        axes.bar([x + 0.2 for x in places], now, 0.4, color=INK["c1"])
        axes.set_title(words.short(column.column, 30))
        canvas.share_axis(axes.yaxis, parts=3)
        ticks, labels = _edge_ticks(column) if column.edges else (places, [words.short(n, 9) for n in names])
        long = not column.edges and max(map(len, labels)) > 4
        axes.set_xticks(list(ticks), labels, fontsize=9, rotation=35 if long else 0)

    top = max(range(len(before)), key=lambda i: abs(now[i] - before[i]))
    alt = f"{column.column}: the share of {names[top]} went from {before[top]:.0%} to {now[top]:.0%}."
    return canvas.plot(name, alt, paint, width=canvas.SMALL, height=190)


def _edge_ticks(column: ColumnDrift) -> tuple[list[float], list[str]]:
    """Where two bins meet, as many edges as can be read, and the bin of nulls."""
    step = -(-len(column.edges) // 5)
    ticks = [i + 0.5 for i in range(len(column.edges))][::step]
    labels = [_edge(edge) for edge in column.edges][::step]
    if len(column.reference) > len(column.edges) + 1:
        return [*ticks, len(column.reference) - 1.0], [*labels, "null"]
    return ticks, labels


def _edge(edge: float) -> str:
    return f"{edge:.0f}" if 1000 <= abs(edge) < 1e6 else f"{edge:.3g}"


def _names(column: ColumnDrift) -> list[str]:
    """What each bin is called."""
    if column.edges:
        edges = [_edge(edge) for edge in column.edges]
        names = [f"up to {edges[0]}", *(f"{a} to {b}" for a, b in pairwise(edges)), f"over {edges[-1]}"]
    else:
        names = [str(category) for category in column.categories]
    return [*names, *["null"] * (len(column.reference) - len(names))]


def _largest(
    names: Sequence[str], before: Sequence[float], now: Sequence[float]
) -> tuple[list[str], list[float], list[float]]:
    """The categories with the largest shares, all others as one."""
    order = sorted(range(len(before)), key=lambda i: -max(before[i], now[i]))
    kept, rest = order[:_CATEGORIES], order[_CATEGORIES:]
    found = [names[i] for i in kept], [before[i] for i in kept], [now[i] for i in kept]
    if rest:
        found[0].append("others")
        found[1].append(sum(before[i] for i in rest))
        found[2].append(sum(now[i] for i in rest))
    return found


def scores(distributions: Sequence[Distribution], threshold: float | None, colours: Mapping[str, str]) -> Plot | None:
    """Score distributions as steps, the first filled as the reference, and the threshold; None without one."""
    shown = [d for d in distributions if sum(d.counts) > 0][: len(canvas.SERIES)]
    if not shown:
        return None

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, one in enumerate(shown):
            first = place == 0 and len(shown) > 1
            ink = canvas.colour_of(one.name, colours, "reference" if first else canvas.SERIES[max(place - 1, 0)])
            density = [n / sum(one.counts) for n in one.counts]
            axes.stairs(density, one.edges, color=ink, fill=True, alpha=0.3 if place == 0 else 0.1)
            axes.stairs(density, one.edges, color=ink, linewidth=1.7, label=words.short(one.name, 40))
        if words.known(threshold):
            label = f"threshold {words.plain(threshold)}"
            axes.axvline(threshold, color=INK["ink"], linewidth=1.2, linestyle=(0, (5, 3)), label=label)
        canvas.share_axis(axes.yaxis)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Prediction")
        axes.set_ylabel("Share of rows")
        canvas.legend_above(figure, axes)

    sizes = ", ".join(f"{d.name}: {sum(d.counts):,.0f} rows, mean about {_mean(d):.3g}" for d in shown)
    return canvas.plot(
        "scores", f"Distribution of predictions. {sizes}.", paint, width=canvas.HALF, height=290, narrow_height=290
    )


def _mean(one: Distribution) -> float:
    middles = [(a + b) / 2 for a, b in pairwise(one.edges)]
    return sum(m * n for m, n in zip(middles, one.counts, strict=True)) / sum(one.counts)


def calibration(curves: Mapping[str, Sequence[CalibrationBin]], colours: Mapping[str, str]) -> Plot | None:
    """Observed share against predicted probability with intervals, one curve per name; None without a point."""
    shown = {name: bins for name, bins in list(curves.items())[: len(canvas.SERIES)] if bins}
    if not shown:
        return None

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=INK["reference"], linewidth=1.2, linestyle=(0, (5, 3)), label="perfect")
        for ink, (name, bins) in zip(canvas.SERIES, shown.items(), strict=False):
            x, y = [b.predicted for b in bins], [b.observed for b in bins]
            spread = [[max(b.observed - b.low, 0) for b in bins], [max(b.high - b.observed, 0) for b in bins]]
            look = {"marker": "o", "markersize": 5, "elinewidth": 1.2, "capsize": 2.5, "clip_on": False}
            axes.errorbar(x, y, spread, color=canvas.colour_of(name, colours, ink), label=words.short(name, 40), **look)
        for axis in (axes.xaxis, axes.yaxis):
            canvas.share_axis(axis)
        highest = max(max(b.predicted, b.high) for bins in shown.values() for b in bins)
        axes.set(xlim=(0, min(1.0, highest * 1.08)), ylim=(0, min(1.04, highest * 1.08)))
        axes.set_xlabel("Predicted probability")
        axes.set_ylabel("Share that came true")
        canvas.legend_above(figure, axes)

    gap, name, worst = max(
        ((abs(b.predicted - b.observed), name, b) for name, bins in shown.items() for b in bins),
        key=lambda found: found[0],
    )
    alt = f"Calibration of {', '.join(shown)}. Largest gap, {gap:.0%}: {name} predicts {worst.predicted:.0%} where "
    alt += f"{worst.observed:.0%} came true ({worst.rows:,} rows)."
    return canvas.plot("calibration", alt, paint, width=canvas.HALF, height=400, narrow_height=360)
