"""Quarantine: a row, a file or a segment that was set aside is open until it is retried or dropped, once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.retry_quarantined import drop_quarantined, found_aside, retry_quarantined
from lakeloop.lakehouse.errors import Conflict
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.quarantine import decide, segments, set_aside, unfinished

pytestmark = pytest.mark.slow_on_s3
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def shop(most: int = 10, *, format: str = "csv", on_error: str = "quarantine", name: str = "string?") -> Project:
    source = f"""owner = "crm"
read = {{ kind = "landing", format = "{format}", null = ["", "NA"] }}
key = ["id"]
timeless = true
on_error = "{on_error}"
[columns]
id = "int64"
price = {{ type = "float64", range = [0, {most}] }}
name = "{name}"
"""
    head = 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n'
    return parse_project({"lakeloop.toml": head, "sources/sales.toml": source})


SALES = b'id,price,name\n1,5,a\n2,50,"b, ""c"""\n3,dear,\n4\n5,70,NA\n'


def ingest(lake: Lake, project: Project, data: bytes = b"", file: str = "a.csv") -> list[tuple[int, int]]:
    if data:
        land(lake, project, "sales", file, data)
    return [(one.rows, one.quarantined) for one in ingest_data(lake, project)]


def sales(lake: Lake, project: Project) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in lake.sql("select * from sales order by id", project=project).to_pylist()]  # type: ignore[arg-type]


def states(lake: Lake) -> dict[str, list[int | None]]:
    """Lines by state."""
    found: dict[str, list[int | None]] = {}
    for row in lake.sql("select state, line from lakeloop.quarantine_state order by file desc, line").to_pylist():
        found.setdefault(row["state"], []).append(row["line"])
    return found


def test_after_a_rule_was_loosened_a_retry_takes_in_what_is_right_now(lake: Lake) -> None:
    assert ingest(lake, shop(), SALES) == [(1, 4)]
    assert states(lake) == {"open": [2, 3, 4, 5]}
    (back,) = retry_quarantined(lake, "shop", "sales", why="prices rose")
    assert (back.rows, back.file.endswith(".quarantine.jsonl")) == (3, True)
    loose = shop(60)
    assert ingest(lake, loose) == [(1, 2)]
    assert sales(lake, loose) == [(1, 5.0, "a"), (2, 50.0, 'b, "c"')]
    again = lake.sql("select line, reason, row from lakeloop.quarantine_state where state = 'open' order by file, line")
    assert again.to_pylist() == [
        {"line": 4, "reason": "broken line: 1 values where the header has 3", "row": "4"},
        {"line": 2, "reason": "price: dear is not a float64", "row": '{"id":"3","price":"dear","name":null}'},
        {"line": 3, "reason": "price: 70 is outside 0 to 60", "row": '{"id":"5","price":"70","name":null}'},
    ]
    decided = lake.sql("select distinct decision, who, why from lakeloop.quarantine_decisions").to_pylist()
    assert decided == [{"decision": "retried", "who": "tester", "why": "prices rose"}]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_row_is_judged_as_it_was_whatever_the_format(folder_lake: Lake, format: str) -> None:
    project = shop(10, format=format)
    if format == "parquet":
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(pa.table({"id": [1, 2], "price": [5.0, 50.25], "name": ["a", None]}), sink)
        data = sink.getvalue()
    else:
        data = (
            b'{"id": 1, "price": 5}\n{"id": 2, "price": 50.25}\n' if format == "jsonl" else b"id,price\n1,5\n2,50.25\n"
        )
    assert ingest(folder_lake, project, data) == [(1, 1)]
    retry_quarantined(folder_lake, "shop", "sales")
    assert ingest(folder_lake, shop(60, format=format)) == [(1, 0)]
    assert [row[:2] for row in sales(folder_lake, project)] == [(1, 5.0), (2, 50.25)]


def test_rows_that_stay_wrong_can_be_retried_as_often_as_one_likes(folder_lake: Lake) -> None:
    ingest(folder_lake, shop(), b"id,price,name\n1,50,a\n")
    for _ in range(3):
        assert len(retry_quarantined(folder_lake, "shop", "sales")) == 1
        assert ingest(folder_lake, shop()) == [(0, 1)]
        assert states(folder_lake)["open"] == [1]
    ingest(folder_lake, shop(), b"id,price,name\n1,50,a\n", "again.csv")
    (back,) = retry_quarantined(folder_lake, "shop", "sales")
    assert (back.rows, ingest(folder_lake, shop(60))) == (2, [(2, 0)])
    assert "open" not in states(folder_lake)
    assert retry_quarantined(folder_lake, "shop", "sales") == []


def test_a_retried_row_that_would_stop_its_file_goes_back_and_stops_no_other(folder_lake: Lake) -> None:
    ingest(folder_lake, shop(), b"id,price,name\n1,50,a\n2,500,b\n")
    retry_quarantined(folder_lake, "shop", "sales")
    strict = shop(60, on_error="stop")
    land(folder_lake, strict, "sales", "z.csv", b"id,price,name\n3,5,c\n")
    assert ingest(folder_lake, strict) == [(1, 1), (1, 0)]
    assert [row[0] for row in sales(folder_lake, strict)] == [1, 3]
    assert states(folder_lake)["open"] == [2]


def test_only_one_file_is_retried_when_one_is_named(folder_lake: Lake) -> None:
    ingest(folder_lake, shop(), b"id,price,name\n1,50,a\n", "a.csv")
    ingest(folder_lake, shop(), b"id,price,name\n2,50,a\n", "b.csv")
    retry_quarantined(folder_lake, "shop", "sales", file="b.csv")
    ingest(folder_lake, shop(60))
    assert [row[0] for row in sales(folder_lake, shop())] == [2]
    assert states(folder_lake) == {"open": [1], "retried": [1]}


def test_what_only_warned_is_in_the_table_and_is_not_open(folder_lake: Lake) -> None:
    project = shop(on_error="warn")
    assert ingest(folder_lake, project, b"id,price,name\n1,50,a\n") == [(1, 0)]
    assert states(folder_lake) == {"kept": [1]}
    assert retry_quarantined(folder_lake, "shop", "sales") == []
    assert drop_quarantined(folder_lake, "shop", "sales") == []


def test_a_dropped_row_is_decided_with_who_and_why_and_stays_in_the_journal(lake: Lake) -> None:
    ingest(lake, shop(), SALES)
    (dropped,) = drop_quarantined(lake, "shop", "sales", why="not ours")
    assert dropped.rows == 4
    assert states(lake) == {"dropped": [2, 3, 4, 5]}
    found = lake.sql("select distinct who, why from lakeloop.quarantine_state").to_pylist()
    assert found == [{"who": "tester", "why": "not ours"}]
    assert retry_quarantined(lake, "shop", "sales") == []
    assert drop_quarantined(lake, "shop", "sales") == []


def test_of_two_who_decide_at_once_one_decides_each_row(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second reads what is open before the first decides, and writes after it, with one more row."""
    ingest(folder_lake, shop(), b"id,price,name\n1,50,a\n2,60,b\n")
    slow = open_lake(folder_lake.url, who="slow")
    record, raced = Lake.record, []

    def late(self: Lake, journal: str, rows: Any, segment: str = "") -> None:
        if self is slow and journal == "quarantine_decisions" and not raced:
            raced.append(decide(folder_lake, "shop", "sales", "dropped", "first", file="a.csv"))
            ingest(folder_lake, shop(), b"id,price,name\n3,70,c\n", "b.csv")
        record(self, journal, rows, segment)

    monkeypatch.setattr(Lake, "record", late)
    (back,) = retry_quarantined(slow, "shop", "sales")
    assert (back.rows, raced[0].rows) == (1, 2)
    assert ingest(folder_lake, shop(100)) == [(1, 0)]
    assert [row[0] for row in sales(folder_lake, shop())] == [3]
    assert states(folder_lake) == {"retried": [1], "dropped": [1, 2]}


def test_a_retry_that_stopped_before_it_landed_is_landed_by_the_next(folder_lake: Lake) -> None:
    ingest(folder_lake, shop(), b"id,price,name\n1,50,a\n")
    assert decide(folder_lake, "shop", "sales", "retried", "") is not None
    assert len(unfinished(folder_lake, "shop", "sales")) == 1
    ingest(folder_lake, shop(), b"id,price,name\n2,50,a\n", "b.csv")
    assert [one.rows for one in retry_quarantined(folder_lake, "shop", "sales")] == [1, 1]
    assert ingest(folder_lake, shop(60)) == [(1, 0), (1, 0)]
    assert unfinished(folder_lake, "shop", "sales") == []
    assert [row[0] for row in sales(folder_lake, shop())] == [1, 2]


def test_rows_that_another_ingest_of_their_file_took_in_are_kept_and_not_taken_in_twice(lake: Lake) -> None:
    """The first ingest stopped behind its quarantine, and the second judged the same file by looser rules."""
    data = b"id,price,name\n1,50,a\n2,70,b\n"
    assert ingest(lake, shop(), data) == [(0, 2)]
    assert ingest(lake, shop(60), data) == [(1, 1)]
    assert states(lake) == {"open": [1, 2]}
    loose = shop(100)
    assert [one.rows for one in retry_quarantined(lake, "shop", "sales")] == [1]
    assert states(lake) == {"kept": [1], "retried": [2]}
    assert ingest(lake, loose) == [(1, 0)]
    rows = lake.sql("select id, price from sales_history order by id", project=loose).to_pylist()  # type: ignore[arg-type]
    assert [tuple(row.values()) for row in rows] == [(1, 50.0), (2, 70.0)]
    assert retry_quarantined(lake, "shop", "sales") == []


def test_a_retry_that_never_landed_leaves_out_what_its_own_file_brought_meanwhile(folder_lake: Lake) -> None:
    data = b"id,price,name\n1,50,a\n2,70,b\n"
    assert ingest(folder_lake, shop(), data) == [(0, 2)]
    assert decide(folder_lake, "shop", "sales", "retried", "") is not None
    assert ingest(folder_lake, shop(60), data) == [(1, 1)]
    assert [one.rows for one in retry_quarantined(folder_lake, "shop", "sales")] == [1]
    assert ingest(folder_lake, shop(100)) == [(1, 0)]
    assert [row[0] for row in sales(folder_lake, shop())] == [1, 2]


def test_a_file_that_could_not_be_read_goes_back_and_is_read_by_a_definition_that_can(lake: Lake) -> None:
    ingest(lake, shop(name="string"), b"id,price\n1,5\n")
    (aside,) = set_aside(lake, "shop")
    assert (aside.owner, aside.name, "has no column name" in aside.reason) == ("sales", "a.csv", True)
    land(lake, shop(), "sales", "a.csv", b"another file of this name")
    with pytest.raises(Conflict, match=r"another a\.csv waits in landing/"):
        retry_quarantined(lake, "shop", "sales")
    lake.store.delete(["landing/shop/sales/a.csv"])
    assert [one.file for one in retry_quarantined(lake, "shop", "sales")] == ["a.csv"]
    assert ingest(lake, shop()) == [(1, 0)]
    assert (set_aside(lake, "shop"), retry_quarantined(lake, "shop", "sales")) == ([], [])


def test_a_file_that_stays_unreadable_is_set_aside_again_and_can_be_deleted(folder_lake: Lake) -> None:
    ingest(folder_lake, shop(), b"\xff\xfe\x00")
    retry_quarantined(folder_lake, "shop", "sales")
    ingest(folder_lake, shop())
    assert [one.name for one in found_aside(folder_lake, "shop", "sales")] == ["a.csv"]
    assert [one.file for one in drop_quarantined(folder_lake, "shop", "sales", why="garbage")] == ["a.csv"]
    assert set_aside(folder_lake, "shop") == []
    decided = folder_lake.sql("select decision, why from lakeloop.quarantine_decisions order by logged_at").to_pylist()
    assert [(one["decision"], one["why"]) for one in decided] == [("retried", ""), ("dropped", "garbage")]


def test_a_segment_that_could_not_be_read_goes_back_to_its_inbox_or_is_deleted(folder_lake: Lake) -> None:
    folder_lake.store.put("inbox/events/zz-broken", b"not a segment")
    folder_lake.journal("events").fold(grace_s=-1)
    assert [(one.owner, one.name) for one in segments(folder_lake)] == [("inbox/events", "zz-broken")]
    retry_quarantined(folder_lake, "shop", "inbox/events")
    assert folder_lake.store.get("inbox/events/zz-broken") == b"not a segment"
    folder_lake.journal("events").fold(grace_s=-1)
    assert [one.file for one in drop_quarantined(folder_lake, "shop", "inbox/events")] == ["zz-broken"]
    assert segments(folder_lake) == []
