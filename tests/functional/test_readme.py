"""What the README says is true: its commands exist, its own-data tour runs, its links lead somewhere."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
TOUR = next(block for block in BLOCKS if "lakeloop init" in block)


def commands(block: str) -> list[list[str]]:
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize(
    "words", [words for block in BLOCKS for words in commands(block) if words[0] == "lakeloop"], ids=" ".join
)
def test_every_command_and_option_of_the_readme_exists(words: list[str]) -> None:
    from typer.main import get_command

    from lakeloop.infra.cli.app import app

    command: Any = get_command(app)
    arguments = words[1:]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context(command.name, arguments)


def test_every_make_target_of_the_readme_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = {words[1] for block in BLOCKS for words in commands(block) if words[0] == "make"} | set(
        re.findall(r"`make ([a-z-]+)`", README)
    )
    assert asked
    assert asked <= set(targets)


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.ray
def test_the_tour_with_your_own_data_runs_as_written(tmp_path: Path) -> None:
    """Customers of six month ends; who logs in seldom leaves."""
    chance = random.Random(7)
    lines = ["customer_id,month_end,plan,logins,churned"]
    for month in (
        "2025-01-31",
        "2025-02-28",
        "2025-03-31",
        "2025-04-30",
        "2025-05-31",
        "2025-06-30",
        "2025-07-31",
        "2025-08-31",
    ):
        for customer in range(150):
            logins = chance.randrange(40)
            plan, left = chance.choice(["free", "pro"]), chance.random() < 0.8 / (1 + logins / 4)
            lines.append(f"{customer},{month},{plan},{logins},{str(left).lower()}")
    (tmp_path / "customers.csv").write_text("\n".join(lines) + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LAKELOOP_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LAKELOOP_STATE_DIR": str(tmp_path / "state"),
    }
    folder = tmp_path
    for words in commands(TOUR):
        if words[0] == "cd":
            folder = folder / words[1]
            continue
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert (
        '"prediction"'
        in subprocess.run(
            [*words, "--json"], cwd=folder, env=environment, capture_output=True, text=True, check=True
        ).stdout
    )
