"""The gate: follows tokens by one GET a poll, keeps what it knew while the store is away, and never opens by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from lakeloop.lakehouse import tokens
from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.store.memory import MemoryStore
from lakeloop.ray_jobs.serving.gate import POLL_S, Gate

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Counting(MemoryStore):
    """Counts GETs, and is away when told so."""

    def __init__(self) -> None:
        super().__init__()
        self.gets, self.away = 0, False

    def get(self, key: str, *args: Any, **kwargs: Any) -> bytes:
        self.gets += 1
        if self.away:
            raise Unavailable("the store does not answer")
        return super().get(key, *args, **kwargs)


@pytest.fixture
def store() -> Counting:
    return Counting()


@pytest.fixture
def lake(store: Counting) -> Lake:
    return Lake(store, "ann", lambda: NOW)


def test_a_revoked_token_is_refused_after_one_step(lake: Lake) -> None:
    gate = Gate(lake, "p", ["late"])
    assert gate.authorize("late", None)
    secret, _ = tokens.create(lake, "p", "late", "one")
    gate.step()
    assert not gate.authorize("late", None)
    assert gate.authorize("late", f"Bearer {secret}")
    tokens.revoke(lake, "p", "late", "one")
    gate.step()
    assert not gate.authorize("late", f"Bearer {secret}")


def test_several_changes_are_followed_in_one_step_and_a_poll_of_nothing_is_one_get(lake: Lake, store: Counting) -> None:
    gate = Gate(lake, "p", ["late", "early"])
    for name in ("one", "two", "three"):
        secret, _ = tokens.create(lake, "p", "late", name)
    gate.step()
    assert gate.authorize("late", f"Bearer {secret}")
    before = store.gets
    gate.step()
    assert store.gets - before == 2, "one for each endpoint"


def test_while_the_store_is_away_what_was_known_goes_on_and_is_caught_up_with(lake: Lake, store: Counting) -> None:
    secret, _ = tokens.create(lake, "p", "late", "one")
    gate = Gate(lake, "p", ["late"])
    tokens.revoke(lake, "p", "late", "one")
    store.away = True
    gate.try_step()
    assert "does not answer" in gate.error
    assert gate.authorize("late", f"Bearer {secret}")
    assert not gate.authorize("late", None), "it does not open either"
    store.away = False
    gate.try_step()
    assert gate.error == ""
    assert not gate.authorize("late", f"Bearer {secret}")


def test_what_cannot_be_read_leaves_what_was_known(lake: Lake) -> None:
    secret, revision = tokens.create(lake, "p", "late", "one")
    gate = Gate(lake, "p", ["late"])
    lake.documents.update(revision, {"tokens": "nonsense"})
    gate.try_step()
    assert "cannot be read" in gate.error
    assert gate.authorize("late", f"Bearer {secret}")


def test_a_poll_comes_often_enough_for_the_promise_of_ten_seconds() -> None:
    assert POLL_S * 3 < 10


def test_http_is_told_what_it_lacks_and_nothing_of_what_it_sent(lake: Lake) -> None:
    secret, _ = tokens.create(lake, "p", "late", "one")
    permit = Gate(lake, "p", ["late"]).permit("late")
    assert permit({"headers": [(b"host", b"here"), (b"authorization", f"Bearer {secret}".encode())]}) is None
    refused = permit({"headers": [(b"authorization", b"Bearer wrong")]})
    assert refused is not None
    assert (refused.status, refused.headers) == (401, ((b"www-authenticate", b"Bearer"),))
    assert orjson.loads(refused.body) == {"error": "the endpoint asks for a token"}
