"""How a forgotten entity is told: by the text of its stored values, and by nothing that was not its."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from lakeloop.functions.forget_subject import Trace
from lakeloop.lakehouse import forgetting, keys
from lakeloop.lakehouse.documents import Documents
from lakeloop.lakehouse.forgetting import Entity, Tombstones, numeric, only, text_of
from lakeloop.lakehouse.lake import utc_now
from lakeloop.lakehouse.store import Entry
from lakeloop.lakehouse.store.memory import MemoryStore

KEY = b"k" * 32


def told(rows: pa.Table, **values: str) -> list[int]:
    mask = only(KEY, Entity(values), {}).mask(rows)
    return [] if mask is None else [at for at, hit in enumerate(mask.to_pylist()) if hit]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4711, "4711"),
        (4711.0, "4711"),
        (0.5, "0.5"),
        (True, "true"),
        ("007", "007"),
        (date(2026, 5, 1), "2026-05-01"),
        (datetime(2026, 5, 1, tzinfo=UTC), "2026-05-01T00:00:00+00:00"),
        (None, None),
        ([1], None),
    ],
)
def test_a_value_has_one_text(value: object, text: str | None) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.float64(), pa.dictionary(pa.int32(), pa.string())])
def test_a_row_is_told_whatever_type_keeps_the_value(kind: pa.DataType) -> None:
    column = pa.array(["1", "2", None, "1"]).cast(pa.string() if pa.types.is_dictionary(kind) else kind)
    rows = pa.table({"k": column.dictionary_encode() if pa.types.is_dictionary(kind) else column, "x": [1, 2, 3, 4]})
    assert told(rows, k="1") == [0, 3]
    assert told(rows, k="3") == []
    assert told(rows, k="1", x="4") == [3]
    assert told(rows, other="1") == []


def test_a_text_is_not_told_by_a_number_that_reads_alike() -> None:
    assert told(pa.table({"k": ["007", "7", " 7", "7.0"]}), k="7") == [1]
    one = only(KEY, Entity({"k": "7"}), {})
    assert [one.tell({"k": raw}, numeric) for raw in ("007", "7", " 7 ", "7.00", "+7", "77", "7.5", "")] == [
        *[True] * 5,
        *[False] * 3,
    ]


def test_whole_rows_as_text_and_broken_lines_are_told() -> None:
    one = only(KEY, Entity({"k": "a 1"}), {})
    assert one.tell_text('{"k": "a 1", "x": 2}')
    assert not one.tell_text('{"x": "a 1", "k": "b"}')
    assert one.tell_text("x,a 1,z")
    assert not one.tell_text("x,a 11,z")
    two = only(KEY, Entity({"k": "a", "l": "b"}), {})
    assert two.tell_text("b,c,a")
    assert not two.tell_text("b,c,d")


def test_an_example_is_told_by_its_id_in_its_own_model() -> None:
    one = only(KEY, Entity({"k": "1"}), {"shop.buys": [Tombstones(KEY).of_id("e1")]})
    rows = pa.table({"id": ["e1", "e2"]})
    assert one.drop(rows, model="shop.buys").to_pydict() == {"id": ["e2"]}
    assert one.drop(rows, model="shop.other").num_rows == 2


class Counting(MemoryStore):
    """A store that counts its calls."""

    calls = 0

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        self.calls += 1
        return super().get(key, start, stop)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None, delimiter: str = ""):  # type: ignore[no-untyped-def]
        self.calls += 1
        return super().list(prefix, after=after, limit=limit, delimiter=delimiter)


def test_a_lake_that_forgot_nobody_pays_one_list() -> None:
    store = Counting()
    assert not forgetting.load(store)
    assert store.calls == 1
    assert list(store.list()) == list[Entry]()


def test_a_tombstone_holds_no_value_and_is_read_once() -> None:
    store = Counting()
    key, entity = forgetting.secret(store), Entity({"k": "cust-7f3a9c"})
    assert forgetting.secret(store) == key == store.get(keys.FORGET_KEY)
    one = Tombstones(key)
    documents = Documents(store, utc_now, "tester")
    documents.create("forgotten", one.of(entity.values), {"columns": ["k"], "ids": {}, "status": "started"})
    loaded = forgetting.load(store)
    assert loaded.entities == {one.of(entity.values)}
    assert loaded.tell({"k": "cust-7f3a9c"})
    before = store.calls
    forgetting.load(store)
    assert store.calls == before + 2
    assert all(b"7f3a9c" not in store.get(entry.key) for entry in store.list())
    assert not Tombstones(b"x" * 32, loaded.marks).tell({"k": "cust-7f3a9c"})


def test_a_long_value_is_found_in_text_and_a_short_one_beside_its_name() -> None:
    long, short = Trace(Entity({"k": "cust-7f3a9c"})), Trace(Entity({"k": "4711"}))
    assert long.in_text("no plan for cust-7f3a9c!")
    assert not long.in_text("no plan for xcust-7f3a9c or cust-7f3a9c0")
    assert not short.in_text("4711 rows")
    assert all(short.in_text(text) for text in ("k=4711", '{"k": 4711}', '{"k":"4711"}', "k: 4711, rest", "k=4711."))
    assert not any(short.in_text(text) for text in ("k=47110", "k=-4711", "kk=4711", "k is no 4711", "k=4711.5"))
    assert short.blotted({"error": "k=4711 failed", "k": 4711, "n": [1, {"k": "4711"}], "m": 4711}) == {
        "error": "k=[forgotten] failed",
        "k": "[forgotten]",
        "n": [1, {"k": "[forgotten]"}],
        "m": 4711,
    }
    body = {"a": ["b", {"c": 1}]}
    assert short.blotted(body) is body
