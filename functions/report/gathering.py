"""Gathers what a page shows from a lake: by SQL over its journals and from documents, in one connection, without Ray.

Everything is as of one moment, which is the page's date too. A section without data stays empty, and the page says so.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from lakeloop.functions.report import answers, gated, history, monitored, project_facts, trained
from lakeloop.functions.report.data import ReportData
from lakeloop.functions.report.page import render
from lakeloop.functions.report.scope import Scope, named, utc
from lakeloop.lakehouse import registry
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.metrics import better
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Session


def gather(lake: Lake, project: Project, model: str, *, as_of: datetime) -> ReportData:
    """All that is known about a model as of a moment (of a replay: its own).

    Reads the predictions of the last 400 days once, and the endpoint's history (a GET for each revision). NotFound
    for no such model.
    """
    if model not in project.models:
        raise NotFound(
            f"the project {project.name} has no model {model!r}", todo=f"there are {', '.join(project.models)}"
        )
    with Session(lake.store.location(), LakeCatalog(lake, project)) as session:
        return _gather(Scope(lake, session, project, project.models[model], as_of))


def write_report(lake: Lake, project: Project, model: str, path: Path, as_of: datetime, audience: str = "") -> Path:
    """The page as a file at `path`, whose folder is made if need be; see `gather` and `render`."""
    page = render(gather(lake, project, model, as_of=as_of), audience)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _gather(scope: Scope) -> ReportData:
    project, model = scope.project, scope.model
    answers.keep_answers(scope)
    changes = history.served(scope)
    champion = history.champion(changes)
    version = champion.version if champion else None
    judged, traffic, alerts, verdict = (
        answers.judged(scope),
        answers.traffic(scope),
        history.alerts(scope),
        gated.verdict(scope),
    )
    headline, drift = monitored.headline(scope, version, judged), monitored.drift(scope, version)
    return ReportData(
        project.name,
        model.name,
        utc(scope.as_of),
        goal=project.goal or model.description,
        owner=model.owner or project.owner,
        environment=_environment(scope),
        timezone=project.timezone,
        window=headline.window,
        champion=named(version),
        champion_since=champion.at if champion else None,
        metric=model.search.metric,
        greater_is_better=better(model.search.metric) == "max",
        bound=headline.bound,
        realized=headline.realized,
        predictions=sum(day.requests for day in traffic),
        threshold=_threshold(scope, version),
        endpoint=history.endpoint_changes(changes),
        performance=answers.performance(scope, judged),
        performance_note=f"Each point is a {answers.step(scope)}{headline.note and f'; {headline.note}'}.",
        marks=history.marks(scope, changes, alerts),
        drift=drift.columns,
        drift_against=drift.against,
        traffic=traffic,
        traffic_note=f"Answers by version, in days of {project.timezone}.",
        calibration=answers.calibration(judged),
        scores=answers.scores(judged),
        scores_note="Answers whose labels have come, by version.",
        gate=gated.gate(scope, verdict),
        slices=gated.slices(scope, verdict),
        trials=trained.trials(scope),
        trials_metric=model.search.metric,
        lineage=trained.lineage(scope, version) if version is not None else (),
        quality=project_facts.quarantine(scope),
        stages=trained.stages(scope),
        alerts=alerts,
        queries=project_facts.queries(scope),
    )


def _environment(scope: Scope) -> str:
    """The environment whose lake this is, if one names it."""
    return next((name for name, one in scope.project.environments.items() if one.lake == scope.lake.url), "")


def _threshold(scope: Scope, version: int | None) -> float | None:
    if version is None or scope.model.problem != "binary":
        return None
    return registry.signature(scope.lake, scope.project.name, scope.model.name, version).threshold
