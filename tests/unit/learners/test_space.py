"""Points of a space depend on the seed, the trial and the parameter's name, and on nothing else."""

from __future__ import annotations

import numpy as np

from lakeloop.lakehouse.learners.space import point
from lakeloop.lakehouse.project.definitions import Choice, Constant, IntRange, LogUniform, Uniform

SPACE = {
    "constant": Constant(400),
    "choice": Choice(("a", True, 3)),
    "whole": IntRange(3, 9),
    "real": Uniform(0.6, 1.0),
    "log": LogUniform(0.001, 10.0),
}


def test_a_trial_is_the_same_twice_and_another_is_another():
    assert point(SPACE, 7, 3) == point(SPACE, 7, 3)
    assert point(SPACE, 7, 3) != point(SPACE, 7, 4) != point(SPACE, 8, 4)


def test_another_parameter_does_not_change_the_others():
    smaller = {name: one for name, one in SPACE.items() if name != "real"}
    assert point(SPACE, 7, 3) == point(smaller, 7, 3) | {"real": point(SPACE, 7, 3)["real"]}


def test_points_fill_their_ranges():
    found = [point(SPACE, 0, trial) for trial in range(2000)]
    assert {one["constant"] for one in found} == {400}
    assert {one["choice"] for one in found} == {"a", True, 3}
    assert {one["whole"] for one in found} == set(range(3, 10))
    real = np.array([one["real"] for one in found])
    assert (real.min() >= 0.6, real.max() <= 1.0, abs(real.mean() - 0.8) < 0.01) == (True, True, True)
    log = np.log10([one["log"] for one in found])
    assert (log.min() >= -3, log.max() <= 1, abs(log.mean() + 1) < 0.1) == (True, True, True)


def test_values_are_plain_python_and_survive_json():
    import json

    assert json.loads(json.dumps(point(SPACE, 1, 1))) == point(SPACE, 1, 1)
