"""Open Inference Protocol V2 and the protocol before it, as kserve's own REST client speaks them.

Its requirements conflict with ours, so it lives in an environment of its own, made once under build/.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
VERSION = "0.21.0"
HOME = Path(__file__).parents[3] / "build" / f"kserve-{VERSION}"


@pytest.fixture(scope="module")
def kserve() -> Path:
    """An interpreter that has kserve's client."""
    HOME.parent.mkdir(exist_ok=True)
    with open(f"{HOME}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (HOME / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
            install = [str(HOME / "bin/python"), "-m", "pip", "install", "-q", f"kserve=={VERSION}"]
            made = subprocess.run(install, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"kserve {VERSION} cannot be installed here: {made.stderr.strip().splitlines()[-1]}")
            (HOME / "ready").touch()
    return HOME / "bin/python"


def test_kserves_client_is_answered_in_json_and_in_binary(kserve: Path, serves: Any) -> None:
    calls = Path(__file__).with_name("kserve_calls.py")
    run = subprocess.run([str(kserve), str(calls), serves.url], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for way, told in json.loads(run.stdout.splitlines()[-1]).items():
        assert told["prediction"] == [
            pytest.approx([0, 1 / 3, 2 / 3], rel=1e-6),
            pytest.approx([0.9, 0.1 / 3, 0.2 / 3], rel=1e-6),
        ], way
        ready = [told[one] for one in ("live", "ready", "model", "other", "first")]
        assert ready == [True, True, True, False, True]
        assert (told["id"], told["decision"]) == ("k1", ["c", "a"])
        assert (told["sum"], told["predictions"]) == ([6.0], [6.0])
