"""A signature is what its JSON says."""

from __future__ import annotations

import json

import pytest

from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.scoring.signature import Input, Sigmoid, Signature


def test_a_signature_survives_the_way_through_json(signature):
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature
    assert Signature.from_bytes(signature.to_bytes()) == signature


def test_a_sigmoid_and_a_regression_survive_it_too():
    small = Signature("regression", (Input("x", "request", "float32", "number"),), calibration=Sigmoid(1.5, -0.25))
    assert Signature.from_bytes(small.to_bytes()) == small


def test_equal_signatures_have_equal_bytes(signature):
    assert Signature.from_json(signature.to_json()).to_bytes() == signature.to_bytes()


def test_a_format_of_a_later_version_is_refused(signature):
    with pytest.raises(Corrupt, match="format 2"):
        Signature.from_json({**signature.to_json(), "format": 2})


def test_bytes_that_are_no_signature_are_corrupt():
    with pytest.raises(Corrupt, match="cannot be read"):
        Signature.from_bytes(b'{"format": 1}')
    with pytest.raises(Corrupt, match="cannot be read"):
        Signature.from_bytes(b"no json")


def test_strings_and_times_are_no_columns_of_the_matrix(signature):
    assert [one.name for one in signature.columns] == [
        "carrier", "distance", "seats", "holiday", "temp", "visib", "hour",
    ]  # fmt: skip
