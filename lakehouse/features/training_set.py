"""The training set: labelled examples with the features that were visible at each one's `as_of`.

What is read are pinned versions of tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa

from lakeloop.lakehouse.applied import bound
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.features.point_in_time import plain_columns, plain_join, window_join
from lakeloop.lakehouse.foreign import Seen, state_at
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.pins import Pin, find_pin, pin_of
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.bound import Feature
from lakeloop.lakehouse.project.definitions import FeatureView, Model
from lakeloop.lakehouse.query.catalog import LakeCatalog, with_no_label
from lakeloop.lakehouse.query.session import Session, quoted, timestamp
from lakeloop.lakehouse.tables import Table

EXAMPLES = "_examples"
Pinned: TypeAlias = Pin | Seen
"""What was read of a table, to be read again: its files, or the state of one that is not ours."""
RESERVED = ("id", "as_of", "label", "label_known_at", "weight", "group")


def training_table(
    lake: Lake, project: Project, model: str, as_of: datetime, pins: Mapping[str, Pinned] | None = None
) -> tuple[pa.Table, dict[str, Pinned]]:
    """Every example whose label was known at `as_of`, by (as_of, id): id, as_of, label, label_known_at, weight?,
    group?, then the model's inputs.

    What was read comes back as pins, which nobody holds yet; passed in, they give the same rows again. Invalid when
    ids repeat.
    """
    catalog = LakeCatalog(lake, project, pins=pins, record=True)
    definition = project.models[model]
    with Session(lake.store.location(), catalog) as session:
        rows = training_rows(session, project, definition, as_of)
    catalog.confirm()
    read = sorted(catalog.read.items())
    return rows, {name: pin_of(one) if isinstance(one, Table) else one for name, one in read}


def pinned(lake: Lake, project: Project, tables: Mapping[str, int]) -> dict[str, Pinned]:
    """What `training_table` reads these versions again by. NotFound, Corrupt for one that is gone."""
    found: dict[str, Pinned] = {}
    for name, version in tables.items():
        source = project.sources.get(name.partition("/")[2])
        if source is not None and source.foreign:
            found[name] = state_at(lake, project, source, version)
        else:
            found[name] = find_pin(lake, name, version)
    return found


def training_rows(session: Session, project: Project, model: Model, labelled_by: datetime | None) -> pa.Table:
    """What `training_table` gives, of whatever the session sees.

    Every example, labelled or not, when no moment is named.
    """
    keep_examples(session, model, labelled_by=labelled_by)
    _check_unique(session, model)
    return with_features(session, project, model)


def keep_examples(
    session: Session,
    model: Model,
    *,
    labelled_by: datetime | None = None,
    where: str = "true",
    values: Sequence[Any] = (),
) -> None:
    """The examples under the name `_examples`, numbered by `_row`.

    Of `labelled_by`, those whose label (or the lack of one) was known.
    """
    sql = (
        "select * replace (id::VARCHAR as id, as_of::timestamptz as as_of) "
        f"from (\n{model.examples_sql}\n) where as_of is not null and {where}"
    )
    if model.examples.where:
        sql = f"select * from ({sql}) where {model.examples.where}"
    if model.examples.sample < 1:
        sql = f"select * from ({sql}) where hash(id) % 1000000 < {int(model.examples.sample * 1_000_000)}"
    if labelled_by is not None:
        sql = _labelled(sql, model, labelled_by)
    session.keep(
        EXAMPLES,
        f"select row_number() over (order by as_of, id) - 1 as _row, * from ({sql}) order by as_of, id",
        values,
        where=model.sql_path,
    )


def with_features(session: Session, project: Project, model: Model, given: Collection[str] = ()) -> pa.Table:
    """`_examples` with every feature of the model beside it, in the order of the examples; not those that they are
    given with as columns."""
    columns, joins = ["e.* exclude (_row)"], []
    for at, group in enumerate(wanted_groups(project, model.name, given)):
        spine = f"_spine_{at}"
        renamed = "".join(
            f", {quoted(asked)} as {quoted(entity)}" for entity, asked in zip(group.view.entity, group.key, strict=True)
        )
        session.keep(spine, f"select _row, epoch_us(as_of) as _t{renamed} from {EXAMPLES}")
        keep_join(session, group.view, spine, f"_joined_{at}")
        joins.append(f"left join _joined_{at} using (_row)")
        columns += [f"_joined_{at}.{quoted(f.column)} as {quoted(f.name)}" for f in group.features]
    return session.run(f"select {', '.join(columns)} from {EXAMPLES} e {' '.join(joins)} order by e._row")


def keep_join(session: Session, view: FeatureView, spine: str, name: str) -> None:
    """A view's features at each row of a spine, under a name."""
    rows = f"_rows_{view.name}"
    session.keep(rows, f"select * from {quoted(view.name)}", where=view.sql_path)
    if view.windows is not None:
        session.keep(name, window_join(view, rows, spine))
    else:
        columns = session.run(f"select * from {rows} limit 0").column_names
        session.keep(name, plain_join(view, rows, spine, plain_columns(view, columns)))


@dataclass(frozen=True, slots=True)
class Group:
    """Features that come from one view by one key: one join, or one look-up."""

    view: FeatureView
    key: tuple[str, ...]
    features: tuple[Feature, ...]


def feature_groups(project: Project, model: str) -> list[Group]:
    """A model's features by view and key, in the order of its inputs."""
    groups: dict[tuple[str, tuple[str, ...]], list[Feature]] = {}
    for feature in bound(project).models[model].features:
        groups.setdefault((feature.view, tuple(feature.key)), []).append(feature)
    return [Group(project.views[view], key, tuple(features)) for (view, key), features in groups.items()]


def wanted_groups(project: Project, model: str, given: Collection[str]) -> list[Group]:
    """`feature_groups`, without the features that need not be looked up."""
    left = [
        replace(group, features=tuple(one for one in group.features if one.name not in given))
        for group in feature_groups(project, model)
    ]
    return [group for group in left if group.features]


def _labelled(sql: str, model: Model, by: datetime) -> str:
    moment = timestamp(by)
    known = f"label is not null and label_known_at::timestamptz <= {moment}"
    return f"select * from ({with_no_label(model, sql)}) where as_of <= {moment} and {known}"


def _check_unique(session: Session, model: Model) -> None:
    twice = session.run(
        f"select id, count(*) as n from {EXAMPLES} group by id having n > 1 order by n desc, id limit 1"
    ).to_pylist()
    if twice:
        raise Invalid(
            f"{twice[0]['n']} examples have the id {twice[0]['id']!r}",
            where=model.sql_path,
            todo="make `id` unique: one row is one prediction",
        )
