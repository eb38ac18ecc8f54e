"""What the monitors found last: the headline's number with its bound, and the inputs against what training saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from math import nan

from lakeloop.functions.report import words
from lakeloop.functions.report.answers import Judged
from lakeloop.functions.report.data import ColumnDrift
from lakeloop.functions.report.scope import Row, Scope, named
from lakeloop.lakehouse import registry
from lakeloop.lakehouse.monitoring import Counts, Window, actual_counts, expected_counts, keep_window
from lakeloop.lakehouse.scoring.signature import CategoryProfile, NumberProfile, Profile
from lakeloop.lakehouse.statistics import Interval, benjamini_hochberg

WINDOW = "_report_window"


@dataclass(frozen=True, slots=True)
class Headline:
    """The metric where it was measured last, in words `window`; `bound` is where it alarms, `note` whose that is."""

    realized: Interval | None = None
    bound: float | None = None
    window: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """Every watched input of the newest window, and what was compared."""

    columns: Sequence[ColumnDrift] = ()
    against: str = ""


def headline(scope: Scope, champion: int | None, found: Sequence[Judged]) -> Headline:
    """The newest result of a performance monitor; without one, all labels of the newest version that has some."""
    metric = scope.model.search.metric
    results = _newest(scope, champion, "performance", "and subject = '' and stat = ?", metric)
    if results:
        row = results[0]
        value = Interval(row["value"], *_ends(row), row["rows"])
        days = (row["window_end"] - row["window_start"]) / timedelta(days=1)
        note = f"the bound is that of {named(row['version'])}, for {days:g} days together"
        return Headline(value, row["bound"], f"Realized by {named(row['version'])}, {_days(row)}", note)
    if found:
        return Headline(found[-1].measured(metric), None, f"Realized by {named(found[-1].version)}, all labels")
    return Headline()


def drift(scope: Scope, champion: int | None) -> Drift:
    """PSI as the monitor judged it, and both distributions, counted again over the same window."""
    results = _newest(scope, champion, "inputs", "and subject <> ''")
    if not results:
        return Drift()
    first = results[0]
    signature = registry.signature(scope.lake, scope.project.name, scope.model.name, first["version"])
    profiles = {one.name: one.profile for one in signature.inputs if one.profile is not None}
    shown = [row for row in results if row["subject"] in profiles]
    window = Window(scope.model.name, first["version"], first["window_start"], first["window_end"])
    keep_window(scope.session, window, WINDOW)
    names = [row["subject"] for row in shown]
    current = actual_counts(scope.session, WINDOW, names, [profiles[name] for name in names])
    pvalues = benjamini_hochberg([nan if row["p_value"] is None else row["p_value"] for row in shown])
    columns = [
        _column(row, profiles[row["subject"]], counts, float(p))
        for row, counts, p in zip(shown, current, pvalues, strict=True)
    ]
    return Drift(columns, f"{named(first['version'])}, {_days(first)}, against the rows it was trained on.")


def _newest(scope: Scope, champion: int | None, watch: str, rest: str, *values: object) -> list[Row]:
    """Results of the newest judged window: the champion's, or, before it has one, those of the version before it."""
    return scope.journal(
        "monitor_results",
        f"and watch = ? {rest} and window_end <= ? "
        "qualify rank() over (order by version is not distinct from ?::BIGINT desc, "
        "window_end desc, logged_at desc, monitor) = 1 order by value desc",
        watch,
        *values,
        scope.as_of,
        champion,
    )


def _column(row: Row, profile: Profile, counts: Counts, pvalue: float) -> ColumnDrift:
    edges: Sequence[float] = ()
    categories: Sequence[str] = ()
    match profile:
        case NumberProfile():
            edges = profile.edges
        case CategoryProfile():
            categories = [*sorted(profile.counts), "other"]
    drawn = bool(edges or categories)
    reference, current = (expected_counts(profile).tolist(), counts.tolist()) if drawn else ((), ())
    return ColumnDrift(row["subject"], row["value"], pvalue, row["breached"], edges, categories, reference, current)


def _ends(row: Row) -> tuple[float, float]:
    low, high = (nan if row[name] is None else float(row[name]) for name in ("low", "high"))
    return low, high


def _days(row: Row) -> str:
    """The window's days in UTC, which is where windows are cut."""
    first, last = (words.day(row[name], UTC) for name in ("window_start", "window_end"))
    return f"{first} to {last}"
