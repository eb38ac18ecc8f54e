"""Many runs: filter on a metric and on a column of runs, sort by the metric, the first 1,000.

Each question is asked in a new process that has imported what it needs and has nothing else: the clock runs from
opening the lake to the answer, with the connection, the log of each table, and the segments that are not folded. The
operating system has the files in its cache, as it has those of the reference.

With 200,000 runs the reference is bare DuckDB that is told which files to read and which row of each run is its last.
With 23,500 it is MLflow's SQLite store, asked for the same runs by `MlflowClient.search_runs`; that both find the same
1,000 in the same order is checked. MLflow comes into a venv below build/, once.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.runs_data import METRICS, ManyRuns, fill
from tests.benchmarks.timing import report

MANY, FEWER, FIRST = 200_000, 23_500, 1000
ROUNDS = 5
ROOT = Path(__file__).parents[2]
VENV = ROOT / "build" / "mlflow"
# The same store as in `mlflow`, without what serves and trains; these three are what its documentation asks for.
PACKAGES = ("mlflow-skinny", "sqlalchemy", "alembic")
SQL = """select r.run, r.model, r.status, r.version, r.seconds, m.value
from lakeloop.runs r join lakeloop.metrics m using (run)
where m.metric = 'roc_auc' and m.value > 0.7 and r.model = 'delay' and r.status = 'finished'
order by m.value desc limit 1000"""
BARE = """select r.run, r.model, r.status, r.version, r.seconds, m.value
from read_parquet(?) r join read_parquet(?) m using (run)
where m.metric = 'roc_auc' and m.value > 0.7 and r.model = 'delay' and r.status = 'finished'
order by m.value desc limit 1000"""
Answer = dict[str, Any]


def by_sql(folder: str) -> list[list[Any]]:
    from lakeloop.lakehouse.lake import open_lake

    return _pairs(open_lake(folder).sql(SQL))


def by_runs(folder: str) -> list[list[Any]]:
    """All columns of the runs, verdicts and bounds of the metric: what `lakeloop runs list` reads."""
    from lakeloop.lakehouse.lake import open_lake

    asked: dict[str, Any] = {"model": "delay", "status": "finished", "metric": "roc_auc", "above": 0.7}
    return _pairs(open_lake(folder).runs(**asked, order="highest"))


def by_bare_duckdb(folder: str) -> list[list[Any]]:
    import duckdb

    files = [json.loads(Path(folder, f"{name}.files").read_text()) for name in ("runs", "metrics")]
    return _pairs(duckdb.connect().execute(BARE, files).to_arrow_table())


def by_params(folder: str) -> list[list[Any]]:
    """The question that MLflow is asked, and as it answers it: with parameters and every metric of each run."""
    from lakeloop.lakehouse.lake import open_lake

    asked: dict[str, Any] = {"model": "delay", "params": {"max_depth": 6}, "metric": "roc_auc", "above": 0}
    found = open_lake(folder).runs(**asked, order="highest", all_metrics=True)
    assert sum(len(chunk.items) for chunk in found.column("metrics").chunks) == found.num_rows * len(METRICS)
    return _pairs(found)


ASKED: dict[str, Callable[[str], list[list[Any]]]] = {
    "sql": by_sql,
    "runs": by_runs,
    "bare": by_bare_duckdb,
    "params": by_params,
}


def _pairs(found: Any) -> list[list[Any]]:
    return [list(pair) for pair in zip(found.column("run").to_pylist(), found.column("value").to_pylist(), strict=True)]


def child(name: str, folder: str) -> None:
    """In a new process: seconds of the first answer and of the next."""
    import duckdb  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    import lakeloop.lakehouse.lake
    import lakeloop.lakehouse.query.asking
    import lakeloop.lakehouse.run_list  # noqa: F401 - imports are not what is timed

    began = time.perf_counter()
    found = ASKED[name](folder)
    first = time.perf_counter() - began
    began = time.perf_counter()
    ASKED[name](folder)
    sys.stdout.write(json.dumps({"first": first, "again": time.perf_counter() - began, "found": found}))


def asked(name: str, folder: str) -> Answer:
    return _answer([sys.executable, "-m", "tests.benchmarks.bench_runs", name, folder])


def _answer(command: list[str]) -> Answer:
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    answer: Answer = json.loads(done.stdout)
    return answer


def middle(answers: list[Answer], which: str) -> float:
    return statistics.median(answer[which] for answer in answers)


def many(folder: str) -> None:
    lake = fill(folder, ManyRuns(MANY))
    for name in ("runs", "metrics"):
        table = lake.table(f"lakeloop/{name}")
        assert table is not None
        Path(folder, f"{name}.files").write_text(json.dumps(table.files))
    rounds = [{name: asked(name, folder) for name in ("sql", "runs", "bare")} for _ in range(ROUNDS)]
    assert rounds[0]["sql"]["found"] == rounds[0]["runs"]["found"]
    assert rounds[0]["sql"]["found"][:100] == rounds[0]["bare"]["found"][:100]
    bare = middle([one["bare"] for one in rounds], "first")
    for name, way in (("sql", "lake.sql, 6 columns"), ("runs", "lake.runs, all columns")):
        ours = middle([one[name] for one in rounds], "first")
        report(
            f"{MANY:,} runs with 20 metrics: filter, sort, first 1,000, in a new process ({way})",
            f"{ours:.2f} s",
            f"{bare:.2f} s, bare read_parquet of finished rows, 6 columns",
            ours / bare,
            "under 0.5 s",
        )


def against_mlflow(folder: str) -> None:
    runs = ManyRuns(FEWER)
    fill(folder, runs, waiting=0)
    database = str(Path(folder, "mlflow.db"))
    python = str(mlflow_python())
    store = [python, str(ROOT / "tests" / "benchmarks" / "mlflow_store.py")]
    experiment = subprocess.run([*store, "make", database], capture_output=True, text=True, check=True).stdout
    fill_mlflow(database, int(experiment), runs)
    question = [*store, "ask", database, "0.0", "6", "delay", str(FIRST)]
    rounds = [(asked("params", folder), _answer(question)) for _ in range(ROUNDS)]
    ours, theirs = rounds[0]
    assert [[run, value] for run, value, _ in theirs["found"]] == ours["found"]
    assert len(ours["found"]) == FIRST
    assert {count for _, _, count in theirs["found"]} == {len(METRICS)}
    for which, words in (("first", "in a new process"), ("again", "asked again")):
        a, b = middle([one for one, _ in rounds], which), middle([one for _, one in rounds], which)
        report(
            f"{FEWER:,} runs with 20 metrics: filter, sort, first 1,000 with all their metrics, {words}",
            f"{a:.3f} s",
            f"{b:.2f} s, MLflow's SQLite store",
            b / a,
            "at least 10",
        )


def mlflow_python() -> Path:
    """The Python of a venv that has MLflow."""
    python = VENV / "bin" / "python"
    if not (VENV / "ready").exists():
        sys.stderr.write("installing MLflow into build/mlflow (once, about a minute)\n")
        venv.create(VENV, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (VENV / "ready").touch()
    return python


def fill_mlflow(database: str, experiment: int, runs: ManyRuns) -> None:
    """The same runs in MLflow's own tables: what its client writes, row by row, in one transaction."""
    ids = [hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest() for number in range(runs.count)]
    at = [int(runs.started(number).timestamp() * 1000) for number in range(runs.count)]
    ended = [moment + int(1000 * seconds) for moment, seconds in zip(at, runs.seconds, strict=True)]
    values = runs.values.tolist()
    metrics = [
        (name, values[number][place], at[number], ids[number])
        for number in range(runs.count)
        for place, name in enumerate(METRICS)
    ]
    params = [(k, str(v), ids[number]) for number in range(runs.count) for k, v in runs.params(number).items()]
    names = [str(name) for name in runs.ids]
    tags = [("mlflow.runName", name, one) for name, one in zip(names, ids, strict=True)]
    tags += [("model", str(model), one) for model, one in zip(runs.model, ids, strict=True)]
    with sqlite3.connect(database) as connection:
        connection.executemany(
            "insert into runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, "
            "start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id) "
            "values (?, ?, 'UNKNOWN', '', '', 'trainer', 'FINISHED', ?, ?, '', 'active', 'nowhere', ?)",
            [(*row, experiment) for row in zip(ids, names, at, ended, strict=True)],
        )
        for table in ("metrics", "latest_metrics"):
            connection.executemany(
                f"insert into {table} (key, value, timestamp, step, is_nan, run_uuid) values (?, ?, ?, 0, 0, ?)",
                metrics,
            )
        connection.executemany("insert into params (key, value, run_uuid) values (?, ?, ?)", params)
        connection.executemany("insert into tags (key, value, run_uuid) values (?, ?, ?)", tags)
    connection.execute("analyze")
    connection.close()


def main() -> None:
    for measure in (many, against_mlflow):
        with tempfile.TemporaryDirectory() as folder:
            measure(folder)


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) > 1 else main()
