"""What importing costs: no third-party package is loaded before it is needed. Each case in a new process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LOADED = """
import sys
before = {name.partition(".")[0] for name in sys.modules}
%s
import json
loaded = {name.partition(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names) - {"lakeloop"}
print(json.dumps(sorted(name for name in loaded if not name.startswith("_sysconfigdata"))))  # of this Python's build
"""

ALONE = [
    "lakeloop",
    "lakeloop.lakehouse",
    "lakeloop.lakehouse.applied",
    "lakeloop.lakehouse.artifacts",
    "lakeloop.lakehouse.documents",
    "lakeloop.lakehouse.endpoints",
    "lakeloop.lakehouse.errors",
    "lakeloop.lakehouse.events",
    "lakeloop.lakehouse.freezing",
    "lakeloop.lakehouse.keys",
    "lakeloop.lakehouse.lake",
    "lakeloop.lakehouse.probing",
    "lakeloop.lakehouse.project",
    "lakeloop.lakehouse.registry",
    "lakeloop.lakehouse.run_list",
    "lakeloop.lakehouse.runs",
    "lakeloop.lakehouse.store",
    "lakeloop.lakehouse.store.folder",
    "lakeloop.lakehouse.store.memory",
    "lakeloop.lakehouse.store.opening",
    "lakeloop.lakehouse.store.port",
    "lakeloop.lakehouse.testing",
    "lakeloop.infra.cli",
    "lakeloop.infra.place",
]
"""Modules that load nothing but the standard library."""

LARGE = {
    "boto3",
    "deltalake",
    "duckdb",
    "matplotlib",
    "numpy",
    "pandas",
    "pyarrow",
    "ray",
    "sklearn",
    "typer",
    "xgboost",
}
"""Packages that take long to load."""
NEEDED: dict[str, set[str]] = {
    "lakeloop.lakehouse.store.s3": {"boto3"},
    "lakeloop.lakehouse.records": {"pyarrow", "numpy"},
    "lakeloop.lakehouse.tables": {"pyarrow", "numpy", "deltalake"},
    "lakeloop.lakehouse.journal": {"pyarrow", "numpy"},
    "lakeloop.lakehouse.query.statements": {"duckdb"},
    "lakeloop.lakehouse.query.session": {"duckdb", "pyarrow", "numpy"},
    "lakeloop.lakehouse.query.asking": {"duckdb", "pyarrow", "numpy", "deltalake"},
    "lakeloop.ray_jobs.serving.function": {"numpy", "pyarrow"},
    "lakeloop.infra.cli.app": {"typer"},
}
"""Modules that are about a package, and which of the large ones they may load."""

USED = """
import pathlib, tempfile
from lakeloop.lakehouse.lake import open_lake
with tempfile.TemporaryDirectory() as folder:
    lake = open_lake(folder)
    first = lake.documents.create("things", "a", {"n": 1})
    lake.documents.update(first, {"n": 2})
    assert lake.documents.get("things", "a").body == {"n": 2}
    lake.store.put("landing/p/s/a.csv", b"x", if_absent=True)
    assert [entry.key for entry in lake.store.list("landing/")] == ["landing/p/s/a.csv"]
"""

HELP = """
import contextlib, io, sys
from lakeloop.infra.cli.app import app
import typer
def commands(command, path):
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, [*path, name])
count = 0
for path in list(commands(typer.main.get_command(app), [])):
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        app([*path, "--help"])
    assert told.getvalue().lstrip().startswith("Usage: "), path
    count += 1
assert count > 30, count
"""


def loaded(code: str) -> set[str]:
    """Packages, not of the standard library, that are there after the code and were not before."""
    done = subprocess.run([sys.executable, "-c", LOADED % code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", ALONE)
def test_a_module_that_needs_no_package_loads_none(module: str) -> None:
    assert loaded(f"import {module}") == set()


@pytest.mark.parametrize("module", NEEDED)
def test_a_module_loads_only_the_packages_it_is_about(module: str) -> None:
    assert loaded(f"import {module}") & LARGE == NEEDED[module]


def test_a_lake_in_a_folder_works_with_the_standard_library_alone() -> None:
    assert loaded(USED) == set()


def test_no_help_of_any_command_loads_what_its_work_needs() -> None:
    assert loaded(HELP) & LARGE == {"typer"}
