"""What a process pays before its first line of work: imports and `--help`, against a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.timing import compare, report

ROUNDS = 15


def process(*command: str) -> Callable[[], object]:
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    bare = process(sys.executable, "-c", "pass")
    lakeloop = str(Path(sys.executable).with_name("lakeloop"))
    for what, command, aim in (
        ("import lakeloop.lakehouse", [sys.executable, "-c", "import lakeloop.lakehouse"], "under 0.15 s more"),
        (
            "import lakeloop and open a lake in a folder",
            [sys.executable, "-c", "import lakeloop.lakehouse.lake as l; l.open_lake('/nowhere')"],
            "under 0.15 s more",
        ),
        ("lakeloop --help", [lakeloop, "--help"], "under 0.3 s"),
        ("lakeloop runs list --help", [lakeloop, "runs", "list", "--help"], "under 0.3 s"),
    ):
        ours, reference = compare(process(*command), bare, ROUNDS)
        report(what, f"{ours:.3f} s", f"{reference:.3f} s, python -c pass", ours / reference, aim)


if __name__ == "__main__":
    main()
