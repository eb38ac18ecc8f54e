"""What a local cluster is started with."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lakeloop.lakehouse.errors import Refused, Unavailable
from lakeloop.ray_jobs.cluster import _start, environment, haproxy_environment, output_to, start_local
from lakeloop.ray_jobs.haproxy import find_haproxy
from lakeloop.ray_jobs.machine import LONGEST_TMP

NODE_ID, SUFFIX = 56, len(".4194304.tmp")


def test_every_port_and_path_of_haproxy_is_the_runs_own(tmp_path: Path) -> None:
    one, two = environment(tmp_path, haproxy=Path("haproxy")), environment(tmp_path, haproxy=Path("haproxy"))
    ports = {name for name in one if name.endswith("_PORT")}
    assert len({one[name] for name in ports}) == len(ports)
    assert one["RAY_SERVE_HAPROXY_STATS_PORT"] != two["RAY_SERVE_HAPROXY_STATS_PORT"]
    assert all(
        one[name].startswith(str(tmp_path))
        for name in one
        if name.endswith(("_LOC", "_PATH", "_BASE", "_FILE")) and "IMPORT" not in name
    )


def test_haproxys_socket_fits_a_socket_path_in_the_longest_folder_a_run_has() -> None:
    folder = Path("/" + "t" * (LONGEST_TMP - 1)) / "ll-abcdefgh"
    socket = Path(haproxy_environment(folder / "h", folder / "haproxy.sh", 1, 2)["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    assert len(str(socket.parent / ("n" * NODE_ID) / socket.name)) + SUFFIX <= 107


def test_the_token_is_private(tmp_path: Path) -> None:
    path = Path(environment(tmp_path, haproxy=None)["RAY_AUTH_TOKEN_PATH"])
    assert path.stat().st_mode & 0o077 == 0
    assert len(path.read_text()) == 64


def test_without_haproxy_its_mode_is_off(tmp_path: Path) -> None:
    variables = environment(tmp_path, haproxy=None)
    assert variables["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert not any(name.startswith("RAY_SERVE_HAPROXY") for name in variables)


def test_haproxy_is_only_looked_for_on_linux() -> None:
    assert find_haproxy("darwin") is None


def test_a_start_from_another_thread_is_refused(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            start_local(tmp_path)
        except Refused as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
    assert list(tmp_path.iterdir()) == []


def test_output_is_sent_away_and_comes_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with output_to(tmp_path / "log"):
        os.write(1, b"hidden")
        os.write(2, b" too")
    os.write(1, b"seen")
    assert (tmp_path / "log").read_bytes() == b"hidden too"
    assert capfd.readouterr().out == "seen"


@pytest.mark.parametrize("late", [1, 3])
def test_a_node_that_is_not_up_in_time_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    ray = pytest.importorskip("ray")
    tried = []

    def init(**_: object) -> None:
        tried.append(1)
        if len(tried) <= late:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    if late == 1:
        _start(tmp_path, 1, 1 << 20)
    else:
        with pytest.raises(Unavailable, match="timed out during startup"):
            _start(tmp_path, 1, 1 << 20)
    assert len(tried) == min(late + 1, 3)
