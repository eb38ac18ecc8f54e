"""Two checkouts on one machine, driven by the command line in processes of their own: side by side, and killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied, endpoints, keys, registry, runs
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.probing import init_lake
from lakeloop.lakehouse.project import read_project
from lakeloop.tests.functional.loop.stories import Story, diabetes

pytestmark = pytest.mark.ray
COMMAND = [sys.executable, "-c", "from lakeloop.infra.cli import main; main()"]
HOLD = """
def train(data, params, run):
    import pathlib, time
    hold = pathlib.Path(HOLD)
    try:
        (hold.parent / "first").mkdir()
    except FileExistsError:
        while hold.exists():
            time.sleep(0.05)
"""


class Checkout:
    """A folder with a project and, in .lake, its lake; and the processes that were started in it."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder, self.processes = folder, list[subprocess.Popen[bytes]]()
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("LAKELOOP_", "AWS_"))}
        self._environment |= {"LAKELOOP_STATE_DIR": str(state), "COLUMNS": "200"}

    @property
    def lake(self) -> Lake:
        return open_lake(str(self.folder / ".lake"))

    def prepare(self, story: Story, change: Callable[[str], str] = str) -> None:
        """The project, applied, with its data in the lake."""
        for path, text in story.files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(change(text) if path.endswith(".py") else text)
        project = read_project(self.folder)
        init_lake(self.lake)
        applied.publish(self.lake, project, code_version="tests")
        for dumps in (story.learn, story.calm.facts):
            for source, data in dumps.items():
                land(self.lake, project, source, f"{source}.csv", data)
            ingest_data(self.lake, project)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"output-{len(self.processes)}").open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, *arguments], cwd=self.folder, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        return process

    def output(self) -> str:
        """What the newest process said."""
        return (self.folder / f"output-{len(self.processes) - 1}").read_text()

    def wait_for(self, found: Callable[[], object]) -> None:
        """Until something is seen, while the newest process lives."""
        while not found():
            assert self.processes[-1].poll() is None, self.output()
            time.sleep(0.25)

    def finish(self, *arguments: str) -> None:
        assert self.start(*arguments).wait() == 0, self.output()

    def address(self) -> str:
        """Where the newest process serves, once it does."""
        self.wait_for(lambda: "/infer" in self.output())
        return next(line.strip() for line in self.output().splitlines() if line.strip().endswith("/infer"))


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Callable[[str], Checkout]]:
    made: list[Checkout] = []

    def make(name: str) -> Checkout:
        made.append(Checkout(tmp_path / name, tmp_path / "state"))
        return made[-1]

    yield make
    for process in [one for each in made for one in each.processes if one.poll() is None]:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_two_checkouts_serve_at_once_and_each_logs_only_its_own(checkout: Callable[[str], Checkout]) -> None:
    story = diabetes()
    here, there = checkout("here"), checkout("there")
    here.prepare(story)
    here.finish("train", story.model, "--as-of", story.learned.isoformat())
    shutil.copytree(here.folder, there.folder)  # a lake holds no absolute address: a copy is a lake
    both = {"here": here, "there": there}
    for one in both.values():
        one.start("serve", "--port", "0")
    addresses = {name: one.address() for name, one in both.items()}
    assert len(set(addresses.values())) == 2
    sent = [(name, f"{name}-{row['id']}", row) for row in story.calm.requests[:20] for name in both]
    said = {}
    for name, number, row in sent:
        body = json.dumps({"rows": [row | {"id": number}]}).encode()
        answer = urllib3.request("POST", addresses[name], body=body, retries=False, timeout=60)
        assert answer.status == 200, answer.data
        said[number] = json.loads(answer.data)["rows"][0]["prediction"]
    assert all(said[f"here-{row['id']}"] == said[f"there-{row['id']}"] for _, _, row in sent)
    for one in both.values():
        one.processes[-1].send_signal(signal.SIGINT)
    for name, one in both.items():
        assert one.processes[-1].wait() == 0, one.output()
        logged = one.lake.journal(f"predictions.{story.project}.{story.model}").read()
        assert Counter(logged["id"].to_pylist()) == {number: 1 for whose, number, _ in sent if whose == name}


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_and_makes_one_version(
    checkout: Callable[[str], Checkout], tmp_path: Path
) -> None:
    hold = tmp_path / "hold" / "on"
    hold.parent.mkdir()
    hold.touch()
    story, here = diabetes(), checkout("here")
    here.prepare(
        story, lambda text: text.replace("\ndef train(data, params, run):\n", HOLD.replace("HOLD", repr(str(hold))))
    )
    arguments = ("train", story.model, "--as-of", story.learned.isoformat())
    killed = here.start(*arguments)
    here.wait_for(lambda: "done" in trials(here.lake).values())
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = {trial for trial, status in trials(here.lake).items() if status == "done"}
    assert registry.numbers(here.lake, story.project, story.model) == []

    hold.unlink()
    here.finish(*arguments)
    (run,) = here.lake.documents.ids(runs.KIND)
    tasks = here.lake.sql("select task, status from lakeloop.tasks where run = ?", [run]).to_pylist()
    assert {row["task"] for row in tasks if row["status"] == "reused"} == {"pull", "validate", "split"}
    assert Counter(row["task"] for row in tasks if row["status"] == "done").most_common(1)[0][1] == 1
    again = here.lake.sql("select distinct trial from lakeloop.trials where attempt > 1").column("trial").to_pylist()
    assert not done & set(again), "what was tried is not tried again"
    assert set(trials(here.lake).values()) == {"done"}
    assert registry.numbers(here.lake, story.project, story.model) == [1]
    assert endpoints.champion(here.lake, story.project, story.model) == 1
    assert list(here.lake.store.list(keys.OPEN_RUNS)) == []


def trials(lake: Lake) -> dict[int, str]:
    """What became of each trial so far."""
    rows = lake.sql("select trial, max_by(status, attempt * 1000 + seq) as status from lakeloop.trials group by trial")
    return dict(zip(rows["trial"].to_pylist(), rows["status"].to_pylist(), strict=True))
