"""`build_features`: each view as a table (offline) and, where asked for, as a snapshot that answers by key (online).

A build reads the newest version of its inputs and overwrites the table in one commit, which says what it was made
from; a view whose inputs and rules are those of its last build is left alone. Publishing a snapshot is a
compare-and-swap on the view's `online` document: an older build never replaces a newer one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from lakeloop.lakehouse import applied, endpoints, forgetting, registry, runs
from lakeloop.lakehouse.applied import bound
from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.errors import Conflict, Corrupt, Denied, Invalid, LakeloopError, NotFound
from lakeloop.lakehouse.features.online import EPOCH, Header, publish_snapshot
from lakeloop.lakehouse.features.point_in_time import (
    change_points,
    empty_window_row,
    microseconds,
    plain_columns,
    timeline,
    window_columns,
    window_join,
)
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import FeatureView
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Session, quoted
from lakeloop.lakehouse.rollouts.state import running
from lakeloop.lakehouse.stored import stored

ONLINE_HISTORY = timedelta(days=2)
"""How far back a snapshot answers: longer than a request is late, short enough to stay small."""
ONLINE = "online"


@dataclass(frozen=True, slots=True)
class Built:
    """One build of a view."""

    view: str
    rows: int
    online_rows: int
    version: int
    seconds: float


def build_features(
    lake: Lake,
    project: Project,
    *,
    as_of: datetime,
    views: Sequence[str] = (),
    progress: Callable[[Built], None] | None = None,
) -> list[Built]:
    """Bring every view of a project (or the named ones and what they rest on) up to its inputs.

    `as_of` is the moment online answers begin before. A view that cannot be built (a table elsewhere is away) stops
    only those above it; its error is raised when the others are built.
    """
    for name in views:
        if name not in project.views:
            raise Invalid(
                f"{project.name} has no feature view {name!r}",
                todo=f"name one of: {', '.join(sorted(project.views)) or 'none'}",
            )
    done = []
    failed: dict[str, LakeloopError] = {}
    for name in needed(project, views or list(project.views)):
        below = [failed[one] for one in bound(project).views[name].reads if one in failed]
        try:
            built = None if below else _build(lake, project, project.views[name], as_of)
        except (NotFound, Corrupt, Denied, Invalid) as error:
            below = [error]
        if below:
            failed[name] = below[0]
        elif built:
            done.append(built)
            if progress:
                progress(built)
    if not views:
        done += _build_for_champions(lake, project, as_of)
    if failed:
        raise next(iter(failed.values()))
    return done


def _build_for_champions(lake: Lake, project: Project, as_of: datetime) -> list[Built]:
    """Fresh snapshots of views as they were when a model that still answers was trained, after their rules changed."""
    current = {name: view.version for name, view in bound(project).views.items()}
    done = []
    for endpoint in lake.documents.ids(endpoints.KIND, f"{project.name}."):
        served = lake.documents.get(endpoints.KIND, endpoint).body
        rollout = running(served)
        beside = {one.version for one in rollout.challengers} if rollout is not None else set()
        for answering in sorted({*(int(arm["version"]) for arm in served["arms"]), *beside}):
            body = registry.version(lake, project.name, served["model"], answering).body
            older = [name for name, version in body["lineage"]["views"].items() if current.get(name) != version]
            if older:
                then = applied.load_hash(lake, project.name, body["lineage"]["definition"])
                done += [built for name in older if (built := _build_online(lake, then, name, as_of))]
    return done


def _build_online(lake: Lake, project: Project, name: str, as_of: datetime) -> Built | None:
    """A snapshot computed from sources by an older definition; it has no table of its own."""
    began = time.monotonic()
    view, version = project.views[name], bound(project).views[name].version
    catalog = LakeCatalog(lake, project, from_sources=True)
    with Session(lake.store.location(), catalog) as session:
        state = _source_state(lake, project, name)
        if _online_is_current(lake, project, view, version, state):
            return None
        rows = stored(session.run(f"select * from (\n{view.sql}\n)", where=view.sql_path))
        catalog.confirm()
        online_rows = _publish(lake, project, view, version, session, rows, as_of, state)
    return Built(name, rows.num_rows, online_rows, state, time.monotonic() - began)


def _source_state(lake: Lake, project: Project, view: str) -> int:
    """A number that grows with every commit to a source below a view, whatever its rules: the order of builds."""
    below, found = [view], set[str]()
    while below:
        for name in bound(project).views[below.pop()].reads:
            if name in project.views:
                below.append(name)
            else:
                found.add(name)
    return sum(runs.data_version(lake, project, found).values())


def needed(project: Project, views: Sequence[str]) -> list[str]:
    """Views and those they rest on, in the order in which they must be built."""
    all_views = bound(project).views
    wanted = set(views)
    for name in reversed(list(all_views)):
        if name in wanted:
            wanted |= set(all_views[name].reads) & set(all_views)
    return [name for name in all_views if name in wanted]


def _build(lake: Lake, project: Project, view: FeatureView, as_of: datetime) -> Built | None:
    began = time.monotonic()
    version = bound(project).views[view.name].version
    table_name = f"{project.name}/{view.name}"
    catalog = LakeCatalog(lake, project, record=True)
    with Session(lake.store.location(), catalog) as session:
        session.run(
            f"select * from (\n{view.sql}\n) limit 0", where=view.sql_path
        )  # opens the inputs, so that their versions are known
        inputs = json.dumps({"view": version, "inputs": dict(sorted(catalog.versions.items()))}, sort_keys=True)
        state = _source_state(lake, project, view.name)
        table = lake.tables.open(table_name)
        made_from = table.facts(1)[0].get("lakeloop.inputs") if table else None
        if table is not None and made_from == inputs:
            if not view.online or _online_is_current(lake, project, view, version, state):
                return None
            rows = table.rows()
        else:
            rows = stored(session.run(f"select * from (\n{view.sql}\n)", where=view.sql_path))
            catalog.confirm()
            table = lake.tables.open_or_create(table_name, rows.schema)
            rows = forgetting.load(lake.store).drop(rows)  # after the table was opened: a later one meets our commit
            try:
                table.overwrite(rows, facts={"lakeloop.inputs": inputs})
            except Conflict:
                return None  # another build of this view was faster; the next sweep looks again
        online_rows = _publish(lake, project, view, version, session, rows, as_of, state) if view.online else 0
    built = Built(view.name, rows.num_rows, online_rows, table.version, time.monotonic() - began)
    facts = {
        "project": project.name,
        "view": view.name,
        "view_version": version,
        "rows": built.rows,
        "online_rows": online_rows,
        "version": built.version,
    }
    lake.record(
        "builds", [{**facts, "inputs": inputs, "as_of": as_of, "seconds": built.seconds, "logged_at": lake.clock()}]
    )
    return built


def online_id(project: str, view: str, version: str) -> str:
    return f"{project}.{view}.{version}"


def _online_is_current(lake: Lake, project: Project, view: FeatureView, version: str, state: int) -> bool:
    current = lake.documents.latest(ONLINE, online_id(project.name, view.name, version))
    return current is not None and int(current.body["state"]) >= state


def _publish(
    lake: Lake,
    project: Project,
    view: FeatureView,
    version: str,
    session: Session,
    rows: pa.Table,
    as_of: datetime,
    state: int,
) -> int:
    start_us = microseconds(as_of - EPOCH - ONLINE_HISTORY)
    empty = empty_window_row(view) if view.windows else None
    ttl_us = microseconds(view.ttl) if view.ttl is not None else None
    header = Header(project.name, view.name, version, view.entity, start_us, ttl_us, empty)
    lines = online_rows(session, view, rows, start_us)
    doc = online_id(project.name, view.name, version)
    while True:
        tombstones = forgetting.load(lake.store)
        lines = tombstones.drop(lines)
        snapshot = publish_snapshot(lake, header, lines)
        put_in_force(
            lake, doc, {**snapshot, "state": state, "as_of": as_of.isoformat(), "rows": lines.num_rows}, "built"
        )
        now = forgetting.load(lake.store)
        if now.entities == tombstones.entities:
            return int(lines.num_rows)
        if now.mask(lines) is not None:  # put after `forget` had looked: the next one is without
            lake.store.delete([snapshot["key"]])


def put_in_force(lake: Lake, doc: str, body: Mapping[str, Any], why: str) -> None:
    """Make a snapshot the one that endpoints read, unless one of a newer state is."""
    while True:
        current = lake.documents.latest(ONLINE, doc)
        try:
            if current is None:
                lake.documents.create(ONLINE, doc, body, why)
            elif int(current.body["state"]) <= int(body["state"]):
                lake.documents.update(current, body, why)
            return
        except LostRace:
            continue


def online_rows(session: Session, view: FeatureView, rows: pa.Table, start_us: int) -> pa.Table:
    """Each entity's line of values from `start_us` on: entity columns, `_from`, `_event`, features.

    Sorted by entity and `_from`.
    """
    session.register("_built", rows)
    entity = [quoted(name) for name in view.entity]
    order = ", ".join([*entity, "_from"])
    if view.windows is None:
        partition = f"partition by {', '.join(entity)} " if entity else ""
        lines = timeline(view, "_built", plain_columns(view, rows.column_names))
        return session.run(
            f"select * from ({lines}) "
            f"qualify coalesce(lead(_from) over ({partition}order by _from) > {start_us}, true) order by {order}"
        )
    reach = start_us - max(microseconds(length) for length in view.windows.over.values()) - microseconds(view.refresh)
    session.keep("_recent", f"select * from _built where epoch_us({quoted(view.event_time)}::timestamptz) > {reach}")
    session.keep("_points", f"select row_number() over () as _row, * from ({change_points(view, '_recent', start_us)})")
    names = ", ".join(f"j.{quoted(name)}" for name in window_columns(view))
    keys = "".join(f"p.{name}, " for name in entity)
    joined = window_join(view, "_recent", "_points")
    return session.run(
        f"select {keys}p._t as _from, j._event, {names} from _points p join ({joined}) j using (_row) order by {order}"
    )
