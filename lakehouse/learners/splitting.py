"""Which rows are fitted, which stop and calibrate the fit, and which judge it; as one code per row.

By time, as one would have worked then: the test part is the newest labelled time, the validation part is before it,
the rest is for training; between parts a gap is left out, and no row is in a part whose label was not known when the
next begins.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import Model, Split

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN, VALID, TEST, NONE = 0, 1, 2, -1
NAMES = {TRAIN: "train", VALID: "valid", TEST: "test"}
Codes = NDArray[np.int8]
Moments = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parts:
    """The code of each row. `unsettled` rows were too young for all labels of their time to be known."""

    codes: Codes
    unsettled: int = 0

    def rows(self, *parts: int) -> NDArray[np.bool_]:
        """A mask of the rows in these parts."""
        return np.isin(self.codes, parts)

    def counts(self) -> dict[str, int]:
        """Rows of each part, and those in none."""
        found = {name: int((self.codes == code).sum()) for code, name in NAMES.items()}
        return found | {"unsettled": self.unsettled, "left_out": int((self.codes == NONE).sum()) - self.unsettled}


def split(model: Model, table: pa.Table, as_of: datetime) -> Parts:
    """The parts of a training table; Invalid when one of them would be empty.

    Rows younger than [examples] label_wait are in none: of them only those are labelled whose label comes early, and
    these are not like the others.
    """
    at = _microseconds(table, "as_of")
    settled = at <= _us(as_of - model.examples.label_wait)
    match model.split.by:
        case "time":
            codes = _by_time(model.split, at, _known(table, at), settled)
        case "group":
            codes = _by_key(model.split, _column(table, "group"))
        case "random":
            codes = _by_key(model.split, _column(table, "id"))
    codes = np.where(settled, codes, NONE).astype(np.int8)
    for code, name in NAMES.items():
        if not (codes == code).any():
            raise Invalid(*_empty(model, name, table, at), where=f"[split] of {model.name}", todo=_way_out(model))
    return Parts(codes, int((~settled).sum()))


def _by_time(split: Split, at: Moments, known: Moments, settled: NDArray[np.bool_]) -> Codes:
    assert isinstance(split.test, timedelta)
    assert isinstance(split.valid, timedelta)
    codes = np.full(len(at), NONE, dtype=np.int8)
    if not settled.any():
        return codes
    gap = split.gap // timedelta(microseconds=1)
    test = int(at[settled].max()) - split.test // timedelta(microseconds=1)
    codes[at > test] = TEST
    test_begins = int(at[at > test].min())
    valid_ends = test_begins - gap
    valid = valid_ends - split.valid // timedelta(microseconds=1)
    in_valid = (at > valid) & (at < valid_ends) & (codes == NONE) & (known <= test_begins)
    codes[in_valid] = VALID
    valid_begins = int(at[in_valid].min()) if in_valid.any() else valid
    codes[(at < valid_begins - gap) & (at <= valid) & (known <= valid_begins)] = TRAIN
    return codes


def _by_key(split: Split, values: list[Any]) -> Codes:
    """By a hash of the seed and the value: a row keeps its part when others come or go."""
    assert isinstance(split.test, float | int)
    assert isinstance(split.valid, float | int)
    places: dict[Any, float] = {}
    for value in values:
        if value not in places:
            digest = hashlib.blake2b(f"{split.seed}:{value}".encode(), digest_size=8).digest()
            places[value] = int.from_bytes(digest, "big") / 2**64
    place = np.array([places[value] for value in values])
    codes = np.where(place < split.test, TEST, np.where(place < split.test + split.valid, VALID, TRAIN))
    return codes.astype(np.int8)


def _known(table: pa.Table, at: Moments) -> Moments:
    return _microseconds(table, "label_known_at") if "label_known_at" in table.column_names else at


def _microseconds(table: pa.Table, name: str) -> Moments:
    import pyarrow as pa
    import pyarrow.compute as pc

    moments = pc.cast(table.column(name), pa.timestamp("us", "UTC"))
    return np.asarray(pc.cast(moments, pa.int64()).to_numpy(), dtype=np.int64)


def _us(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, moment.tzinfo)) // timedelta(microseconds=1)


def _column(table: pa.Table, name: str) -> list[Any]:
    if name not in table.column_names:
        raise Invalid(f"the examples have no column {name!r}", todo='add it to models/<name>.sql, or split by "time"')
    return list(table.column(name).to_pylist())


def _empty(model: Model, name: str, table: pa.Table, at: Moments) -> tuple[str]:
    if not len(at):
        return (f"there is no labelled example of {model.name}",)
    first, last = (datetime.fromtimestamp(int(moment) / 1e6, UTC) for moment in (at.min(), at.max()))
    return (f"the {name} part is empty: {table.num_rows:,} labelled examples, {first:%Y-%m-%d} to {last:%Y-%m-%d}",)


def _way_out(model: Model) -> str:
    if model.split.by == "time":
        return "make test, valid or gap shorter, or wait for more labels"
    return "make test or valid larger, or bring more examples"
