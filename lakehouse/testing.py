"""What proves a store: the contract that every adapter, and every vendor's bucket, must pass; and a store that fails
when it is told to.

Subclass `StoreContract` under pytest and give it a fixture `store`, empty and used by nobody else:

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> Store: ...
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Literal, TypeVar

from lakeloop.lakehouse.errors import AlreadyExists, Invalid, LakeloopError, NotFound, Unavailable, Unknown
from lakeloop.lakehouse.store import Entry, Location, Store

T = TypeVar("T")
RACERS = 8
When = Literal["before", "after"]


def raised(kind: type[LakeloopError], call: Callable[[], object]) -> LakeloopError:
    """The error of this kind that the call raises; an assertion fails when it raises none."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised; the answer was {answer!r}")


class StoreContract:
    """The promises of `lakehouse.store.Store`. No test depends on another, on time, or on a prefix being absent."""

    # -- get and put ---

    def test_what_was_put_is_read(self, store: Store) -> None:
        for body in (b"", b"\x00\xff bytes", b"x" * 1_500_000):
            store.put("a/object", body)
            assert store.get("a/object") == body

    def test_a_stream_is_written_whole(self, store: Store) -> None:
        store.put("streamed", io.BytesIO(b"0123456789" * 50_000))
        assert store.get("streamed") == b"0123456789" * 50_000

    def test_a_range_is_half_open_and_ends_with_the_object(self, store: Store) -> None:
        store.put("digits", b"0123456789")
        assert [store.get("digits", *part) for part in ((0, 3), (3, 4), (7,), (8, 99), (10,), (50, 60), (4, 4))] == [
            b"012",
            b"3",
            b"789",
            b"89",
            b"",
            b"",
            b"",
        ]

    def test_an_absent_key_is_not_found(self, store: Store) -> None:
        store.put("there/one", b"1")
        for key in ("absent", "there", "there/one/below", "there/two"):
            raised(NotFound, lambda key=key: store.get(key))  # type: ignore[misc]

    def test_a_put_replaces_the_whole_object(self, store: Store) -> None:
        store.put("same", b"a long first body")
        store.put("same", b"short")
        assert store.get("same") == b"short"

    def test_a_key_that_is_none_is_refused_everywhere(self, store: Store) -> None:
        for key in (
            "",
            "/absolute",
            "a//b",
            "a/",
            "../up",
            "a/../b",
            "a/./b",
            "a\\b",
            "line\nbreak",
            "nul\0",
            "del\x7f",
            "half \ud83d",
            "x" * 256,
            "é" * 128,
            "x/" * 512 + "x",
        ):
            raised(Invalid, lambda key=key: store.get(key))  # type: ignore[misc]
            raised(Invalid, lambda key=key: store.put(key, b""))  # type: ignore[misc]
            raised(Invalid, lambda key=key: store.put(key, b"", if_absent=True))  # type: ignore[misc]
            raised(Invalid, lambda key=key: store.delete([key]))  # type: ignore[misc]

    def test_a_prefix_that_no_key_can_have_is_refused(self, store: Store) -> None:
        for prefix in ("/", "/absolute", "a//b", "../", "a/../b", "./", "a\\b", "line\nbreak", "half \ud83d"):
            raised(Invalid, lambda prefix=prefix: list(store.list(prefix)))  # type: ignore[misc]

    # -- the one precondition ---

    def test_a_key_is_created_once(self, store: Store) -> None:
        store.put("once", b"first", if_absent=True)
        raised(AlreadyExists, lambda: store.put("once", b"second", if_absent=True))
        raised(AlreadyExists, lambda: store.put("once", io.BytesIO(b"third"), if_absent=True))
        assert store.get("once") == b"first"

    def test_a_key_may_be_created_again_after_it_was_deleted(self, store: Store) -> None:
        store.put("again", b"first", if_absent=True)
        store.delete(["again"])
        store.put("again", b"second", if_absent=True)
        assert store.get("again") == b"second"

    def test_of_creates_that_race_one_wins_and_its_bytes_stay(self, store: Store) -> None:
        def race(key: str) -> list[int]:
            start = threading.Barrier(RACERS)

            def create(number: int) -> int | None:
                start.wait()
                try:
                    store.put(key, b"%d" % number * 1000, if_absent=True)
                except AlreadyExists:
                    return None
                return number

            with ThreadPoolExecutor(RACERS) as pool:
                return [number for number in pool.map(create, range(RACERS)) if number is not None]

        for turn in range(5):
            winners = race(f"race/{turn}")
            assert len(winners) == 1
            assert store.get(f"race/{turn}") == b"%d" % winners[0] * 1000

    def test_a_reader_sees_the_old_bytes_or_the_new(self, store: Store) -> None:
        bodies = [bytes([65 + n]) * 300_000 for n in range(4)]
        store.put("whole", bodies[0])
        with ThreadPoolExecutor(4) as pool:
            writes = [pool.submit(store.put, "whole", body) for body in bodies * 3]
            seen = [store.get("whole") for _ in range(20)]
            for write in writes:
                write.result()
        assert set(seen) <= set(bodies)

    # -- list ---

    KEYS = (
        "a",
        "a-b/c",
        "a.txt",
        "a0",
        "b/",
        "b/a",
        "b/a.b",
        "b/c/d",
        "b/c-/e",
        "b/ü",
        "b/ z",
        "b/é&+%20=?",
        "c/~",
        "d/日本/一",
        "d/𝄞",
        "d/\uffee",
    )

    def _filled(self, store: Store) -> list[str]:
        keys = [key for key in self.KEYS if not key.endswith("/")]
        for key in reversed(keys):
            store.put(key, key.encode())
        return sorted(keys, key=str.encode)

    def test_a_list_is_in_the_order_of_the_bytes_of_the_keys(self, store: Store) -> None:
        keys = self._filled(store)
        assert [entry.key for entry in store.list()] == keys
        assert [store.get(key) for key in keys] == [key.encode() for key in keys]

    def test_a_list_by_prefix_may_end_within_a_name(self, store: Store) -> None:
        keys = self._filled(store)
        for prefix in ("a", "b/", "b/c", "b/c/", "d/日", "nothing", "b/a.b", "b/a.b/c"):
            assert [entry.key for entry in store.list(prefix)] == [key for key in keys if key.startswith(prefix)], (
                prefix
            )

    def test_a_list_goes_on_after_any_key(self, store: Store) -> None:
        keys = self._filled(store)
        for after in (*keys, "b/c", "a-", "zzz"):
            assert [entry.key for entry in store.list(after=after)] == [
                key for key in keys if key.encode() > after.encode()
            ], after
        assert [entry.key for entry in store.list("b/", after="b/c-/e")] == [
            key for key in keys if key.startswith("b/") and key.encode() > b"b/c-/e"
        ]

    def test_a_list_is_limited(self, store: Store) -> None:
        keys = self._filled(store)
        for limit in (0, 1, 3, 99):
            assert [entry.key for entry in store.list(limit=limit)] == keys[:limit]

    def test_a_delimiter_gives_each_folder_once(self, store: Store) -> None:
        self._filled(store)
        assert [entry.key for entry in store.list(delimiter="/")] == ["a", "a-b/", "a.txt", "a0", "b/", "c/", "d/"]
        assert [entry.key for entry in store.list("b/", delimiter="/")] == sorted(
            ["b/ z", "b/a", "b/a.b", "b/c-/", "b/c/", "b/é&+%20=?", "b/ü"], key=str.encode
        )
        assert [entry.key for entry in store.list("b/c", delimiter="/")] == ["b/c-/", "b/c/"]
        assert [entry.key for entry in store.list("b/c", delimiter="/", limit=1)] == ["b/c-/"]

    def test_many_keys_come_in_pages_without_a_gap(self, store: Store) -> None:
        keys = [f"many/{number:05d}" for number in range(1007)]
        with ThreadPoolExecutor(RACERS) as pool:
            list(pool.map(lambda key: store.put(key, b""), keys))
        assert [entry.key for entry in store.list("many/")] == keys
        assert [entry.key for entry in store.list("many/", limit=1003)] == keys[:1003]
        store.delete(keys)
        assert list(store.list("many/")) == []

    def test_an_entry_tells_size_and_age(self, store: Store) -> None:
        store.put("x/small", b"123")
        store.put("x/empty", b"")
        entries = {entry.key: entry for entry in store.list("x/")}
        assert {key: entry.size for key, entry in entries.items()} == {"x/small": 3, "x/empty": 0}
        assert all(0 <= entry.age_s < 600 for entry in entries.values())

    def test_a_write_and_a_delete_are_listed_at_once(self, store: Store) -> None:
        for turn in range(5):
            store.put("seen/one", b"%d" % turn)
            assert [entry.key for entry in store.list("seen/")] == ["seen/one"]
            store.delete(["seen/one"])
            assert list(store.list("seen/")) == []

    # -- delete ---

    def test_a_delete_may_be_repeated(self, store: Store) -> None:
        store.put("gone/a", b"")
        store.put("gone/b", b"")
        store.put("stays", b"")
        for _ in range(2):
            store.delete(["gone/a", "never/was", "gone/b", "stays/below"])
        assert [entry.key for entry in store.list()] == ["stays"]
        store.delete([])

    def test_writes_and_deletes_in_one_folder_do_not_disturb_each_other(self, store: Store) -> None:
        def churn(number: int) -> None:
            for turn in range(30):
                key = f"churn/{turn % 2}/{number}-{turn}"
                store.put(key, b"x", if_absent=True)
                assert store.get(key) == b"x"
                store.delete([key])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(churn, range(4)))
        assert list(store.list("churn/")) == []

    def test_a_store_has_an_address(self, store: Store) -> None:
        assert store.url
        assert "secret" not in repr(store).lower()


class FaultyStore:
    """A store around a store whose `fail_at`-th call (1 is the first) fails, before it takes effect or after.

    `error` is what the caller sees; after it every call works again. `calls` names each call that was made, so that a
    sweep knows where to end.
    """

    def __init__(
        self, store: Store, fail_at: int = 0, when: When = "before", error: LakeloopError | None = None
    ) -> None:
        self._store, self._fail_at, self._when = store, fail_at, when
        self._error = error or Unavailable(f"made to fail at call {fail_at}")
        self._lock = threading.Lock()
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def failed(self) -> bool:
        """Whether the call that must fail was made."""
        return 0 < self._fail_at <= len(self.calls)

    def location(self) -> Location:
        return self._store.location()

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        return self._call("get", key, lambda: self._store.get(key, start, stop))

    def put(self, key: str, body: bytes | BinaryIO, *, if_absent: bool = False) -> None:
        self._call("put", key, lambda: self._store.put(key, body, if_absent=if_absent))

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[Entry]:
        return self._call(
            "list", prefix, lambda: iter([*self._store.list(prefix, after=after, limit=limit, delimiter=delimiter)])
        )

    def delete(self, keys: Iterable[str]) -> None:
        names = [*keys]
        self._call("delete", " ".join(names), lambda: self._store.delete(names))

    def _call(self, verb: str, key: str, call: Callable[[], T]) -> T:
        with self._lock:
            self.calls.append(f"{verb} {key}")
            fails = len(self.calls) == self._fail_at
        if fails and self._when == "before":
            raise self._error
        answer = call()
        if fails:
            raise self._error
        return answer


def lost_answer() -> LakeloopError:
    """What S3 gives for a conditional put whose first answer was lost."""
    return Unknown("the answer was lost; the write may be ours", todo="read it before writing again")
