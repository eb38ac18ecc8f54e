"""`make bench`: runs every benchmark in a process of its own and writes docs/benchmarks.md.

Each prints one JSON line last.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench`. Machines are noisy, so each figure is a ratio to a named reference that was measured in
the same run; the seconds are those of that run. {machine}.

| What | Ours | Reference | Ratio | Aim |
|---|---|---|---|---|
"""


def run(name: str) -> dict[str, Any]:
    """One benchmark's result."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}"], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    sys.stderr.write(f"{found['what']}: {found['ratio']:.2f}\n")
    return found


def main() -> None:
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    rows = [run(name) for name in names]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, CPython {platform.python_version()}"
    lines = [f"| {r['what']} | {r['ours']} | {r['reference']} | {r['ratio']:.2f} | {r['aim']} |" for r in rows]
    PAGE.write_text(HEAD.format(machine=machine) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
