"""The watcher: newest revision in, and the old one stays while the new one cannot be loaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.errors import Corrupt, Unavailable
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.ray_jobs.serving.arms import Loaded
from lakeloop.ray_jobs.serving.loading import load_with
from lakeloop.ray_jobs.serving.watcher import RETRY_S, Watcher


class Bench:
    """A lake with one endpoint, a watcher on it, and a record of what was loaded."""

    def __init__(self, name: str, scorer: Callable[..., Scorer]) -> None:
        self.lake: Lake = open_lake(f"memory://{name}")
        self.scorer, self.loads, self.broken, self.now = scorer, [], set[int](), 0.0
        first = self.lake.documents.create("endpoints", "p.late", self.body(1))
        self.watcher = Watcher(first, self.newer, self.load, monotonic=lambda: self.now)

    def body(self, version: int, **more: object) -> dict[str, object]:
        return {"model": "late", "arms": [{"version": version, "weight": 10_000, "name": "champion"}], **more}

    def promote(self, version: int, **more: object) -> None:
        self.lake.documents.update(self.lake.documents.get("endpoints", "p.late"), self.body(version, **more))

    def newer(self, number: int) -> Revision | None:
        return self.lake.documents.next("endpoints", "p.late", number)

    def load(self, revision: Revision, previous: Loaded | None) -> Loaded:
        return load_with(self.load_scorer, self.lake, "p", "late", revision, previous)

    def load_scorer(self, lake: Lake, project: str, model: str, version: int, snapshots: object) -> Scorer:
        self.loads.append(version)
        if version in self.broken:
            raise Corrupt(f"version {version} is broken")
        return self.scorer(version)

    @property
    def serving(self) -> int:
        return self.watcher.loaded.champion.version


@pytest.fixture
def bench(request: pytest.FixtureRequest, scorer: Callable[..., Scorer]) -> Bench:
    return Bench(request.node.name, scorer)


def test_without_a_new_revision_nothing_is_loaded(bench: Bench) -> None:
    assert not bench.watcher.step()
    assert bench.loads == [1]


def test_a_new_revision_serves_after_one_step(bench: Bench) -> None:
    bench.promote(2)
    assert bench.watcher.step()
    assert (bench.serving, bench.watcher.loaded.revision) == (2, 2)


def test_of_several_new_revisions_only_the_newest_is_loaded(bench: Bench) -> None:
    for version in (2, 3, 4):
        bench.promote(version)
    bench.watcher.step()
    assert bench.serving == 4
    assert bench.loads == [1, 4]


def test_a_version_that_stays_is_not_loaded_again(bench: Bench) -> None:
    kept = bench.watcher.loaded.champion.scorer
    bench.promote(1)
    bench.watcher.step()
    assert bench.watcher.loaded.revision == 2
    assert bench.watcher.loaded.champion.scorer is kept


def test_a_new_snapshot_is_loaded_although_the_version_stays(bench: Bench) -> None:
    bench.promote(1, snapshots={"weather": {"version": "v2", "key": "k", "sha256": "s"}})
    bench.watcher.step()
    assert bench.loads == [1, 1]


def test_what_cannot_be_loaded_leaves_the_old_serving_and_says_why(bench: Bench) -> None:
    bench.broken.add(2)
    bench.promote(2)
    bench.watcher.try_step()
    assert bench.serving == 1
    assert "version 2 is broken" in bench.watcher.error
    assert (bench.watcher.wanted, bench.watcher.loaded.revision) == (2, 1)


def test_a_failed_load_is_tried_again_after_a_while_and_not_at_every_poll(bench: Bench) -> None:
    bench.broken.add(2)
    bench.promote(2)
    bench.watcher.try_step()
    bench.broken.clear()
    bench.watcher.try_step()
    assert bench.loads == [1, 2]
    bench.now = RETRY_S
    bench.watcher.try_step()
    assert (bench.serving, bench.watcher.error) == (2, "")


def test_a_newer_revision_replaces_one_that_failed_at_once(bench: Bench) -> None:
    bench.broken.add(2)
    bench.promote(2)
    bench.watcher.try_step()
    bench.promote(3)
    bench.watcher.try_step()
    assert (bench.serving, bench.watcher.error) == (3, "")


def test_a_revision_without_arms_leaves_the_old_serving(bench: Bench) -> None:
    bench.lake.documents.update(bench.lake.documents.get("endpoints", "p.late"), {"model": "late", "arms": []})
    bench.watcher.try_step()
    assert bench.serving == 1
    assert "no version answers" in bench.watcher.error


def test_a_poll_that_fails_is_kept_as_the_error(scorer: Callable[..., Scorer]) -> None:
    bench = Bench("a-poll-that-fails", scorer)

    def away(number: int) -> Revision | None:
        raise Unavailable("the store is away")

    watcher = Watcher(bench.lake.documents.get("endpoints", "p.late"), away, bench.load)
    watcher.try_step()
    assert watcher.error == "the store is away"


def test_a_model_that_does_not_answer_its_own_example_is_not_served(bench: Bench) -> None:
    class Silent:
        def predict(self, model: object, matrix: object) -> None:
            raise ValueError("no such thing")

    whole = bench.scorer
    bench.scorer = lambda version: Scorer(whole(version).signature, Silent(), None, None, {}, version)
    bench.promote(2)
    bench.watcher.try_step()
    assert bench.serving == 1
    assert "late@2 does not answer its own example" in bench.watcher.error
