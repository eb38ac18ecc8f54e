"""What `lakeloop status` says: state, not history."""

from __future__ import annotations

from typing import Any

from lakeloop.functions.sweep import STUCK
from lakeloop.lakehouse import applied, endpoints, events, keys, registry, runs
from lakeloop.lakehouse.freezing import frozen
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.probing import is_lake
from lakeloop.lakehouse.project.definitions import Source


def status_of(lake: Lake) -> dict[str, Any]:
    """Facts by name, for every applied project of a lake."""
    if not is_lake(lake):
        return {"lake": f"{lake.url} (no lake yet; next: lakeloop lake init)"}
    found: dict[str, Any] = {"lake": lake.url}
    names = applied.names(lake)
    if not names:
        found["projects"] = "none is applied; next: lakeloop apply"
    for name in names:
        project, revision = applied.load(lake, name)
        found[f"project {name}"] = (
            f"revision {revision.number} by {revision.who}, {revision.at:%Y-%m-%d %H:%M}: {project.goal}"
        )
        for source in project.sources.values():
            found[f"source {source.name}"] = _source(lake, name, source)
        for model in project.models:
            found[f"model {model}"] = _model(lake, name, model)
    found["landing"] = f"{sum(1 for _ in lake.store.list(keys.LANDING))} files wait"
    found["events"] = f"{len(events.pending(lake))} wait"
    open_runs = runs.open_runs(lake)
    found["open runs"] = ", ".join(f"{run.run} ({run.status})" for run in open_runs) or "none"
    alerts = lake.sql("select monitor, message from lakeloop.alerts where status = 'open' order by alert").to_pylist()
    found["open alerts"] = "\n".join(f"{row['monitor']}: {row['message']}" for row in alerts) or "none"
    stuck = [
        found_stuck
        for doc in lake.documents.ids(STUCK)
        if (found_stuck := lake.documents.latest(STUCK, doc)) and found_stuck.body["tries"]
    ]
    found["stuck"] = (
        "\n".join(f"{one.id}: {one.body['error']} ({one.body['tries']} tries)" for one in stuck) or "nothing"
    )
    return found


def _source(lake: Lake, project: str, source: Source) -> str:
    if source.foreign:
        return f"read in place: {source.read.uri}"
    table = lake.table(f"{project}/{source.name}")
    return f"table version {table.version}" if table else "nothing ingested yet"


def _model(lake: Lake, project: str, model: str) -> str:
    there = endpoints.endpoint(lake, project, model)
    waiting = [v.body["version"] for v in registry.versions(lake, project, model) if v.body["status"] == "waiting"]
    parts = [f"champion is version {there.body['wanted']}" if there else "no champion yet"]
    if waiting:
        parts.append(f"version {', '.join(map(str, waiting))} waits for an approval")
    if frozen(lake, project, model):
        parts.append("frozen")
    return "; ".join(parts)
