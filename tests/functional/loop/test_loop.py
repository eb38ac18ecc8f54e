"""The whole loop over HTTP, on projects that know nothing of the example, in a folder and on S3."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from lakeloop.functions.check_monitors import check_monitors
from lakeloop.functions.launch_training import launch_training
from lakeloop.functions.roll_out import roll_out
from lakeloop.functions.sweep import sweep
from lakeloop.lakehouse import endpoints, registry, runs
from lakeloop.lakehouse.features.training_set import training_table
from lakeloop.lakehouse.scoring.loading import load_scorer
from lakeloop.tests.functional.loop.driver import Loop

pytestmark = pytest.mark.ray


def test_wrong_rows_are_in_quarantine_with_their_reasons_and_the_others_are_learnt_from(loop: Loop) -> None:
    quarantined = {source: one.quarantined for source, one in loop.ingested.items() if one.quarantined}
    assert quarantined.keys() == loop.story.wrong.keys()
    for source, word in loop.story.wrong.items():
        assert any(word in reason for reason in loop.ingested[source].reasons), loop.ingested[source]
    rows = loop.lake.sql("select source, reason from lakeloop.quarantine where project = ?", [loop.story.project])
    assert Counter(rows["source"].to_pylist()) == quarantined
    assert loop.first is not None
    assert (loop.first.version, loop.first.verdict) == (1, "promoted")


def test_every_request_is_answered_and_is_in_the_log_exactly_once(loop: Loop) -> None:
    asked = [row["id"] for row in loop.story.calm.requests]
    assert list(loop.answers) == asked
    assert {answer["version"] for answer in loop.answers.values()} == {1}
    rows = [row for row in loop.journal.to_pylist() if row["id"] in loop.answers and row["version"] == 1]
    assert Counter(row["id"] for row in rows) == dict.fromkeys(asked, 1)
    for row in rows:
        said = loop.answers[row["id"]]["prediction"]
        assert (row["scores"] if isinstance(said, list) else row["prediction"]) == said


def test_labels_join_what_was_answered(loop: Loop) -> None:
    story = loop.story
    labelled = loop.lake.sql(
        "select id from predictions_labelled where model = ? and label is not null and as_of < ?",
        [story.model, story.shifted.start],
        project=story.project,
    )
    found = labelled["id"].to_pylist()
    assert len(set(found)) == len(found)
    assert story.labelled * len(loop.answers) <= len(found) <= len(loop.answers)


def test_a_caller_may_send_features_and_leave_out_the_moment(loop: Loop) -> None:
    row = dict(loop.story.calm.requests[-1]) | {"as_of": loop.story.shifted.known.isoformat()}
    given = loop.post({"id": "own-values", "rows": [row | {"id": "own"} | loop.story.own]})["rows"][0]
    looked_up = loop.post({"id": "looked-up", "rows": [row | {"id": "looked-up"}]})["rows"][0]
    assert given["prediction"] != looked_up["prediction"]
    before = datetime.now(UTC)
    now = loop.post({"rows": [{name: value for name, value in row.items() if name not in ("id", "as_of")}]})["rows"][0]
    assert before - timedelta(seconds=1) <= datetime.fromisoformat(now["as_of"]) <= datetime.now(UTC)
    logged = {row["id"]: row for row in loop.journal.to_pylist() if row["id"] in ("own", "looked-up")}
    assert set(logged["own"]["given"]) == loop.story.own.keys()
    assert {name: logged["own"][name] for name in loop.story.own} == pytest.approx(loop.story.own)
    assert logged["looked-up"]["given"] == []


def test_the_endpoint_looked_up_what_training_reads_for_the_same_moment(loop: Loop) -> None:
    story = loop.story
    scorer = load_scorer(loop.lake, story.project, story.model, 1, {})
    table, _ = training_table(loop.lake, loop.project, story.model, story.calm.known)
    offline = {row["id"]: row for row in scorer.with_derived(table).to_pylist() if row["id"] in loop.answers}
    logged = [row for row in loop.journal.to_pylist() if row["id"] in offline and not row["given"]]
    online = {row["id"]: row for row in logged if row["version"] == 1}
    assert len(online) >= len(loop.answers) / 2
    names = [one.name for one in scorer.signature.inputs]
    features = [one.name for one in scorer.signature.named("feature")]
    for number, row in online.items():
        for name in names:
            assert same(row[name], offline[number][name]), (number, name, row[name], offline[number][name])
    for number in story.seen.keys() & online.keys():
        assert {name: online[number][name] for name in story.seen[number]} == pytest.approx(story.seen[number]), number
    assert all(any(row[name] is not None for row in online.values()) for name in features)
    predictions = dict(zip(table["id"].to_pylist(), scorer.predict_table(table), strict=True))
    for number in online:
        assert loop.answers[number]["prediction"] == pytest.approx(predictions[number].tolist(), rel=1e-5)


def test_training_again_from_the_lineage_gives_the_same_model(loop: Loop) -> None:
    story = loop.story
    first = registry.version(loop.lake, story.project, story.model, 1).body
    run = runs.open_run(
        loop.lake,
        loop.project,
        story.model,
        trigger="made again",
        as_of=datetime.fromisoformat(first["as_of"]),
        incident=f"lineage {datetime.now(UTC)}",
        tables=first["lineage"]["tables"],
        params={"params": first["params"], "step": first["step"]},
    )
    assert run is not None
    version = loop.train(run, reuse=False)
    again = registry.version(loop.lake, story.project, story.model, version).body
    runs.close_run(loop.lake, run)  # it was made to be compared, not to be judged
    assert again["model_hash"] == first["model_hash"]
    assert again["lineage"]["tables"] == first["lineage"]["tables"]
    assert again["counts"] == first["counts"]


def test_a_world_that_turned_is_noticed_learnt_rolled_out_and_rolled_back(loop: Loop) -> None:
    story, lake, project = loop.story, loop.lake, loop.project
    calm = {one.monitor: one for one in check_monitors(lake, project, as_of=story.calm.known)}
    assert not calm["realized"].breached, calm["realized"]
    assert calm["realized"].rows >= len(loop.answers) / 2

    answers = loop.live(story.shifted)
    assert len(answers) == len(story.shifted.requests)
    end = story.shifted.known
    alarms = {one.monitor: one.alert for one in check_monitors(lake, project, as_of=end) if one.alert}
    assert "realized" in alarms
    runs_before = set(lake.documents.ids(runs.KIND))

    handed: list[str] = []
    (launched,) = launch_training(lake, project, handed.append, as_of=end)
    assert launched.trigger.startswith("alarm of realized")
    assert launch_training(lake, project, handed.append, as_of=end) == []
    assert handed == [launched.run, launched.run], "a run without a result is handed out again, but none is opened"

    swept = sweep(lake, loop.train, as_of=end, only=story.project)
    assert swept.failed == {}
    (verdict,) = swept.done["gate_model"]
    assert (verdict.run, verdict.verdict) == (launched.run, "promoted"), verdict
    assert {finding.against for finding in verdict.findings} >= {"champion"}
    state = loop.wait_until_loaded()
    assert [arm["version"] for arm in state["arms"]] == [verdict.version]
    newest = story.shifted.requests[-3:]
    turned = loop.ask([at(row, end, "turned") for row in newest])
    assert {answer["version"] for answer in turned.values()} == {verdict.version}

    quiet = sweep(lake, refuse, as_of=end, only=story.project)
    assert (quiet.failed, quiet.done["launch_training"], quiet.done["gate_model"]) == ({}, [], [])
    assert set(lake.documents.ids(runs.KIND)) == runs_before | {launched.run}

    assert endpoints.rollback(lake, story.project, story.model, "people complained") == (verdict.version, 1)
    roll_out(lake, project)
    loop.wait_until_loaded()
    back = loop.ask([at(row, end, "back") for row in newest])
    assert {answer["version"] for answer in back.values()} == {1}
    assert [a["prediction"] for a in back.values()] != [a["prediction"] for a in turned.values()]
    assert sweep(lake, refuse, as_of=end, only=story.project).failed == {}
    assert endpoints.champion(lake, story.project, story.model) == 1


def at(row: dict[str, Any], moment: datetime, name: str) -> dict[str, Any]:
    """The same question at another moment, under another id."""
    return row | {"id": f"{row['id']}-{name}", "as_of": moment.isoformat()}


def same(online: Any, offline: Any) -> bool:
    """Equal, to the precision of the requests' and the derived float32."""
    if isinstance(online, float | int) and isinstance(offline, float | int):
        return bool(np.isclose(online, offline, rtol=1e-6, atol=0))
    return bool(online == offline)


def refuse(run: str) -> None:
    raise AssertionError(f"nothing was to be trained, but {run} was handed out")
