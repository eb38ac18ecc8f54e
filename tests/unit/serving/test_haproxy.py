"""The script that becomes HAProxy: what it changes in Ray's configuration, checked by HAProxy itself."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lakeloop.ray_jobs.haproxy import find_haproxy, haproxy_program
from lakeloop.ray_jobs.machine import free_ports

needs_haproxy = pytest.mark.skipif(find_haproxy() is None, reason="there is no HAProxy here")
LOGS = """    log 127.0.0.1:514 local0 info
    option httplog
    log /run/metrics.sock len 8192 format rfc5424 local1 debug
    log-format-sd "%{+Q,+E}o [serve@1 app=%[var(txn.serve_app)]]"
"""
CONFIGURATION = """global
    maxconn 100
defaults
    mode http
    log global
    timeout connect 1s
    timeout client 5s
    timeout server 300ms
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
frontend prometheus
    bind :{metrics}
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend http_frontend
    bind 127.0.0.1:{http}
    default_backend replicas
backend replicas
    server one 127.0.0.1:{replica}
listen stats
  bind *:{stats}
  stats enable
"""
RAYS_ANSWER = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"


def test_of_rays_configuration_the_addresses_and_the_answers_change_and_nothing_else(tmp_path: Path) -> None:
    program = haproxy_program(tmp_path, Path("/bin/echo"), 9101, 8404)
    given = CONFIGURATION.format(folder="/ray", metrics=9101, stats=8404, http=8000, replica=1)
    (tmp_path / "c").write_text(LOGS + given)
    told = subprocess.run(
        [program, "-db", "-f", tmp_path / "c", "-sf", "1"], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["-db", "-f", str(tmp_path / "c"), "-sf", "1"], "it is HAProxy by then"
    expected = given.replace("bind :9101", "bind 127.0.0.1:9101").replace("bind *:8404", "bind 127.0.0.1:8404")
    client = "    timeout client 5s\n"
    expected = expected.replace(client, client + "    timeout http-request 10s\n    timeout http-keep-alive 300s\n")
    for status in (502, 503, 504):
        expected = expected.replace(f"{status} /ray/500.http", f"{status} {tmp_path}/{status}.http")
    assert (tmp_path / "c").read_text() == expected


def test_the_configuration_of_this_ray_still_has_the_lines_that_are_changed() -> None:
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

    lines = [line.strip() for line in HAPROXY_CONFIG_TEMPLATE.splitlines()]
    assert "bind :{{ config.metrics_port }}" in lines
    assert "bind *:{{ config.stats_port }}" in lines
    assert "log {{ config.log_target }} local0 info" in lines
    assert "log {{ metrics_socket_path }} len 8192 format rfc5424 local1 debug" in lines
    assert "option httplog" in lines
    assert any("timeout client {{ config.timeout_client_s }}s" in line for line in lines)
    assert any(line.startswith("log-format-sd ") for line in lines)
    assert all(f"errorfile {status} {{{{ config.error_file_path }}}}" in lines for status in (502, 503, 504))


@contextmanager
def running(folder: Path) -> Iterator[int]:
    """HAProxy by the script, in front of a replica that is not there; its port."""
    metrics, stats, port, replica = free_ports(4)
    binary = find_haproxy()
    assert binary is not None
    program = haproxy_program(folder, binary, metrics, stats, head_s=1)
    (folder / "500.http").write_text(RAYS_ANSWER)
    text = CONFIGURATION.format(folder=folder, metrics=metrics, stats=stats, http=port, replica=replica)
    (folder / "c").write_text(text)
    with subprocess.Popen([program, "-db", "-f", folder / "c"], stderr=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.terminate()


@needs_haproxy
def test_where_no_replica_answers_haproxy_says_so_as_an_endpoint_would(tmp_path: Path) -> None:
    with running(tmp_path) as port:
        answer = None
        until = time.monotonic() + 20
        while answer is None and time.monotonic() < until:
            with suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/v2/models/late")
                answer = connection.getresponse()
        assert answer is not None
        assert answer.status == 503
        assert answer.getheader("retry-after") == "1"
        assert answer.getheader("content-type") == "application/json"
        assert set(json.loads(answer.read())) == {"error"}


@needs_haproxy
def test_who_sends_the_head_of_a_request_too_slowly_is_not_waited_for(tmp_path: Path) -> None:
    with running(tmp_path) as port:
        until = time.monotonic() + 20
        connection = None
        while connection is None and time.monotonic() < until:
            with suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        assert connection is not None
        with connection:
            connection.sendall(b"POST /v2/models/late/infer HTTP/1.1\r\nHost: here\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
