"""The plots that compare: slices of two versions, trials of a search, stages of a run, and the project's queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lakeloop.functions.report import canvas, words
from lakeloop.functions.report.canvas import INK, Plot
from lakeloop.functions.report.data import Query, ReportData, Slice, Stage, Trial
from lakeloop.lakehouse.statistics import Interval

_SLICES, _PARAMS, _BARS = 24, 4, 24
_APART = 20
"""Times that one column of a query may be larger than another on the same axis."""


def slices(data: ReportData, colours: Mapping[str, str]) -> Plot | None:
    """Champion and challenger in each slice, with intervals, the slice of most rows on top; None without one."""
    shown = sorted((s for s in data.slices if _interval_of(s)), key=lambda s: -_rows(s))[:_SLICES][::-1]
    if not shown:
        return None
    ours, theirs = (data.gate.version, data.gate.against) if data.gate else ("", "")

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        champion = [(i + 0.16, s.champion) for i, s in enumerate(shown)]
        challenger = [(i - 0.16, s.challenger) for i, s in enumerate(shown)]
        _dots(axes, champion, _role("champion", theirs), canvas.colour_of(theirs, colours, "reference"), "s")
        _dots(axes, challenger, _role("challenger", ours), canvas.colour_of(ours, colours, "c2"), "o")
        axes.set_yticks(range(len(shown)), [f"{words.short(s.name, 24)} · {_rows(s):,}" for s in shown])
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.grid(visible=False)
        axes.grid(visible=True, axis="x")
        axes.set_xlabel(words.metric_name(data.metric))
        canvas.legend_above(figure, axes)

    height = 86 + 29 * len(shown)
    both = [s for s in shown if s.champion and s.challenger and words.known(_gain(s))]
    alt = f"{words.metric_name(data.metric)} in {len(shown)} slices."
    if both:
        worst = min(both, key=lambda s: _gain(s) * (1 if data.greater_is_better else -1))
        alt += f" The challenger loses most, or gains least, in {worst.name}: {words.signed(_gain(worst))}."
    return canvas.plot("slices", alt, paint, width=canvas.HALF, height=height, narrow_height=height)


def _role(role: str, version: str) -> str:
    return f"{role} {words.short(version)}".strip()


def _interval_of(one: Slice) -> Interval | None:
    return next((i for i in (one.challenger, one.champion) if i is not None and words.known(i.value)), None)


def _rows(one: Slice) -> int:
    found = _interval_of(one)
    return found.rows if found else 0


def _gain(one: Slice) -> float:
    assert one.champion is not None
    assert one.challenger is not None
    return one.challenger.value - one.champion.value


def _dots(axes: Any, given: Sequence[tuple[float, Interval | None]], label: str, colour: str, marker: str) -> None:
    found = [(y, one) for y, one in given if one and words.known(one.value)]
    for y, one in found:
        if words.known(one.low) and words.known(one.high):
            axes.plot([one.low, one.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    if found:
        x, places = [one.value for _, one in found], [y for y, _ in found]
        axes.plot(x, places, color=colour, marker=marker, markersize=6, linestyle="", label=label)


def trials(data: ReportData) -> Plot | None:
    """Every trial's value in order, and the best so far; None before one has finished."""
    done = [t for t in data.trials if words.known(t.value)]
    if not done:
        return None
    metric = words.metric_name(data.trials_metric or data.metric)
    best = _best_so_far(done, data.greater_is_better)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        x = [t.number for t in done]
        axes.plot(x, [t.value for t in done], color=INK["c1"], marker="o", markersize=5, linestyle="", label="trial")
        axes.step(
            [*x, max(t.number for t in data.trials)],
            [*best, best[-1]],
            where="post",
            color=INK["c2"],
            label="best so far",
        )
        rest = [t.number for t in data.trials if not words.known(t.value)]
        if rest:
            floor, up = [0.03] * len(rest), axes.get_xaxis_transform()
            axes.plot(rest, floor, "x", color=INK["bad"], markersize=6, transform=up, label="not finished")
        axes.set_xlabel("Trial")
        axes.set_ylabel(metric)
        axes.xaxis.get_major_locator().set_params(integer=True)
        canvas.legend_above(figure, axes)

    winner = done[best.index(best[-1])]
    alt = f"{len(data.trials)} trials, {len(done)} finished. "
    alt += f"Best {metric} {words.number(best[-1], 4)} in trial {winner.number}."
    return canvas.plot("trials", alt, paint, width=canvas.HALF, height=340, narrow_height=290)


def _best_so_far(done: Sequence[Trial], greater_is_better: bool) -> list[float]:
    better = max if greater_is_better else min
    best: list[float] = []
    for trial in done:
        value = float(trial.value or 0.0)
        best.append(better(best[-1], value) if best else value)
    return best


def best_trial(data: ReportData) -> Trial | None:
    """The trial with the best value."""
    done = [t for t in data.trials if words.known(t.value)]
    key = lambda t: float(t.value or 0.0)  # noqa: E731
    return (max if data.greater_is_better else min)(done, key=key) if done else None


def parameters(data: ReportData) -> list[Plot]:
    """The metric against each number that the search varied, a small plot each; the best trial is ringed."""
    done = [t for t in data.trials if words.known(t.value)]
    varied = {name: _numbers(done, name) for name in dict.fromkeys(name for t in done for name in t.params)}
    names = [name for name, pairs in varied.items() if len({x for x, _ in pairs}) > 2][:_PARAMS]
    return [_parameter(f"parameter-{i}", name, varied[name], data) for i, name in enumerate(names)]


def _numbers(done: Sequence[Trial], name: str) -> list[tuple[float, float]]:
    given = [(t.params.get(name), float(t.value or 0.0)) for t in done]
    return [
        (float(x), y) for x, y in given if isinstance(x, int | float) and not isinstance(x, bool) and words.known(x)
    ]


def _parameter(plot_name: str, name: str, pairs: Sequence[tuple[float, float]], data: ReportData) -> Plot:
    best = (max if data.greater_is_better else min)(pairs, key=lambda pair: pair[1])

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        x, y = zip(*pairs, strict=True)
        axes.plot(x, y, "o", color=INK["c1"], markersize=4.5, alpha=0.85)
        axes.plot(*best, "o", markersize=11, markerfacecolor="none", markeredgecolor=INK["c2"], markeredgewidth=1.8)
        if min(x) > 0 and max(x) / min(x) > 8:
            canvas.log_axis(axes.xaxis)
        canvas.plain_ticks(axes.xaxis)
        axes.set_title(words.short(name, 30))

    alt = f"{name}: best at {best[0]:g}, tried from {min(x for x, _ in pairs):g} to {max(x for x, _ in pairs):g}."
    return canvas.plot(plot_name, alt, paint, width=canvas.SMALL, height=180)


def stages(found: Sequence[Stage]) -> Plot | None:
    """Each task from where the one before it ended; None without one."""
    shown = [s for s in found if words.known(s.seconds)][:_BARS]
    if not shown:
        return None
    starts = [sum(s.seconds for s in shown[:i]) for i in range(len(shown))]
    total = sum(s.seconds for s in shown)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for row, (stage, start) in enumerate(zip(shown, starts, strict=True)):
            ink = "bad" if stage.state == "failed" else "reference" if stage.reused else "c3"
            note = (
                " · reused" if stage.reused else "" if stage.state == "done" else f" · {words.short(stage.state, 12)}"
            )
            axes.barh(row, max(stage.seconds, total / 500), left=start, height=0.62, color=INK[ink])
            canvas.beside(axes, start + stage.seconds, row, words.duration(stage.seconds) + note)
        axes.set_yticks(range(len(shown)), [words.short(s.name, 22) for s in shown])
        axes.set_xlim(0, total * 1.18 or 1)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    longest = max(shown, key=lambda s: s.seconds)
    alt = f"{len(shown)} tasks in {words.duration(total)}; "
    alt += f"longest {longest.name} with {words.duration(longest.seconds)}."
    height = 30 + 28 * len(shown)
    return canvas.plot("stages", alt, paint, width=canvas.WIDE, height=height, narrow_height=height)


def query(name: str, found: Query) -> Plot | None:
    """A bar or a line plot of a query's answer; None where it has no such plot or no number."""
    rows = found.rows[: _BARS if found.plot == "bar" else None]
    numeric = [i for i in range(1, len(found.columns)) if rows and all(_is_number(row[i]) for row in rows)]
    numeric = numeric[: len(canvas.SERIES)]
    if found.plot not in ("bar", "line") or not numeric:
        return None

    panels = _panels(rows, numeric)

    def paint(figure: Any) -> None:
        labels = [words.short(row[0], 18) for row in rows]
        across = (1, len(panels)) if found.plot == "bar" else (len(panels), 1)
        for place, columns in enumerate(panels):
            axes = figure.add_subplot(*across, place + 1)
            for at, column in enumerate(columns):
                ink = INK[canvas.SERIES[numeric.index(column)]]
                _series(axes, found, column, [row[column] for row in rows], ink, (at, len(columns)))
            _query_ticks(axes, found.plot, labels)
            if len(panels) > 1:
                axes.set_title(", ".join(words.short(found.columns[column]) for column in columns))
        if len(panels) == 1:
            canvas.legend_above(figure, axes)

    alt = f"{found.title}: {len(found.rows)} rows of {', '.join(found.columns)}."
    return canvas.plot(name, alt, paint, width=canvas.HALF, height=270 if found.plot == "line" else 80 + 24 * len(rows))


def _panels(rows: Sequence[Sequence[Any]], numeric: Sequence[int]) -> list[list[int]]:
    """Columns that can be read on one axis together; one that would vanish beside them has its own."""
    panels: dict[float, list[int]] = {}
    for column in numeric:
        size = max(abs(row[column]) for row in rows)
        scale = next((s for s in panels if size and s / _APART <= size <= s * _APART), size)
        panels.setdefault(scale, []).append(column)
    return list(panels.values())


def _series(axes: Any, found: Query, column: int, values: Sequence[float], ink: str, place: tuple[int, int]) -> None:
    """A column as a line or as bars, which are the `place[0]`-th of `place[1]` beside each other."""
    label = words.short(found.columns[column])
    if found.plot == "line":
        axes.plot(range(len(values)), values, color=ink, label=label)
    else:
        height = 0.76 / place[1]
        axes.barh(
            [i + height * place[0] for i in range(len(values))], values, height, color=ink, align="edge", label=label
        )


def _query_ticks(axes: Any, plot: str, labels: Sequence[str]) -> None:
    if plot == "line":
        step = -(-len(labels) // 6)
        axes.set_xticks(list(range(len(labels)))[::step], labels[::step])
        canvas.plain_ticks(axes.yaxis, lambda v: f"{v:,.10g}")
    else:
        axes.set_yticks([i + 0.38 for i in range(len(labels))], labels)
        axes.invert_yaxis()
        axes.grid(visible=False)
        canvas.plain_ticks(axes.xaxis, lambda v: f"{v:,.10g}")


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)
