"""A Ray cluster for a module, and projects made of scikit-learn's bundled data, in a lake that is a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied, runs
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import Project, parse_project

START = datetime(2020, 1, 1, tzinfo=UTC)
SPLIT = """
[split]
by = "time"
test = "60d"
valid = "60d"
seed = 5
"""


@dataclass(frozen=True)
class Ready:
    """A lake with an applied project whose data are in it."""

    lake: Lake
    project: Project
    as_of: datetime

    def open(self, model: str, incident: str = "by hand", **more: Any) -> str:
        run = runs.open_run(
            self.lake, self.project, model, trigger="by hand", as_of=self.as_of, incident=incident, **more
        )
        assert run is not None
        return run


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    pytest.importorskip("ray")
    from lakeloop.ray_jobs.cluster import start_local

    with start_local(tmp_path_factory.mktemp("ray"), cpus=2):
        yield


@pytest.fixture
def ready(tmp_path: Path) -> Callable[..., Ready]:
    """(name, problem, learner, extra TOML, Python) → a project over the data set of that name."""

    def make(name: str, problem: str, learner: str = "xgboost", more: str = "", python: str = "") -> Ready:
        rows, features = dataset(name)
        files = project_files(name, problem, learner, more, features, python)
        project = parse_project(files)
        lake = open_lake(str(tmp_path / "lake"))
        applied.publish(lake, project, code_version="abc123")
        land(lake, project, "facts", "facts.csv", rows.encode())
        done = ingest_data(lake, project)
        assert [one.quarantined for one in done] == [0]
        return Ready(lake, project, START + timedelta(days=1000))

    return make


def dataset(name: str) -> tuple[str, list[str]]:
    """A bundled data set as CSV, with an invented day for each row, and the names of its columns."""
    import numpy as np
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    features = [f"x{at}" for at in range(bunch.data.shape[1])]
    order = np.random.default_rng(0).permutation(len(bunch.target))
    lines = [",".join(["id", "seen_at", "target", "half", *features])]
    for place, row in enumerate(order):
        at = START + timedelta(days=365 * place / len(order))
        half = "first" if bunch.data[row, 0] > np.median(bunch.data[:, 0]) else "second"
        cells = [f"r{row}", f"{at:%Y-%m-%dT%H:%M:%SZ}", repr(float(bunch.target[row])), half]
        lines.append(",".join(cells + [repr(float(value)) for value in bunch.data[row]]))
    return "\n".join(lines) + "\n", features


def project_files(name: str, problem: str, learner: str, more: str, features: list[str], python: str) -> dict[str, str]:
    """The texts of a project with one source and one model."""
    declared = "\n".join(f'{one} = "float64"' for one in features)
    request = "\n".join(f'{one} = "float32"' for one in features)
    label = "target::bigint" if problem != "regression" else "target"
    selected = ", ".join(features)
    files = {
        "lakeloop.toml": f'name = "{name}"\nowner = "tests"\n',
        "sources/facts.toml": (
            'owner = "tests"\nread = { kind = "landing", format = "csv" }\nkey = ["id"]\nevent_time = "seen_at"\n'
            f'[columns]\nid = "string"\nseen_at = "timestamp"\ntarget = "float64"\nhalf = "string"\n{declared}\n'
        ),
        f"models/{name}.toml": (
            f'problem = "{problem}"\nlearner = "{learner}"\n'
            f'[inputs.request]\nhalf = "category"\n{request}\n' + (more if "[split]" in more else SPLIT + more)
        ),
        f"models/{name}.sql": (
            f"select id, seen_at as as_of, half, {selected}, {label} as label, "
            "seen_at + interval 1 day as label_known_at from facts\n"
        ),
    }
    return files | ({f"models/{name}.py": python} if python else {})
