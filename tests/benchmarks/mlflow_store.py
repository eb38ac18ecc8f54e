"""Run by the Python of a venv that has MLflow, which this project's has not: `make DB` or `ask DB`.

`ask` prints one JSON object: the seconds of the first search of a new process (its store opened for it, imports not
counted) and of the next, and what was found.
"""

from __future__ import annotations

import json
import logging
import sys
import time

EXPERIMENT = "many"
FILTER = "metrics.roc_auc > {above} and params.max_depth = '{depth}' and tags.model = '{model}'"


def client(database: str):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{database}")


def make(database: str) -> None:
    """The schema, as MLflow makes it, with one empty experiment, whose id is printed."""
    sys.stdout.write(client(database).create_experiment(EXPERIMENT, artifact_location="nowhere"))


def ask(database: str, above: str, depth: str, model: str, limit: str) -> None:
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking  # noqa: F401 - not part of what is timed

    began = time.perf_counter()
    store = client(database)
    text = FILTER.format(above=above, depth=depth, model=model)

    def search():
        experiment = store.get_experiment_by_name(EXPERIMENT)
        return store.search_runs(
            [experiment.experiment_id], text, order_by=["metrics.roc_auc DESC"], max_results=int(limit)
        )

    found = search()
    first = time.perf_counter() - began
    began = time.perf_counter()
    search()
    again = time.perf_counter() - began
    answer = [[run.info.run_name, run.data.metrics["roc_auc"], len(run.data.metrics)] for run in found]
    sys.stdout.write(json.dumps({"first": first, "again": again, "found": answer}))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    {"make": make, "ask": ask}[sys.argv[1]](*sys.argv[2:])
