"""The page put together: which sections there are, what each holds, and what it says while there is nothing to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from lakeloop.functions.report import comparisons, distributions, rollouts, tables, timelines, words
from lakeloop.functions.report.canvas import Plot, colours_of
from lakeloop.functions.report.data import ReportData
from lakeloop.functions.report.tables import Table
from lakeloop.lakehouse.errors import Invalid

_ALL = (
    "performance",
    "alerts",
    "quality",
    "endpoint",
    "drift",
    "requests",
    "scores",
    "calibration",
    "slices",
    "gate",
    "trials",
    "stages",
    "queries",
    "lineage",
)
AUDIENCES: dict[str, tuple[str, ...]] = {
    "": _ALL,
    "business": ("performance", "queries", "alerts", "requests", "slices"),
    "experimentation": ("performance", "drift", "scores", "calibration", "slices", "gate", "trials", "lineage"),
    "data_engineering": ("quality", "alerts", "drift", "stages", "lineage"),
    "operations": ("alerts", "requests", "endpoint", "performance", "stages", "quality"),
    "security": ("lineage", "endpoint", "gate", "quality", "alerts"),
}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page; without plots and tables it shows `empty`. `wide`: over both columns."""

    id: str
    title: str
    lead: str
    empty: str
    plots: Sequence[Plot] = ()
    small: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    wide: bool = False
    number: str = ""
    in_nav: bool = True


def render(data: ReportData, audience: str = "") -> str:
    """The page as one HTML text, complete in itself; the same data give the same text.

    Args:
        audience: one of `AUDIENCES`: which sections, and in which order; "" is all.

    Raises:
        Invalid: there is no such audience.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    if audience not in AUDIENCES:
        raise Invalid(f"there is no audience {audience!r}", todo=f"use one of {', '.join(filter(None, AUDIENCES))}")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["svg"] = Markup
    template = environment.from_string(
        resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    found = _sections(data)
    chosen = [section for name in AUDIENCES[audience] for section in found[name]]
    where = words.zone(data.timezone)
    return template.render(
        data=data,
        cards=tables.cards(data),
        sections=chosen,
        made=words.moment(data.generated_at, where),
        zone=str(where),
    )


def _sections(data: ReportData) -> dict[str, list[Section]]:
    seen = [(c.at, v) for c in data.endpoint for v in (*c.shares, *c.shadow)]
    seen += [(t.day, t.version) for t in data.traffic] + [(p.at, p.version) for p in data.performance]
    colours = colours_of([version for _, version in sorted(seen)])
    return {
        "performance": [_performance(data, colours)],
        "alerts": [_alerts(data)],
        "endpoint": [_endpoint(data, colours)],
        "drift": [_drift(data)],
        "requests": [_requests(data, colours)],
        "scores": [_scores(data, colours)],
        "calibration": [_calibration(data, colours)],
        "slices": [_slices(data, colours)],
        "gate": [_gate(data)],
        "trials": [_trials(data)],
        "stages": [_stages(data)],
        "quality": [_quality(data)],
        "lineage": [_lineage(data)],
        "queries": _queries(data),
    }


def _some(plot: Plot | None) -> list[Plot]:
    return [plot] if plot else []


def _filled(found: Sequence[Table]) -> list[Table]:
    return [table for table in found if table.rows]


def _performance(data: ReportData, colours: dict[str, str]) -> Section:
    lead = "Predictions against what really happened, as labels came in. The band is the 95% interval."
    lead = f"{lead} {data.performance_note}".strip()
    empty = "No labels have come yet. Performance shows here from the first window whose labels are known."
    plots = _some(timelines.performance(data, colours))
    if plots and all(p.kind == "estimated" for p in data.performance):
        lead = "No labels have come yet: this is what the probabilities themselves lead one to expect (CBPE)."
    found = _filled(tables.performance(data))
    return Section("performance", "Performance", lead, empty, plots, tables=found, wide=True)


def _alerts(data: ReportData) -> Section:
    empty = "No alert so far: nothing has crossed a threshold."
    lead = "" if tables.open_alerts(data) else "None is open."
    return Section("alerts", "Alerts", lead, empty, tables=_filled(tables.alerts(data)), wide=bool(data.alerts))


def _endpoint(data: ReportData, colours: dict[str, str]) -> Section:
    lead = "Which version answered when. A bar's height is its share; a dashed outline is shadow: scored, not answered."
    empty = "This model has no endpoint yet. Start one with: lakeloop serve"
    plots, found = _some(rollouts.rollouts(data, colours)), _filled(tables.endpoint(data))
    return Section("endpoint", "Endpoint", lead, empty, plots, tables=found, wide=True)


def _drift(data: ReportData) -> Section:
    lead = data.drift_against or "Inputs of the newest window against the reference."
    lead += " ● marks inputs beyond the monitor's bound."
    empty = "No window has been compared yet. That needs requests, or rows scored in batch."
    plots, small = _some(distributions.drift(data.drift)), distributions.columns(data.drift)
    return Section("drift", "Input drift", lead, empty, plots, small, _filled(tables.drift(data)), wide=True)


def _requests(data: ReportData, colours: dict[str, str]) -> Section:
    lead, empty = data.traffic_note or "Answers, by version.", "No request has been answered yet."
    return Section("requests", "Requests", lead, empty, _some(timelines.requests(data, colours)))


def _scores(data: ReportData, colours: dict[str, str]) -> Section:
    lead = data.scores_note or "What the model answers; a change of shape without a change of the world is a fault."
    plots = _some(distributions.scores(data.scores, data.threshold, colours))
    return Section("scores", "Predictions", lead, "No prediction has been made yet.", plots)


def _calibration(data: ReportData, colours: dict[str, str]) -> Section:
    lead = "Of what was given 30%, about 30% should come true. Bars are 95% intervals."
    empty = "Not drawn: it needs probabilities and known labels."
    return Section(
        "calibration", "Calibration", lead, empty, _some(distributions.calibration(data.calibration, colours))
    )


def _slices(data: ReportData, colours: dict[str, str]) -> Section:
    lead = "The same test rows, part by part, with 95% intervals."
    empty = "No slices were evaluated. Name some under [evaluate] slices in the model's file."
    return Section(
        "slices", "Slices", lead, empty, _some(comparisons.slices(data, colours)), tables=_filled(tables.slices(data))
    )


def _gate(data: ReportData) -> Section:
    empty = "No version has come to the gate yet. It judges the first run that finishes."
    if data.gate is None:
        return Section("gate", "Gate", "", empty, wide=True)
    at = f" on {words.moment(data.gate.at, words.zone(data.timezone))}" if data.gate.at else ""
    against = f" against {data.gate.against}" if data.gate.against else ""
    lead = f"{data.gate.version}{against}: {data.gate.verdict}{at}. {data.gate.why}".strip()
    return Section("gate", "Gate", lead, "The gate has no rules.", tables=_filled(tables.gate(data)), wide=True)


def _trials(data: ReportData) -> Section:
    lead = tables.best_parameters(data) or "What the search tried."
    plots, small = _some(comparisons.trials(data)), comparisons.parameters(data)
    empty = "The newest run searched nothing: its parameters are fixed."
    return Section("trials", "Search", lead, empty, plots, small, _filled(tables.trials(data)), wide=True)


def _stages(data: ReportData) -> Section:
    lead = "Tasks of the newest run. A reused one had its output already."
    return Section(
        "stages", "Stages", lead, "No run has started yet.", _some(comparisons.stages(data.stages)), wide=True
    )


def _quality(data: ReportData) -> Section:
    lead, empty = "Rows that broke a rule of their source, and were set aside.", "No row is in quarantine."
    return Section(
        "quality", "Data quality", lead, empty, tables=_filled(tables.quality(data)), wide=bool(data.quality)
    )


def _lineage(data: ReportData) -> Section:
    lead = (
        f"What {data.champion} was made of; enough to make it again."
        if data.champion
        else "What the model was made of."
    )
    empty = "There is no champion yet, so there is nothing to trace."
    return Section("lineage", "Lineage", lead, empty, tables=_filled(tables.lineage(data)), wide=True)


def _queries(data: ReportData) -> list[Section]:
    sections = []
    for place, query in enumerate(data.queries):
        plots = _some(comparisons.query(f"query-{place}", query))
        single = query.plot == "number" and bool(query.rows) and bool(query.rows[0])
        number = words.number(query.rows[0][0]) if single else ""
        found = [] if single else _filled([tables.query(query)])
        sections.append(
            Section(
                f"query-{place}",
                query.title,
                "",
                query.note or "The query has no rows.",
                plots,
                tables=found,
                number=number,
                in_nav=False,
            )
        )
    return sections
