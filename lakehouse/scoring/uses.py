"""Which feature views a model reads, by which key, into which inputs: from a project to a signature's `views`."""

from __future__ import annotations

from collections.abc import Sequence

from lakeloop.lakehouse import applied
from lakeloop.lakehouse.features.training_set import Group, feature_groups
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.scoring.signature import ViewUse


def view_uses(project: Project, model: str) -> tuple[ViewUse, ...]:
    """One use per view and key. A view that is used once is labelled by its name; used twice, by its key as well."""
    groups = feature_groups(project, model)
    versions = applied.bound(project).views
    return tuple(
        ViewUse(
            label=_label(group, groups),
            view=group.view.name,
            version=versions[group.view.name].version,
            key=tuple(zip(group.view.entity, group.key, strict=True)),
            columns=tuple((feature.column, feature.name) for feature in group.features),
        )
        for group in groups
    )


def _label(group: Group, groups: Sequence[Group]) -> str:
    alone = sum(one.view.name == group.view.name for one in groups) == 1
    return group.view.name if alone else f"{group.view.name}({', '.join(group.key)})"
