"""Waiting for what Serve was asked to run: which endpoints came up, and why the others did not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import urllib3
from ray import serve

LOOK_EVERY_S = 0.1
LOGS = "look at the logs of Ray Serve"


class Asked(Protocol):
    """An application that Serve was asked for. `ready_path` answers 200 when it does."""

    @property
    def application(self) -> str: ...
    @property
    def ready_path(self) -> str: ...
    @property
    def name(self) -> str: ...


def wait_ready(url: str, asked: Sequence[Asked], timeout_s: float) -> dict[str, str]:
    """Return when each endpoint has a replica that answers through the proxy, or has failed: by name, why."""
    with urllib3.PoolManager(retries=False, timeout=5) as pool:

        def answers(one: Asked) -> bool:
            try:
                return pool.request("GET", f"{url}{one.ready_path}").status == 200
            except urllib3.exceptions.HTTPError:
                return False

        return wait(asked, answers, timeout_s)


def wait_running(asked: Sequence[Asked], timeout_s: float) -> dict[str, str]:
    """Return when Serve says of each endpoint that it runs as asked, or has failed: by name, why."""
    return wait(asked, lambda one: status_of(one.application) == "RUNNING", timeout_s)


def wait(asked: Sequence[Asked], done: Callable[[Asked], bool], timeout_s: float) -> dict[str, str]:
    """By name, why an endpoint did not come to be `done`."""
    until = time.monotonic() + timeout_s
    failed: dict[str, str] = {}
    waiting = list(asked)
    while waiting:
        waiting = [one for one in waiting if not done(one)]
        for one in [one for one in waiting if status_of(one.application) == "DEPLOY_FAILED"]:
            failed[one.name] = reason_of(serve.status().applications[one.application])
            waiting.remove(one)
        if time.monotonic() > until:
            return failed | {one.name: f"it was not ready after {timeout_s:.0f} s; {LOGS}" for one in waiting}
        if waiting:
            time.sleep(LOOK_EVERY_S)
    return failed


def status_of(application: str) -> str:
    found = serve.status().applications.get(application)
    return str(found.status.value) if found else ""


def reason_of(status: Any) -> str:
    """The line of a replica's traceback that says what went wrong."""
    texts = [one.message for one in status.deployments.values()] or [status.message]
    lines = [line.strip() for text in texts for line in text.splitlines() if "Error" in line or "lakeloop" in line]
    return str(lines[-1] if lines else status.message)
