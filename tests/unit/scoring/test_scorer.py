"""A scorer's answers: what wins, what is looked up, what was absent, and what is decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Input, Signature, ViewUse

NOW = datetime(2013, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROW = {"carrier": "UA", "distance": 719, "sched_dep": "2013-07-01T12:30Z"}


def hour(row):
    return {"hour": row["sched_dep"].hour}


@pytest.fixture
def weather(lookup):
    return lookup({("UA",): ({"temp": 0.25, "visib": None, "other": 1}, NOW - HOUR)})


def test_what_is_not_given_is_looked_up_and_its_age_is_told(plain, weather, column_learner):
    answer = Scorer(plain, column_learner("temp"), None, None, {"weather": weather}, 3).answer([ROW], NOW)[0]
    assert answer.prediction == 0.25
    assert answer.ages == {"weather": 3600.0}
    assert answer.absent == ["visib"]
    assert answer.inputs["temp"] == 0.25
    assert weather.asked == [(("UA",), NOW)]


def test_a_feature_in_the_row_wins_over_the_store(plain, weather, column_learner):
    scorer = Scorer(plain, column_learner("temp"), None, None, {"weather": weather}, 3)
    answer = scorer.answer([ROW | {"temp": 0.75}], NOW)[0]
    assert (answer.prediction, answer.absent) == (0.75, ["visib"])


def test_a_view_whose_features_are_all_given_is_not_asked(plain, weather, column_learner):
    scorer = Scorer(plain, column_learner("temp"), None, None, {"weather": weather}, 3)
    answer = scorer.answer([ROW | {"temp": 0.75, "visib": None}], NOW)[0]
    assert (answer.ages, answer.absent, weather.asked) == ({}, [], [])


def test_the_store_is_asked_about_the_moment_of_the_row(plain, weather, column_learner):
    scorer = Scorer(plain, column_learner("temp"), None, None, {"weather": weather}, 3)
    answer = scorer.answer([ROW | {"as_of": "2013-07-01T13:00Z", "id": 7}], NOW)[0]
    assert (answer.as_of, answer.id, answer.ages) == (NOW + HOUR, "7", {"weather": 7200.0})


def test_an_unknown_key_is_absent_or_an_error_as_the_definition_says(plain, weather, column_learner):
    row = ROW | {"carrier": "ZZ"}
    scorer = Scorer(plain, column_learner("temp"), None, None, {"weather": weather}, 3)
    answer = scorer.answer([row], NOW)[0]
    assert (answer.ages, answer.absent, answer.prediction) == ({"weather": None}, ["temp", "visib"], 0.0)
    strict = Scorer(replace(plain, absent="error"), column_learner("temp"), None, None, {"weather": weather}, 3)
    with pytest.raises(Invalid, match="row 1: weather knows nothing of carrier = 'ZZ'"):
        strict.answer([ROW, row], NOW)


def test_a_view_without_a_snapshot_is_absent(plain, column_learner):
    answer = Scorer(plain, column_learner("temp"), None, None, {}, 3).answer([ROW], NOW)[0]
    assert (answer.ages, answer.absent) == ({"weather": None}, ["temp", "visib"])


def test_derive_gets_typed_values_and_the_moment(signature, weather, column_learner):
    seen = []

    def derive(row):
        seen.append(dict(row))
        return {"hour": row["sched_dep"].hour}

    answer = Scorer(signature, column_learner("hour"), None, derive, {"weather": weather}, 3).answer([ROW], NOW)[0]
    assert answer.inputs["hour"] == 12
    assert seen[0]["sched_dep"] == datetime(2013, 7, 1, 12, 30, tzinfo=UTC)
    assert (seen[0]["temp"], seen[0]["seats"], seen[0]["as_of"]) == (0.25, 100, NOW)


def test_a_derived_input_in_the_row_wins(signature, weather, column_learner):
    scorer = Scorer(signature, column_learner("hour"), None, hour, {"weather": weather}, 3)
    assert scorer.answer([ROW | {"hour": 1}], NOW)[0].inputs["hour"] == 1


@pytest.mark.parametrize(
    ("derive", "told"),
    [
        (lambda row: {"hour": 1 / 0}, "row 0: derive.. raised ZeroDivisionError"),
        (lambda row: {}, "row 0: derive.. must return a dict with hour"),
        (lambda row: {"hour": "late"}, "row 0: derive.. returned hour = 'late', which is no int8"),
    ],
)
def test_a_derive_that_fails_is_told_with_its_row(signature, column_learner, derive, told):
    with pytest.raises(Invalid, match=told):
        Scorer(signature, column_learner("hour"), None, derive, {}, 3).answer([ROW], NOW)


def test_the_decision_of_a_binary_model_is_a_bool_at_the_threshold(signature, column_learner):
    scorer = Scorer(signature, column_learner("temp"), None, hour, {}, 3)
    answers = scorer.answer([ROW | {"temp": 0.0}, ROW | {"temp": 0.375}, ROW | {"temp": 1.0}], NOW)
    assert [answer.prediction for answer in answers] == pytest.approx([0.1, 0.4, 0.9])  # calibrated
    assert [answer.decision for answer in answers] == [False, True, True]


class Halves:
    def predict(self, model, matrix):
        x = matrix.values[:, 0]
        return np.stack([x, 1 - x, 0 * x], axis=1)


def test_the_decision_of_a_multiclass_model_is_the_likeliest_label():
    three = Signature("multiclass", (Input("x", "request", "float32", "number"),), classes=("a", "b", "c"))
    answers = Scorer(three, Halves(), None, None, {}, 1).answer([{"x": 0.75}, {"x": 0.25}], NOW)
    assert [answer.decision for answer in answers] == ["a", "b"]
    assert answers[0].prediction == [0.75, 0.25, 0.0]


def test_a_regression_decides_nothing(column_learner):
    one = Signature("regression", (Input("x", "request", "float32", "number"),))
    answer = Scorer(one, column_learner("x"), None, None, {}, 1).answer([{"x": 0.75}], NOW)[0]
    assert (answer.prediction, answer.decision, answer.id, answer.as_of) == (0.75, None, None, NOW)


def test_a_category_that_was_never_seen_is_logged_as_it_came(plain, weather, column_learner):
    scorer = Scorer(plain, column_learner("temp"), None, None, {"weather": weather}, 3)
    assert scorer.answer([ROW | {"carrier": "ZZ"}], NOW)[0].inputs["carrier"] == "ZZ"


def test_no_rows_get_no_answers(plain, column_learner):
    assert Scorer(plain, column_learner("temp"), None, None, {}, 3).answer([], NOW) == []


def test_one_view_by_two_keys_is_two_look_ups(lookup, column_learner):
    inputs = (
        Input("origin", "request", "category", "category", categories=("EWR",)),
        Input("dest", "request", "category", "category", categories=("EWR",)),
        Input("temp", "feature", "float64", "number"),
        Input("dest_temp", "feature", "float64", "number"),
    )
    uses = (
        ViewUse("weather(origin)", "weather", "v", (("airport", "origin"),), (("temp", "temp"),)),
        ViewUse("weather(dest)", "weather", "v", (("airport", "dest"),), (("temp", "dest_temp"),)),
    )
    airports = lookup({("EWR",): ({"temp": 1.0}, NOW), ("ORD",): ({"temp": 2.0}, NOW - HOUR)})
    scorer = Scorer(
        Signature("regression", inputs, uses), column_learner("dest_temp"), None, None, {"weather": airports}, 1
    )
    answer = scorer.answer([{"origin": "EWR", "dest": "ORD"}], NOW)[0]
    assert (answer.prediction, answer.inputs["temp"]) == (2.0, 1.0)
    assert answer.ages == {"weather(origin)": 0.0, "weather(dest)": 3600.0}


def test_a_table_and_its_rows_are_predicted_alike(signature, column_learner):
    scorer = Scorer(signature, column_learner("hour"), None, hour, {}, 3)
    moments = [NOW, NOW + 3 * HOUR]
    table = pa.table(
        {
            "carrier": ["UA", None], "distance": [1, 2], "seats": [1, None], "holiday": [True, None],
            "sched_dep": pa.array(moments, pa.timestamp("us", "UTC")), "note": pa.nulls(2, pa.string()),
            "temp": [1.0, None], "visib": [None, 2.0],
        }
    )  # fmt: skip
    rows = [{"carrier": "UA", "distance": 1, "sched_dep": moment} for moment in moments]
    answers = [answer.prediction for answer in scorer.answer(rows, NOW)]
    assert scorer.predict_table(table).tolist() == pytest.approx(answers)
    assert scorer.predict_table(table.slice(0, 0)).tolist() == []
