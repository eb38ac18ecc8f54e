"""Training on a table elsewhere: the version that was read is in the lineage, and is read again."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import write_deltalake
from pyarrow import csv

from lakeloop.lakehouse import applied, foreign, registry
from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.lake import open_lake
from lakeloop.lakehouse.project import parse_project
from lakeloop.tests.functional.training.conftest import START, Ready, dataset, project_files

pytest.importorskip("ray")
from lakeloop.ray_jobs.training import train

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
SEARCH = '[search]\nmetric = "log_loss"\ntrials = 1\n'


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A Delta table that is not the lake's."""
    text, _ = dataset("wine")
    write_deltalake(str(tmp_path / "theirs"), csv.read_csv(io.BytesIO(text.encode())))
    return tmp_path / "theirs"


@pytest.fixture
def wine(table: Path, tmp_path: Path) -> Ready:
    _, features = dataset("wine")
    files = project_files("wine", "multiclass", "sklearn", SEARCH, features, "")
    landing = 'read = { kind = "landing", format = "csv" }'
    elsewhere = f'lag = "0s"\nread = {{ kind = "delta", uri = "{table}" }}'
    assert landing in files["sources/facts.toml"]
    files["sources/facts.toml"] = files["sources/facts.toml"].replace(landing, elsewhere)
    project, lake = parse_project(files), open_lake(str(tmp_path / "lake"))
    applied.publish(lake, project, code_version="abc123")
    return Ready(lake, project, START + timedelta(days=1000))


@pytest.mark.slow
def test_a_model_is_made_again_from_the_version_of_a_table_that_is_not_ours(wine: Ready, table: Path) -> None:
    assert train(wine.lake, wine.open("wine")) == 1
    first = registry.version(wine.lake, "wine", "wine", 1).body
    tables = first["lineage"]["tables"]
    assert tables == {"wine/facts": 1}
    assert foreign.described(wine.lake, tables)["wine/facts"].startswith(f"delta, version 0 of {table}")
    text, _ = dataset("wine")
    half = csv.read_csv(io.BytesIO(text.encode())).slice(0, 120)
    write_deltalake(str(table), half, mode="overwrite")
    assert train(wine.lake, wine.open("wine", "new data")) == 2
    fewer = registry.version(wine.lake, "wine", "wine", 2).body
    assert (fewer["lineage"]["tables"], sum(fewer["counts"].values())) == ({"wine/facts": 2}, 120)
    given = {"params": first["params"], "step": first["step"]}
    assert train(wine.lake, wine.open("wine", "as 1", tables=tables, params=given), reuse=False) == 3
    again = registry.version(wine.lake, "wine", "wine", 3).body
    assert (again["model_hash"], again["lineage"]["tables"]) == (first["model_hash"], tables)
    table.rename(table.with_name("moved"))
    with pytest.raises(Corrupt, match="was dropped"):
        train(wine.lake, wine.open("wine", "as 1 again", tables=tables, params=given), reuse=False)
