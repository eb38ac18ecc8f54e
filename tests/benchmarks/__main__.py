"""`make bench`: runs every benchmark in a process of its own and writes docs/benchmarks.md.

Each prints JSON lines last, one for each figure.
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


def run(name: str) -> list[dict[str, Any]]:
    """One benchmark's figures."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}"], capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for one in found:
        sys.stderr.write(f"{one['what']}: {one['ratio']:.2f}\n")
    return found


def main() -> None:
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    rows = [row for name in names for row in run(name)]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, CPython {platform.python_version()}"
    lines = [f"| {r['what']} | {r['ours']} | {r['reference']} | {r['ratio']:.2f} | {r['aim']} |" for r in rows]
    PAGE.write_text(HEAD.format(machine=machine) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
