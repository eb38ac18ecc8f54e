"""A local cluster and its driver: quiet, gone with it, and no hindrance for the next when the driver was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lakeloop.ray_jobs.machine import naming

pytestmark = pytest.mark.ray

DRIVER = """
import sys, time
from pathlib import Path
from lakeloop.ray_jobs.cluster import start_local
with start_local(Path(sys.argv[1]), serve=True, cpus=1) as cluster:
    from ray import serve
    from lakeloop.ray_jobs.machine import free_ports
    serve.start(http_options={"host": "127.0.0.1", "port": free_ports(1)[0]})
    Path(sys.argv[2]).write_text(str(cluster.run.folder))
    time.sleep(600 if sys.argv[3] == "stay" else 0)
"""


def drive(tmp_path: Path, what: str) -> tuple[subprocess.Popen[str], Path]:
    """A driver in a process of its own, once its cluster runs; and the cluster's folder."""
    told = tmp_path / f"told-{time.monotonic_ns()}"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "ray"), str(told), what],
        stdout=(tmp_path / "out").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (told.exists() and told.read_text()):
        assert driver.poll() is None, (tmp_path / "out").read_text()
        time.sleep(0.05)
    return driver, Path(told.read_text())


@pytest.mark.slow
def test_after_a_killed_driver_the_next_start_works_and_nothing_of_the_first_stays(tmp_path: Path) -> None:
    driver, first = drive(tmp_path, "stay")
    assert naming(first)()
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    again, second = drive(tmp_path, "leave")
    assert again.wait() == 0
    assert naming(first)() == naming(second)() == []
    assert not first.exists()
    assert not second.exists()
    assert (tmp_path / "out").read_text() == ""


def test_sigterm_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    driver, folder = drive(tmp_path, "stay")
    driver.terminate()
    assert driver.wait() == 128 + signal.SIGTERM
    assert naming(folder)() == []
    assert not folder.exists()
    assert (tmp_path / "out").read_text() == ""
