"""What monitors compute, by SQL over the predictions journal: histograms of inputs and outputs, and the scores whose
labels have come.

A window is [start, end) of the predictions' `as_of`. Only rows of one version count: a new champion is measured by
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakeloop.lakehouse.query.quoting import literal, quoted, timestamp
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.scoring.signature import CategoryProfile, Input, NumberProfile, Profile

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """Predictions of one version of a model with `start` <= as_of < `end`."""

    model: str
    version: int
    start: datetime
    end: datetime

    def where(self) -> str:
        """SQL: the condition for rows of the window."""
        return (
            f"model = {literal(self.model)} and version = {self.version} "
            f"and as_of >= {timestamp(self.start)} and as_of < {timestamp(self.end)}"
        )


def keep_window(session: Session, window: Window, name: str = "_window") -> int:
    """The window's predictions under a name; returns how many rows it has."""
    session.keep(name, f"select * from predictions where {window.where()}")
    return int(session.run(f"select count(*) as n from {name}").column("n")[0].as_py())


def newest_labelled(session: Session, window: Window, known_by: datetime) -> datetime | None:
    """`as_of` of the window's newest prediction whose label was known by then."""
    found: datetime | None = (
        session.run(f"select max(as_of) as newest from predictions_labelled where {_labelled(window, known_by)}")
        .column("newest")[0]
        .as_py()
    )
    return found


def labelled_scores(session: Session, window: Window, known_by: datetime) -> pa.Table:
    """The window's predictions whose label was known by then, the last per example.

    With prediction, scores?, decision, label, as_of.
    """
    return session.run(
        f"select * from predictions_labelled where {_labelled(window, known_by)} "
        "qualify row_number() over (partition by id order by as_of desc, logged_at desc) = 1 order by as_of, id"
    )


def expected_counts(profile: Profile) -> Counts:
    """The reference's bins, nulls last; of a category, its values in sorted order, then the rest, then nulls."""
    match profile:
        case NumberProfile(counts=counts, nulls=nulls):
            return np.array([*counts, nulls], dtype=np.float64)
        case CategoryProfile(counts=counts_by_value, other=other, nulls=nulls):
            return np.array(
                [*(counts_by_value[value] for value in sorted(counts_by_value)), other, nulls], dtype=np.float64
            )


def actual_counts(session: Session, relation: str, names: Sequence[str], profiles: Sequence[Profile]) -> list[Counts]:
    """The same bins for columns of a relation, in one pass of SQL over it."""
    columns = []
    for at, (name, profile) in enumerate(zip(names, profiles, strict=True)):
        columns.append(f"count(*) filter (where {quoted(name)} is null) as n{at}")
        match profile:
            case NumberProfile(edges=edges):
                value = f"{quoted(name)}::DOUBLE"
                columns.append(f"histogram({value}, {_list(edges)}) as h{at}" if edges else f"map() as h{at}")
            case CategoryProfile():
                columns.append(f"histogram({quoted(name)}::VARCHAR) as h{at}")
    row = session.run(f"select {', '.join(columns)} from {relation}").to_pylist()[0] if columns else {}
    return [_counted(row[f"h{at}"], row[f"n{at}"], profile) for at, profile in enumerate(profiles)]


def drift_inputs(inputs: Sequence[Input], columns: Sequence[str], there: Collection[str]) -> list[Input]:
    """The inputs a monitor watches: those with a reference profile that the log has, all of them for `*`."""
    return [
        one
        for one in inputs
        if one.profile is not None and one.name in there and ("*" in columns or one.name in columns)
    ]


def _labelled(window: Window, known_by: datetime) -> str:
    return f"{window.where()} and label is not null and label_known_at::timestamptz <= {timestamp(known_by)}"


def _counted(histogram: object, nulls: int, profile: Profile) -> Counts:
    found = dict(histogram) if histogram else {}  # type: ignore[call-overload]
    match profile:
        case NumberProfile(edges=edges):
            inside = [found.get(edge, 0) for edge in edges]
            above = sum(count for edge, count in found.items() if edge not in set(edges))
            return np.array([*inside, above, nulls], dtype=np.float64)
        case CategoryProfile(counts=reference):
            known = sorted(reference)
            other = sum(count for value, count in found.items() if value not in reference)
            return np.array([*(found.get(value, 0) for value in known), other, nulls], dtype=np.float64)


def _list(edges: Sequence[float]) -> str:
    return "[" + ", ".join(f"{edge!r}::DOUBLE" for edge in edges) + "]"
