"""Versions as content: 12 hex digits of a hash over a thing's text and the versions of all it reads (a Merkle hash).

A source's version covers what a reader of its table can notice: columns, types, key and times; not its rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.project.definitions import Model, Project, Source
from lakeloop.lakehouse.project.units import format_duration
from lakeloop.lakehouse.query.statements import referenced_tables


def digest(*parts: str) -> str:
    """12 hex digits over the parts, each with its length, so that no two lists of parts run together."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{len(part.encode())}:".encode())
        found.update(part.encode())
    return found.hexdigest()[:12]


def source_version(source: Source) -> str:
    """The version of a source's table as its readers see it."""
    columns = [f"{c.name} {c.type}{'?' if c.nullable else ''}" for c in source.columns.values()]
    lag = "" if source.lag is None else format_duration(source.lag)
    place = (source.read.kind, source.read.uri) if source.foreign else ()
    return digest("source", source.rows, *source.key, source.event_time, source.known_at, lag, *sorted(columns), *place)


def view_versions(project: Project, reads: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The version of each source and each view. `reads` are the tables each view's SQL names, without a cycle."""
    found = {name: source_version(source) for name, source in project.sources.items()}

    def version(name: str) -> str:
        if name not in found and name in project.views:
            below = [f"{table}@{version(table)}" for table in sorted(reads[name])]
            found[name] = digest("feature-view", project.views[name].sql, *below)
        return found.get(name, "")

    for name in project.views:
        version(name)
    return found


def model_rules_version(project: Project, model: Model, reads: Iterable[str], versions: Mapping[str, str]) -> str:
    """The version of a model's rules: its own files, and all that its examples and features rest on."""
    files = [project.files.get(f"models/{model.name}.{ending}", "") for ending in ("toml", "sql", "py")]
    used = sorted({*reads, *(spec.view for spec in model.inputs.features)})
    return digest("model", *files, *(f"{name}@{versions[name]}" for name in used))


def model_version(project: Project, name: str) -> str:
    """The rules version of one model of a sound project, without binding all of it."""
    if name not in project.models:
        raise NotFound(f'project {project.name} has no model "{name}"', todo="there are: " + ", ".join(project.models))
    reads = {view: referenced_tables(project.views[view].sql) for view in project.views}
    model = project.models[name]
    return model_rules_version(project, model, referenced_tables(model.examples_sql), view_versions(project, reads))
