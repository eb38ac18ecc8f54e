"""Training from an opened run to a version that answers, on scikit-learn's bundled data."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from lakeloop.lakehouse import keys, registry, runs
from lakeloop.lakehouse.artifacts import Artifact
from lakeloop.lakehouse.errors import Corrupt, Invalid, Unavailable
from lakeloop.lakehouse.scoring.loading import load_scorer

pytest.importorskip("ray")
from lakeloop.ray_jobs.training import train

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

NOW = datetime(2021, 6, 1, tzinfo=UTC)
SMALL = """
[search]
metric = "{metric}"
trials = 3
scheduler = "none"
[search.space]
rounds = 30
learning_rate = {{ log = [0.05, 0.3] }}
max_depth = {{ int = [2, 4] }}
[evaluate]
slices = ["half"]
"""
OWN = """
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def derive(row):
    return {"ratio": row["x2"] / (abs(row["x3"]) + 1), "late": row["as_of"].month > 6}

def numbers(X):
    return X.select_dtypes("number")

def train(data, params, run):
    return make_pipeline(StandardScaler(), Ridge(params["alpha"])).fit(numbers(data.train.X), data.train.y)

def predict(model, X):
    return model.predict(numbers(X))
"""


def measured(body, subject="model", name=""):
    rows = [one for one in body["metrics"] if one["subject"] == subject and one["slice"] == name]
    return {one["metric"]: one["value"] for one in rows}


def scores_of(lake, body):
    artifact = next(Artifact.from_json(one) for one in body["artifacts"] if one["name"] == "scores.parquet")
    import io

    return pq.read_table(io.BytesIO(lake.artifacts.get(artifact.key, artifact.sha256)))


def test_wine_multiclass(ready):
    wine = ready("wine", "multiclass", more=SMALL.format(metric="log_loss"))
    run = wine.open("wine")
    events = []
    assert train(wine.lake, run, progress=events.append) == 1
    assert [event.task for event in events if event.status == "done"] == [
        "pull", "validate", "split", "tune", "fit", "evaluate", "register",
    ]  # fmt: skip
    body = registry.version(wine.lake, "wine", "wine", 1).body
    assert measured(body)["accuracy"] > 0.8 > measured(body, "baseline")["accuracy"]
    assert body["latency_p99_ms"] > 0
    scorer = load_scorer(wine.lake, "wine", "wine", 1, {})
    answer = scorer.answer([scorer.signature.example], NOW)[0]
    assert answer.decision in ("0", "1", "2")
    assert sum(answer.prediction) == pytest.approx(1, abs=1e-5)
    assert sum(scorer.signature.prediction.counts.values()) == scores_of(wine.lake, body).num_rows


def test_breast_cancer_binary_with_calibration_threshold_and_baseline(ready):
    more = SMALL.format(metric="roc_auc") + (
        'metrics = ["roc_auc", "brier"]\nbaseline = "case when x0 < 14 then 0.9 else 0.1 end"\n'
        '[output]\nthreshold = { maximize = "f1" }\ncalibrate = "sigmoid"\n'
    )
    cancer = ready("breast_cancer", "binary", "sklearn", more)
    run = cancer.open("breast_cancer")
    version = train(cancer.lake, run)
    body = registry.version(cancer.lake, "breast_cancer", "breast_cancer", version).body
    assert measured(body)["roc_auc"] > 0.97
    assert set(measured(body, name="half=first")) == {"roc_auc", "brier"}
    assert 0.7 < measured(body, "baseline")["roc_auc"] < measured(body)["roc_auc"]
    scorer = load_scorer(cancer.lake, "breast_cancer", "breast_cancer", version, {})
    assert (scorer.signature.classes, scorer.signature.positive) == (("0", "1"), "1")
    assert scorer.signature.calibration is not None
    scores = scores_of(cancer.lake, body)
    assert scorer.predict_table(scores) == pytest.approx(scores["prediction"].to_numpy())
    metrics = cancer.lake.journal("metrics").read().to_pylist()
    assert {(row["version"], row["run"]) for row in metrics} == {(1, run)}
    auc = next(row for row in metrics if (row["subject"], row["metric"], row["slice"]) == ("model", "roc_auc", ""))
    assert auc["low"] <= auc["value"] <= auc["high"]
    journal = cancer.lake.sql("select * from lakeloop.runs order by logged_at desc").to_pylist()[0]
    assert (journal["status"], journal["version"], journal["trigger"]) == ("finished", 1, "by hand")
    assert json.loads(journal["tables"]) == {"breast_cancer/facts": 1}
    assert "scikit-learn" in json.loads(journal["environment"])
    assert runs.open_runs(cancer.lake)[0].version == 1


def test_diabetes_regression_with_the_projects_own_python(ready):
    more = """
[inputs]
derive = true
[inputs.derived]
ratio = "float32"
late = "bool"
[search]
metric = "rmse"
trials = 4
[search.space]
alpha = { log = [0.01, 100] }
"""
    diabetes = ready("diabetes", "regression", "diabetes.py", more, OWN)
    version = train(diabetes.lake, diabetes.open("diabetes"))
    body = registry.version(diabetes.lake, "diabetes", "diabetes", version).body
    assert measured(body)["rmse"] < measured(body, "baseline")["rmse"]
    assert body["learner"]["name"] == "diabetes.py"
    scorer = load_scorer(diabetes.lake, "diabetes", "diabetes", version, {})
    scores = scores_of(diabetes.lake, body)
    assert scorer.predict_table(scores.drop_columns(["ratio", "late"])) == pytest.approx(
        scores["prediction"].to_numpy()
    )
    row = {
        name: value
        for name, value in scores.slice(0, 1).to_pylist()[0].items()
        if name.startswith("x") or name == "half"
    }
    answer = scorer.answer([row | {"as_of": scores["as_of"][0].as_py()}], NOW)[0]
    assert answer.prediction == pytest.approx(scores["prediction"][0].as_py())
    assert (answer.decision, answer.inputs["late"]) == (None, True)


@pytest.mark.slow
def test_the_same_training_gives_the_same_model_and_metrics(ready):
    wine = ready("wine", "multiclass", more=SMALL.format(metric="log_loss"))
    train(wine.lake, wine.open("wine"))
    first = registry.version(wine.lake, "wine", "wine", 1).body
    searched = wine.open("wine", "once more")
    assert train(wine.lake, searched, reuse=False) == 2
    given = wine.open(
        "wine", "from the lineage of 1", tables=first["lineage"]["tables"],
        params={"params": first["params"], "step": first["step"]},
    )  # fmt: skip
    assert train(wine.lake, given, reuse=False) == 3
    for number in (2, 3):
        again = registry.version(wine.lake, "wine", "wine", number).body
        assert again["model_hash"] == first["model_hash"]
        assert measured(again) | {"latency_p99_ms": 0} == measured(first) | {"latency_p99_ms": 0}


def test_a_run_that_was_cut_off_goes_on_from_its_last_good_task(ready):
    wine = ready("wine", "multiclass", more=SMALL.format(metric="log_loss"))
    run = wine.open("wine")

    class CutOff(BaseException):
        """As when the machine is switched off."""

    def stop_at(task):
        def watch(event):
            if (event.task, event.status) == (task, "started"):
                raise CutOff

        return watch

    for task in ("split", "fit", "register"):
        with pytest.raises(CutOff):
            train(wine.lake, run, progress=stop_at(task))
        assert not runs.get_run(wine.lake, run).finished
    events = []
    assert train(wine.lake, run, progress=events.append) == 1
    assert [event.task for event in events if event.status == "reused"] == [
        "pull", "validate", "split", "tune", "fit", "evaluate",
    ]  # fmt: skip
    assert train(wine.lake, run) == 1  # and then there is nothing more to do
    trials = wine.lake.journal("trials").read().to_pylist()
    assert sorted(row["trial"] for row in trials if row["status"] == "done") == [0, 1, 2]


def test_a_fault_of_the_project_ends_the_run_with_its_reason(ready):
    broken = 'def train(data, params, run):\n    raise ValueError("alpha is missing")\n'
    wine = ready("wine", "multiclass", "wine.py", '[search]\nmetric = "log_loss"\ntrials = 2\n', broken)
    run = wine.open("wine")
    with pytest.raises(Invalid, match="ValueError: alpha is missing"):
        train(wine.lake, run)
    found = runs.open_runs(wine.lake)[0]
    assert (found.status, found.finished) == ("failed", True)
    assert "alpha is missing" in found.error
    with pytest.raises(Invalid, match="has failed"):
        train(wine.lake, run)
    assert (
        "alpha is missing"
        in wine.lake.sql("select * from lakeloop.runs order by logged_at desc").to_pylist()[0]["error"]
    )


@pytest.mark.slow
def test_refit_on_train_keeps_the_model_that_chose_and_refit_on_all_has_seen_the_test(ready):
    hashes, judged = {}, {}
    for refit in ("train", "train+valid", "all"):
        split = f'[split]\nby = "random"\ntest = 0.3\nvalid = 0.2\nrefit = "{refit}"\nseed = 5\n'
        wine = ready("wine", "multiclass", more=split + SMALL.format(metric="log_loss"))
        run = wine.open("wine", refit)
        version = train(wine.lake, run)
        body = registry.version(wine.lake, "wine", "wine", version).body
        hashes[refit], judged[refit] = body["model_hash"], measured(body)["log_loss"]
    assert len(set(hashes.values())) == 3
    assert judged["all"] == judged["train+valid"] != judged["train"]


def test_bytes_that_do_not_match_the_registry_are_not_loaded(ready):
    wine = ready("wine", "multiclass", "sklearn", SMALL.format(metric="log_loss"))
    version = train(wine.lake, wine.open("wine"))
    body = registry.version(wine.lake, "wine", "wine", version).body
    model = next(one for one in body["artifacts"] if one["name"].startswith("model/"))
    wine.lake.store.put(model["key"], b"something else")
    with pytest.raises(Corrupt, match="do not match their hash"):
        load_scorer(wine.lake, "wine", "wine", version, {})


def test_a_pickled_model_is_loaded_where_it_is_permitted(ready):
    text = """
class Shares:
    def __init__(self, shares):
        self.shares = shares

def train(data, params, run):
    return Shares([float((data.train.y == k).mean()) for k in range(3)])

def predict(model, X):
    return [model.shares] * len(X)
"""
    wine = ready("wine", "multiclass", "wine.py", '[search]\nmetric = "log_loss"\n', text)
    with pytest.raises(Invalid, match="without pickle"):
        train(wine.lake, wine.open("wine"))
    permitted = ready("wine", "multiclass", 'wine.py"\npickle = true  # "', '[search]\nmetric = "log_loss"\n', text)
    version = train(permitted.lake, permitted.open("wine"))
    body = registry.version(permitted.lake, "wine", "wine", version).body
    assert body["learner"]["pickle"] is True
    scorer = load_scorer(permitted.lake, "wine", "wine", version, {})
    assert np.sum(scorer.answer([scorer.signature.example], NOW)[0].prediction) == pytest.approx(1)


def test_without_ray_the_run_stays_open(ready, monkeypatch):
    import ray

    wine = ready("wine", "multiclass", "sklearn", SMALL.format(metric="log_loss"))
    run = wine.open("wine")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(Unavailable, match="Ray is not running"):
        train(wine.lake, run)
    assert [one.finished for one in runs.open_runs(wine.lake)] == [False]
    monkeypatch.undo()
    assert train(wine.lake, run) == 1
    assert list(wine.lake.store.list(keys.OPEN_RUNS))
