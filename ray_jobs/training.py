"""Training: pull → validate → split → tune → fit → evaluate → register, for a run that was opened.

What a task puts out is an artifact or a document before it counts as done, so a run that was killed goes on from its
last good task, on any machine. Ray must be running when the search or the fit have to be done; the other tasks do
without.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from lakeloop.lakehouse import applied, forgetting, pins, registry, runs
from lakeloop.lakehouse.artifacts import Artifact
from lakeloop.lakehouse.errors import Conflict, Invalid, LakeloopError, Unavailable, Unknown
from lakeloop.lakehouse.features.training_set import pinned, training_table
from lakeloop.lakehouse.journal import segment_name
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.learners.choosing import Chosen, choose
from lakeloop.lakehouse.learners.modules import load_module
from lakeloop.lakehouse.learners.protocol import Part, TrainingData
from lakeloop.lakehouse.learners.splitting import TEST, TRAIN, VALID, split
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.project.metrics import LATENCY
from lakeloop.lakehouse.runs import OpenRun
from lakeloop.lakehouse.scoring import evaluation, learning, loading
from lakeloop.lakehouse.scoring.calibration import calibrate, learn_calibration, learn_threshold
from lakeloop.lakehouse.scoring.checks import check_examples
from lakeloop.lakehouse.scoring.derivation import Derive
from lakeloop.lakehouse.scoring.matrix import Encoder
from lakeloop.lakehouse.scoring.profiles import category_profile, number_profile
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.scoring.signature import Signature
from lakeloop.lakehouse.scoring.uses import view_uses
from lakeloop.ray_jobs.dag import Output, Task, TaskEvent, Watch, run_tasks

PACKAGES = ("lakeloop", "numpy", "pandas", "pyarrow", "ray", "scikit-learn", "skops", "xgboost-cpu")
PART = "_part"


def train(lake: Lake, run_id: str, *, progress: Watch = lambda event: None, reuse: bool = True) -> int:
    """Work on an opened run until it has made a version, whose number is returned. Safe to repeat, and to do twice.

    A fault of the project or its data ends the run as failed. When something was only away (Unavailable, Unknown,
    Conflict), or this process is ended, the run stays open, and the next call goes on. `reuse=False` does all tasks
    anew.
    """
    run = runs.get_run(lake, run_id)
    if run.finished:
        if run.version is None:
            raise Invalid(f"the run {run_id} has {run.status}: {run.error}", todo="open another run")
        return run.version
    begun = lake.clock()
    runs.record_run(lake, run, "started", begun, {"environment": json.dumps(environment())})
    try:
        with runs.beating(lake, run_id):
            outputs = run_tasks(lake, run, _Steps(lake, run, progress).tasks(), progress, reuse=reuse)
    except (Unavailable, Unknown, Conflict):
        raise
    except Exception as error:
        told = str(error) if isinstance(error, LakeloopError) else f"{type(error).__name__}: {error}"
        runs.fail_run(lake, run_id, told, {"seconds": (lake.clock() - begun).total_seconds()})
        raise
    version = int(outputs["register"]["version"])
    facts = {
        "seconds": (lake.clock() - begun).total_seconds(),
        "tables": json.dumps(outputs["pull"]["versions"]),
        "params": json.dumps(outputs["tune"]["params"]),
        "environment": json.dumps(environment()),
    }
    runs.finish_run(lake, run_id, version=version, facts=facts)
    return version


def environment() -> dict[str, str]:
    """The versions that a model's bytes may depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class _Steps:
    """The tasks of one run. Each reads its inputs from the lake, so that it needs nothing of the process before it."""

    def __init__(self, lake: Lake, run: OpenRun, watch: Watch) -> None:
        self._lake, self._run, self._watch = lake, run, watch
        self._project: Project = applied.load_hash(lake, run.project, run.definition)
        self._model = self._project.models[run.model]

    def tasks(self) -> list[Task]:
        """The DAG. Everything rests on the model's rules, and, unless tables are pinned, on what this run pulled."""
        rules = {"rules": self._run.rules_version, "format": 1}
        data = {"tables": dict(self._run.tables)} if self._run.tables else {"run": self._run.run}
        given = {"given": dict(self._run.params)}
        return [
            Task("pull", (), rules | data | {"as_of": self._run.as_of.isoformat()}, self._pull),
            Task("validate", ("pull",), rules, self._validate),
            Task("split", ("validate",), rules | {"as_of": self._run.as_of.isoformat()}, self._split),
            Task("tune", ("split",), rules | given, self._tune),
            Task("fit", ("split", "tune"), rules, self._fit),
            Task("evaluate", ("split", "fit"), rules, self._evaluate),
            Task("register", ("pull", "split", "tune", "fit", "evaluate"), {"run": self._run.run}, self._register),
        ]

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _pull(self, digest: str, needed: Mapping[str, Output]) -> Output:
        wanted = pinned(self._lake, self._project, self._run.tables)
        table, read = training_table(self._lake, self._project, self._model.name, self._run.as_of, wanted or None)
        for pin in read.values():
            if isinstance(pin, pins.Pin):  # what is not ours cannot be held
                pins.hold(self._lake, pin, self._run.run)
        table = forgetting.load(self._lake.store).drop(table, model=f"{self._run.project}.{self._run.model}")
        return {
            "table": self._keep_table(digest, "examples.parquet", table),
            "versions": {name: pin.version for name, pin in read.items()},
            "note": f"{table.num_rows:,} labelled examples as of {self._run.as_of:%Y-%m-%d %H:%M}Z",
        }

    def _validate(self, digest: str, needed: Mapping[str, Output]) -> Output:
        table = self._table(needed["pull"]["table"])
        declared = learning.declare(self._model, table, view_uses(self._project, self._model.name))
        warnings = check_examples(self._model, declared, table)
        whole = learning.with_derived(declared, self._derive(), table)
        return {
            "table": self._keep_table(digest, "inputs.parquet", whole),
            "declared": declared.to_json(),
            "warnings": warnings,
            "note": "; ".join(warnings[:3]) or f"{len(declared.columns)} inputs",
        }

    def _split(self, digest: str, needed: Mapping[str, Output]) -> Output:
        table = self._table(needed["validate"]["table"])
        parts = split(self._model, table, self._run.as_of)
        declared = Signature.from_json(needed["validate"]["declared"])
        signature = learning.learn(declared, self._model, table, table.filter(pa.array(parts.rows(TRAIN))))
        counts = parts.counts()
        return {
            "table": self._keep_table(digest, "split.parquet", table.append_column(PART, pa.array(parts.codes))),
            "signature": self._keep(digest, loading.SIGNATURE, signature.to_bytes()),
            "counts": counts,
            "note": ", ".join(f"{name.replace('_', ' ')} {rows:,}" for name, rows in counts.items() if rows),
        }

    def _tune(self, digest: str, needed: Mapping[str, Output]) -> Output:
        if self._run.params:
            return {**self._run.params, "trial": None, "value": None, "note": "parameters of an earlier run"}
        from lakeloop.ray_jobs.ledger import LakeLedger
        from lakeloop.ray_jobs.search import search

        _needs_ray()
        signature, table = self._split_of(needed)
        chosen = self._choose(signature)
        ledger = LakeLedger(self._lake, self._run)
        data = TrainingData(_part(signature, table, TRAIN), _part(signature, table, VALID))
        found = search(self._model, data, chosen.learner, ledger, ledger.before(), self._tell)
        ended = [row for row in found.trials if row.status == "failed"]
        failed = f", {len(ended)} failed" if ended else ""
        note = f"{self._model.search.metric} {found.value:.4f}, best of {len(found.trials)} trials{failed}"
        return {
            "params": dict(found.params),
            "step": found.step,
            "trial": found.trial,
            "value": found.value,
            "note": f"{note}; {chosen.note}" if chosen.note else note,
        }

    def _fit(self, digest: str, needed: Mapping[str, Output]) -> Output:
        from lakeloop.ray_jobs.fitting import fit_on_ray

        _needs_ray()
        signature, table = self._split_of(needed)
        train, valid, test = (_part(signature, table, code) for code in (TRAIN, VALID, TEST))
        params, step = needed["tune"]["params"], needed["tune"]["step"]
        learner = self._choose(signature).learner
        fitted = fit_on_ray(self._model, learner, train, valid, test, params, step)
        signature = self._decided(signature, valid, fitted.valid)
        files = {name: self._keep(digest, name, data) for name, data in fitted.files.items()}
        judged = {name: self._keep(digest, name, data) for name, data in fitted.judged.items()}
        return {
            "files": files,
            "judged": judged,
            "rounds": fitted.rounds,
            "signature": self._keep(digest, loading.SIGNATURE, signature.to_bytes()),
            "hash": _model_hash(files),
            "note": f"{sum(one['size'] for one in files.values()) / 1024:,.0f} KiB, on {self._model.split.refit}",
        }

    def _evaluate(self, digest: str, needed: Mapping[str, Output]) -> Output:
        signature = Signature.from_bytes(self._bytes(needed["fit"]["signature"]))
        table = self._table(needed["split"]["table"])
        test, train = (table.filter(pa.array(_codes(table) == code)) for code in (TEST, TRAIN))
        judged = self._scorer(signature, needed["fit"]["judged"])
        predictions = judged.predict_table(test)
        baseline = evaluation.baseline_of(self._model, signature, test, learning.encode_labels(train, signature))
        y = np.nan_to_num(learning.encode_labels(test, signature), nan=-1.0)
        subjects = {"model": predictions, "baseline": baseline}
        measured = evaluation.measure(self._model, signature, test, y, subjects, _weight(test))
        measured.append(evaluation.latency_p99_ms(self._scorer(signature, needed["fit"]["files"]), test))
        signature = replace(signature, prediction=_prediction_profile(signature, judged, predictions))
        scores = evaluation.scores_table(test, signature, predictions, baseline)
        main = next(one for one in measured if one.metric == self._model.search.metric and one.subject == "model")
        return {
            "metrics": [{name: getattr(one, name) for name in one.__dataclass_fields__} for one in measured],
            "scores": self._keep_table(digest, "scores.parquet", scores),
            "signature": self._keep(digest, loading.SIGNATURE, signature.to_bytes()),
            "note": f"{main.metric} {_number(main.value)} [{_number(main.low)}, {_number(main.high)}]",
        }

    def _register(self, digest: str, needed: Mapping[str, Output]) -> Output:
        body = self._body(needed)
        version = registry.register(self._lake, self._run.project, self._run.model, self._run.run, body)
        shared = {"run": self._run.run, "project": self._run.project, "model": self._run.model, "version": version}
        at = self._lake.clock()
        rows = [shared | dict(one) | {"logged_at": at} for one in needed["evaluate"]["metrics"]]
        self._lake.record("metrics", rows, segment_name(f"{self._run.run}-metrics", 0, self._run.as_of))
        return {"version": version, "note": f"version {version}, {body['model_hash'][:12]}"}

    # -- what tasks share --------------------------------------------------------------------------------------------

    def _body(self, needed: Mapping[str, Output]) -> dict[str, Any]:
        run, fit = self._run, needed["fit"]
        signature = Signature.from_bytes(self._bytes(needed["evaluate"]["signature"]))
        files = {f"{loading.MODEL_FOLDER}{name}": record for name, record in fit["files"].items()}
        files |= {loading.SIGNATURE: needed["evaluate"]["signature"], "scores.parquet": needed["evaluate"]["scores"]}
        artifacts = [self._own(name, self._bytes(record)) for name, record in files.items()]
        if self._model.python is not None:
            artifacts.append(self._own(loading.CODE, self._model.python.encode()))
        chosen = self._choose(signature)
        return {
            "artifacts": artifacts,
            "learner": {
                "name": chosen.learner.name,
                "file": f"models/{self._model.name}.py",
                "threads": max(1, int(self._model.trial.cpu)),
                "pickle": self._model.pickle,
                "note": chosen.note,
            },
            "model_hash": fit["hash"],
            "metrics": needed["evaluate"]["metrics"],
            "latency_p99_ms": _latency(needed["evaluate"]["metrics"]),
            "params": needed["tune"]["params"],
            "step": fit["rounds"],
            "trial": needed["tune"]["trial"],
            "counts": needed["split"]["counts"],
            "as_of": run.as_of.isoformat(),
            "environment": environment(),
            "lineage": {
                "tables": needed["pull"]["versions"],
                "views": {use.view: use.version for use in signature.views},
                "rules_version": run.rules_version,
                "definition": run.definition,
                "code_version": run.code_version,
                "trigger": run.trigger,
                "incident": run.incident,
            },
        }

    def _decided(self, signature: Signature, valid: Part, said: Any) -> Signature:
        """With calibration and threshold, learnt on the validation part."""
        if signature.problem != "binary":
            return signature
        output = self._model.output
        calibration = learn_calibration(output.calibrate, valid.y, said, valid.weight)
        threshold = learn_threshold(output.threshold, valid.y, calibrate(calibration, said), valid.weight)
        return replace(signature, calibration=calibration, threshold=threshold)

    def _scorer(self, signature: Signature, files: Mapping[str, Mapping[str, Any]]) -> Scorer:
        learner = self._choose(signature).learner
        with TemporaryDirectory(prefix="lakeloop-model-") as folder:
            self._lake.artifacts.get_folder([Artifact.from_json(one) for one in files.values()], Path(folder))
            model = learner.load(Path(folder))
        return Scorer(signature, learner, model, self._derive(), {}, 0)

    def _split_of(self, needed: Mapping[str, Output]) -> tuple[Signature, pa.Table]:
        signature = Signature.from_bytes(self._bytes(needed["split"]["signature"]))
        return signature, self._table(needed["split"]["table"])

    def _choose(self, signature: Signature) -> Chosen:
        return choose(self._model, max(2, len(signature.classes)))

    def _derive(self) -> Derive | None:
        if self._model.python is None or not self._model.inputs.derive:
            return None
        return getattr(load_module(f"models/{self._model.name}.py", self._model.python), "derive", None)

    def _tell(self, done: int, total: int, best: float | None) -> None:
        self._watch(TaskEvent("tune", "running", done=done, total=total, best=best))

    def _keep(self, digest: str, name: str, data: bytes) -> dict[str, Any]:
        return self._lake.artifacts.put("tasks", digest, name, data).to_json()

    def _own(self, name: str, data: bytes) -> dict[str, Any]:
        return self._lake.artifacts.put("runs", self._run.run, name, data).to_json()

    def _keep_table(self, digest: str, name: str, table: pa.Table) -> dict[str, Any]:
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        kept = self._keep(digest, name, sink.getvalue().to_pybytes())
        tombstones = forgetting.load(self._lake.store)  # after it was kept: a later one finds it
        if tombstones.mask(table, model=f"{self._run.project}.{self._run.model}") is not None:
            self._lake.store.delete([kept["key"]])
            raise Conflict("some of these rows were forgotten meanwhile", where=name, todo="train once more")
        return kept

    def _table(self, record: Mapping[str, Any]) -> pa.Table:
        import pyarrow.parquet as pq

        return pq.read_table(pa.BufferReader(self._bytes(record)))

    def _bytes(self, record: Mapping[str, Any]) -> bytes:
        return self._lake.artifacts.get(record["key"], record["sha256"])


def _needs_ray() -> None:
    import ray

    if not ray.is_initialized():
        raise Unavailable("Ray is not running here", todo="start it first: ray_jobs.cluster.start_local, or ray.init")


def _part(signature: Signature, table: pa.Table, code: int) -> Part:
    """The rows of a part whose label the signature knows."""
    rows = table.filter(pa.array(_codes(table) == code))
    y = learning.encode_labels(rows, signature)
    known = np.isfinite(y)
    weight = _weight(rows)
    matrix = Encoder(signature.inputs).of_table(rows)
    return Part(matrix.take(known), y[known], None if weight is None else weight[known])


def _codes(table: pa.Table) -> Any:
    return table.column(PART).to_numpy()


def _weight(table: pa.Table) -> Any:
    if "weight" not in table.column_names:
        return None
    return np.asarray(table.column("weight").cast(pa.float64()).to_numpy(), dtype=np.float64)


def _prediction_profile(signature: Signature, scorer: Scorer, predictions: Any) -> Any:
    if signature.problem == "multiclass":
        return category_profile(pa.chunked_array([pa.array(scorer.decide(predictions))]), signature.classes)
    return number_profile(predictions)


def _model_hash(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One hash for a model of several files."""
    listed = sorted((name, record["sha256"]) for name, record in files.items())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _latency(measured: Sequence[Mapping[str, Any]]) -> float | None:
    return next((one["value"] for one in measured if one["metric"] == LATENCY), None)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def main() -> None:
    """`python -m lakeloop.ray_jobs.training --lake … --run …`: the entry point of a job on a running cluster."""
    import ray

    parser = argparse.ArgumentParser(description="Train an opened run on the Ray cluster that this process is part of.")
    parser.add_argument("--lake", required=True)
    parser.add_argument("--run", required=True)
    asked = parser.parse_args()
    ray.init(address="auto", log_to_driver=False, ignore_reinit_error=True)
    train(open_lake(asked.lake), asked.run)


if __name__ == "__main__":
    main()
