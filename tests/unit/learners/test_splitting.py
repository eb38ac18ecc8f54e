"""Parts: by time nothing knows the future, by group nobody is in two, and all of it is the same twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.learners.splitting import NONE, TEST, TRAIN, VALID, split
from lakeloop.lakehouse.project.definitions import Examples, Model, Search, Split

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MODEL = Model(
    name="late",
    problem="binary",
    owner="ops",
    learner="sklearn",
    examples_sql="",
    sql_path="",
    split=Split("time", 21 * DAY, 14 * DAY, 2 * DAY),
    search=Search("roc_auc", "max"),
)


def table(days, known=None):
    stamps = pa.timestamp("us", "UTC")
    known = known or [0.0] * len(days)
    return pa.table(
        {
            "id": [str(at) for at in range(len(days))],
            "as_of": pa.array([START + day * DAY for day in days], stamps),
            "label_known_at": pa.array(
                [START + (day + late) * DAY for day, late in zip(days, known, strict=True)], stamps
            ),
            "group": [f"g{at % 7}" for at in range(len(days))],
        }
    )


def test_by_time_the_newest_days_are_the_test_and_gaps_are_left_out():
    parts = split(MODEL, table(range(100)), START + 100 * DAY)
    days = {code: np.flatnonzero(parts.codes == code) for code in (TRAIN, VALID, TEST, NONE)}
    assert (days[TEST].min(), days[TEST].max()) == (79, 99)
    assert (days[VALID].min(), days[VALID].max()) == (64, 76)
    assert (days[TRAIN].min(), days[TRAIN].max()) == (0, 61)
    assert days[NONE].tolist() == [62, 63, 77, 78]
    assert parts.counts() == {"train": 62, "valid": 13, "test": 21, "unsettled": 0, "left_out": 4}


TIMES = st.lists(
    st.tuples(st.floats(0, 60), st.floats(0, 20)), min_size=30, max_size=80, unique_by=lambda pair: round(pair[0], 3)
)


@settings(deadline=None, max_examples=60)
@given(times=TIMES, gap=st.integers(0, 3))
def test_nothing_is_learnt_from_that_was_not_known_when_the_next_part_begins(times, gap):
    days, known = [day for day, _ in times], [late for _, late in times]
    model = replace(MODEL, split=Split("time", 10 * DAY, 10 * DAY, gap * DAY))
    try:
        parts = split(model, table(days, known), START + 90 * DAY)
    except Invalid:
        return
    days, known = np.array(days), np.array(days) + np.array(known)
    train, valid, test = (parts.rows(code) for code in (TRAIN, VALID, TEST))
    slack = 1e-6
    assert days[test].min() - days[valid].max() >= gap - slack
    assert days[valid].min() - days[train].max() >= gap - slack
    assert known[train].max() <= days[valid].min() + slack
    assert max(known[train].max(), known[valid].max()) <= days[test].min() + slack


def test_days_whose_labels_are_not_all_known_yet_are_in_no_part():
    model = replace(MODEL, examples=Examples(label_wait=5 * DAY))
    parts = split(model, table(range(100)), START + 99 * DAY)
    assert parts.unsettled == 5
    assert np.flatnonzero(parts.codes == TEST).tolist() == list(range(74, 95))


def test_by_group_a_group_is_in_one_part_only():
    rows = table([0.0] * 70)
    model = replace(MODEL, split=Split("group", 0.3, 0.3, seed=2))
    parts = split(model, rows, START + DAY)
    for group in set(rows["group"].to_pylist()):
        mask = np.array([value == group for value in rows["group"].to_pylist()])
        assert len(set(parts.codes[mask].tolist())) == 1


def test_by_random_the_shares_are_met_and_a_row_keeps_its_part():
    model = replace(MODEL, split=Split("random", 0.2, 0.1, seed=1))
    many = split(model, table([0.0] * 5000), START + DAY)
    assert (many.codes == TEST).mean() == pytest.approx(0.2, abs=0.02)
    assert (many.codes == VALID).mean() == pytest.approx(0.1, abs=0.02)
    few = split(model, table([0.0] * 500), START + DAY)
    assert few.codes.tolist() == many.codes[:500].tolist()
    other = split(replace(model, split=replace(model.split, seed=2)), table([0.0] * 500), START + DAY)
    assert other.codes.tolist() != few.codes.tolist()


def test_a_part_without_rows_is_told_with_what_there_is():
    with pytest.raises(Invalid, match="the train part is empty: 10 labelled examples, 2013-01-01 to 2013-01-10"):
        split(MODEL, table(range(10)), START + 90 * DAY)


def test_no_example_is_told():
    with pytest.raises(Invalid, match="there is no labelled example of late"):
        split(MODEL, table([]), START)


def test_a_split_by_group_needs_the_column():
    model = replace(MODEL, split=Split("group", 0.2, 0.2))
    with pytest.raises(Invalid, match="no column 'group'"):
        split(model, table([0.0]).drop_columns(["group"]), START + DAY)
