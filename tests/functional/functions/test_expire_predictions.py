"""Predictions leave the lake when they are older than their model keeps them, and no others do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from lakeloop.functions.expire_predictions import expire_predictions
from lakeloop.functions.roll_out import roll_out
from lakeloop.lakehouse import endpoints
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.prediction_log import LogPolicy
from tests.functional.functions.conftest import DAY, START, Shop

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
JOURNAL = "predictions.shop.buys"


def at(lake: Lake, moment: datetime) -> Lake:
    return replace(lake, clock=lambda: moment)


def days_left(lake: Lake) -> list[int]:
    """The days, from START, whose predictions are there."""
    rows = lake.sql("select logged_at from predictions order by logged_at", project="shop")
    return sorted({(one - START).days for one in rows["logged_at"].to_pylist()})


def settle(shop: Shop) -> None:
    """Folded, and the minute is over in which readers may still fetch the segments."""
    shop.lake.journal(JOURNAL).fold()
    shop.lake.journal(JOURNAL).fold(grace_s=-1)


def log_days(shop: Shop, days: Sequence[int], segment: str = "20240301T000000000000Z-a-000001") -> None:
    shop.predicted([(f"d{day}", START + day * DAY + timedelta(hours=3), 0.5) for day in days], segment)


def test_rows_older_than_keep_are_removed_by_the_day_and_others_stay(shop: Shop) -> None:
    shop.apply('[serving]\nlog = { keep = "30d" }\n')
    log_days(shop, range(60))
    settle(shop)
    now = at(shop.lake, START + 45 * DAY + timedelta(hours=12))
    (done,) = expire_predictions(now, shop.project)
    assert (done.name, done.count) == (JOURNAL, 15)
    assert days_left(shop.lake) == list(range(15, 60))
    table = shop.lake.table(f"lakeloop/{JOURNAL}")
    assert table is not None
    assert expire_predictions(now, shop.project) == []
    again = shop.lake.table(f"lakeloop/{JOURNAL}")
    assert again is not None
    assert again.version == table.version, "nothing to do is no commit"


def test_reports_of_replicas_go_after_ninety_days(shop: Shop) -> None:
    for day in (0, 5):
        report = {"replica": "r1", "project": "shop", "endpoint": "buys", "number": day}
        shop.lake.record("replicas", [{**report, "logged_at": START + day * DAY}])
    shop.lake.journal("replicas").fold()
    shop.lake.journal("replicas").fold(grace_s=-1)
    assert expire_predictions(at(shop.lake, START + 90 * DAY), shop.project) == []
    (done,) = expire_predictions(at(shop.lake, START + 92 * DAY), shop.project)
    assert (done.name, done.count) == ("replicas", 1)
    assert shop.lake.sql("select number from lakeloop.replicas")["number"].to_pylist() == [5]


def test_what_a_shadow_said_goes_with_the_predictions_of_its_own_model_and_never_before_them(shop: Shop) -> None:
    def said(project: str, day: int, model: str = "buys") -> dict[str, object]:
        own = {"project": project, "model": model, "version": 2, "source": f"s{day}"}
        return {**own, "prediction_id": f"d{day}#0", "logged_at": START + day * DAY + timedelta(hours=4)}

    def left() -> list[tuple[str, str, str]]:
        rows = shop.lake.sql("select project, model, source from lakeloop.shadow_predictions order by all")
        return [(row["project"], row["model"], row["source"]) for row in rows.to_pylist()]

    shop.apply('[serving]\nlog = { keep = "30d" }\n')
    log_days(shop, [0, 50])
    shop.lake.record(
        "shadow_predictions", [said("shop", 0), said("shop", 50), said("mall", 0), said("shop", 0, "sells")]
    )
    shop.lake.journal("shadow_predictions").fold()
    shop.lake.journal("shadow_predictions").fold(grace_s=-1)
    now = at(shop.lake, START + 60 * DAY)
    assert expire_predictions(now, shop.project) == [], "the prediction is folded only now"
    assert len(left()) == 4
    settle(shop)
    assert [(done.name, done.count) for done in expire_predictions(now, shop.project)] == [
        (JOURNAL, 1),
        ("shadow_predictions", 1),
    ]
    assert left() == [("mall", "buys", "s0"), ("shop", "buys", "s50"), ("shop", "sells", "s0")]
    before = shop.lake.table("lakeloop/shadow_predictions")
    assert expire_predictions(now, shop.project) == []
    after = shop.lake.table("lakeloop/shadow_predictions")
    assert before is not None
    assert after is not None
    assert after.version == before.version


def test_what_was_never_folded_expires_too_and_the_default_is_400_days(shop: Shop) -> None:
    log_days(shop, [0, 1])
    log_days(shop, [100], "20240609T000000000000Z-a-000002")
    assert expire_predictions(at(shop.lake, START + 390 * DAY), shop.project) == []
    late = at(shop.lake, START + 402 * DAY)
    assert expire_predictions(late, shop.project) == [], "it was folded only now, and readers may still fetch it"
    settle(shop)
    (done,) = expire_predictions(late, shop.project)
    assert done.count == 2
    assert days_left(shop.lake) == [100]


def test_a_segment_that_comes_again_after_its_rows_expired_goes_again(shop: Shop) -> None:
    log_days(shop, [0, 1])
    late = at(shop.lake, START + 500 * DAY)
    for _ in range(2):
        log_days(shop, [0, 1])
        settle(shop)
        assert days_left(shop.lake) == [0, 1]
        expire_predictions(late, shop.project)
    assert days_left(shop.lake) == []


def test_a_policy_that_is_applied_reaches_the_endpoints_document_and_back(shop: Shop) -> None:
    def policy() -> LogPolicy:
        roll_out(shop.lake, shop.project)
        there = endpoints.endpoint(shop.lake, "shop", "buys")
        assert there is not None
        return LogPolicy.from_json(there.body.get("log"))

    before = endpoints.endpoint(shop.lake, "shop", "buys")
    assert policy() == LogPolicy()
    after = endpoints.endpoint(shop.lake, "shop", "buys")
    assert before is not None
    assert after is not None
    assert after.number == before.number, "the default is not written"
    shop.apply('[serving]\nlog = { sample = 0.5, drop = ["clicks"], mode = "sync", on_full = "drop", disk = "1MiB" }\n')
    assert policy() == LogPolicy(0.5, frozenset(["clicks"]), frozenset(), True, "drop", 1 << 20)
    shop.apply("")
    assert policy() == LogPolicy()


def test_old_predictions_have_the_new_columns_as_nulls(shop: Shop) -> None:
    log_days(shop, [0])
    columns = "read_ms, lookup_ms, predict_ms, log_ms, feature_versions, trace_id, sample_rate"
    found = shop.lake.sql(f"select {columns} from predictions", project="shop")
    assert found.to_pylist() == [dict.fromkeys(columns.split(", "))]
    shop.lake.journal(JOURNAL).fold()
    newer = pa.table({"prediction_id": ["n#0"], "model": ["buys"], "logged_at": [NOON], "trace_id": ["t"]})
    shop.lake.journal(JOURNAL).append(newer, "20240601T000000000000Z-a-000003")
    shop.lake.journal(JOURNAL).fold()
    traces = shop.lake.sql("select trace_id from predictions order by logged_at", project="shop")
    assert traces["trace_id"].to_pylist() == [None, "t"]
