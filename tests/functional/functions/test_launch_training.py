"""What starts a training with no human, and what holds it back: new rows, the same reason twice, bad data."""

from __future__ import annotations

from datetime import timedelta

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.launch_training import launch_training
from lakeloop.functions.retry_quarantined import drop_quarantined, retry_quarantined
from lakeloop.tests.functional.functions.conftest import DAY, START, Shop

NEW_ROWS = """
[retrain]
new_rows = 3
cool_down = "1d"
"""
LATER = START + 5 * DAY


def trained_before(shop: Shop) -> None:
    """A run of the model, as of the start."""
    row = {"run": "first", "project": "shop", "model": "buys", "status": "finished", "as_of": START}
    shop.lake.record("runs", [row | {"logged_at": shop.lake.clock()}])


def labelled(shop: Shop, count: int, file: str = "new.csv") -> None:
    rows = [(f"{file}-{n}", START + timedelta(hours=n + 1), True, START + DAY) for n in range(count)]
    shop.visits(file, rows)


def launched(shop: Shop) -> list[str]:
    started: list[str] = []
    done = launch_training(shop.lake, shop.project, started.append, as_of=LATER)
    assert [one.run for one in done] == started[len(started) - len(done) :]
    return [one.trigger for one in done]


def test_enough_new_labelled_rows_start_one_training(shop: Shop) -> None:
    shop.apply(NEW_ROWS)
    trained_before(shop)
    labelled(shop, 2)
    assert launched(shop) == []
    labelled(shop, 1, "more.csv")
    assert launched(shop) == ["3 new labelled examples since the last run"]
    assert launched(shop) == []


def test_nothing_is_trained_while_the_newest_file_was_bad(shop: Shop) -> None:
    shop.apply(NEW_ROWS)
    trained_before(shop)
    labelled(shop, 4)
    bad = "id,seen,clicks,bought,known\nx,someday,1,true,\ny,2024-03-02T00:00:00Z,2,true,\n"
    land(shop.lake, shop.project, "visits", "bad.csv", bad.encode())
    (result,) = ingest_data(shop.lake, shop.project)
    assert (result.rows, result.quarantined) == (1, 1)
    assert launched(shop) == []
    labelled(shop, 5, "good.csv")
    assert len(launched(shop)) == 1


def test_wrong_rows_hold_training_back_until_they_are_settled(shop: Shop) -> None:
    shop.apply(NEW_ROWS)
    trained_before(shop)
    labelled(shop, 4)
    bad = "id,seen,clicks,bought,known\nx,someday,1,true,\ny,2024-03-02T00:00:00Z,2,true,\n"
    land(shop.lake, shop.project, "visits", "bad.csv", bad.encode())
    ingest_data(shop.lake, shop.project)
    assert retry_quarantined(shop.lake, shop.project.name, "visits")
    ingest_data(shop.lake, shop.project)
    assert launched(shop) == [], "the same row is wrong again"
    assert drop_quarantined(shop.lake, shop.project.name, "visits")
    assert len(launched(shop)) == 1
