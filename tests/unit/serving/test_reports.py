"""Reports of a replica: on every change, now and then otherwise, and again when the store was away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.records import JOURNALS
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.reports import EVERY_S, EVERY_SPLIT_S, RETRY_S, Reporter


class Desk:
    """A reporter, what it wrote, and the sweeps it woke."""

    def __init__(self, loaded: Loaded, now: datetime) -> None:
        self.loaded, self.seconds, self.away = loaded, 0.0, False
        self.written: list[Sequence[Mapping[str, Any]]] = []
        self.woken = 0
        self.reporter = Reporter(
            "flights", "late", "replica-1", self.record, lambda: now, wake=self.wake, monotonic=lambda: self.seconds
        )

    def record(self, journal: str, rows: Sequence[Mapping[str, Any]]) -> None:
        assert journal == "replicas"
        if self.away:
            raise Unavailable("the store is away")
        self.written.append(rows)

    def wake(self) -> None:
        self.woken += 1

    def look(self, after: float = 0.0, *, wanted: int = 5, error: str = "", ends: bool = False) -> int:
        """One poll; how many reports there are then."""
        self.seconds += after
        self.reporter.report(self.loaded, wanted, error, ends)
        return len(self.written)


@pytest.fixture
def desk(loaded: Callable[..., Loaded], now: datetime) -> Desk:
    return Desk(loaded(), now)


def test_it_reports_at_once_and_then_every_half_minute(desk: Desk) -> None:
    assert [desk.look(), desk.look(0.5), desk.look(EVERY_S - 1), desk.look(0.5)] == [1, 1, 1, 2]


def test_it_reports_more_often_while_there_are_several_arms(desk: Desk, scorer: Callable[..., Scorer]) -> None:
    desk.loaded = replace(desk.loaded, arms=(*desk.loaded.arms, Arm("canary", 4, 0, scorer(4))), phase=5)
    assert [desk.look(), desk.look(EVERY_SPLIT_S - 1), desk.look(1)] == [1, 1, 2]
    assert [row["arm"] for row in desk.written[0]] == ["champion", "canary"]
    assert all(row.keys() == set(JOURNALS["replicas"].names) for row in desk.written[0])


def test_every_change_is_told_at_once_and_the_end_as_well(desk: Desk) -> None:
    assert [desk.look(), desk.look(wanted=6), desk.look(wanted=6, error="broken")] == [1, 2, 3]
    assert desk.look(ends=True) == 4
    assert [rows[0]["status"] for rows in desk.written] == ["serving", "serving", "serving", "gone"]
    assert [rows[0]["number"] for rows in desk.written] == [1, 2, 3, 4]


def test_a_change_wakes_the_sweep_only_during_a_rollout(desk: Desk) -> None:
    desk.look()
    assert desk.woken == 0
    desk.loaded = replace(desk.loaded, phase=5, revision=6)
    desk.look()
    desk.look(EVERY_S)
    assert desk.woken == 1


def test_what_could_not_be_written_is_tried_again_after_a_while(desk: Desk) -> None:
    desk.away = True
    assert desk.look() == 0
    desk.away = False
    assert [desk.look(1), desk.look(RETRY_S)] == [0, 1]


def test_it_counts_what_the_arm_did(desk: Desk) -> None:
    tally = desk.loaded.champion.tally
    tally.answered(1.0)
    tally.answered(2.0)
    tally.failed()
    desk.look()
    (row,) = desk.written[0]
    assert (row["requests"], row["errors"], sum(row["latency"])) == (3, 1, 2)
