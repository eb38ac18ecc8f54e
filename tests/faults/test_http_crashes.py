"""A journal under a crash at every HTTP request of an append, a fold and a read: each row is read exactly once, and a
second run completes."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lakeloop.lakehouse.lake import Lake
from lakeloop.tests.crashes import crashes
from lakeloop.tests.proxies import Proxy

NAME = "numbers"


def append(lake: Lake, number: int, **more: int) -> None:
    columns = {"n": [number]} | {name: [value] for name, value in more.items()}
    lake.journal(NAME).append(pa.table(columns), f"s{number:03d}")


def read(lake: Lake) -> list[int]:
    rows = lake.journal(NAME).read()
    return [] if rows is None else sorted(rows.column("n").to_pylist())


def inbox(lake: Lake) -> list[str]:
    return [entry.key for entry in lake.store.list("inbox/")]


def test_an_append_is_whole_or_not_there(bucket: str, proxy: Proxy) -> None:
    failures = []
    for lake, failure in crashes(proxy, bucket, lambda lake: append(lake, 1), lambda lake: append(lake, 2)):
        failures.append(failure)
        assert read(lake) in ([1], [1, 2]), failure
        append(lake, 2)
        assert read(lake) == [1, 2], failure
    assert [failure.split(":")[0] for failure in failures] == ["before request 1", "after request 1"]


@pytest.mark.slow
def test_the_first_fold_moves_each_row_once(bucket: str, proxy: Proxy) -> None:
    def prepare(lake: Lake) -> None:
        append(lake, 1)
        append(lake, 2, extra=7)
        lake.store.put(f"inbox/{NAME}/zz-broken", b"not a segment")

    complete(bucket, proxy, prepare, [1, 2])


@pytest.mark.slow
def test_a_fold_into_a_table_moves_each_row_once(bucket: str, proxy: Proxy) -> None:
    """Among the segments is one that was folded before and is shipped again, and one that cannot be read."""

    def prepare(lake: Lake) -> None:
        append(lake, 1)
        append(lake, 2)
        fold(lake)
        fold(lake)
        append(lake, 2)
        append(lake, 3, extra=7)
        lake.store.put(f"inbox/{NAME}/zz-broken", b"not a segment")

    complete(bucket, proxy, prepare, [1, 2, 3])


def fold(lake: Lake) -> None:
    lake.journal(NAME).fold(grace_s=-1)


def complete(bucket: str, proxy: Proxy, prepare: object, expected: list[int]) -> None:
    commits = 0
    for lake, failure in crashes(proxy, bucket, prepare, fold):  # type: ignore[arg-type]
        commits += "_delta_log" in failure
        assert read(lake) == expected, failure
        for _ in range(3):
            fold(lake)
        assert read(lake) == expected, failure
        assert inbox(lake) == [], failure
        assert lake.store.get(f"quarantine/inbox/{NAME}/zz-broken") == b"not a segment", failure
    assert commits > 2
