"""The loss of one labelled prediction, against its definition."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lakeloop.lakehouse.rollouts.losses import losses
from lakeloop.lakehouse.scoring.signature import Signature


def test_a_class_that_the_model_does_not_know_counts_as_one_it_gave_no_chance() -> None:
    signature = Signature("multiclass", (), (), ("a", "b"), "")
    scores = [[0.75, 0.25], [0.75, 0.25], [0.75, 0.25]]
    rows = pa.table({"label": ["a", "b", "new"], "scores": scores})
    truth = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    given = np.array([[0.75, 0.25, 0.0]] * 3)
    assert losses(signature, rows) == pytest.approx(((given - truth) ** 2).sum(axis=1) / 2)
