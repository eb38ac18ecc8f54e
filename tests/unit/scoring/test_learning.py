"""What is learnt of a training table: vocabularies, profiles, classes, and what may be null."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import DerivedInput, Inputs, Model, RequestInput, Search, Split
from lakeloop.lakehouse.scoring import learning
from lakeloop.lakehouse.scoring.checks import check_examples
from lakeloop.lakehouse.scoring.profiles import number_profile
from lakeloop.lakehouse.scoring.rows import RowReader
from lakeloop.lakehouse.scoring.signature import CategoryProfile, NumberProfile, ViewUse

START = datetime(2013, 7, 1, tzinfo=UTC)
REQUEST = {
    "carrier": RequestInput("carrier", "category"),
    "distance": RequestInput("distance", "float32", range=(1, 100)),
    "sched_dep": RequestInput("sched_dep", "timestamp"),
    "customer": RequestInput("customer", "int64"),
}
MODEL = Model(
    name="late",
    problem="binary",
    owner="ops",
    learner="sklearn",
    examples_sql="",
    sql_path="models/late.sql",
    split=Split("random", 0.2, 0.2),
    search=Search("roc_auc", "max"),
    inputs=Inputs(request=REQUEST, derived={"hour": DerivedInput("hour", "int8")}, derive=True),
)
USES = (ViewUse("spend", "spend", "v1", (("customer", "customer"),), (("total", "total"),)),)


def examples(carriers, labels=None):
    rows = len(carriers)
    moments = pa.array([START + timedelta(hours=at) for at in range(rows)], pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "id": [str(at) for at in range(rows)],
            "as_of": moments,
            "label": labels or [at % 2 == 0 for at in range(rows)],
            "label_known_at": moments,
            "carrier": pa.array(carriers, pa.string()),
            "distance": pa.array([float(at + 1) for at in range(rows)]),
            "sched_dep": moments,
            "customer": pa.array(range(rows), pa.int64()),
            "total": pa.array([None] + [2.0] * (rows - 1), pa.float64()),
            "count": pa.array([3] * rows, pa.int64()),
            "place": pa.array(["x"] * rows),
            "flag": pa.array([True] * rows),
            "day": pa.array([START.date()] * rows),
        }
    )


def learnt(table, train=None, model=MODEL):
    declared = learning.declare(model, table, USES)
    whole = learning.with_derived(declared, lambda row: {"hour": row["sched_dep"].hour}, table)
    return learning.learn(declared, model, whole, whole.slice(0, train or table.num_rows))


def by_name(signature):
    return {one.name: one for one in signature.inputs}


def test_inputs_stand_in_the_order_request_features_derived():
    signature = learnt(examples(["UA", "AA", "UA"]))
    assert [(one.name, one.role, one.kind) for one in signature.inputs] == [
        ("carrier", "request", "category"),
        ("distance", "request", "number"),
        ("sched_dep", "request", "timestamp"),
        ("customer", "request", "integer"),
        ("total", "feature", "number"),
        ("count", "feature", "integer"),
        ("place", "feature", "category"),
        ("flag", "feature", "bool"),
        ("day", "feature", "timestamp"),
        ("hour", "derived", "integer"),
    ]


def test_an_integer_that_is_the_key_of_a_view_is_no_column_of_the_matrix():
    assert not by_name(learnt(examples(["UA", "AA"])))["customer"].column
    other = (ViewUse("spend", "spend", "v1", (("carrier", "carrier"),), ()),)
    kinds = {one.name: one.column for one in learning.declare(MODEL, examples(["UA"]), other).inputs}
    assert (kinds["customer"], kinds["carrier"]) == (True, True)  # a category may be key and input


def test_the_vocabulary_is_that_of_the_training_part_only():
    signature = learnt(examples(["UA", "AA", None, "ZZ"]), train=3)
    carrier = by_name(signature)["carrier"]
    assert carrier.categories == ("AA", "UA")
    assert carrier.profile == CategoryProfile({"AA": 1, "UA": 1}, other=0, nulls=1)


def test_a_bounded_vocabulary_keeps_the_most_frequent_values():
    inputs = replace(MODEL.inputs, request=REQUEST | {"carrier": RequestInput("carrier", "category", max=2)})
    carriers = ["C", "B", "A", "C", "B", "C", "A"]
    carrier = by_name(learnt(examples(carriers), model=replace(MODEL, inputs=inputs)))["carrier"]
    assert carrier.categories == ("A", "C")  # A and B are equally frequent: the first by name
    assert carrier.profile == CategoryProfile({"A": 2, "C": 3}, other=2, nulls=0)


def test_declared_values_are_the_vocabulary_in_their_order():
    inputs = replace(
        MODEL.inputs, request=REQUEST | {"carrier": RequestInput("carrier", "category", values=("Z", "A"))}
    )
    signature = learnt(examples(["A", "A"]), model=replace(MODEL, inputs=inputs))
    assert by_name(signature)["carrier"].categories == ("Z", "A")


def test_null_may_be_sent_where_any_example_has_null():
    nullable = {name: one.nullable for name, one in by_name(learnt(examples(["UA", "AA", None]), train=2)).items()}
    assert (nullable["carrier"], nullable["distance"], nullable["total"]) == (True, False, True)


def test_the_example_is_a_row_that_the_signature_accepts():
    signature = learnt(examples(["UA", "AA", "UA"]))
    assert signature.example["carrier"] == "UA"
    assert signature.example["sched_dep"] == "2013-07-01T02:00:00+00:00"
    assert signature.example["day"] == "2013-07-01T00:00:00+00:00"
    typed = RowReader(signature).check([signature.example])[0]
    assert (typed["sched_dep"], typed["customer"], typed["total"]) == (START + timedelta(hours=2), 2, 2.0)


def test_classes_are_texts_with_the_positive_last():
    assert (learnt(examples(["a"] * 4)).classes, learnt(examples(["a"] * 4)).positive) == (("false", "true"), "true")
    numbers = examples(["a"] * 4, labels=[0, 1, 1, 0])
    assert learnt(numbers).classes == ("0", "1")
    assert learning.encode_labels(numbers, learnt(numbers)).tolist() == [0, 1, 1, 0]


def test_a_class_that_training_never_saw_has_no_code():
    model = replace(MODEL, problem="multiclass")
    table = examples(["a"] * 4, labels=[10, 9, 9, 11])
    signature = learnt(table, train=3, model=model)
    assert signature.classes == ("9", "10")
    codes = learning.encode_labels(table, signature)
    assert codes[:3].tolist() == [1, 0, 0]
    assert np.isnan(codes[3])


@pytest.mark.parametrize(("labels", "told"), [([1, 1, 1], "labels are 1:"), ([0, 1, 2], "0, 1, 2: a binary model")])
def test_a_binary_model_needs_two_classes(labels, told):
    with pytest.raises(Invalid, match=told):
        learnt(examples(["a"] * 3, labels=labels))


def test_a_request_input_that_the_examples_lack_is_named():
    with pytest.raises(Invalid, match="have no column carrier"):
        learning.declare(MODEL, examples(["a"]).drop_columns(["carrier"]))


def test_a_feature_of_a_type_no_model_takes_is_named():
    table = examples(["a"]).append_column("many", pa.array([[1]]))
    with pytest.raises(Invalid, match="feature many is list<item: int64>"):
        learning.declare(MODEL, table)


def test_derived_inputs_without_derive_are_refused():
    with pytest.raises(Invalid, match="no derive"):
        learning.with_derived(learning.declare(MODEL, examples(["a"])), None, examples(["a"]))


def test_a_profile_of_few_values_has_a_bin_for_each():
    assert number_profile(np.array([3.0, 1.0, 1.0, np.nan, np.inf])) == NumberProfile(
        (1.0,), (2, 1), 2, 1.0, 3.0, pytest.approx(5 / 3), pytest.approx(np.std([3, 1, 1]))
    )


def test_a_profile_of_many_values_has_ten_bins_of_equal_rows():
    found = number_profile(np.arange(1000.0))
    assert (len(found.edges), found.counts) == (9, (100,) * 10)


def test_a_profile_of_nothing_is_empty():
    assert number_profile(np.array([np.nan])) == NumberProfile((), (0,), 1)


def test_good_examples_pass_the_checks():
    table = examples(["UA", "AA"])
    assert check_examples(MODEL, learning.declare(MODEL, table, USES), table) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": [True, True]}, "all labels are True"),
        ({"label": [True, None]}, "1 rows have no label"),
        ({"weight": [1.0, -1.0]}, "1 weights are negative"),
        ({"weight": [1.0, float("nan")]}, "1 weights are negative, null or not finite"),
    ],
)
def test_examples_that_must_not_be_trained_on_stop_the_run(change, told):
    table = examples(["UA", "AA"])
    for name, values in change.items():
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table.append_column(name, pa.array(values))
    with pytest.raises(Invalid, match=told):
        check_examples(MODEL, learning.declare(MODEL, examples(["UA", "AA"]), USES), table)


def test_no_example_at_all_is_told():
    table = examples(["UA"]).slice(0, 0)
    with pytest.raises(Invalid, match="no labelled example"):
        check_examples(MODEL, learning.declare(MODEL, table, USES), table)


def test_a_banned_input_is_refused_by_name():
    model = replace(MODEL, inputs=replace(MODEL.inputs, banned=("count",)))
    table = examples(["UA", "AA"])
    with pytest.raises(Invalid, match="count is banned"):
        check_examples(model, learning.declare(model, table, USES), table)


def test_what_a_person_should_know_is_told_and_does_not_stop():
    table = examples(["UA", "AA"])
    early = pa.array([START - timedelta(days=1)] * 2, pa.timestamp("us", "UTC"))
    table = table.set_column(table.column_names.index("label_known_at"), "label_known_at", early)
    table = table.set_column(table.column_names.index("distance"), "distance", pa.array([5.0, 500.0]))
    table = table.set_column(table.column_names.index("total"), "total", pa.nulls(2, pa.float64()))
    told = check_examples(MODEL, learning.declare(MODEL, table, USES), table)
    assert told == [
        "2 labels were known before as_of: a prediction then comes too late",
        "distance: 1 values outside 1 to 100",
        "total is null in every row",
    ]
