"""`score_shadow`: what a version in the shadow would have answered, scored from the log after the answers left.

A segment of the predictions' journal is scored whole, into one segment named after it, so that each prediction is
scored once, however often this is called or by how many. Work is bounded: of what waits, the newest segments come first
and the others may never. A row that the version cannot answer is kept with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow.compute as pc

from lakeloop.functions.roll_out import snapshots_of
from lakeloop.lakehouse import endpoints
from lakeloop.lakehouse.errors import Invalid, LakeloopError
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.rollouts.state import Rollout, running
from lakeloop.lakehouse.scoring.loading import load_scorer
from lakeloop.lakehouse.scoring.scorer import Answer, Scorer
from lakeloop.lakehouse.segments import SEGMENT

MOST_ROWS = 5_000
"""Rows of one call for one version, give or take a segment."""
WAITING = f"""
select p.{SEGMENT} as segment, count(*) as rows, max(p.logged_at) as newest
from predictions p anti join (
    select distinct source from lakeloop.shadow_predictions where project = ? and model = ? and version = ?
) s on p.{SEGMENT} = s.source
where p.model = ? and p.version = ? and p.revision >= ? group by 1 order by newest desc"""
ROWS = f"select * from predictions where model = ? and version = ? and revision >= ? and {SEGMENT} in ({{marks}})"

LoadScorer: TypeAlias = Callable[[Lake, str, str, int, Mapping[str, Mapping[str, Any]]], Scorer]
"""(lake, project, model, version, snapshots) → a scorer; its artifacts are checked against their hashes."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What was scored now."""

    model: str
    version: int
    rows: int
    errors: int


def score_shadow(
    lake: Lake, project: Project, *, most_rows: int = MOST_ROWS, load: LoadScorer = load_scorer
) -> list[Scored]:
    """Score for every endpoint of a project with a version in the shadow. One LIST and GET for each that has none.

    What cannot be scored keeps nothing else from being scored; it is raised when nothing was.
    """
    done, failed = list[Scored](), list[LakeloopError]()
    for model in project.models:
        try:
            there = endpoints.endpoint(lake, project.name, model)
            rollout = running(there.body) if there is not None else None
            if rollout is not None and rollout.step.stage == "shadow":
                done += _endpoint(lake, project, model, rollout, most_rows, load)
        except LakeloopError as error:
            failed.append(error)
    if failed and not done:
        raise failed[0]
    return done


def _endpoint(
    lake: Lake, project: Project, model: str, rollout: Rollout, most_rows: int, load: LoadScorer
) -> list[Scored]:
    done = []
    for challenger in rollout.challengers:
        version = challenger.version
        segments = _waiting(lake, project, model, rollout, version, most_rows)
        if segments:
            snapshots = snapshots_of(lake, project, model, version)
            scorer = _loaded(load, lake, project.name, model, version, snapshots)
            done.append(_score(lake, project, model, rollout, scorer, segments))
    return done


def _loaded(
    load: LoadScorer, lake: Lake, project: str, model: str, version: int, snapshots: Mapping[str, Mapping[str, Any]]
) -> Scorer:
    """Invalid where the version's own code fails: the sweep goes on without it."""
    try:
        return load(lake, project, model, version, snapshots)
    except LakeloopError:
        raise
    except Exception as error:
        what = f"version {version} of {model} cannot be loaded ({type(error).__name__}: {error})"
        raise Invalid(what, todo=f"lakeloop rollouts abort {model}") from error


def _waiting(lake: Lake, project: Project, model: str, rollout: Rollout, version: int, most_rows: int) -> list[str]:
    """Segments that are not scored yet, the newest first, as many as fit."""
    values = [project.name, model, version, model, rollout.champion, rollout.step.revision]
    chosen: list[str] = []
    rows = 0
    for one in lake.sql(WAITING, values, project=project.name).to_pylist():
        if rows >= most_rows:
            break
        chosen.append(one["segment"])
        rows += one["rows"]
    return chosen


def _score(
    lake: Lake, project: Project, model: str, rollout: Rollout, scorer: Scorer, segments: Sequence[str]
) -> Scored:
    sql = ROWS.format(marks=", ".join("?" * len(segments)))
    values = [model, rollout.champion, rollout.step.revision, *segments]
    table = lake.sql(sql, values, project=project.name)
    rows = errors = 0
    for segment in segments:
        part = table.filter(pc.equal(table.column(SEGMENT), segment)).sort_by("prediction_id").to_pylist()
        scored = [
            {**_common(project, model, rollout, scorer.version, row), "logged_at": lake.clock(), **shadow}
            for row, shadow in zip(part, _shadows(scorer, part), strict=True)
        ]
        lake.record("shadow_predictions", scored, f"{segment}-v{scorer.version}-r{rollout.steps[0].revision}")
        rows += len(scored)
        errors += sum(one["error"] is not None for one in scored)
    return Scored(model, scorer.version, rows, errors)


def _common(project: Project, model: str, rollout: Rollout, version: int, row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: row.get(name) for name in ("prediction_id", "id", "revision", "as_of")}
    theirs = {"champion_prediction": row.get("prediction"), "champion_decision": row.get("decision")}
    own = {"project": project.name, "model": model, "version": version, "champion": rollout.champion}
    return {**kept, **theirs, **own, "source": row[SEGMENT]}


def _shadows(scorer: Scorer, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One per row. All at once; where that fails, each by itself, so that one bad row costs no other."""
    asked = [_asked(scorer, row) for row in rows]
    try:
        return [_said(answer) for answer in scorer.answer(asked, rows[0]["as_of"])]
    except Exception:  # noqa: BLE001 a user's model fails in any way; each row is told its own below
        return [_alone(scorer, row) for row in asked]


def _alone(scorer: Scorer, row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _said(scorer.answer([row], row["as_of"])[0])
    except LakeloopError as error:
        what = f"{type(error).__name__}: {error.what}"
    except Exception as error:  # noqa: BLE001 a user's model fails in any way; the row says how
        what = type(error).__name__  # its text may hold the row's values
    return {"prediction": None, "decision": None, "scores": None, "error": what}


def _asked(scorer: Scorer, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as its caller sent it, as far as the version takes it: what the request gave, and features it gave in
    the store's place."""
    given = set(row.get("given") or ())
    wanted = [one.name for one in scorer.signature.inputs if one.role == "request" or one.name in given]
    sent = {name: row[name] for name in wanted if row.get(name) is not None}
    return {**sent, "id": row.get("id"), "as_of": row["as_of"]}


def _said(answer: Answer) -> dict[str, Any]:
    scores = answer.prediction if isinstance(answer.prediction, list) else None
    value = max(scores) if scores else answer.prediction
    decision = answer.decision
    text = str(decision).lower() if isinstance(decision, bool) else decision
    return {"prediction": value, "decision": text, "scores": scores, "error": None}
