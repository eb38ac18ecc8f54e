"""How the model was made: the search and the stages of the newest run, and the lineage of the champion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lakeloop.functions.report import words
from lakeloop.functions.report.data import LineageFact, Stage, Trial
from lakeloop.functions.report.scope import Scope, named
from lakeloop.lakehouse import foreign, registry


def trials(scope: Scope) -> list[Trial]:
    """The newest search, each trial as it was reported last."""
    run = scope.newest_run_in("trials")
    if run is None:
        return []
    last = (
        "and run = ? qualify row_number() over (partition by trial order by attempt desc, seq desc) = 1 order by trial"
    )
    return [
        Trial(
            row["trial"],
            row["value"] if row["status"] in ("done", "stopped") else None,
            json.loads(row["params"] or "{}"),
            row["seconds"],
            row["status"],
        )
        for row in scope.journal("trials", last, run["run"])
    ]


def stages(scope: Scope) -> list[Stage]:
    """The tasks of the newest run, in the order in which they were started."""
    run = scope.newest_run_in("tasks")
    if run is None:
        return []
    last = (
        "and run = ? qualify row_number() over (partition by task order by started desc, ended desc nulls last) = 1 "
        "order by started"
    )
    return [
        Stage(row["task"], row["seconds"] or 0.0, row["status"] == "reused", row["status"])
        for row in scope.journal("tasks", last, run["run"])
    ]


def lineage(scope: Scope, version: int) -> list[LineageFact]:
    """Everything that a version was made of, as the registry keeps it."""
    body = registry.version(scope.lake, scope.project.name, scope.model.name, version).body
    made: Mapping[str, Any] = body.get("lineage", {})
    in_place = foreign.described(scope.lake, made.get("tables", {}))
    groups = {
        "training": _training(scope, body, made),
        "tables": {
            name: f"version {number}" + (f": {in_place[name]}" if name in in_place else "")
            for name, number in made.get("tables", {}).items()
        },
        "views": made.get("views", {}),
        "rules": {"rules": made.get("rules_version"), "definition": made.get("definition")},
        "code": {"version": made.get("code_version")},
        "parameters": body.get("params", {}),
        "model": {
            "learner": body.get("learner", {}).get("name"),
            "sha256": body.get("model_hash"),
            "boosting steps": body.get("step"),
        },
        "environment": {"packages": words.settings(body.get("environment", {}))},
    }
    return [
        LineageFact(group, name, words.plain(value) if isinstance(value, float) else str(value))
        for group, facts in groups.items()
        for name, value in facts.items()
        if value not in (None, "")
    ]


def _training(scope: Scope, body: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, str]:
    run = scope.run_of(int(body["version"]))
    return {
        "version": f"{scope.model.name} {named(int(body['version']))}",
        "run": body["run"],
        "as of": words.moment(run["as_of"], scope.zone) if run else "",
        "reason": made.get("trigger", ""),
        "rows": ", ".join(f"{part.replace('_', ' ')} {rows:,}" for part, rows in body.get("counts", {}).items()),
    }
