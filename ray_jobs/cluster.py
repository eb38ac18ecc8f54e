"""Ray on this machine, for as long as this process: quiet, private, and gone with it.

Every port is a free one, every file lies in the run's own short folder, and no cluster but this is ever joined. On
Linux Ray's processes die with the driver, even by SIGKILL; what still stays behind (HAProxy) is ended by the next start
in the same folder. Must be called from the main thread: on Linux Ray's processes die with the *thread* that started
them.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from lakeloop.lakehouse.errors import Refused, Unavailable
from lakeloop.ray_jobs.haproxy import find_haproxy, haproxy_program
from lakeloop.ray_jobs.machine import Run, free_ports, free_range, new_run

OBJECT_STORE_BYTES = 256 << 20
REPLICA_PORTS = 100
SHORT_WAY = "lakeloop.ray_jobs.serving.short_way:middlewares"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "error",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
NO_FAILURE = "ServeController.graceful_shutdown failed"
"""Serve's controller ends itself during the call that asks it to; Ray prints that as a failure, some time later."""


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A cluster of this process. `stop` is safe to call twice; leaving a `with` block calls it."""

    folder: Path
    """What lives longer than one run: prediction logs that wait, records of runs."""
    run: Run
    haproxy: bool
    _environment: Mapping[str, str | None]
    _on_sigterm: Any

    @property
    def log_folder(self) -> Path:
        """Where this node's prediction logs wait to be shipped."""
        return self.folder / "predictions"

    def stop(self) -> None:
        """End every process of the cluster, remove its files and put the environment back."""
        import ray

        if not self.run.record.exists():
            return
        ray.shutdown()
        self.run.close()
        _put_back(self._environment)
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_local(
    folder: Path, *, cpus: int = 2, object_store_bytes: int = OBJECT_STORE_BYTES, serve: bool = False
) -> LocalCluster:
    """Start Ray in this process, about 5 s. `serve` prepares it for endpoints, which must be known before it starts.

    Unavailable when Ray cannot start, or a cluster is already here.
    """
    if threading.current_thread() is not threading.main_thread():
        raise Refused("Ray can only be started from the main thread", todo="its processes would end with the thread")
    ray = _import_ray()
    if ray.is_initialized():
        raise Unavailable("this process is already connected to a Ray cluster", todo="stop that one first")
    run = new_run(folder.absolute())
    haproxy = find_haproxy() if serve else None
    on_sigterm = signal.getsignal(signal.SIGTERM)
    before = _put(environment(run.folder, haproxy=haproxy))
    cluster = LocalCluster(folder.absolute(), run, haproxy is not None, before, on_sigterm)
    try:
        _start(run.folder, cpus, object_store_bytes)
        if serve:
            _hush_serve()
        signal.signal(signal.SIGTERM, _leave)  # Ray's own handler prints a stack first
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _start(folder: Path, cpus: int, object_store_bytes: int) -> None:
    import ray
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")  # Ray read its environment when it was imported
    AuthenticationTokenLoader.instance().reset_cache()
    again = Retrying(
        stop=stop_after_attempt(3),
        wait=wait_random(0, 3),  # two clusters that start at once may have met over a port
        retry=retry_if_exception_type(TimeoutError),
        before_sleep=lambda _: ray.shutdown(),
        reraise=True,
    )
    try:
        again(_init, folder, cpus, object_store_bytes)
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unavailable(
            f"Ray cannot start ({first[:200]})", where=str(folder), todo="free memory and space in /tmp, then try again"
        ) from error


def _init(folder: Path, cpus: int, object_store_bytes: int) -> None:
    """TimeoutError when a node was not up in time."""
    import ray

    try:
        with output_to(folder / "start.log"):
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=object_store_bytes,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
            )
    except Exception as error:
        if type(error) is Exception:  # which is how Ray says it
            raise TimeoutError(str(error)) from error
        raise


def _hush_serve() -> None:
    """Serve sets its logger up when it is imported, from the environment of that moment: not before Ray has started."""
    importlib.import_module("ray.serve")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


def _leave(number: int, frame: object) -> None:
    """SIGTERM leaves as SIGINT does: through every `with` and `finally`."""
    raise SystemExit(128 + number)


def environment(folder: Path, *, haproxy: Path | None) -> dict[str, str]:
    """The variables of a private cluster in `folder`, with that HAProxy or with none.

    Ray reads them when it starts, and its workers inherit them.
    """
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    first, last = free_range(REPLICA_PORTS)
    metrics, stats, fallback, fallback_grpc = free_ports(4)
    private = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # by default a proxy that needs 5 s to start is killed
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": SHORT_WAY,
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if haproxy else "0",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1" if haproxy else "0",
    }
    if haproxy is None:
        return QUIET | private
    program = haproxy_program(folder, haproxy, metrics, stats)
    return QUIET | private | haproxy_environment(folder / "h", program, metrics, stats)


def haproxy_environment(folder: Path, program: Path, metrics: int, stats: int) -> dict[str, str]:
    """HAProxy's part.

    Names are short: Ray puts a node's id of 56 characters between folder and name, HAProxy a suffix behind it.
    """
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(program),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "c"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "s"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "300",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "10",
    }


def _import_ray() -> Any:
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", NO_FAILURE)  # read when Ray is imported, and only then
    try:
        import ray
    except ImportError as error:
        raise Unavailable("Ray is not installed", todo="pip install 'lakeloop[ray]'") from error
    return ray


def _put(variables: Mapping[str, str]) -> dict[str, str | None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    return before


def _put_back(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send this process's output, also that of C++ code and of children, to a file for a while."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with path.open("ab") as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
