"""A request whose rows have several arms: each row its own, one answer in the rows' order, and each logged once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.scoring.matrix import Matrix
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Input, Signature
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.inference import Inference
from lakeloop.ray_jobs.serving.prediction_rows import prediction_table
from lakeloop.ray_jobs.serving.tensors import InferRequest, Tensor
from lakeloop.ray_jobs.serving.write_ahead import WriteAhead, read_piece, sealed_pieces

ROWS = 40


class Fails:
    """A model that answers nothing."""

    def predict(self, model: Any, matrix: Any) -> np.ndarray:
        raise RuntimeError("no such column")


class Place:
    """An endpoint that splits evenly by origin's row id, and its log."""

    def __init__(self, folder: Path, scorer: Callable[..., Scorer], now: datetime) -> None:
        arms = Arm("champion", 1, 5000, scorer(1)), Arm("canary", 2, 5000, scorer(2))
        self.loaded, self.folder, self.log = Loaded("late", 9, arms), folder, WriteAhead(folder)
        self.inference = Inference(
            "flights", "late", loaded=lambda: self.loaded, append=self.log.append, state=dict, clock=lambda: now
        )

    def ask(self, rows: Sequence[Mapping[str, Any]], version: str | None = None) -> Mapping[str, Any]:
        return asyncio.run(self.inference.rows(rows, "r", version, time.perf_counter()))

    def version_of(self, key: str) -> int:
        return self.loaded.arm_for("late", key).version

    def logged(self) -> dict[str, tuple[int, str | None]]:
        self.log.close()
        tables = [prediction_table(read_piece(path)) for path in sealed_pieces(self.folder)]
        rows = [row for table in tables for row in table.to_pylist()]
        assert len({row["prediction_id"] for row in rows}) == len(rows)
        return {row["prediction_id"]: (row["version"], row["id"]) for row in rows}


@pytest.fixture
def place(tmp_path: Path, scorer: Callable[..., Scorer], now: datetime) -> Place:
    return Place(tmp_path, scorer, now)


def rows_of(count: int = ROWS) -> list[dict[str, Any]]:
    return [{"id": f"u{n}", "share": n / count, "origin": "EWR", "temp": 1.0} for n in range(count)]


def test_each_row_is_answered_by_its_own_arm_in_the_order_of_the_rows_and_logged_once(place: Place) -> None:
    answer = place.ask(rows_of())
    assert [row["id"] for row in answer["rows"]] == [f"u{n}" for n in range(ROWS)]
    assert [row["prediction"] for row in answer["rows"]] == pytest.approx([n / ROWS for n in range(ROWS)])
    assert [row["version"] for row in answer["rows"]] == [place.version_of(f"u{n}") for n in range(ROWS)]
    assert {row["version"] for row in answer["rows"]} == {1, 2}
    assert answer["version"] == 1
    assert place.logged() == {f"r#{n}": (place.version_of(f"u{n}"), f"u{n}") for n in range(ROWS)}


def test_a_row_has_the_arm_in_company_that_it_has_alone(place: Place) -> None:
    together = place.ask(rows_of())["rows"]
    alone = [place.ask([row]) for row in rows_of()]
    assert [row["version"] for row in together] == [one["version"] for one in alone]
    assert "version" not in alone[0]["rows"][0]


def test_rows_of_one_key_are_one_arms(place: Place) -> None:
    place.loaded = replace(place.loaded, sticky="origin")
    answer = place.ask(rows_of())
    assert answer["version"] == place.version_of("EWR")
    assert "version" not in answer["rows"][0]


def test_a_request_without_ids_is_one_arms(place: Place) -> None:
    rows = [{name: value for name, value in row.items() if name != "id"} for row in rows_of()]
    assert place.ask(rows)["version"] == place.version_of("r")


def test_a_version_that_is_asked_for_answers_all(place: Place) -> None:
    answer = place.ask(rows_of(), "2")
    assert answer["version"] == 2
    assert {version for version, _ in place.logged().values()} == {2}


def test_rows_of_an_arm_that_fails_are_the_champions(place: Place) -> None:
    champion, canary = place.loaded.arms
    broken = Scorer(canary.scorer.signature, Fails(), None, None, canary.scorer.lookups, 2)
    place.loaded = replace(place.loaded, arms=(champion, replace(canary, scorer=broken)))
    answer = place.ask(rows_of())
    assert answer["version"] == 1
    assert {version for version, _ in place.logged().values()} == {1}
    assert canary.tally.counted().errors == 1


def test_a_version_that_is_asked_for_is_answered_for_by_no_other(place: Place) -> None:
    champion, canary = place.loaded.arms
    broken = Scorer(canary.scorer.signature, Fails(), None, None, canary.scorer.lookups, 2)
    place.loaded = replace(place.loaded, arms=(champion, replace(canary, scorer=broken)))
    with pytest.raises(RuntimeError, match="no such column"):
        place.ask(rows_of(), "2")
    share = Tensor("share", "FP32", (1,), np.array([0.5], np.float32))
    with pytest.raises(RuntimeError, match="no such column"):
        asyncio.run(place.inference.infer(InferRequest((share,)), "2"))
    assert place.logged() == {}
    assert (canary.tally.counted().errors, champion.tally.counted().requests) == (2, 0)


def test_of_a_wrong_row_nothing_is_logged(place: Place) -> None:
    rows = rows_of()
    rows[-1]["share"] = 7.0
    with pytest.raises(Invalid, match="out of range"):
        place.ask(rows)
    assert place.logged() == {}


@pytest.mark.parametrize("count", [5, ROWS])
def test_tensors_tell_the_versions_of_their_rows(place: Place, count: int) -> None:
    rows = rows_of(count)
    share = np.array([row["share"] for row in rows], np.float32)
    request = InferRequest(
        (
            Tensor("id", "BYTES", (count,), [row["id"] for row in rows]),
            Tensor("share", "FP32", (count,), share),
            Tensor("origin", "BYTES", (count,), ["EWR"] * count),
            Tensor("temp", "FP64", (count,), np.ones(count)),
        ),
        "r",
    )
    answer = asyncio.run(place.inference.infer(request))
    versions = [place.version_of(row["id"]) for row in rows]
    assert answer.parameters == {"revision": 9, "versions": ",".join(map(str, versions))}
    assert answer.version == "1"
    assert answer.outputs[0].data == pytest.approx(share)
    assert place.logged() == {f"r#{n}": (versions[n], f"u{n}") for n in range(count)}


def test_tensors_of_one_arm_are_answered_by_its_version(place: Place) -> None:
    request = InferRequest(
        (Tensor("share", "FP32", (1,), np.array([0.5], np.float32)), Tensor("temp", "FP64", (1,), np.ones(1))), "r"
    )
    answer = asyncio.run(place.inference.infer(request))
    assert answer.version == str(place.version_of("r"))
    assert "versions" not in answer.parameters


class Shares:
    """As many classes as it is told, all as likely."""

    def predict(self, classes: Any, matrix: Matrix) -> np.ndarray:
        return np.full((len(matrix), classes), 1 / classes)


def test_tensors_are_one_arms_where_the_arms_have_different_classes(place: Place) -> None:
    inputs = (Input("share", "request", "float64", "number"),)
    signatures = [Signature("multiclass", inputs, classes=classes) for classes in (("a", "b"), ("a", "b", "c"))]
    scorers = [Scorer(one, Shares(), len(one.classes), None, {}, at) for at, one in enumerate(signatures, 1)]
    arms = zip(place.loaded.arms, scorers, strict=True)
    place.loaded = replace(place.loaded, arms=tuple(replace(arm, scorer=scorer) for arm, scorer in arms))
    for first in range(8):
        ids = [f"u{n}" for n in range(first, first + 8)]
        request = InferRequest((Tensor("id", "BYTES", (8,), ids), Tensor("share", "FP64", (8,), np.ones(8))), ids[0])
        answer = asyncio.run(place.inference.infer(request))
        assert answer.version == str(place.version_of(ids[0]))
        assert answer.outputs[0].shape == (8, 1 + int(answer.version))
    assert len(place.logged()) == 64
