"""What the page says in numbers and words: the headline cards, and a table for each section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lakeloop.functions.report import words
from lakeloop.functions.report.comparisons import best_trial
from lakeloop.functions.report.data import Alert, GateRule, Query, ReportData
from lakeloop.functions.report.distributions import by_drift
from lakeloop.lakehouse.statistics import Interval

Tone = Literal["", "good", "warn", "bad"]
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Card:
    """One headline: a label, its value, a line below, and how it is judged."""

    label: str
    value: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that is judged: the page puts a sign before the words, so that colour is not all that tells."""

    text: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Table:
    """Texts in columns. `folded`: shown on demand, under the title. `numeric`: columns set flush right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    numeric: frozenset[int] = frozenset()
    folded: bool = False
    note: str = ""


def _table(title: str, heads: str, rows: Sequence[Sequence[str | Cell]], *, folded: bool = False) -> Table:
    """A table from headings divided by "|", "#" before those of numbers; no more rows than one can read."""
    columns = [head.strip() for head in heads.split("|")]
    numeric = frozenset(i for i, head in enumerate(columns) if head.startswith("#"))
    note = f"The first {_LONGEST} of {len(rows):,}." if len(rows) > _LONGEST else ""
    return Table(title, [head.lstrip("#") for head in columns], rows[:_LONGEST], numeric, folded, note)


def cards(data: ReportData) -> list[Card]:
    """Champion, realized performance, predictions, alerts, drift."""
    where = words.zone(data.timezone)
    since = f"since {words.day(data.champion_since, where)}" if data.champion_since else ""
    answered = sum(t.requests for t in data.traffic) if data.predictions is None and data.traffic else data.predictions
    return [
        Card("Champion", data.champion or "none yet", since if data.champion else "no version has passed the gate"),
        _performance_card(data),
        Card("Predictions answered", words.number(answered), _traffic(data)),
        _alerts_card(open_alerts(data)),
        _drift_card(data),
    ]


def _traffic(data: ReportData) -> str:
    total, days = sum(t.requests for t in data.traffic), len({t.day for t in data.traffic})
    if not total:
        return "no requests yet"
    errors = sum(t.errors for t in data.traffic)
    return f"in {days} days{f', {words.percent(errors / total)} errors' if errors else ''}"


def _performance_card(data: ReportData) -> Card:
    label = f"{words.metric_name(data.metric)}, realized"
    found = data.realized
    if found is None or not words.known(found.value):
        return Card(label, words.NOTHING, "no labels have come yet")
    lines = [f"95%: {words.bounds(found)}" if words.bounds(found) else "", f"{found.rows:,} labelled"]
    lines.append(f"bound {words.plain(data.bound)}" if words.known(data.bound) else "")
    return Card(label, words.number(found.value), " · ".join(filter(None, lines)), _judged(found, data))


def _judged(found: Interval, data: ReportData) -> Tone:
    """Bad beyond the bound, a warning where the interval reaches over it."""
    if data.bound is None or not words.known(data.bound):
        return ""
    sign = 1 if data.greater_is_better else -1
    worst = found.low if data.greater_is_better else found.high
    if (found.value - data.bound) * sign < 0:
        return "bad"
    return "warn" if words.known(worst) and (worst - data.bound) * sign < 0 else "good"


def open_alerts(data: ReportData) -> list[Alert]:
    """Alerts nobody has dealt with, the newest first."""
    return sorted((a for a in data.alerts if a.state == "open"), key=lambda a: a.at, reverse=True)


def _alerts_card(found: Sequence[Alert]) -> Card:
    pages = sum(a.severity == "page" for a in found)
    note = f"newest: {words.short(found[0].monitor, 30)}" if found else "all is quiet"
    return Card("Open alerts", str(len(found)), note, "bad" if pages else "warn" if found else "good")


def _drift_card(data: ReportData) -> Card:
    if not data.drift:
        return Card("Drifted inputs", words.NOTHING, "no window has been compared yet")
    drifted = [c for c in by_drift(data.drift) if c.drifted]
    note = f"most: {words.short(drifted[0].column)}" if drifted else "none is beyond the bound"
    return Card("Drifted inputs", f"{len(drifted)} of {len(data.drift)}", note, "warn" if drifted else "good")


def performance(data: ReportData) -> list[Table]:
    """Values of the plot, and what its marks mean."""
    where = words.zone(data.timezone)
    points = sorted(data.performance, key=lambda p: p.at, reverse=True)
    rows = [
        [
            words.day(p.at, where),
            p.version,
            p.kind,
            words.number(p.value.value, 4),
            words.bounds(p.value),
            f"{p.value.rows:,}",
        ]
        for p in points
    ]
    marks = [[words.moment(m.at, where), m.kind, m.text] for m in sorted(data.marks, key=lambda m: m.at, reverse=True)]
    return [
        _table("Values", "Window from | Version | Kind | #Value | #95% interval | #Rows", rows, folded=True),
        _table("What happened", "When | What | Detail", marks, folded=True),
    ]


def alerts(data: ReportData) -> list[Table]:
    """Open alerts, and, on demand, those that were dealt with; the newest first."""
    earlier = sorted((a for a in data.alerts if a.state != "open"), key=lambda a: a.at, reverse=True)
    heads = "Severity | Since | Monitor | What | State"
    return [
        _table("", heads, _alert_rows(data, open_alerts(data))),
        _table(f"{len(earlier)} earlier", heads, _alert_rows(data, earlier), folded=True),
    ]


def _alert_rows(data: ReportData, shown: Sequence[Alert]) -> list[list[str | Cell]]:
    where = words.zone(data.timezone)
    return [
        [
            Cell(a.severity, "" if a.state != "open" else "bad" if a.severity == "page" else "warn"),
            words.moment(a.at, where),
            a.monitor,
            a.what,
            f"{a.state}{f', {a.who}' if a.who else ''}{f': {a.why}' if a.why else ''}",
        ]
        for a in shown
    ]


def endpoint(data: ReportData) -> list[Table]:
    """The endpoint's history, the newest first."""
    where = words.zone(data.timezone)
    rows = [
        [words.moment(c.at, where), c.endpoint, c.what, _arms(c.shares, c.shadow), c.who, c.why]
        for c in sorted(data.endpoint, key=lambda c: c.at, reverse=True)
    ]
    return [_table("History", "When | Endpoint | What | Versions | Who | Why", rows, folded=True)]


def _arms(shares: Any, shadow: Sequence[str]) -> str:
    parts = [f"{version} {words.percent(share)}" for version, share in shares.items() if share > 0]
    return ", ".join([*parts, *(f"{version} in shadow" for version in shadow)]) or "none"


def drift(data: ReportData) -> list[Table]:
    """PSI and p-value of every input."""
    rows: list[list[str | Cell]] = [
        [c.column, f"{c.psi:.4f}", words.number(c.pvalue), _drift_cell(c.drifted)] for c in by_drift(data.drift)
    ]
    return [_table("All inputs", "Input | #PSI | #p (adjusted) | Verdict", rows, folded=True)]


def _drift_cell(drifted: bool) -> Cell:
    return Cell("drifted", "warn") if drifted else Cell("steady", "good")


def gate(data: ReportData) -> list[Table]:
    """Every rule with its numbers."""
    if data.gate is None:
        return []
    heads = "Rule | Slice | #This version | #Compared with | #Gain | #95% of the gain | #Needed | Verdict"
    return [_table("", heads, [_rule(r) for r in data.gate.rules])]


def _rule(rule: GateRule) -> list[str | Cell]:
    verdicts: dict[bool | None, tuple[str, Tone]] = {
        True: ("passed", "good"),
        False: ("failed", "bad"),
        None: ("not judged", ""),
    }
    text, tone = verdicts[rule.passed]
    gain = words.signed(rule.gain.value) if rule.gain else words.NOTHING
    spread = words.bounds(rule.gain, sign=True) or words.NOTHING
    numbers = [words.number(rule.ours, 4), words.number(rule.theirs, 4), gain, spread, rule.needed]
    return [rule.rule, rule.slice or "all", *numbers, Cell(f"{text}: {rule.note}" if rule.note else text, tone)]


def slices(data: ReportData) -> list[Table]:
    """Both versions in every slice."""
    rows = [
        [
            s.name,
            *_with_bounds(s.champion),
            *_with_bounds(s.challenger),
            f"{(s.challenger or s.champion or _NONE).rows:,}",
        ]
        for s in data.slices
    ]
    heads = "Slice | #Champion | #95% interval | #Challenger | #95% interval | #Rows"
    return [_table("Values", heads, rows, folded=True)]


_NONE = Interval(float("nan"), float("nan"), float("nan"), 0)


def _with_bounds(found: Interval | None) -> list[str]:
    return [words.number((found or _NONE).value, 4), words.bounds(found) or words.NOTHING]


def trials(data: ReportData) -> list[Table]:
    """The best trials with their parameters."""
    done = sorted((t for t in data.trials if words.known(t.value)), key=lambda t: float(t.value or 0.0))
    ranked = done[::-1] if data.greater_is_better else done
    rest = [t for t in data.trials if not words.known(t.value)]
    rows = [
        [str(t.number), words.number(t.value, 5), words.duration(t.seconds), t.state, words.settings(t.params)]
        for t in [*ranked, *rest]
    ]
    return [_table("All trials", "#Trial | #Value | #Time | State | Parameters", rows, folded=True)]


def best_parameters(data: ReportData) -> str:
    """The best trial's parameters in a sentence."""
    best = best_trial(data)
    return f"Best: trial {best.number} with {words.settings(best.params)}." if best and best.params else ""


def quality(data: ReportData) -> list[Table]:
    """Refused rows by source and reason, most first."""
    where = words.zone(data.timezone)
    rows = [
        [q.source, q.reason, f"{q.rows:,}", _share(q.rows, q.of_rows), words.moment(q.last_at, where), q.example]
        for q in sorted(data.quality, key=lambda q: -q.rows)
    ]
    return [_table("", "Source | Reason | #Rows | #Share | Last | Example", rows)]


def _share(rows: int, of_rows: int | None) -> str:
    return words.percent(rows / of_rows) if of_rows else words.NOTHING


def lineage(data: ReportData) -> list[Table]:
    """What the champion was made of, group by group; a group's name stands at its first row."""
    rows: list[list[str | Cell]] = []
    for group in dict.fromkeys(fact.group for fact in data.lineage):
        facts = [fact for fact in data.lineage if fact.group == group]
        rows += [["" if i else group, fact.name, fact.value, fact.note] for i, fact in enumerate(facts)]
    if any(fact.note for fact in data.lineage):
        return [_table("", "Kind | Name | Value | Note", rows)]
    return [_table("", "Kind | Name | Value", [row[:-1] for row in rows])]


def query(found: Query) -> Table:
    """A query's answer as it is."""
    rows = [
        [words.number(x, 4) if isinstance(x, float) else words.number(x) if _whole(x) else _text(x) for x in row]
        for row in found.rows
    ]
    numeric = {
        i for i in range(len(found.columns)) if found.rows and all(isinstance(r[i], int | float) for r in found.rows)
    }
    heads = [f"#{name}" if i in numeric else name for i, name in enumerate(found.columns)]
    table = _table("Values" if found.plot in ("bar", "line") else "", "|".join(["x"] * len(heads)), rows)
    return Table(
        table.title, list(found.columns), table.rows, frozenset(numeric), found.plot in ("bar", "line"), table.note
    )


def _text(x: Any) -> str:
    return words.NOTHING if x is None else str(x)


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)
