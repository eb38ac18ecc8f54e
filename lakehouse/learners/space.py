"""Points of a search space. Trial i's value of a parameter depends on the seed, i and its name alone.

So a search that is resumed, or has more trials, or another parameter, tries the same points as before where it can.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, assert_never

import numpy as np

from lakeloop.lakehouse.project.definitions import Choice, Constant, Dimension, IntRange, LogUniform, Uniform


def point(space: Mapping[str, Dimension], seed: int, trial: int) -> dict[str, Any]:
    """The parameters of a trial, in the order of the space."""
    return {name: _draw(one, _random(seed, trial, name)) for name, one in space.items()}


def _random(seed: int, trial: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, trial, zlib.crc32(name.encode())])))


def _draw(dimension: Dimension, random: np.random.Generator) -> Any:
    match dimension:
        case Constant(value):
            return value
        case Choice(values):
            return values[int(random.integers(len(values)))]
        case IntRange(low, high):
            return int(random.integers(low, high + 1))
        case Uniform(low, high):
            return float(random.uniform(low, high))
        case LogUniform(low, high):
            drawn = math.exp(random.uniform(math.log(low), math.log(high)))
            return float(min(max(drawn, low), high))
        case _:
            assert_never(dimension)
