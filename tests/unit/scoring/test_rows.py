"""What a caller may send, and what it is told when it sends anything else."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.rows import Fault, RowReader, read_moment
from lakeloop.lakehouse.scoring.signature import Input, Signature

NOON = datetime(2013, 7, 1, 12, 30, tzinfo=UTC)
ROW = {"carrier": "UA", "distance": 719, "sched_dep": "2013-07-01T12:30Z"}


@pytest.mark.parametrize(
    "value",
    [
        "2013-07-01T12:30Z",
        "2013-07-01T12:30:00+00:00",
        "2013-07-01T08:30:00-04:00",
        "2013-07-01 12:30",
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=5))),
        1372681800,
        1372681800.0,
        1372681800_000,
        1372681800_000_000,
        np.int64(1372681800_000_000_000),
    ],
)
def test_a_moment_may_be_written_in_many_ways(value):
    assert read_moment(value) == NOON
    assert read_moment(value).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value", ["soon", True, None, [], float("nan"), 1e30, "0001-01-01T00:00+05:00", "9999-12-31T23:59-05:00"]
)
def test_what_is_no_moment_is_refused(value):
    with pytest.raises(Fault, match="is no time"):
        read_moment(value)


def test_a_row_comes_back_typed_with_defaults(plain):
    values = RowReader(plain).read({**ROW, "id": "x", "as_of": 0}, 0)
    assert values == {
        "carrier": "UA",
        "distance": 719.0,
        "seats": 100,
        "sched_dep": NOON,
        "holiday": None,
        "note": None,
    }
    assert isinstance(values["distance"], float)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"distanc": 1}, "row 0: there is no input 'distanc'; did you mean 'distance'?"),
        ({"zzz": 1}, "row 0: there is no input 'zzz'; inputs are carrier, distance"),
        ({"distance": "far"}, "row 0: distance: 'far' is no number"),
        ({"distance": True}, "row 0: distance: True is no number"),
        ({"distance": 0}, "row 0: distance: 0 is out of range; allowed is 1 to 10000"),
        ({"distance": None}, "row 0: distance may not be null"),
        ({"distance": float("nan")}, "row 0: distance: null is not allowed"),
        ({"seats": 1.5}, "row 0: seats: 1.5 is no whole number"),
        ({"seats": 40_000}, "row 0: seats: 40000 is out of range; allowed is -32768 to 32767"),
        ({"carrier": 1.5}, "row 0: carrier: 1.5 is no category"),
        ({"carrier": ["UA"]}, r"row 0: carrier: \['UA'\] is no category"),
        ({"sched_dep": "soon"}, "row 0: sched_dep: 'soon' is no time"),
        ({"holiday": "yes"}, "row 0: holiday: 'yes' is no bool; send true or false"),
        ({"note": 7}, "row 0: note: 7 is no text"),
        ({"temp": "cold"}, "row 0: temp: 'cold' is no number"),
    ],
)
def test_a_fault_names_row_input_and_what_is_allowed(plain, change, told):
    with pytest.raises(Invalid, match=told):
        RowReader(plain).check([ROW | change])


def test_a_required_input_that_is_missing_is_named(plain):
    with pytest.raises(Invalid, match="row 0: carrier is missing"):
        RowReader(plain).check([{name: value for name, value in ROW.items() if name != "carrier"}])


def test_every_fault_of_every_row_is_told_at_once(plain):
    with pytest.raises(Invalid) as caught:
        RowReader(plain).check([ROW, ROW | {"distance": 0, "seats": "x"}, {}])
    assert str(caught.value).split("\n") == [
        "row 1: distance: 0 is out of range; allowed is 1 to 10000",
        "row 1: seats: 'x' is no whole number",
        "row 2: carrier is missing",
        "row 2: distance is missing",
        "row 2: sched_dep is missing",
    ]


def test_a_thousand_faults_are_not_all_told(plain):
    with pytest.raises(Invalid) as caught:
        RowReader(plain).check([{}] * 500)
    assert len(caught.value.problems) == 20
    assert caught.value.problems[-1] == "… and 1480 more"


def test_names_that_are_not_there_are_not_all_looked_up(plain):
    strange = {f"name {number} of something that is not there": 0 for number in range(200_000)}
    began = time.process_time()
    with pytest.raises(Invalid, match="row 0: there is no input 'name 0 of") as caught:
        RowReader(plain).check([{**ROW, **strange}])
    assert caught.value.problems[-1] == "… and 199980 more"
    assert time.process_time() - began < 2  # it took 30 s
    with pytest.raises(Invalid) as caught:
        RowReader(plain).check([{**ROW, "x" * 1_000_000: 0}])
    assert len(str(caught.value)) < 1000


def test_ten_thousand_wrong_categories_take_no_longer_than_right_ones():
    words = tuple(f"word {number}" for number in range(10_000))
    strict = Input("c", "request", "category", "category", categories=words, unseen="error")
    reader = RowReader(Signature("binary", (strict,)))
    began = time.process_time()
    with pytest.raises(Invalid, match="never seen in training; known are word 0, word 1,"):
        reader.check([{"c": "another"}] * 10_000)
    assert time.process_time() - began < 2  # it took 25 s


def test_of_a_long_value_its_beginning_is_told(plain):
    long = "x" * 1_000_000
    wrong = {"carrier": {"a": [0] * 1_000_000}, "distance": long, "sched_dep": long}
    with pytest.raises(Invalid) as caught:
        RowReader(plain).check([wrong])
    assert len(str(caught.value)) < 1000
    strict = Input("c", "request", "category", "category", categories=("a",), unseen="error")
    with pytest.raises(Invalid, match=r"'xxx.*…' was never seen"):
        RowReader(Signature("binary", (strict,))).check([{"c": long}])


def test_a_row_that_is_no_object_is_refused(plain):
    with pytest.raises(Invalid, match="row 0: str is no row"):
        RowReader(plain).check(["UA"])


def test_an_unseen_category_is_refused_only_when_the_definition_says_so():
    categories = Input("c", "request", "category", "category", categories=("a",))
    strict = Input("c", "request", "category", "category", categories=("a",), unseen="error")
    assert RowReader(Signature("binary", (categories,))).check([{"c": "b"}]) == [{"c": "b"}]
    with pytest.raises(Invalid, match="'b' was never seen in training; known are a"):
        RowReader(Signature("binary", (strict,))).check([{"c": "b"}])


def test_a_value_outside_the_declared_ones_is_refused():
    inputs = (
        Input("c", "request", "category", "category", values=(1, 2), categories=("1", "2")),
        Input("n", "request", "int8", "integer", values=(1, 2)),
        Input("x", "request", "float32", "number", values=(0.5,)),
        Input("s", "request", "string", "string", column=False, values=("a",)),
    )
    reader = RowReader(Signature("binary", inputs))
    assert reader.check([{"c": 1, "n": 2.0, "x": 0.5, "s": "a"}]) == [{"c": "1", "n": 2, "x": 0.5, "s": "a"}]
    for name, value, told in (("c", 3, "'3' is not one of 1, 2"), ("n", 3, "3 is not one"), ("x", 1, "1 is not one")):
        with pytest.raises(Invalid, match=told):
            reader.check([{"c": 1, "n": 1, "x": 0.5, "s": "a"} | {name: value}])


def test_null_is_allowed_where_training_saw_null(plain):
    values = RowReader(plain).check([ROW | {"seats": None, "holiday": None}])[0]
    assert (values["seats"], values["holiday"]) == (None, None)


def test_numbers_of_numpy_are_numbers(plain):
    values = RowReader(plain).check(
        [ROW | {"distance": np.float32(2), "seats": np.int16(3), "holiday": np.bool_(True)}]
    )
    assert (values[0]["distance"], values[0]["seats"], values[0]["holiday"]) == (2.0, 3, True)
