"""The policy of a prediction log: who is in the sample, what is hidden, and what happens when nothing can be logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.lakehouse.forgetting import Entity, hashed, only
from lakeloop.lakehouse.prediction_log import LogPolicy
from lakeloop.ray_jobs.serving.arms import Loaded
from lakeloop.ray_jobs.serving.prediction_rows import prediction_table
from lakeloop.ray_jobs.serving.recorder import Commits, Recorder
from lakeloop.ray_jobs.serving.write_ahead import (
    LogFull,
    Logged,
    LoggedColumns,
    Shape,
    WriteAhead,
    pending,
    read_piece,
    sealed_pieces,
)

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
SHAPE = Shape("p", "late", (("share", "float32"), ("customer", "int64"), ("note", "string")))
KEY = b"k" * 32
INPUTS = {"share": 0.5, "customer": 42, "note": "call back"}


def logged(name: str, inputs: dict[str, Any] = INPUTS, rows: int = 1) -> Logged:
    row = {"id": None, "as_of": AT, "prediction": 0.5, "inputs": inputs}
    return Logged(name, AT, "late", 3, "champion", 5, 0.4, [row] * rows)


def written(folder: Path) -> pa.Table:
    return pa.concat_tables(
        [prediction_table(read_piece(path)) for path in sealed_pieces(folder)], promote_options="default"
    )


@pytest.fixture
def recorder(tmp_path: Path, loaded: Callable[..., Loaded]) -> Callable[..., Recorder]:
    """A recorder by a policy, whose writer is at `.writer` of the function."""

    def make(policy: LogPolicy, **given: Any) -> Recorder:
        serving = replace(loaded(), log=policy, log_key=KEY)
        make.writer = WriteAhead(tmp_path, **given)  # type: ignore[attr-defined]
        return Recorder(make.writer, lambda: serving)  # type: ignore[attr-defined]

    return make


def test_a_sample_is_the_same_in_every_process_and_as_large_as_it_says() -> None:
    ids = [f"request-{number}" for number in range(20_000)]
    tenth, half = LogPolicy(sample=0.1), LogPolicy(sample=0.5)
    chosen = [one for one in ids if tenth.wants(one)]
    assert abs(len(chosen) - 2_000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5
    assert all(half.wants(one) for one in chosen), "a larger sample holds the smaller one"
    assert chosen[:4] == ["request-10", "request-16", "request-21", "request-25"], "fixed for all releases"
    assert not any(LogPolicy(sample=0.0).wants(one) for one in ids)
    assert all(LogPolicy().wants(one) for one in ids)


def test_rows_say_what_share_of_the_requests_is_logged(recorder: Any, tmp_path: Path) -> None:
    log, policy = recorder(LogPolicy(sample=0.25)), LogPolicy(sample=0.25)
    ids = [f"r{number}" for number in range(100)]
    for one in ids:
        log.append(SHAPE, logged(one, rows=2))
    recorder.writer.close()
    rows = written(tmp_path)
    assert Counter(rows["request_id"].to_pylist()) == {one: 2 for one in ids if policy.wants(one)}
    assert set(rows["sample_rate"].to_pylist()) == {0.25}
    assert log.dropped == 0


@pytest.mark.parametrize("columns", [False, True])
def test_private_values_are_hashed_or_dropped_before_anything_is_written(
    recorder: Any, tmp_path: Path, columns: bool
) -> None:
    log = recorder(LogPolicy(drop=frozenset(["note"]), hash=frozenset(["customer"])))
    if columns:
        values = {"share": np.array([0.5, 0.5]), "customer": np.array([42, 7]), "note": ["call back", "x"]}
        own = {"as_of": AT, "prediction": np.array([0.5, 0.5])}
        log.append(SHAPE, LoggedColumns("r", AT, "late", 3, "champion", 5, 0.4, 2, own, values))
    else:
        log.append(SHAPE, logged("r"))
        log.append(SHAPE, logged("s", {**INPUTS, "customer": 7}))
    recorder.writer.close()
    (path,) = sealed_pieces(tmp_path)
    assert b"call back" not in path.read_bytes()
    assert b":42" not in path.read_bytes()
    rows = written(tmp_path)
    assert "note" not in rows.column_names
    assert "customer" not in rows.column_names
    assert rows["customer_hash"].to_pylist() == [hashed(KEY, "customer", 42), hashed(KEY, "customer", 7)]
    assert rows["share"].to_pylist() == [0.5, 0.5]


def test_a_hash_is_what_a_tombstone_of_that_value_tells(recorder: Any, tmp_path: Path) -> None:
    log = recorder(LogPolicy(hash=frozenset(["customer"])))
    log.append(SHAPE, logged("r"))
    log.append(SHAPE, logged("s", {**INPUTS, "customer": 7}))
    log.append(SHAPE, logged("t", {**INPUTS, "customer": None}))
    recorder.writer.close()
    kept = only(KEY, Entity({"customer": "42"}), {}).drop(written(tmp_path))
    assert kept["request_id"].to_pylist() == ["s", "t"]
    assert hashed(b"x" * 32, "customer", 42) != hashed(KEY, "customer", 42)


def test_a_full_folder_refuses_or_drops_and_counts_what_it_dropped(recorder: Any, tmp_path: Path) -> None:
    refusing = recorder(LogPolicy(disk_bytes=1_000))
    recorder.writer.measured(900)
    with pytest.raises(LogFull, match="wait to be shipped"):
        refusing.append(SHAPE, logged("r"))
    dropping = recorder(LogPolicy(disk_bytes=1_000, full="drop"))
    recorder.writer.measured(900)
    assert dropping.append(SHAPE, logged("r", rows=3)) is None
    assert dropping.dropped == 3
    recorder.writer.measured(0)
    dropping.append(SHAPE, logged("s"))
    assert (dropping.dropped, pending(tmp_path)) == (3, 1)


def test_what_a_writer_adds_counts_against_the_bound_before_the_next_look(recorder: Any, tmp_path: Path) -> None:
    log = recorder(LogPolicy(disk_bytes=5_000))
    answered = 0
    with suppress(LogFull):
        for number in range(1_000):
            log.append(SHAPE, logged(str(number)))
            answered += 1
    assert 5 < answered == pending(tmp_path) < 1_000
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5_000


class Lake:
    """A journal in memory; away while `away`."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.segments: set[str] = set()
        self.away = False

    def __call__(self, name: str) -> Lake:
        return self

    def append(self, rows: pa.Table, segment: str) -> None:
        if self.away:
            raise Unavailable("the store is away")
        if segment not in self.segments:
            self.segments.add(segment)
            self.rows.update(rows["request_id"].to_pylist())


def test_a_sync_log_is_in_the_lake_before_the_answer_and_many_requests_share_a_commit(
    tmp_path: Path, loaded: Callable[..., Loaded]
) -> None:
    lake, writer = Lake(), WriteAhead(tmp_path)
    commits = Commits(writer, lake)
    log = Recorder(writer, lambda: replace(loaded(), log=LogPolicy(sync=True)), commits)
    tickets: list[tuple[str, Future[None]]] = []
    for number in range(200):
        ticket = log.append(SHAPE, logged(str(number)))
        assert ticket is not None
        tickets.append((str(number), ticket))
    for name, ticket in tickets:
        ticket.result(timeout=30)
        assert lake.rows[name] == 1
    commits.close()
    assert set(lake.rows.values()) == {1}
    assert len(lake.segments) < 200
    assert pending(tmp_path) == 0


def test_a_sync_log_whose_lake_is_away_refuses_and_brings_the_rows_later(
    tmp_path: Path, loaded: Callable[..., Loaded]
) -> None:
    lake, writer = Lake(), WriteAhead(tmp_path)
    commits = Commits(writer, lake)
    log = Recorder(writer, lambda: replace(loaded(), log=LogPolicy(sync=True)), commits)
    lake.away = True
    ticket = log.append(SHAPE, logged("one"))
    assert ticket is not None
    with pytest.raises(Unavailable, match="could not be brought to the lake"):
        ticket.result(timeout=30)
    lake.away = False
    again = log.append(SHAPE, logged("two"))
    assert again is not None
    again.result(timeout=30)
    commits.close()
    assert lake.rows == {"one": 1, "two": 1}


def test_what_nobody_expected_refuses_a_request_and_not_those_after_it(
    tmp_path: Path, loaded: Callable[..., Loaded]
) -> None:
    lake, writer, broken = Lake(), WriteAhead(tmp_path), iter([True])

    def journal(name: str) -> Any:
        if next(broken, False):
            raise RuntimeError("nobody expected this")
        return lake(name)

    commits = Commits(writer, journal)
    log = Recorder(writer, lambda: replace(loaded(), log=LogPolicy(sync=True)), commits)
    for name, error in (("one", Unavailable), ("two", None)):
        ticket = log.append(SHAPE, logged(name))
        assert ticket is not None
        assert type(ticket.exception(timeout=5)) is (error or type(None))
    commits.close()
    assert lake.rows == {"one": 1, "two": 1}
