"""`gate_model`: the verdict on every run that has a result: promoted, waiting for a person, or refused, with every
number.

Champion, challenger and baseline are compared on the same newest rows, those of the run's test part. The champion is
scored here and now, so that the verdict is about the one in force; if another is promoted meanwhile, the verdict is
made anew.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakeloop.functions.check_monitors import resolve_alerts
from lakeloop.lakehouse import applied, endpoints, registry, runs
from lakeloop.lakehouse.artifacts import Artifact
from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.errors import Conflict, Corrupt, LakeloopError, Refused
from lakeloop.lakehouse.freezing import frozen
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.definitions import Model
from lakeloop.lakehouse.project.metrics import LATENCY
from lakeloop.lakehouse.scoring.evaluation import predictions_of
from lakeloop.lakehouse.scoring.learning import encode_labels
from lakeloop.lakehouse.scoring.loading import load_model
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.slices import slice_masks
from lakeloop.lakehouse.verdict import Finding, Scores, in_words, judge

SCORES = "scores.parquet"
TRIES = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one run."""

    model: str
    run: str
    version: int | None
    verdict: str
    """promoted | waiting | refused | failed | lost | unjudged"""
    why: str
    findings: tuple[Finding, ...] = ()


def gate_model(lake: Lake, project: Project) -> list[Verdict]:
    """Judge every open run of a project that has a result; declare those lost that nobody works on any more."""
    done: list[Verdict] = []
    unjudged: list[tuple[Verdict, LakeloopError]] = []
    for run in runs.open_runs(lake):
        if run.project != project.name:
            continue
        if run.status == "finished" and run.version is not None:
            try:
                done.append(_gate(lake, project, run))
            except LakeloopError as error:  # one run that cannot be judged does not keep the others waiting
                unjudged.append((Verdict(run.model, run.run, run.version, "unjudged", str(error)), error))
        elif run.finished:
            runs.close_run(lake, run.run)
            done.append(Verdict(run.model, run.run, None, run.status, run.error))
        elif run.lost:
            runs.close_run(lake, run.run, lost="its worker is gone")
            done.append(Verdict(run.model, run.run, None, "lost", "its worker is gone"))
    if unjudged and not done:  # nothing else is left to do: the next sweep keeps it as stuck
        raise unjudged[0][1]
    return [*done, *(verdict for verdict, _ in unjudged)]


def judge_version(
    lake: Lake, definition: Model, project: str, version: Revision, champion: int | None
) -> list[Finding]:
    """Every rule of the gate on the test rows of a version's run, against a champion (None: only the baseline)."""
    rows = test_rows(lake, version.body)
    ours = _scorer(lake, version.body)
    y, scored = np.nan_to_num(encode_labels(rows, ours.signature), nan=-1.0), predictions_of(rows)
    theirs: dict[str, Any] = {}
    their_threshold = 0.5
    if "baseline" in rows.column_names:
        theirs["baseline"] = predictions_of(rows, "baseline")
    if champion is not None:
        scorer = _scorer(lake, registry.version(lake, project, definition.name, champion).body)
        _check_comparable(ours, scorer, rows, champion)
        theirs["champion"], their_threshold = scorer.predict_table(rows), scorer.signature.threshold
    masks = slice_masks(rows, definition.evaluate.slices)
    latency = registry.metric(version.body, LATENCY)
    latency_ms = float(latency["value"]) if latency else None
    return judge(definition, Scores(y, scored, theirs, masks, ours.signature.threshold, their_threshold, latency_ms))


def test_rows(lake: Lake, body: Mapping[str, Any]) -> pa.Table:
    """The test part of the run that made a version: id, as_of, label, prediction, baseline, and all inputs."""
    found = next((one for one in body["artifacts"] if one["name"] == SCORES), None)
    if found is None:
        raise Corrupt(f"version {body['version']} of {body['model']} has no test rows", todo="train again")
    artifact = Artifact.from_json(found)
    return pq.read_table(io.BytesIO(lake.artifacts.get(artifact.key, artifact.sha256)))


def promote(
    lake: Lake, project: str, model: str, version: int, *, expected: int | None, why: str, by_hand: bool = False
) -> None:
    """Make a version the champion everywhere.

    The endpoint's document comes first, which decides, then the statuses that follow from it.
    """
    endpoints.promote(lake, project, model, version, expected=expected, why=why, by_hand=by_hand)
    registry.set_status(lake, project, model, version, "champion", why)
    if expected is not None and expected != version:
        registry.set_status(lake, project, model, expected, "retired", f"version {version} is the champion")
    resolve_alerts(lake, project, model, f"version {version} is the champion")


def _gate(lake: Lake, project: Project, run: runs.OpenRun) -> Verdict:
    """Judge, act, record, close, in this order: a gate that is stopped anywhere starts over and ends the same."""
    assert run.version is not None
    definition = applied.load_hash(lake, project.name, run.definition).models[run.model]
    version = registry.version(lake, project.name, run.model, run.version)
    for _ in range(TRIES):
        champion = endpoints.champion(lake, project.name, run.model)
        if champion == run.version:
            champion = _before(lake, project, run)
        try:
            verdict = _decide(lake, project, definition, run, version, champion)
        except Conflict:
            continue  # another was promoted while this was judged
        _record(lake, project, run, champion, verdict)
        runs.close_run(lake, run.run)
        return verdict
    raise Conflict(
        f"the champion of {run.model} changes faster than it can be judged", todo="run `lakeloop work --once` again"
    )


def _before(lake: Lake, project: Project, run: runs.OpenRun) -> int | None:
    """The champion that this run's version replaced, when a gate was stopped after the promotion."""
    changes = endpoints.history(lake, project.name, run.model)
    return int(changes[1]["version"]) if len(changes) > 1 else None


def _decide(
    lake: Lake, project: Project, definition: Model, run: runs.OpenRun, version: Revision, champion: int | None
) -> Verdict:
    number = int(version.body["version"])
    try:
        findings = tuple(judge_version(lake, definition, project.name, version, champion))
    except Refused as error:
        registry.set_status(lake, project.name, run.model, number, "waiting", str(error))
        return Verdict(run.model, run.run, number, "waiting", error.what)
    why = in_words(findings)
    if not all(finding.passed for finding in findings):
        registry.set_status(lake, project.name, run.model, number, "refused", why)
        return Verdict(run.model, run.run, number, "refused", why, findings)
    hold = _must_wait(lake, project, definition, champion)
    if hold:
        registry.set_status(lake, project.name, run.model, number, "waiting", hold)
        return Verdict(run.model, run.run, number, "waiting", f"{hold}; {why}", findings)
    try:
        promote(lake, project.name, run.model, number, expected=champion, why=why)
    except Refused as error:  # rolled back by a person before this gate came to its end
        return Verdict(run.model, run.run, number, "refused", error.what, findings)
    return Verdict(run.model, run.run, number, "promoted", why, findings)


def _must_wait(lake: Lake, project: Project, definition: Model, champion: int | None) -> str:
    """Why a passed version is not promoted by itself, or nothing."""
    stop = frozen(lake, project.name, definition.name)
    if stop is not None:
        return f"frozen by {stop.who}: {stop.why}"
    if champion is None and definition.gate.first == "approve":
        return "the first champion needs an approval"
    approvers = applied.approvers(lake, project.name, definition.gate)
    return f"approval by {', '.join(approvers)}" if approvers else ""


def _record(lake: Lake, project: Project, run: runs.OpenRun, champion: int | None, verdict: Verdict) -> None:
    common = {
        "run": run.run,
        "project": project.name,
        "model": run.model,
        "version": verdict.version,
        "verdict": verdict.verdict,
        "logged_at": lake.clock(),
    }
    rows = [{**asdict(finding), **common, "champion": champion} for finding in verdict.findings]
    lake.record(
        "verdicts",
        rows or [{**common, "rule": "comparison", "passed": False, "needed": verdict.why}],
        f"{run.run}-verdict",
    )


def _scorer(lake: Lake, body: Mapping[str, Any]) -> Scorer:
    signature, learner, model, derive = load_model(lake, body)
    return Scorer(signature, learner, model, derive, {}, int(body["version"]))


def _check_comparable(ours: Scorer, theirs: Scorer, rows: pa.Table, champion: int) -> None:
    """Refused when the champion cannot be asked about these rows."""
    missing = [
        one.name for one in theirs.signature.inputs if one.role != "derived" and one.name not in rows.column_names
    ]
    kinds = [(one.signature.problem, one.signature.classes) for one in (ours, theirs)]
    if missing or kinds[0] != kinds[1]:
        what = f"inputs {', '.join(missing)}" if missing else "other classes"
        raise Refused(
            f"version {champion} needs {what}, so both cannot be judged on the same rows",
            todo="approve or refuse it by hand",
        )
