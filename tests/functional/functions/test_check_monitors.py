"""Monitors and their alerts: late labels, a function that stops halfway, and monitors that are no more."""

from __future__ import annotations

import itertools
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from lakeloop.functions.check_monitors import check_monitors, resolve_alerts
from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.store.opening import open_store
from lakeloop.lakehouse.testing import FaultyStore, When
from lakeloop.tests.functional.functions.conftest import DAY, START, Shop

ALWAYS_WRONG = 0.9


def asked_and_answered(shop: Shop, known: datetime) -> None:
    """Three visits on the first day, all taken for buyers; none buys, which is known later."""
    names = ("a", "b", "c")
    shop.visits("visits.csv", [(name, START, False, known) for name in names])
    shop.predicted([(name, START, ALWAYS_WRONG) for name in names])


def alerts(lake: Lake) -> list[tuple[str, str]]:
    found = lake.sql("select monitor, status from lakeloop.alerts order by alert").to_pylist()
    return [(row["monitor"], row["status"]) for row in found]


def test_labels_that_come_long_after_the_window_are_judged_all_the_same(shop: Shop) -> None:
    asked_and_answered(shop, known=START + 30 * DAY)
    assert check_monitors(shop.lake, shop.project, as_of=START + 29 * DAY) == []
    (judged,) = check_monitors(shop.lake, shop.project, as_of=START + 31 * DAY)
    assert (judged.window_end, judged.rows, judged.breached) == (START + DAY, 3, True)
    assert check_monitors(shop.lake, shop.project, as_of=START + 31 * DAY) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_call_fails_the_next_look_opens_the_alert(shop: Shop, tmp_path: Path, when: When) -> None:
    asked_and_answered(shop, known=START)
    for number in itertools.count(1):
        folder = tmp_path / f"copy-{number}"
        shutil.copytree(shop.lake.url, folder)
        store = FaultyStore(open_store(str(folder)), number, when)
        with suppress(Unavailable):
            check_monitors(Lake(store), shop.project, as_of=START + DAY)
        lake = open_lake(str(folder))
        check_monitors(lake, shop.project, as_of=START + DAY)
        assert alerts(lake) == [("accuracy_holds", "open")], store.calls[-1]
        assert lake.sql("select count(*) as n from lakeloop.monitor_results").to_pylist() == [{"n": 1}]
        if not store.failed:
            break


def test_an_alert_opens_again_when_more_labels_of_its_window_say_so(shop: Shop) -> None:
    asked_and_answered(shop, known=START)
    (first,) = check_monitors(shop.lake, shop.project, as_of=START + DAY)
    resolve_alerts(shop.lake, "shop", "buys", "looked into")
    assert alerts(shop.lake) == [("accuracy_holds", "resolved")]
    shop.visits("more.csv", [("d", START, False, START)])
    shop.predicted([("d", START, ALWAYS_WRONG)], "log-2")
    (second,) = check_monitors(shop.lake, shop.project, as_of=START + DAY)
    assert (second.alert, second.rows) == (first.alert, 4)
    assert alerts(shop.lake) == [("accuracy_holds", "open")]


def test_the_alert_of_a_monitor_that_was_removed_is_closed(shop: Shop) -> None:
    asked_and_answered(shop, known=START)
    check_monitors(shop.lake, shop.project, as_of=START + DAY)
    project = shop.apply("")
    check_monitors(shop.lake, project, as_of=START + DAY)
    assert alerts(shop.lake) == [("accuracy_holds", "resolved")]


def test_a_label_that_is_taken_for_granted_counts_when_its_time_is_over(shop: Shop) -> None:
    project = shop.apply(
        '[examples]\nno_label = false\nlabel_wait = "2d"\n[[monitor]]\nname = "m"\nwatch = "performance"\n'
        'metric = "accuracy"\nbelow = 0.5\nwindow = "3d"\n'
    )
    shop.visits("visits.csv", [("a", START, True, START), ("b", START, None, None)])
    shop.predicted([("a", START, ALWAYS_WRONG), ("b", START, ALWAYS_WRONG)])
    (early,) = check_monitors(shop.lake, project, as_of=START + DAY)
    assert (early.rows, early.value) == (1, 1.0)
    (late,) = check_monitors(shop.lake, project, as_of=START + 3 * DAY)
    assert (late.rows, late.value) == (2, 0.5)
