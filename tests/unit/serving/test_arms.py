"""Arms: which version answers a request."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lakeloop.lakehouse.errors import Corrupt, Refused
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.ray_jobs.serving.arms import Arm, Loaded, wanted_arms


def split(scorer: Callable[..., Scorer], canary: int) -> Loaded:
    arms = Arm("champion", 1, 10_000 - canary, scorer(1)), Arm("canary", 2, canary, scorer(2))
    return Loaded("late", 1, arms)


def test_a_key_keeps_its_arm_and_a_ramp_only_adds(scorer: Callable[..., Scorer]) -> None:
    keys = [f"request-{number}" for number in range(4000)]
    before: set[str] = set()
    for weight in (0, 1000, 5000, 10_000):
        chosen = {key for key in keys if split(scorer, weight).arm_for("late", key).name == "canary"}
        assert before <= chosen
        assert abs(len(chosen) / len(keys) - weight / 10_000) < 0.03
        before = chosen


def test_two_endpoints_split_their_keys_differently(scorer: Callable[..., Scorer]) -> None:
    half = split(scorer, 5000)
    keys = [str(number) for number in range(400)]
    assert [half.arm_for("a", key).name for key in keys] != [half.arm_for("b", key).name for key in keys]


def test_an_endpoint_without_a_champion_is_refused() -> None:
    with pytest.raises(Refused, match="no version answers"):
        wanted_arms({"arms": []}, "late")
    with pytest.raises(Refused, match="no version answers"):
        wanted_arms({"arms": [{"name": "champion", "version": 1, "weight": 0}]}, "late")


def test_a_document_without_arms_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="names no arms"):
        wanted_arms({"arm": []}, "late")
