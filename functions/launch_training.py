"""`launch_training`: opens a run where a trigger has none yet, and hands it to whatever trains.

A run's id is made of the model, the incident, the data and the rules, so that the same reason never trains twice.
Nothing is trained while a monitor named in `unless` is open, while the model is frozen, or within `cool_down` of its
last run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from lakeloop.lakehouse import keys, runs
from lakeloop.lakehouse.freezing import frozen
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.quoting import literal, timestamp
from lakeloop.lakehouse.query.session import Session

QUARANTINE, QUARANTINE_SHARE = "quarantine", 0.05
"""`unless = ["quarantine"]`: nothing is trained while a source's newest file had more than this share of wrong rows."""
Launcher: TypeAlias = Callable[[str], None]
"""Starts the run of this id, or makes sure that it runs: in this process, on Ray, as a job of a cluster."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A run that was opened, and why."""

    model: str
    run: str
    trigger: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why to train: the words for a person, and the incident that gets one run."""

    reason: str
    incident: str


def launch_training(lake: Lake, project: Project, launcher: Launcher, *, as_of: datetime) -> list[Launched]:
    """Open and start what is due; runs that were opened and have no result are handed to the launcher again."""
    for opened in runs.open_runs(lake):
        if opened.project == project.name and not opened.finished:
            launcher(opened.run)
    done = []
    for model in project.models.values():
        trigger = _due(lake, project, model, as_of)
        if trigger is not None:
            run = runs.open_run(
                lake, project, model.name, trigger=trigger.reason, as_of=as_of, incident=trigger.incident
            )
            if run is not None:
                launcher(run)
                done.append(Launched(model.name, run, trigger.reason))
    return done


def _due(lake: Lake, project: Project, model: Model, as_of: datetime) -> Trigger | None:
    if not model.retrain.on and not model.retrain.new_rows:
        return None
    if frozen(lake, project.name, model.name):
        return None
    with Session(lake.store.location(), LakeCatalog(lake, project)) as session:
        this = f"project = {literal(project.name)} and model = {literal(model.name)}"
        alerts = session.run(
            f"select alert, monitor, message from lakeloop.alerts where {this} and status = 'open' order by alert"
        ).to_pylist()
        if any(one["monitor"] in model.retrain.unless for one in alerts):
            return None
        if QUARANTINE in model.retrain.unless and _too_much_in_quarantine(session, project):
            return None
        last = session.run(f"select max(as_of) as newest from lakeloop.runs where {this}").column("newest")[0].as_py()
        if last is not None and as_of - last < model.retrain.cool_down:
            return None
        alarm = next((one for one in alerts if one["monitor"] in model.retrain.on), None)
        if alarm is not None:
            return Trigger(f"alarm of {alarm['monitor']}: {alarm['message']}", alarm["alert"])
        return _new_rows(session, model, last, as_of)


def _too_much_in_quarantine(session: Session, project: Project) -> bool:
    """Whether the newest file of any source has more than `QUARANTINE_SHARE` wrong rows: bad data make bad models.

    Those that went in at a retry, or that a person dropped, are wrong no more.
    """
    retried = f"split_part({{}}, '#', 1) like '%{keys.RETRIED}'"
    found = session.run(
        f"""with newest as (
          select source, file, rows + quarantined as came, logged_at from lakeloop.ingestions
          where project = {literal(project.name)} and not {retried.format("file")}
          qualify row_number() over (partition by source order by logged_at desc) = 1
        )
        select n.source from newest n join lakeloop.quarantine_state s on s.source = n.source
        where s.project = {literal(project.name)} and s.state = 'open'
          and (s.file = n.file or (s.logged_at >= n.logged_at and {retried.format("s.file")}))
        group by n.source, n.came having count(*) > {QUARANTINE_SHARE} * n.came"""
    )
    return bool(found.num_rows)


def _new_rows(session: Session, model: Model, last: datetime | None, as_of: datetime) -> Trigger | None:
    if not model.retrain.new_rows or last is None:
        return None
    count = (
        session.run(
            f"select count(*) as n from {model.name}_examples where label is not null "
            f"and label_known_at::timestamptz > {timestamp(last)} and label_known_at::timestamptz <= {timestamp(as_of)}"
        )
        .column("n")[0]
        .as_py()
    )
    if count < model.retrain.new_rows:
        return None
    return Trigger(f"{count:,} new labelled examples since the last run", f"rows.{last:%Y%m%d%H%M}")
