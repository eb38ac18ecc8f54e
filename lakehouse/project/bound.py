"""A project whose SQL has been bound: what each query reads, the columns and types it gives, and versions.

Types are the stored ones, as DuckDB spells them: BIGINT, DOUBLE, VARCHAR, BOOLEAN, DATE, TIMESTAMP WITH TIME ZONE, and
lists of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lakeloop.lakehouse.project.definitions import FeatureView, Model, Project

Columns = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BoundView:
    """A view's SQL gives `columns`; of these, or aggregated from these, `features` are what a model may use.

    `reads` are the sources and views its SQL names. `version` changes with its text and with anything below it.
    """

    view: FeatureView
    reads: tuple[str, ...]
    columns: Columns
    features: Columns
    version: str


@dataclass(frozen=True, slots=True)
class Feature:
    """One stored input of a model: `column` of `view`, called `name`.

    `key` are the request's columns that give the view's entity, in the entity's order.
    """

    view: str
    column: str
    name: str
    key: tuple[str, ...]
    type: str


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model's examples give `columns`. `inputs`: all the model may use, request, then features, then derived."""

    model: Model
    reads: tuple[str, ...]
    columns: Columns
    features: tuple[Feature, ...]
    inputs: Columns
    version: str

    @property
    def views(self) -> tuple[str, ...]:
        """The views its features come from, each once, in the order of the file."""
        return tuple(dict.fromkeys(feature.view for feature in self.features))


@dataclass(frozen=True, slots=True)
class Bound:
    """A sound project. `sources` maps each to its stored columns; `views` stand after the views they read."""

    project: Project
    sources: Mapping[str, Columns]
    views: Mapping[str, BoundView]
    models: Mapping[str, BoundModel]
