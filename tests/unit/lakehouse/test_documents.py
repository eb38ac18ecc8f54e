"""Documents: revisions that nobody overwrites, races that have one winner, answers that get lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeloop.lakehouse.documents import Documents, LostRace, Revision
from lakeloop.lakehouse.errors import Conflict, Corrupt, Invalid, LakeloopError, NotFound, Unavailable, Unknown
from lakeloop.lakehouse.store import Store
from lakeloop.lakehouse.store.folder import FolderStore
from lakeloop.lakehouse.store.memory import MemoryStore
from lakeloop.lakehouse.testing import FaultyStore, lost_answer

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def ticking(*times: datetime) -> Callable[[], datetime]:
    """A clock that shows these times, and then the last one for ever."""
    left = list(times)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def documents(
    store: Store | None = None, *, who: str = "ann", clock: Callable[[], datetime] = lambda: NOON
) -> Documents:
    return Documents(store or MemoryStore(), clock, who)


def test_a_document_is_what_its_newest_revision_says() -> None:
    ours = documents()
    first = ours.create("models", "m", {"n": 1}, "begun")
    second = ours.update(first, {"n": 2}, "better")
    assert ours.get("models", "m") == second == ours.latest("models", "m")
    assert (second.number, second.body, second.who, second.why) == (2, {"n": 2}, "ann", "better")


def test_the_newest_of_many_revisions_costs_two_requests() -> None:
    store = MemoryStore()
    revision = documents(store).create("models", "m", {"n": 1})
    for n in range(2, 30):
        revision = documents(store).update(revision, {"n": n})
    counted = FaultyStore(store)
    assert documents(counted).get("models", "m").body == {"n": 29}
    assert [call.split()[0] for call in counted.calls] == ["list", "get"]


def test_a_poll_costs_one_request() -> None:
    store = MemoryStore()
    first = documents(store).create("endpoints", "e", {})
    counted = FaultyStore(store)
    assert documents(counted).next("endpoints", "e", first.number) is None
    second = documents(store).update(first, {"arm": 1})
    assert documents(counted).next("endpoints", "e", first.number) == second
    assert [call.split()[0] for call in counted.calls] == ["get", "get"]


def test_a_second_create_loses_and_learns_to_whom() -> None:
    store = MemoryStore()
    won = documents(store, who="ann").create("models", "m", {"n": 1}, "first")
    with pytest.raises(LostRace, match="ann") as lost:
        documents(store, who="bob").create("models", "m", {"n": 2})
    assert lost.value.won == won
    assert isinstance(lost.value, Conflict)


def test_a_change_of_a_state_that_is_no_longer_the_newest_loses() -> None:
    store = MemoryStore()
    old = documents(store).create("models", "m", {"n": 1})
    won = documents(store, who="bob").update(old, {"n": 2}, "mine")
    with pytest.raises(LostRace, match="bob") as lost:
        documents(store).update(old, {"n": 3})
    assert lost.value.won == won
    assert [revision.body["n"] for revision in documents(store).history("models", "m")] == [2, 1]


def test_an_equal_change_by_another_is_no_success_of_ours() -> None:
    store = MemoryStore()
    old = documents(store).create("models", "m", {"n": 1})
    documents(store).update(old, {"n": 2}, "same")
    with pytest.raises(LostRace):
        documents(store).update(old, {"n": 2}, "same")


def test_what_is_not_there_is_none_or_not_found() -> None:
    ours = documents()
    assert ours.latest("models", "m") is None
    assert ours.history("models", "m") == []
    assert ours.ids("models") == []
    with pytest.raises(NotFound, match="no models 'm'"):
        ours.get("models", "m")


def test_ids_are_sorted_and_chosen_by_their_beginning() -> None:
    ours = documents()
    for doc in ("b.two", "a.one", "a.two", "a"):
        ours.update(ours.create("models", doc, {}), {})
    ours.create("models_2", "x", {})
    assert ours.ids("models") == ["a", "a.one", "a.two", "b.two"]
    assert ours.ids("models", "a.") == ["a.one", "a.two"]
    assert ours.kinds() == ["models", "models_2"]


def test_an_id_is_one_part_of_a_key() -> None:
    for kind, doc in (("models", "a/b"), ("models", ""), ("models", ".."), ("mod/els", "a")):
        with pytest.raises(Invalid):
            documents().create(kind, doc, {})


def test_one_document_may_begin_like_another() -> None:
    ours = documents()
    ours.create("models", "m", {"n": 1})
    ours.create("models", "m2", {"n": 2})
    assert ours.get("models", "m").body == {"n": 1}
    assert len(ours.history("models", "m")) == 1


def test_history_is_newest_first_and_answers_for_any_moment() -> None:
    store = MemoryStore()
    hours = [NOON + timedelta(hours=n) for n in range(3)]
    revision = documents(store, clock=lambda: hours[0]).create("models", "m", {"n": 0})
    for n in (1, 2):
        revision = documents(store, clock=lambda n=n: hours[n]).update(revision, {"n": n})
    ours = documents(store)
    assert [one.body["n"] for one in ours.history("models", "m")] == [2, 1, 0]
    minute = timedelta(minutes=1)
    found = [
        ours.as_of("models", "m", at)
        for at in (hours[0] - minute, hours[0], hours[1] - minute, hours[1], hours[2] + minute)
    ]
    assert [one and one.body["n"] for one in found] == [None, 0, 0, 1, 2]


def test_times_follow_the_order_of_commits_when_a_clock_goes_back() -> None:
    ours = documents(
        clock=ticking(NOON, NOON - timedelta(days=1), NOON - timedelta(days=2), NOON + timedelta(seconds=1))
    )
    revision = ours.create("models", "m", {"n": 0})
    times = [revision.at]
    for n in (1, 2, 3):
        revision = ours.update(revision, {"n": n})
        times.append(revision.at)
    assert times == [
        NOON,
        NOON + timedelta(milliseconds=1),
        NOON + timedelta(milliseconds=2),
        NOON + timedelta(seconds=1),
    ]
    found = ours.as_of("models", "m", NOON + timedelta(milliseconds=1))
    assert found is not None
    assert found.body == {"n": 1}


@pytest.mark.parametrize("error", [lost_answer(), Unavailable("no answer")], ids=["unknown", "unavailable"])
def test_a_write_whose_answer_was_lost_is_recognised_as_ours(error: LakeloopError) -> None:
    store = MemoryStore()
    revision = documents(store).create("models", "m", {"n": 1})
    second = documents(FaultyStore(store, 1, "after", error)).update(revision, {"n": 2})
    assert documents(store).get("models", "m") == second
    first = documents(FaultyStore(store, 1, "after", error)).create("models", "new", {"n": 1})
    assert documents(store).get("models", "new") == first


def test_a_lost_answer_to_a_write_that_came_too_late_is_a_lost_race() -> None:
    store = MemoryStore()
    revision = documents(store).create("models", "m", {"n": 1})
    won = documents(store, who="bob").update(revision, {"n": 2})
    with pytest.raises(LostRace) as lost:
        documents(FaultyStore(store, 1, "before", lost_answer())).update(revision, {"n": 3})
    assert lost.value.won == won


def test_a_write_that_never_arrived_says_so_and_may_be_tried_again() -> None:
    store = MemoryStore()
    revision = documents(store).create("models", "m", {"n": 1})
    with pytest.raises(Unavailable):
        documents(FaultyStore(store, 1, "before")).update(revision, {"n": 2})
    assert documents(store).update(revision, {"n": 2}).number == 2


class DeafStore(FaultyStore):
    """Takes a write, loses the answer, and then cannot be read either."""

    def put(self, key: str, body: bytes | BinaryIO, *, if_absent: bool = False) -> None:
        super().put(key, body, if_absent=if_absent)
        raise Unknown("the answer was lost")

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        raise Unavailable("no answer")


def test_what_cannot_be_looked_up_stays_unknown() -> None:
    store = MemoryStore()
    with pytest.raises(Unknown):
        documents(DeafStore(store)).create("models", "m", {"n": 1})
    with pytest.raises(LostRace):  # it did arrive; whoever writes again without looking does not win twice
        documents(store).create("models", "m", {"n": 1})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"write": "x"}',
        b'{"write": "x", "at": "noon", "who": "", "why": "", "body": {}}',
        b"\xff\xfe",
        b'{"write": "x", "at": "2026-05-01T12:00:00", "who": "", "why": "", "body": {}}',
        b'{"write": "x", "at": "2026-05-01T12:00:00+00:00", "who": "", "why": "", "body": []}',
        b'{"write": "x", "at": "2026-05-01T12:00:00+00:00", "who": 1, "why": "", "body": {}}',
        b'{"write": "x", "at": "2026-05-01T12:00:00+00:00", "who": "", "why": "", "bo',
        b"[" * 100_000,
    ],
)
def test_a_document_that_cannot_be_read_is_corrupt_and_names_its_key(data: bytes) -> None:
    store = MemoryStore()
    store.put("docs/models/m/99999998.json", data)
    with pytest.raises(Corrupt, match=r"docs/models/m/99999998\.json"):
        documents(store).get("models", "m")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "../up",
        "a\\b",
        "line\nbreak",
        "nul\0",
        "tab\t",
        "del\x7f",
        "half \ud83d",
        "x" * 256,
        "é" * 128,
    ],
)
@pytest.mark.parametrize("place", ["kind", "id"])
def test_a_name_that_is_none_is_refused_by_every_call_and_reaches_no_file(
    tmp_path: Path, name: str, place: str
) -> None:
    (tmp_path / "99999998.json").write_text("{}")
    ours = documents(FolderStore(tmp_path / "a" / "lake"))
    kind, doc = (name, "m") if place == "kind" else ("models", name)
    stale = Revision(kind, doc, 1, NOON, "ann", "", {})
    calls: list[Callable[[], object]] = [
        lambda: ours.create(kind, doc, {}),
        lambda: ours.update(stale, {}),
        lambda: ours.latest(kind, doc),
        lambda: ours.get(kind, doc),
        lambda: ours.next(kind, doc, 1),
        lambda: ours.history(kind, doc),
        lambda: ours.as_of(kind, doc, NOON),
        *([lambda: ours.ids(kind)] if place == "kind" else []),
    ]
    for call in calls:
        with pytest.raises(Invalid):
            call()
    assert not (tmp_path / "a").exists()


def test_names_may_be_of_any_language(tmp_path: Path) -> None:
    for store in (MemoryStore(), FolderStore(tmp_path)):
        ours = documents(store)
        for doc in ("模型", "modèle été", "𝄞", "a+b%20=?&", "x" * 255):
            first = ours.create("models", doc, {"n": 1}, "warum nicht?")
            assert ours.update(first, {"n": "é"}).body == ours.get("models", doc).body == {"n": "é"}
        assert len(ours.ids("models")) == 5


def test_a_body_that_json_cannot_hold_is_refused_and_nothing_is_written() -> None:
    store = MemoryStore()
    for body in ({"at": NOON}, {"self": {1, 2}}, {"data": b"bytes"}):
        with pytest.raises(Invalid, match="models/m cannot be written as JSON"):
            documents(store).create("models", "m", body)
    assert list(store.list()) == []


def test_files_that_other_tools_left_among_revisions_are_none() -> None:
    store = MemoryStore()
    ours = documents(store)
    second = ours.update(ours.create("models", "m", {"n": 1}), {"n": 2})
    for name in (".DS_Store", "99999997.json.tmp", "9.json", "99999999.json", "notes.txt", "~lock"):
        store.put(f"docs/models/m/{name}", b"not ours")
    assert ours.get("models", "m") == second
    assert [revision.number for revision in ours.history("models", "m")] == [2, 1]
    assert ours.as_of("models", "m", second.at) == second
    store.put("docs/models/only/.DS_Store", b"not ours")
    assert ours.latest("models", "only") is None


def test_a_revision_that_cannot_be_read_hides_no_other() -> None:
    store = MemoryStore()
    ours = documents(store, clock=ticking(*(NOON + timedelta(hours=n) for n in range(9))))
    revision = ours.create("models", "m", {"n": 1})
    for n in (2, 3):
        revision = ours.update(revision, {"n": n})
    store.put("docs/models/m/99999997.json", b"{")
    assert ours.get("models", "m").body == {"n": 3}
    with pytest.raises(Corrupt, match=r"docs/models/m/99999997\.json"):
        ours.history("models", "m")
    assert ours.update(revision, {"n": 4}).number == 4


def test_the_newest_of_ten_thousand_revisions_costs_two_requests_and_a_moment_sixteen(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    ours = documents(store, clock=ticking(*(NOON + timedelta(minutes=n) for n in range(10_000))))
    revision = ours.create("models", "m", {"n": 0})
    for n in range(1, 10_000):
        revision = ours.update(revision, {"n": n})
    counted = FaultyStore(store)
    assert documents(counted).get("models", "m").body == {"n": 9_999}
    assert [call.split()[0] for call in counted.calls] == ["list", "get"]
    for n in (0, 1, 4_321, 9_997, 9_998):
        counted = FaultyStore(store)
        found = documents(counted).as_of("models", "m", NOON + timedelta(minutes=n, seconds=30))
        assert found is not None
        assert found.body == {"n": n}
        assert len(counted.calls) <= 16
    counted = FaultyStore(store)
    assert documents(counted).as_of("models", "m", NOON + timedelta(days=99)) == revision
    assert len(counted.calls) == 2


@given(
    steps=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    asked=st.integers(-10_000, 120_000),
)
def test_what_was_true_at_a_moment_is_what_reading_the_whole_history_says(steps: list[int], asked: int) -> None:
    clock = ticking(*(NOON + timedelta(seconds=sum(steps[: n + 1])) for n in range(len(steps))))
    ours = documents(clock=clock)
    revision = ours.create("models", "m", {"n": 0})
    for n in range(1, len(steps)):
        revision = ours.update(revision, {"n": n})
    for at in (NOON + timedelta(milliseconds=asked), revision.at, revision.at - timedelta(milliseconds=1)):
        expected = next((one for one in ours.history("models", "m") if one.at <= at), None)
        assert ours.as_of("models", "m", at) == expected


def test_a_writer_whose_clock_is_an_hour_behind_makes_later_revisions_with_later_times() -> None:
    store = MemoryStore()
    right = documents(store, who="ann", clock=ticking(NOON, NOON + timedelta(seconds=2)))
    behind = documents(store, who="bob", clock=lambda: NOON - timedelta(hours=1))
    first = right.create("models", "m", {"n": 1}, "made")
    second = behind.update(first, {"n": 2}, "changed by a slow clock")
    third = behind.update(second, {"n": 3})
    fourth = right.update(third, {"n": 4})
    history = right.history("models", "m")
    assert history == [fourth, third, second, first]
    assert [one.at - NOON for one in reversed(history)] == [
        timedelta(0),
        timedelta(milliseconds=1),
        timedelta(milliseconds=2),
        timedelta(seconds=2),
    ]
    assert [(one.who, one.why) for one in history] == [
        ("ann", ""),
        ("bob", ""),
        ("bob", "changed by a slow clock"),
        ("ann", "made"),
    ]
    assert right.as_of("models", "m", NOON + timedelta(seconds=1)) == third
    assert right.as_of("models", "m", NOON - timedelta(minutes=30)) is None
