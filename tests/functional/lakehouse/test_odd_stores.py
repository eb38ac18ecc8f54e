"""A lake is made only in a store that keeps its promises; bad networks are survived; what a person must mend is said in
plain words."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.documents import LostRace
from lakeloop.lakehouse.errors import (
    AlreadyExists,
    Corrupt,
    Denied,
    Invalid,
    LakeloopError,
    NoAnswer,
    NotFound,
    Refused,
    Unavailable,
    Unknown,
)
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.probing import init_lake, is_lake, probe
from lakeloop.lakehouse.store.s3 import S3Store, default_retrying
from lakeloop.tests.conftest import SECRET
from lakeloop.tests.proxies import CUT, DROP, Proxy


def impatient(bucket: str, *, read_timeout: float = 60, tries: int = 5) -> Lake:
    """A lake whose store waits for nothing between its tries."""
    import boto3
    from botocore.config import Config
    from tenacity import stop_after_attempt, wait_none

    client = boto3.client(
        "s3", config=Config(retries={"total_max_attempts": 1}, read_timeout=read_timeout, max_pool_connections=32)
    )
    return Lake(
        S3Store(
            bucket,
            "lake",
            retrying=default_retrying().copy(wait=wait_none(), stop=stop_after_attempt(tries)),
            client=client,
        ),
        "tester",
    )


def is_create(method: str, path: str) -> bool:
    return method == "PUT" and "/lake/" in path


# -- stores that keep their promises, and stores that do not ---


def test_a_lake_is_made_once_and_nothing_of_the_probe_stays(lake: Lake) -> None:
    proofs, made = init_lake(lake)
    assert made
    assert len(proofs) == 5
    assert all(proof.held for proof in proofs)
    assert [entry.key for entry in lake.store.list()] == [keys.FORMAT]
    assert json.loads(lake.store.get(keys.FORMAT))["by"] == "tester"
    assert init_lake(lake) == ([], False)


def test_a_store_that_ignores_if_none_match_is_refused_in_plain_words(bucket: str, proxy: Proxy) -> None:
    proxy.strip = ("if-none-match",)
    lake = impatient(bucket)
    with pytest.raises(Invalid) as refused:
        init_lake(lake)
    assert "cannot hold a lake" in refused.value.what
    assert "writes would be lost" in refused.value.what
    assert "If-None-Match" in refused.value.todo
    assert [*lake.store.list()] == []


def test_a_store_that_knows_no_conditional_writes_is_refused_in_plain_words(bucket: str, proxy: Proxy) -> None:
    proxy.answer = lambda method, path, number: 501 if is_create(method, path) else 0
    with pytest.raises(Invalid, match="does not know conditional writes") as refused:
        init_lake(impatient(bucket))
    assert "If-None-Match" in refused.value.todo


class LooksThenWrites:
    """A gateway that keeps If-None-Match by looking first and writing then, as some do: whoever looks while another
    has not written yet overwrites it, and both are told that they won."""

    def __init__(self, proxy: Proxy, bucket: str) -> None:
        import boto3

        self.client, self.bucket = boto3.client("s3", endpoint_url=proxy.target), bucket
        self.racing, self.met = threading.Barrier(2), threading.Event()

    def before(self, method: str, path: str, headers: dict[str, str]) -> None:
        if method == "PUT" and headers.pop("If-None-Match", None):
            found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=path.split("/", 2)[2])
            if found["KeyCount"]:
                headers["If-None-Match"] = "*"
            elif "/race-" in path and not self.met.is_set():
                with suppress(threading.BrokenBarrierError):
                    self.racing.wait(10)
                self.met.set()
                self.racing.abort()


def test_a_store_that_loses_a_create_race_is_refused_though_it_refuses_a_second_create(
    bucket: str, proxy: Proxy
) -> None:
    proxy.before = LooksThenWrites(proxy, bucket).before
    lake = impatient(bucket)
    lake.store.put("key", b"1", if_absent=True)
    with pytest.raises(AlreadyExists):
        lake.store.put("key", b"2", if_absent=True)
    with pytest.raises(Invalid, match="creates that raced were told that they won") as refused:
        init_lake(lake)
    assert "a key is created once" not in refused.value.what
    assert not is_lake(lake)


def behind(suffix: str, before: bytes = b"") -> Callable[[str, str, int, bytes], tuple[int, bytes]]:
    """A GET of a key that ends so is answered with what was there before: nothing, or these bytes."""

    def alter(method: str, path: str, status: int, data: bytes) -> tuple[int, bytes]:
        if method != "GET" or not urlsplit(path).path.endswith(suffix):
            return status, data
        return (200, before) if before else (404, b"<Error><Code>NoSuchKey</Code><Message>not yet</Message></Error>")

    return alter


def test_a_store_that_does_not_read_its_own_writes_is_refused(bucket: str, proxy: Proxy) -> None:
    proxy.alter = behind("/read")
    with pytest.raises(Invalid, match="a write is read at once: what was written is not there"):
        init_lake(impatient(bucket))


def test_a_store_that_reads_what_was_replaced_is_refused(bucket: str, proxy: Proxy) -> None:
    proxy.alter = behind("/read", b"the state before")
    with pytest.raises(Invalid, match="a write is read at once: an older state was read"):
        init_lake(impatient(bucket))


def test_a_store_that_does_not_list_its_own_writes_is_refused(bucket: str, proxy: Proxy) -> None:
    def alter(method: str, path: str, status: int, data: bytes) -> tuple[int, bytes]:
        return status, re.sub(rb"<Contents>.*</Contents>", b"", data) if "list-1" in path else data

    proxy.alter = alter
    with pytest.raises(Invalid, match="a write is listed at once: the new key was not listed"):
        init_lake(impatient(bucket))


def test_a_store_that_goes_on_reading_what_was_deleted_is_refused(bucket: str, proxy: Proxy) -> None:
    proxy.alter = behind("/gone", b"still there")
    with pytest.raises(Invalid, match="a delete is seen at once: the deleted object was read"):
        init_lake(impatient(bucket))


def test_doctor_tells_every_promise_and_exits_as_refused(
    bucket: str, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    from lakeloop.infra.cli.lakes import doctor

    proxy.strip = ("if-none-match",)
    with pytest.raises(Refused, match="does not keep: a key is created once") as refused:
        doctor(lake=f"s3://{bucket}/lake", as_json=True)
    assert refused.value.exit_code == 3
    rows = {row["promise"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert [name for name, row in rows.items() if not row["holds"]] == [
        "a key is created once (If-None-Match)",
        "of creates that race exactly one wins",
        "a lake was made here",
    ]


def test_races_answered_by_409_are_tried_again(bucket: str, proxy: Proxy) -> None:
    proxy.answer = lambda method, path, number: 409 if is_create(method, path) and number <= 3 else 0
    lake = impatient(bucket)
    assert init_lake(lake)[1]
    revision = lake.documents.create("models", "m", {"n": 1})
    assert lake.documents.update(revision, {"n": 2}).number == 2
    with pytest.raises(LostRace):
        lake.documents.update(revision, {"n": 3})


def test_a_store_that_answers_409_for_ever_is_unavailable(bucket: str, proxy: Proxy) -> None:
    proxy.answer = lambda method, path, number: 409 if is_create(method, path) else 0
    with pytest.raises(Unavailable, match="being written by another"):
        impatient(bucket).documents.create("models", "m", {"n": 1})


def works_in_spite_of_lost_answers(bucket: str, lake: Lake) -> None:
    proofs, made = init_lake(lake)
    assert made
    assert all(proof.held for proof in proofs)
    first = lake.documents.create("models", "m", {"n": 1})
    second = lake.documents.update(first, {"n": 2})
    assert lake.documents.get("models", "m") == second
    with pytest.raises(LostRace):
        lake.documents.update(first, {"n": 3})
    kept = lake.artifacts.put("models", "m", "model.json", b"{}")
    assert lake.artifacts.get(kept.key, kept.sha256) == b"{}"
    lake.record("events", [{"kind": "k", "key": "1"}], "one")
    rows = lake.journal("events").read()
    assert rows is not None
    assert rows.num_rows == 1


def test_connections_that_break_after_each_first_write_are_survived(bucket: str, proxy: Proxy) -> None:
    proxy.answer = lambda method, path, number: DROP if is_create(method, path) and number == 1 else 0
    works_in_spite_of_lost_answers(bucket, impatient(bucket))


def test_answers_to_each_first_write_that_come_too_late_are_survived(bucket: str, proxy: Proxy) -> None:
    proxy.delay = lambda method, path, number: 5.0 if is_create(method, path) and number == 1 else 0.0
    works_in_spite_of_lost_answers(bucket, impatient(bucket, read_timeout=0.25))


def test_a_lost_answer_is_unknown_to_whoever_only_creates(bucket: str, proxy: Proxy) -> None:
    proxy.answer = lambda method, path, number: DROP if is_create(method, path) and number == 1 else 0
    store = impatient(bucket).store
    with pytest.raises(Unknown, match="may be ours") as unknown:
        store.put("key", b"1", if_absent=True)
    assert unknown.value.todo
    with pytest.raises(AlreadyExists):
        store.put("key", b"2", if_absent=True)
    assert store.get("key") == b"1"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_store_that_fails_for_a_while_is_asked_again(bucket: str, proxy: Proxy, status: int) -> None:
    proxy.answer = lambda method, path, number: status if number <= 2 else 0
    lake = impatient(bucket)
    lake.store.put("key", b"1", if_absent=True)
    assert (lake.store.get("key"), [entry.key for entry in lake.store.list()]) == (b"1", ["key"])
    lake.store.delete(["key"])


def test_connections_that_break_at_each_first_call_of_every_verb_are_survived(bucket: str, proxy: Proxy) -> None:
    proxy.answer = lambda method, path, number: DROP if number == 1 else 0
    store = impatient(bucket).store
    store.put("a/key", b"1")
    assert store.get("a/key") == b"1"
    proxy.seen.clear()
    assert [entry.key for entry in store.list("a/")] == ["a/key"]
    store.delete(["a/key"])
    assert list(store.list("a/")) == []


def test_an_answer_that_breaks_off_in_the_middle_is_asked_for_again(bucket: str, proxy: Proxy) -> None:
    store = impatient(bucket).store
    body = bytes(range(256)) * 1000
    store.put("key", body)
    proxy.answer = lambda method, path, number: CUT if method == "GET" and number <= 2 else 0
    assert store.get("key") == body
    assert store.get("key", 1000, 3000) == body[1000:3000]
    proxy.answer = lambda method, path, number: CUT if method == "GET" else 0
    with pytest.raises(NoAnswer):
        store.get("key")


def test_slow_answers_to_every_verb_are_waited_for(bucket: str, proxy: Proxy) -> None:
    proxy.delay = lambda method, path, number: 0.2
    store = impatient(bucket).store
    store.put("key", b"1", if_absent=True)
    assert store.get("key") == b"1"
    assert [entry.key for entry in store.list()] == ["key"]
    store.delete(["key"])
    assert len(proxy.seen) == 4


@pytest.mark.parametrize("status", [503, 429])
def test_a_store_that_fails_for_ever_is_unavailable_after_bounded_tries(bucket: str, proxy: Proxy, status: int) -> None:
    proxy.answer = lambda method, path, number: status
    for way in ("get", "put", "list", "delete", "put once"):
        proxy.seen.clear()
        with pytest.raises(Unavailable, match=str(status)) as error:
            everything(impatient(bucket))[way]()
        assert (error.value.exit_code, type(error.value)) == (4, Unavailable)
        assert len(proxy.seen) == 5


def test_a_write_whose_answers_are_all_lost_is_said_to_be_in_doubt_and_not_merely_unavailable(
    bucket: str, proxy: Proxy
) -> None:
    proxy.answer = lambda method, path, number: DROP if method == "PUT" else 0
    lake = impatient(bucket)
    with pytest.raises(NoAnswer, match="no answer"):
        lake.store.put("key", b"1", if_absent=True)
    assert len(proxy.seen) == 5
    assert lake.store.get("key") == b"1"
    first = lake.documents.create("models", "m", {"n": 1})  # the look finds that it is ours
    assert lake.documents.get("models", "m") == first
    proxy.answer = lambda method, path, number: DROP
    with pytest.raises(Unknown, match=r"revision 2 of models/m may or may not have been written") as unknown:
        lake.documents.update(first, {"n": 2})
    assert unknown.value.todo
    proxy.answer = lambda method, path, number: 0
    assert lake.documents.get("models", "m").body == {"n": 2}


def test_waits_between_tries_are_random_and_bounded() -> None:
    from tenacity import RetryCallState

    retrying = default_retrying()
    state = RetryCallState(retrying, None, (), {})
    for attempt, most in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8)):
        state.attempt_number = attempt
        waits = [retrying.wait(state) for _ in range(50)]
        assert len(set(waits)) > 40
        assert max(waits) <= most
    state.attempt_number = 5
    assert retrying.stop(state)


def test_a_role_whose_deletes_are_refused_and_a_store_too_busy_to_delete_are_told_apart(
    bucket: str, proxy: Proxy
) -> None:
    store = impatient(bucket).store
    store.put("key", b"1")
    code = "AccessDenied"

    def alter(method: str, path: str, status: int, data: bytes) -> tuple[int, bytes]:
        error = f"<Error><Key>lake/key</Key><Code>{code}</Code><Message></Message></Error>".encode()
        return status, b"<DeleteResult>" + error + b"</DeleteResult>" if method == "POST" else data

    proxy.alter = alter
    with pytest.raises(Denied, match="AccessDenied: lake/key was not deleted"):
        store.delete(["key"])
    code = "SlowDown"
    proxy.seen.clear()
    with pytest.raises(Unavailable, match="SlowDown"):
        store.delete(["key"])
    assert len(proxy.seen) == 5


@pytest.mark.parametrize("status", [405, 501])
def test_a_store_that_deletes_only_one_by_one_will_do(bucket: str, proxy: Proxy, status: int) -> None:
    proxy.answer = lambda method, path, number: status if method == "POST" else 0
    lake = impatient(bucket)
    assert init_lake(lake)[1]
    assert [entry.key for entry in lake.store.list()] == [keys.FORMAT]


@pytest.mark.slow
@pytest.mark.parametrize(("status", "kind"), [(503, Unavailable), (403, Denied)])
def test_a_table_that_the_store_does_not_give_is_not_said_to_be_damaged(
    bucket: str, proxy: Proxy, status: int, kind: type[LakeloopError]
) -> None:
    lake = impatient(bucket)
    lake.record("events", [{"kind": "k", "key": "1"}], "one")
    lake.journal("events").fold()
    proxy.answer = lambda method, path, number: status
    with pytest.raises(kind) as error:
        lake.table("lakeloop/events")
    assert "restore" not in error.value.todo
    check_words(error.value)
    proxy.answer = lambda method, path, number: 0
    lake.store.put("tables/lakeloop/events/_delta_log/00000000000000000002.json", b"{")
    with pytest.raises(Corrupt, match="cannot be opened"):
        lake.table("lakeloop/events")


# -- what a person must mend ---


def everything(lake: Lake) -> dict[str, Any]:
    """Each way to touch a lake first."""
    return {
        "init": lambda: init_lake(lake),
        "is_lake": lambda: is_lake(lake),
        "get": lambda: lake.store.get("key"),
        "put": lambda: lake.store.put("key", b""),
        "put once": lambda: lake.store.put("key", b"", if_absent=True),
        "create": lambda: lake.documents.create("models", "m", {}),
        "list": lambda: [*lake.store.list()],
        "delete": lambda: lake.store.delete(["key"]),
    }


def check_words(error: LakeloopError) -> None:
    assert error.todo
    assert len(str(error).splitlines()) <= 2
    assert SECRET not in f"{error!r} {error} {error.__cause__}"
    assert "moto-key" not in str(error)


@pytest.mark.parametrize("way", ["init", "is_lake", "get", "put", "create", "list", "delete"])
def test_a_bucket_that_is_not_there_is_not_found(s3: str, way: str) -> None:
    with pytest.raises(NotFound, match="no bucket 'no-such-bucket'") as error:
        everything(impatient("no-such-bucket"))[way]()
    check_words(error.value)


@pytest.mark.parametrize("way", ["init", "is_lake", "get", "put", "create", "list", "delete"])
def test_a_role_without_permission_is_denied(bucket: str, proxy: Proxy, way: str) -> None:
    proxy.answer = lambda method, path, number: 403
    with pytest.raises(Denied, match="no permission") as error:
        everything(impatient(bucket))[way]()
    check_words(error.value)
    assert "policy" in error.value.todo
    assert len(proxy.seen) <= 4  # nothing is gained by asking again


def test_a_role_that_may_not_write_is_denied_and_told_what(bucket: str, proxy: Proxy) -> None:
    proxy.answer = lambda method, path, number: 403 if method == "PUT" else 0
    with pytest.raises(Denied, match="_lake/probe") as error:
        init_lake(impatient(bucket))
    check_words(error.value)


@pytest.mark.parametrize("way", ["init", "get", "put", "list"])
def test_an_endpoint_that_does_not_answer_is_unavailable(s3: str, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    import socket

    with socket.socket() as taken:  # bound and not listening: nobody answers here
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unavailable, match="no connection to http://127") as error:
            everything(impatient("bucket-name", tries=2))[way]()
    check_words(error.value)
    assert "AWS_ENDPOINT_URL" in error.value.todo


def test_missing_credentials_are_denied_with_the_variables_to_set(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Denied, match="no AWS credentials") as error:
        init_lake(open_lake(f"s3://{bucket}"))
    assert "AWS_ACCESS_KEY_ID" in error.value.todo


def test_half_of_the_credentials_is_an_error_of_ours(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(LakeloopError) as error:
        init_lake(open_lake(f"s3://{bucket}"))
    assert error.value.todo


@pytest.mark.parametrize(("name", "value"), [("AWS_PROFILE", "no-such-profile"), ("AWS_ENDPOINT_URL", "not a url")])
def test_settings_that_cannot_be_used_are_named(
    s3: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Invalid) as error:
        open_lake("s3://bucket/prefix")
    assert name in error.value.todo


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"{}", b'{"format": "x"}'])
def test_a_damaged_format_record_is_corrupt(folder_lake: Lake, record: bytes) -> None:
    folder_lake.store.put(keys.FORMAT, record)
    with pytest.raises(Corrupt, match="cannot be read"):
        init_lake(folder_lake)


def test_a_lake_of_a_later_format_is_left_alone(folder_lake: Lake) -> None:
    folder_lake.store.put(keys.FORMAT, b'{"format": 99}')
    with pytest.raises(Invalid, match="format 99"):
        init_lake(folder_lake)


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid) as error:
        open_lake(str(tmp_path / "file"))
    assert error.value.todo
    with pytest.raises(Invalid, match="where a folder is needed"):
        init_lake(open_lake(str(tmp_path / "file" / "below")))


def test_no_credential_is_shown_by_a_lake_or_its_location(bucket: str) -> None:
    lake = open_lake(f"s3://{bucket}/lake")
    for shown in (repr(lake), repr(lake.store), repr(lake.store.location()), str(lake.store.location())):
        assert SECRET not in shown


def test_a_probe_leaves_nothing_when_it_fails(bucket: str, proxy: Proxy) -> None:
    proxy.answer = lambda method, path, number: 403 if is_create(method, path) and "/race" in path else 0
    lake = impatient(bucket)
    with pytest.raises(Denied):
        probe(lake.store)
    assert [*lake.store.list()] == []
