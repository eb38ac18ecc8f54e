"""Runs on this machine: a dead one is ended by its record, a living one is left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from lakeloop.ray_jobs.machine import belongs, free_ports, free_range, new_run


def test_a_run_has_a_short_private_folder_and_closing_it_removes_all(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert len(str(run.folder)) <= 40
    assert run.folder.stat().st_mode & 0o777 == 0o700
    run.close()
    assert not run.folder.exists()
    assert list((tmp_path / "runs").iterdir()) == []


def test_two_living_runs_of_one_folder_leave_each_other_alone(tmp_path: Path) -> None:
    first, second = new_run(tmp_path), new_run(tmp_path)
    assert first.folder.exists()
    first.close()
    assert second.folder.exists()
    second.close()


def test_a_start_ends_what_a_killed_run_left(tmp_path: Path) -> None:
    code = (
        "import os, sys, subprocess; from pathlib import Path\n"
        "from lakeloop.ray_jobs.machine import new_run\n"
        "run = new_run(Path(sys.argv[1]))\n"
        "proxy = run.folder / 'haproxy'\n"
        "os.symlink('/bin/sh', proxy)\n"
        "loop = [str(proxy), '-c', 'while :; do sleep 1; done', f'{run.folder}/h/c']\n"
        "left = subprocess.Popen(loop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(run.folder, left.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    ).stdout
    folder, left = Path(told.split()[0]), int(told.split()[1])
    assert alive(left)
    run = new_run(tmp_path)
    assert not alive(left)
    assert not folder.exists()
    run.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_only_processes_of_ray_belong_to_a_run() -> None:
    folder = Path("/tmp/ll-abc")
    assert belongs(["/x/haproxy", "-f", "/tmp/ll-abc/h/c"], 1, folder)
    assert belongs(["/x/ray/raylet/raylet", "--raylet_socket_name=/tmp/ll-abc/session/sockets/raylet"], 1, folder)
    assert belongs(["/x/python", "/x/ray/_private/log_monitor.py", "--logs-dir=/tmp/ll-abc/session"], 1, folder)
    assert not belongs(["/x/haproxy", "-f", "/tmp/ll-abcd/h/c"], 1, folder)
    assert not belongs(["tail", "-f", "/tmp/ll-abc/session/logs/raylet.out"], 1, folder)
    assert not belongs(["ray::IDLE"], os.getpid(), folder)


def test_free_ports_are_different_and_can_be_bound() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    first, last = free_range(50)
    assert last - first == 49
    for port in (ports[0], first, last):
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))
