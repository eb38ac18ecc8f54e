"""Open Inference Protocol V2 and the protocol before it, as kserve's own REST client speaks them.

Its requirements conflict with ours, so it lives in an environment of its own, made once under build/.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


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
