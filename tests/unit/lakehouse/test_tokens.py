"""Tokens: shown once, kept as a hash, good until their end or their revocation."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from lakeloop.lakehouse import tokens
from lakeloop.lakehouse.errors import AlreadyExists, Corrupt, Invalid, LakeloopError, NotFound
from lakeloop.lakehouse.lake import Lake, open_lake

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def lake(request: pytest.FixtureRequest) -> Lake:
    return open_lake(f"memory://{request.node.name}", who="ann", clock=lambda: NOW)


def bearer(secret: str) -> str:
    return f"Bearer {secret}"


def ring(lake: Lake) -> tokens.Keyring:
    return tokens.of_endpoint(lake, "p", "late")


def test_an_endpoint_without_a_document_admits_everybody(lake: Lake) -> None:
    assert ring(lake).admits(None, NOW)


def test_from_the_first_token_on_only_a_token_is_admitted(lake: Lake) -> None:
    secret, _ = tokens.create(lake, "p", "late", "one")
    other, _ = tokens.create(lake, "p", "late", "two")
    now = ring(lake)
    assert secret != other
    assert all(now.admits(bearer(one), NOW) for one in (secret, other))
    assert now.admits(bearer(secret).encode(), NOW), "ASGI gives bytes"
    assert now.admits(f"bearer  {secret}", NOW), "the scheme's case and spaces do not matter"
    wrong = (None, "", "Bearer", "Bearer ", bearer(secret[:-1]), bearer(secret + "x"), secret, f"Basic {secret}")
    assert not any(now.admits(one, NOW) for one in wrong)
    assert not now.admits("Bearer \udcff".encode("utf-8", "surrogateescape"), NOW)


def test_a_token_has_256_random_bits_and_is_nowhere_in_the_lake(lake: Lake) -> None:
    secret, revision = tokens.create(lake, "p", "late", "one")
    assert secret.startswith("lakeloop_")
    assert len(secret) == len("lakeloop_") + 43
    kept = [lake.store.get(entry.key) for entry in lake.store.list("")]
    assert kept
    assert not any(secret.encode() in data for data in kept)
    assert secret not in json.dumps(dict(revision.body))
    assert secret not in repr(ring(lake))


def test_a_token_ends_with_its_time(lake: Lake) -> None:
    secret, _ = tokens.create(lake, "p", "late", "one", NOW + timedelta(days=90))
    assert ring(lake).admits(bearer(secret), NOW + timedelta(days=90, microseconds=-1))
    assert not ring(lake).admits(bearer(secret), NOW + timedelta(days=90))


def test_a_revoked_token_is_refused_and_the_last_one_leaves_the_endpoint_closed(lake: Lake) -> None:
    first, _ = tokens.create(lake, "p", "late", "one")
    second, _ = tokens.create(lake, "p", "late", "two")
    tokens.revoke(lake, "p", "late", "one")
    assert not ring(lake).admits(bearer(first), NOW)
    assert ring(lake).admits(bearer(second), NOW)
    tokens.revoke(lake, "p", "late", "two")
    assert not ring(lake).admits(bearer(second), NOW)
    assert not ring(lake).admits(None, NOW), "revoking must never open an endpoint"
    tokens.open_to_all(lake, "p", "late")
    assert ring(lake).admits(None, NOW)


def test_a_name_can_be_used_again_after_its_revocation_with_another_token(lake: Lake) -> None:
    first, _ = tokens.create(lake, "p", "late", "one")
    with pytest.raises(AlreadyExists, match="revoke late one"):
        tokens.create(lake, "p", "late", "one")
    tokens.revoke(lake, "p", "late", "one")
    second, _ = tokens.create(lake, "p", "late", "one")
    assert not ring(lake).admits(bearer(first), NOW)
    assert ring(lake).admits(bearer(second), NOW)


def test_the_history_says_who_made_and_revoked_which(lake: Lake) -> None:
    tokens.create(lake, "p", "late", "one")
    tokens.revoke(lake, "p", "late", "one")
    tokens.open_to_all(lake, "p", "late")
    told = [(one.who, one.why) for one in lake.documents.history(tokens.KIND, "p.late")]
    assert told == [("ann", "opened to all"), ("ann", "token one was revoked"), ("ann", "token one was made")]


def test_tokens_of_one_endpoint_are_none_of_another(lake: Lake) -> None:
    secret, _ = tokens.create(lake, "p", "late", "one")
    tokens.create(lake, "p", "early", "one")
    assert not tokens.of_endpoint(lake, "p", "early").admits(bearer(secret), NOW)


@pytest.mark.parametrize(
    ("name", "expires", "error"),
    [("", None, Invalid), ("Two Words", None, Invalid), ("a" * 64, None, Invalid), ("late", NOW, Invalid)],
)
def test_a_wrong_name_or_time_is_refused(
    lake: Lake, name: str, expires: datetime | None, error: type[LakeloopError]
) -> None:
    with pytest.raises(error):
        tokens.create(lake, "p", "late", name, expires)
    assert not ring(lake).needed


def test_what_is_not_there_cannot_be_revoked_or_opened(lake: Lake) -> None:
    with pytest.raises(NotFound):
        tokens.revoke(lake, "p", "late", "one")
    with pytest.raises(NotFound):
        tokens.open_to_all(lake, "p", "late")


def test_a_document_that_cannot_be_read_closes_rather_than_opens(lake: Lake) -> None:
    lake.documents.create(tokens.KIND, "p.late", {"tokens": "nonsense"})
    with pytest.raises(Corrupt):
        ring(lake)
