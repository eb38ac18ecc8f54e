"""What is kept in documents and small objects: artifacts, endpoints, freezes, events, and the names of keys."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lakeloop.lakehouse import endpoints, events, keys
from lakeloop.lakehouse.artifacts import Artifact
from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.errors import Conflict, Corrupt, Invalid, LakeloopError, NotFound, Refused
from lakeloop.lakehouse.freezing import freeze, frozen
from lakeloop.lakehouse.lake import Lake, open_lake


@pytest.fixture
def memory() -> Lake:
    return open_lake("memory://records", who="tester")


# -- artifacts ---


def test_an_artifact_is_checked_against_its_hash(memory: Lake) -> None:
    kept = memory.artifacts.put("models", "m-1", "model.json", b"{}")
    assert Artifact.from_json(kept.to_json()) == kept
    assert memory.artifacts.get(kept.key, kept.sha256) == b"{}"
    memory.store.put(kept.key, b"{ }")
    with pytest.raises(Corrupt, match="do not match"):
        memory.artifacts.get(kept.key, kept.sha256)


def test_the_same_bytes_are_one_object_for_one_owner_and_two_for_two(memory: Lake) -> None:
    kept = {
        memory.artifacts.put("models", owner, name, b"x").key for owner, name in (("a", "1"), ("a", "2"), ("b", "1"))
    }
    assert len(kept) == 2


def test_a_folder_comes_back_as_it_was(memory: Lake, tmp_path: Path) -> None:
    files = {"model.bin": b"\0" * 10, "code/deep/train.py": b"pass", "empty": b""}
    for name, data in files.items():
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_bytes(data)
    memory.artifacts.get_folder(memory.artifacts.put_folder("models", "m", tmp_path / "from"), tmp_path / "to")
    assert {
        str(path.relative_to(tmp_path / "to")): path.read_bytes()
        for path in (tmp_path / "to").rglob("*")
        if path.is_file()
    } == files


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\evil"])
def test_an_artifact_is_never_written_outside_its_folder(memory: Lake, tmp_path: Path, name: str) -> None:
    kept = memory.artifacts.put("models", "m", name, b"x")
    with pytest.raises(Invalid):
        memory.artifacts.get_folder([kept], tmp_path / "to")
    assert [path.name for path in tmp_path.rglob("*")] == []


# -- endpoints ---


def test_a_promotion_rests_on_the_champion_it_was_decided_on(memory: Lake) -> None:
    assert endpoints.champion(memory, "p", "m") is None
    endpoints.promote(memory, "p", "m", 1, expected=None, why="first")
    endpoints.promote(memory, "p", "m", 2, expected=1, why="better")
    with pytest.raises(Conflict, match="version 2 by now"):
        endpoints.promote(memory, "p", "m", 3, expected=1, why="late")
    assert endpoints.champion(memory, "p", "m") == 2
    assert [(one["version"], one["why"]) for one in endpoints.history(memory, "p", "m")] == [
        (2, "better"),
        (1, "first"),
    ]


def test_a_promotion_that_is_repeated_changes_nothing(memory: Lake) -> None:
    first = endpoints.promote(memory, "p", "m", 1, expected=None, why="first")
    assert endpoints.promote(memory, "p", "m", 1, expected=None, why="first") == first


def test_a_first_promotion_that_expected_a_champion_is_a_conflict(memory: Lake) -> None:
    with pytest.raises(Conflict):
        endpoints.promote(memory, "p", "m", 2, expected=1, why="late")


def test_a_rollback_bars_the_version_until_a_person_lifts_it(memory: Lake) -> None:
    for version, expected in ((1, None), (2, 1), (3, 2)):
        endpoints.promote(memory, "p", "m", version, expected=expected, why="better")
    assert endpoints.rollback(memory, "p", "m", "bad") == (3, 2)
    assert endpoints.rollback(memory, "p", "m", "worse") == (2, 1)
    with pytest.raises(NotFound, match="no champion before"):
        endpoints.rollback(memory, "p", "m", "and now?")
    with pytest.raises(Refused, match="rolled back"):
        endpoints.promote(memory, "p", "m", 3, expected=1, why="again")
    endpoints.promote(memory, "p", "m", 3, expected=1, why="mended", by_hand=True)
    assert endpoints.champion(memory, "p", "m") == 3


def test_a_model_that_was_never_promoted_cannot_be_rolled_back(memory: Lake) -> None:
    with pytest.raises(NotFound, match="no champion"):
        endpoints.rollback(memory, "p", "m", "bad")


def test_serving_is_decided_on_the_state_that_was_seen(memory: Lake) -> None:
    seen = endpoints.promote(memory, "p", "m", 1, expected=None, why="first")
    endpoints.promote(memory, "p", "m", 2, expected=1, why="better")
    with pytest.raises(LostRace):
        endpoints.serve(memory, seen, 1, {}, "late")


# -- freezes, events ---


def test_a_freeze_says_who_and_why_until_it_is_lifted(memory: Lake) -> None:
    assert frozen(memory, "p", "m") is None
    freeze(memory, "p", "m", frozen=True, why="audit")
    freeze(memory, "p", "m", frozen=True, why="again")
    there = frozen(memory, "p", "m")
    assert there is not None
    assert (there.number, there.who, there.why) == (1, "tester", "audit")
    freeze(memory, "p", "m", frozen=False, why="over")
    assert frozen(memory, "p", "m") is None
    assert frozen(memory, "p", "other") is None


def test_an_event_waits_once_and_is_recorded_when_it_is_done(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "lake"))
    for key in ("shop/things", "shop/things", "shop/ü"):
        events.wake(lake, "landed", key)
    waiting = events.pending(lake)
    assert len(waiting) == 2
    events.done(lake, waiting)
    assert events.pending(lake) == []
    rows = lake.journal("events").read()
    assert rows is not None
    assert sorted(rows.column("key").to_pylist()) == ["shop__", "shop_things"]
    assert set(rows.column("kind").to_pylist()) == {"landed"}


# -- keys and errors ---


def test_revisions_sort_newest_first() -> None:
    numbers = [1, 2, 9, 10, 99, 100, 12_345_678]
    listed = sorted(keys.revision("models", "m", number) for number in numbers)
    assert [keys.revision_number(key) for key in listed] == numbers[::-1]


def test_every_kind_of_key_is_a_key() -> None:
    at = datetime(2026, 1, 2, 23, 59, tzinfo=UTC)
    made = [
        keys.FORMAT,
        keys.revision("k", "d", 1),
        keys.table("p/t"),
        keys.segment("j", "s"),
        keys.artifact("k", "o", "f" * 64),
        keys.raw("p", "s", at, "m" * 16, "f.csv"),
        keys.online("p", "v", "1", "f" * 64),
        keys.open_run("r"),
        keys.event("landed", "p_s"),
        keys.landing("p", "s") + "f.csv",
    ]
    assert [keys.check_key(key) for key in made] == made
    assert keys.raw("p", "s", at, "m1", "f.csv") == "raw/p/s/2026-01-02/m1/f.csv"


@pytest.mark.parametrize("name", ["", "1a", "A", "a-b", "a.b", "ä", "a b", "_a", "a\n"])
def test_a_name_is_small_letters_digits_and_underscores(name: str) -> None:
    with pytest.raises(Invalid, match="cannot be the name"):
        keys.check_name(name, "source")
    assert keys.check_name("a_1", "source") == "a_1"


def test_an_error_says_what_where_and_what_to_do() -> None:
    assert str(LakeloopError("it broke", where="here", todo="mend it")) == "here: it broke\n  → mend it"
    assert str(LakeloopError("it broke")) == "it broke"
    assert str(Invalid("two things", problems=["one", "other"])) == "two things\none\nother"


def test_a_lake_travels_to_another_process_by_its_address(tmp_path: Path) -> None:
    import pickle

    lake = open_lake(str(tmp_path / "lake"), who="tester")
    lake.store.put("key", b"1")
    arrived = pickle.loads(pickle.dumps(lake))
    assert (arrived.url, arrived.who, arrived.store.get("key")) == (lake.url, "tester", b"1")
    assert arrived.writer != lake.writer


def test_an_absent_lake_is_opened_without_a_request(s3: str, tmp_path: Path) -> None:
    assert open_lake("s3://no-such-bucket/prefix").url == "s3://no-such-bucket/prefix"
    open_lake(str(tmp_path / "not-there"))
    assert not (tmp_path / "not-there").exists()
