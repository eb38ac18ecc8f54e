"""A whole lake is copied: by `lake copy`, between folders and buckets, and by `cp -r`. The copy works where it lies,
names the old place nowhere, and ends right when it was stopped anywhere; writers of the old one need not stop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest

from lakeloop.functions.copy_lake import CHUNK, copy_lake
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied, keys, pins
from lakeloop.lakehouse.errors import Invalid, LakeloopError, NotFound, Refused, Unavailable
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.probing import init_lake, is_lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.store import Entry, Location, Store
from lakeloop.lakehouse.testing import FaultyStore, When

SHOP = parse_project(
    {
        "lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n',
        "sources/visits.toml": 'owner = "crm"\nread = { kind = "landing", format = "csv" }\nkey = ["id"]\n'
        'timeless = true\n[columns]\nid = "int64"\n',
    }
)


def fill(lake: Lake) -> str:
    """A lake with something of everything; returns the key of an artifact."""
    init_lake(lake)
    applied.publish(lake, SHOP, code_version="1")
    for file, rows in (("a.csv", "id\n1\n2\n"), ("b.csv", "id\n3\nx\n")):
        land(lake, SHOP, "visits", file, rows.encode())
        ingest_data(lake, SHOP)
    land(lake, SHOP, "visits", "waits.csv", b"id\n9\n")
    first = lake.documents.create("models", "m", {"n": 1})
    lake.documents.update(first, {"n": 2})
    table = lake.tables.open("shop/visits", version=1)
    assert table is not None
    pins.hold(lake, pins.pin_of(table), "a run")
    kept = lake.artifacts.put("models", "m", "model.bin", bytes(range(256)) * 5000)
    count(lake, "folded", 0, 3)
    lake.journal("counts").fold()
    lake.table("lakeloop/counts").checkpoint()  # type: ignore[union-attr]
    count(lake, "waiting", 3, 5)
    lake.store.put(keys.event("landed", "shop"), b"{}")
    lake.store.put("online/shop/view/1/abc.arrow", b"snapshot")
    return kept.key


def count(lake: Lake, segment: str, start: int, stop: int) -> None:
    lake.journal("counts").append(pa.table({"n": list(range(start, stop))}), segment)


def counted(lake: Lake) -> list[int]:
    rows = lake.journal("counts").read()
    return sorted(rows.column("n").to_pylist()) if rows is not None else []


def works(lake: Lake, artifact: str) -> None:
    """All of it is there, and the lake goes on."""
    assert is_lake(lake)
    visits = 'select id from "shop"."visits{}" order by id'
    assert [row["id"] for row in lake.sql(visits.format("")).to_pylist()] == [1, 2, 3]
    assert [row["id"] for row in lake.sql(visits.format("@1")).to_pylist()] == [1, 2]
    pin = pins.find_pin(lake, "shop/visits", 1)
    assert len(pin.uris(lake)) == 1
    assert pin.uris(lake)[0].startswith(lake.url)
    assert counted(lake) == [0, 1, 2, 3, 4]
    assert [r.body["n"] for r in lake.documents.history("models", "m")] == [2, 1]
    assert len(lake.artifacts.get(artifact, artifact.rsplit("/", 1)[1])) == 1_280_000
    project, _ = applied.load(lake, "shop")
    assert [(one.file, one.rows) for one in ingest_data(lake, project)] == [("waits.csv", 1)]
    assert [row["id"] for row in lake.sql(visits.format("")).to_pylist()] == [1, 2, 3, 9]
    count(lake, "later", 5, 6)
    lake.journal("counts").fold()
    lake.journal("counts").fold(grace_s=-1)
    assert counted(lake) == [0, 1, 2, 3, 4, 5]
    assert list(lake.store.list("inbox/counts/")) == []
    lake.documents.update(lake.documents.get("models", "m"), {"n": 3})


def contents(store: Store) -> dict[str, bytes]:
    return {entry.key: store.get(entry.key) for entry in store.list()}


@pytest.fixture(params=["folder to folder", "folder to S3", "S3 to folder", "S3 to S3"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Lake, Lake]:
    """Where a lake lies, and where it is copied to."""

    def place(kind: str, name: str) -> Lake:
        url = str(tmp_path / name) if kind == "folder" else f"s3://{request.getfixturevalue('bucket')}/{name}"
        return open_lake(url, who="tester")

    source, _, target = request.param.partition(" to ")
    return place(source, "the-old-place"), place(target, "the-new-place")


def test_a_copied_lake_is_the_same_and_works_where_it_lies(places: tuple[Lake, Lake]) -> None:
    source, target = places
    artifact = fill(source)
    was = contents(source.store)
    done = copy_lake(source, target)
    copied = contents(target.store)
    assert copied == was == contents(source.store)
    assert (done.objects, done.size) == (len(was) - 1, sum(map(len, was.values())) - len(was[keys.FORMAT]))
    assert not [key for key, data in copied.items() if b"the-old-place" in data or source.url.encode() in data]
    works(target, artifact)
    assert contents(source.store) == was  # no longer one lake
    works(source, artifact)


def test_a_lake_copied_by_cp_is_the_same_and_works_where_it_lies(tmp_path: Path) -> None:
    source = open_lake(str(tmp_path / "the-old-place"), who="tester")
    artifact = fill(source)
    shutil.copytree(tmp_path / "the-old-place", tmp_path / "the-new-place")
    target = open_lake(str(tmp_path / "the-new-place"), who="tester")
    assert not [key for key, data in contents(target.store).items() if b"the-old-place" in data]
    shutil.rmtree(tmp_path / "the-old-place")
    works(target, artifact)


# -- whose place it is ---


def test_a_finished_copy_is_left_alone(tmp_path: Path) -> None:
    source, target = open_lake(str(tmp_path / "a")), open_lake(str(tmp_path / "b"))
    fill(source)
    assert not copy_lake(source, target).finished_before
    count(target, "its-own", 5, 6)
    was = contents(target.store)
    done = copy_lake(source, target)
    assert (done.finished_before, done.objects) == (True, 0)
    assert contents(target.store) == was


def test_another_lake_and_other_files_are_not_overwritten(tmp_path: Path) -> None:
    source, other = open_lake(str(tmp_path / "a")), open_lake(str(tmp_path / "b"))
    fill(source)
    init_lake(other)
    with pytest.raises(Refused, match="another lake lies there; nothing was written") as refused:
        copy_lake(source, other)
    assert refused.value.exit_code == 3
    third = open_lake(str(tmp_path / "c"))
    third.store.put("holiday.jpg", b"sea")
    with pytest.raises(Refused, match="not empty"):
        copy_lake(source, third)
    assert contents(third.store) == {"holiday.jpg": b"sea"}
    fourth = open_lake(str(tmp_path / "d"))
    fourth.store.put(keys.COPYING, json.dumps({"write": "somebody's"}).encode())
    with pytest.raises(Refused, match="unfinished copy of another lake"):
        copy_lake(source, fourth)


def test_what_is_no_lake_and_a_place_within_the_lake_are_refused(tmp_path: Path) -> None:
    source = open_lake(str(tmp_path / "a"))
    with pytest.raises(NotFound, match="no lake here"):
        copy_lake(source, open_lake(str(tmp_path / "b")))
    fill(source)
    for url in (tmp_path / "a", tmp_path / "a" / "within", tmp_path):
        with pytest.raises(Invalid, match="into itself"):
            copy_lake(source, open_lake(str(url)))


# -- stopped anywhere ---


def test_a_copy_whose_process_was_killed_ends_right_when_it_is_repeated(tmp_path: Path) -> None:
    source, target = open_lake(str(tmp_path / "a")), open_lake(str(tmp_path / "b"))
    fill(source)
    program = f"""
import os
from lakeloop.functions.copy_lake import copy_lake
from lakeloop.lakehouse.lake import open_lake
def watch(done):
    if done.objects == {{}}:
        os.kill(os.getpid(), 9)
copy_lake(open_lake({source.url!r}), open_lake({target.url!r}), progress=watch)
"""
    for objects in (3, 9):
        assert subprocess.run([sys.executable, "-c", program.format(objects)]).returncode == -9
        assert not is_lake(target)
    assert copy_lake(source, target).there >= 5
    assert contents(target.store) == contents(source.store)


def test_a_copy_that_was_stopped_anywhere_ends_right_when_it_is_repeated(tmp_path: Path) -> None:
    source = open_lake(str(tmp_path / "a"), who="tester")
    fill(source)
    was = contents(source.store)
    whole = FaultyStore(open_lake(str(tmp_path / "whole")).store)
    copy_lake(source, Lake(whole, "tester"))
    times: tuple[When, ...] = ("before", "after")
    stops = 0
    for when in times:
        for at in range(1 + (when == "after"), len(whole.calls) + 1, 2):
            place = open_lake(str(tmp_path / f"{when}-{at}"))
            faulty = FaultyStore(place.store, at, when)
            with suppress(Unavailable):  # what is not there is not there, also "after"
                copy_lake(source, Lake(faulty, "tester"))
                continue
            stops += 1
            assert not is_lake(place) or keys.COPYING in faulty.calls[-1] or keys.FORMAT in faulty.calls[-1]
            copy_lake(source, place)
            assert contents(place.store) == was, f"{when} call {at}: {faulty.calls[at - 1]}"
            shutil.rmtree(tmp_path / f"{when}-{at}")
    assert stops > len(whole.calls) - 5


def test_a_repeated_copy_does_not_copy_again_what_it_has(tmp_path: Path) -> None:
    source, target = open_lake(str(tmp_path / "a")), open_lake(str(tmp_path / "b"))
    fill(source)
    faulty = FaultyStore(target.store)
    copy_lake(source, Lake(faulty, "tester"))
    target.store.delete([keys.FORMAT])
    target.store.put(keys.COPYING, source.store.get(keys.FORMAT))
    counting = FaultyStore(target.store)
    again = copy_lake(source, Lake(counting, "tester"))
    puts = [call.split()[1] for call in counting.calls if call.startswith("put ")]
    assert again.there > 20
    assert again.objects == len(puts) - 1
    assert not [key for key in puts if key.startswith(("docs/", "artifacts/", "inbox/", "raw/"))]


# -- while writers go on ---


class Busy:
    """A store whose owner works on, by one step at each call that reads it."""

    def __init__(self, store: Store, steps: Iterator[Callable[[], object]]) -> None:
        self._store, self._steps = store, steps
        self.url = store.url

    def _step(self) -> None:
        next(self._steps, lambda: None)()

    def location(self) -> Location:
        return self._store.location()

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        self._step()
        return self._store.get(key, start, stop)

    def put(self, key: str, body: bytes | BinaryIO, *, if_absent: bool = False) -> None:
        raise AssertionError("the source is only read")

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[Entry]:
        self._step()
        found = [*self._store.list(prefix, after=after, limit=limit, delimiter=delimiter)]
        self._step()
        return iter(found)

    def delete(self, keys: Iterable[str]) -> None:
        raise AssertionError("the source is only read")


def work_on(lake: Lake, project: Project, quiet: int) -> Iterator[Callable[[], object]]:
    """What writers do from the `quiet`-th call on: all that moves rows from one place to another."""
    for _ in range(quiet):
        yield lambda: None
    journal = lake.journal("counts")
    for number in range(5, 400):
        yield lambda n=number: count(lake, f"busy-{n:04d}", n, n + 1)  # type: ignore[misc]
        yield journal.fold
        yield lambda: journal.fold(grace_s=-1)
        yield lambda n=number: land(lake, project, "visits", f"busy-{n}.csv", f"id\n{n + 100}\n".encode())  # type: ignore[misc]
        yield lambda: ingest_data(lake, project)


@pytest.mark.parametrize("quiet", range(0, 40, 7))
def test_no_row_is_lost_or_doubled_when_writers_go_on(tmp_path: Path, quiet: int) -> None:
    source, target = open_lake(str(tmp_path / "a"), who="tester"), open_lake(str(tmp_path / "b"), who="tester")
    fill(source)
    busy = Lake(Busy(source.store, work_on(source, SHOP, quiet)), "tester")
    copy_lake(busy, target)
    ingest_data(target, SHOP)
    for rows, least in ((counted(target), {*range(5)}), (visited(target), {1, 2, 3, 9})):
        assert sorted({*rows}) == rows, "a row is doubled"
        assert {*rows} >= least, "a row is lost"
        assert {*rows} <= {*counted(source), *visited(source)}
    missing = {*range(max(counted(target)))} - {*counted(target)}
    assert not missing, "what came before something that was copied is not there"


def visited(lake: Lake) -> list[int]:
    return sorted(row["id"] for row in lake.sql("select id from shop.visits").to_pylist())


def test_a_table_whose_log_is_cleaned_while_it_is_copied_is_begun_anew(tmp_path: Path) -> None:
    source, target = open_lake(str(tmp_path / "a"), who="tester"), open_lake(str(tmp_path / "b"), who="tester")
    fill(source)

    def clean() -> None:
        log = sorted(entry.key for entry in source.store.list("tables/lakeloop/counts/_delta_log/"))
        source.store.delete([key for key in log if key.endswith("000.json")])

    listed = "tables/lakeloop/counts/_delta_log/"

    class Cleaned(Busy):
        def list(self, prefix: str = "", **asked: Any) -> Iterator[Entry]:
            found = [*self._store.list(prefix, **asked)]
            if prefix == listed:
                clean()
            return iter(found)

    copy_lake(Lake(Cleaned(source.store, iter(())), "tester"), target)
    assert counted(target) == [0, 1, 2, 3, 4]
    assert contents(target.store) == contents(source.store)


# -- large objects, progress, the command ---


def test_a_large_object_is_read_by_ranges_and_a_change_of_it_meanwhile_is_noticed(tmp_path: Path) -> None:
    source, target = open_lake(str(tmp_path / "a")), open_lake(str(tmp_path / "b"))
    fill(source)
    large = bytes(range(256)) * (CHUNK // 100)
    key = f"{keys.landing('shop', 'visits')}large.csv"
    source.store.put(key, large)
    reads: list[int] = []

    class Watched(Busy):
        def get(self, asked: str, start: int = 0, stop: int | None = None) -> bytes:
            data = self._store.get(asked, start, stop)
            if asked == key:
                reads.append(len(data))
                if len(reads) == 2:
                    source.store.put(key, large[::-1])
            return data

    copy_lake(Lake(Watched(source.store, iter(())), "tester"), target)
    assert target.store.get(key) == large[::-1]
    assert max(reads) <= CHUNK
    assert sum(reads) > 3 * len(large)  # copied, found to be another, copied, and found to be the same


def test_progress_is_told_for_each_object(tmp_path: Path) -> None:
    source, target = open_lake(str(tmp_path / "a")), open_lake(str(tmp_path / "b"))
    fill(source)
    told: list[tuple[str, int]] = []
    done = copy_lake(source, target, progress=lambda one: told.append((one.part, one.objects)))
    assert len(told) == done.objects
    assert {part for part, _ in told} >= {"inbox/", "landing/", "shop/visits", "artifacts/", "docs/"}
    assert done.tables == 2


def test_the_command_says_what_it_did_and_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lakeloop.infra.cli.lakes import copy

    source = open_lake(str(tmp_path / "a"))
    fill(source)
    copy(str(tmp_path / "b"), lake=str(tmp_path / "a"))
    said = capsys.readouterr().err
    assert "copied" in said
    assert "tables" in said
    assert f"next: lakeloop status --lake {tmp_path / 'b'}" in said
    copy(str(tmp_path / "b"), lake=str(tmp_path / "a"))
    assert "is a whole copy of this lake already" in capsys.readouterr().err
    with pytest.raises(LakeloopError):
        copy("ftp://elsewhere", lake=str(tmp_path / "a"))
