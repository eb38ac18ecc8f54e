"""A node whose replicas and shipper are processes that a test may kill; and callers that remember what was answered.

Run as a program, this module is the process that they are forked from.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

JOURNAL = "predictions.p.late"


# -- the programs ------------------------------------------------------------------------------------------------------


def replica(said: Path, folder: str, disk_bytes: int) -> None:
    """An endpoint of one model that needs nothing of the lake, over the real inference, log and HTTP."""
    import uvicorn

    from lakeloop.lakehouse.prediction_log import LogPolicy
    from lakeloop.ray_jobs.serving.arms import Arm, Loaded
    from lakeloop.ray_jobs.serving.endpoint import Endpoint
    from lakeloop.ray_jobs.serving.inference import Inference
    from lakeloop.ray_jobs.serving.recorder import Recorder
    from lakeloop.ray_jobs.serving.write_ahead import Backlog, WriteAhead
    from lakeloop.tests.unit.serving.conftest import binary_scorer

    serving = Loaded(
        "late", 1, (Arm("champion", 1, 10_000, binary_scorer(1)),), log=LogPolicy(disk_bytes=disk_bytes, full="refuse")
    )
    writer, backlog = WriteAhead(Path(folder)), Backlog(Path(folder))
    recorder = Recorder(writer, lambda: serving)
    inference = Inference(
        "p", "late", loaded=lambda: serving, append=recorder.append, state=dict, clock=lambda: datetime.now(UTC)
    )
    server = uvicorn.Server(uvicorn.Config(Endpoint(inference), port=0, lifespan="off", log_level="warning"))

    async def run() -> None:
        serve = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        say(said, str(server.servers[0].sockets[0].getsockname()[1]))
        while not serve.done():
            writer.measured(backlog.size_bytes())
            await asyncio.sleep(0.1)
            writer.seal_due()
        writer.close()

    asyncio.run(run())


def shipper(said: Path, lake: str, folder: str) -> None:
    """Ships until it is killed."""
    from lakeloop.lakehouse.lake import open_lake
    from lakeloop.ray_jobs.serving.shipper import Shipper

    Shipper(Path(folder), open_lake(lake).journal)
    say(said, "ready")
    signal.pause()


PROGRAMS = {"replica": replica, "shipper": shipper}


def fork_on_demand() -> None:
    """Fork a program for each line of stdin, {"program", "given", "environment", "said"}, so that a start costs no
    imports. Its pid is answered; what it says goes to the file `said`."""
    import pyarrow  # noqa: F401
    import uvicorn  # noqa: F401

    import lakeloop.lakehouse.lake
    import lakeloop.lakehouse.store.s3
    import lakeloop.ray_jobs.serving.endpoint
    import lakeloop.ray_jobs.serving.shipper
    import lakeloop.tests.unit.serving.conftest  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid:
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.update(asked["environment"])
        PROGRAMS[asked["program"]](said=Path(asked["said"]), **asked["given"])
        os._exit(0)


# -- what a test holds -------------------------------------------------------------------------------------------------


class Forks:
    """The process that forks the others."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-m", __name__], stdin=pipe, stdout=pipe, text=True)

    def start(self, program: str, said: Path, given: Mapping[str, Any]) -> tuple[int, str]:
        """The pid of a program that is ready, and what it said then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        asked = {"program": program, "given": given, "environment": environment, "said": str(said)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        until = time.monotonic() + 60
        while not said.exists():
            assert time.monotonic() < until
            time.sleep(0.005)
        return pid, said.read_text()

    def close(self) -> None:
        self._process.communicate()


@dataclass
class Node:
    """Its processes. Each `start_…` returns when the process is ready."""

    forks: Forks
    lake: str
    folder: Path
    replicas: dict[int, int] = field(default_factory=dict)
    """Their pids, by port."""
    shippers: list[int] = field(default_factory=list)
    started: int = 0

    def start_replica(self, disk_bytes: int = 1 << 30) -> None:
        pid, said = self._start("replica", {"folder": str(self.folder), "disk_bytes": disk_bytes})
        self.replicas[int(said)] = pid

    def start_shipper(self) -> None:
        self.shippers.append(self._start("shipper", {"lake": self.lake, "folder": str(self.folder)})[0])

    def _start(self, program: str, given: Mapping[str, Any]) -> tuple[int, str]:
        self.started += 1
        return self.forks.start(program, self.folder.with_name(f"said-{self.started}"), given)

    def stop_replica(self, how: signal.Signals) -> None:
        """The oldest."""
        end(self.replicas.pop(next(iter(self.replicas))), how)

    def stop_shipper(self) -> None:
        end(self.shippers.pop(), signal.SIGKILL)

    def close(self) -> None:
        for pid in [*self.replicas.values(), *self.shippers]:
            end(pid, signal.SIGKILL)


def end(pid: int, how: signal.Signals) -> None:
    """Send a signal, and wait for the end."""
    until = time.monotonic() + 60
    with suppress(ProcessLookupError):
        os.kill(pid, how)
        while time.monotonic() < until:
            os.kill(pid, 0)
            time.sleep(0.005)
        raise AssertionError(f"{pid} did not end")


def say(said: Path, text: str) -> None:
    """Make the file at once with its content."""
    part = said.with_suffix(".part")
    part.write_text(text)
    part.rename(said)


@dataclass
class Callers:
    """Requests without a pause, each with its own id, to whatever replica lives."""

    node: Node
    sent: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    refused: int = 0

    def one(self, connection: http.client.HTTPConnection, name: str) -> None:
        body = json.dumps({"id": name, "rows": [{"share": 0.5, "origin": "EWR"}]})
        self.sent.append(name)
        connection.request("POST", "/infer", body)
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            self.answered.append(name)
        else:
            assert answer.status == 503
            self.refused += 1

    def run(self, caller: int, over: threading.Event) -> None:
        number = 0
        while not over.is_set():
            ports = list(self.node.replicas)
            if not ports:
                time.sleep(0.01)
                continue
            connection = http.client.HTTPConnection("127.0.0.1", ports[caller % len(ports)], timeout=30)
            with suppress(OSError, http.client.HTTPException):  # the replica was killed
                while not over.is_set():
                    number += 1
                    self.one(connection, f"c{caller}-{number}")
            connection.close()

    @contextmanager
    def calling(self, callers: int = 3) -> Iterator[None]:
        over = threading.Event()
        threads = [threading.Thread(target=self.run, args=(one, over)) for one in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def check(self, logged: Counter[str], story: str) -> None:
        """Every answered request is in the log once, and nothing that was not sent."""
        print(  # noqa: T201 what the campaign is for
            f"\n{story}: sent {len(self.sent):,}, answered {len(self.answered):,}, refused {self.refused:,}, "
            f"logged {sum(logged.values()):,}"
        )
        assert len(self.answered) > 50
        assert set(logged.values()) == {1}, {name: count for name, count in logged.items() if count > 1}
        lost = set(self.answered) - set(logged)
        assert not lost, sorted(lost)[:10]
        assert set(logged) <= set(self.sent)


def logged(lake: Any, folder: Path, timeout_s: float = 120) -> Counter[str]:
    """How often each prediction is in the lake, when nothing waits on the node any more."""
    from lakeloop.ray_jobs.serving.write_ahead import Backlog

    backlog, until = Backlog(folder), time.monotonic() + timeout_s
    while waiting := backlog.rows():
        assert time.monotonic() < until, f"{waiting} rows are not shipped"
        time.sleep(0.2)
    rows = lake.journal(JOURNAL).read()
    assert rows is not None
    assert all(one.endswith("#0") for one in rows["prediction_id"].to_pylist())
    return Counter(one.removesuffix("#0") for one in rows["prediction_id"].to_pylist())


if __name__ == "__main__":
    fork_on_demand()
