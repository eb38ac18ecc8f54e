"""A proxy before moto that does to requests what networks and odd vendors do."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

DROP = -1
"""Instead of a status: the request is passed on, and the connection closed without an answer."""


CUT = -2
"""Instead of a status: of the answer only half arrives."""
DENY = -3
"""Instead of a status: the request is passed on, and answered with 403, which no client tries again."""


class Passed(NamedTuple):
    """One request that was answered, and how many bytes its answer had."""

    method: str
    path: str
    query: str
    status: int
    size: int


REFUSAL = b"<Error><Code>Proxy</Code><Message>made to fail</Message></Error>"


@dataclass
class Proxy:
    """Passes requests on to S3. `answer` may give a status to answer with instead (nothing is passed on), or one of
    DROP, CUT and DENY; `delay` seconds go by before an answer; `before` sees the headers that are passed on and may
    change them; `alter` may change what is answered."""

    target: str
    strip: tuple[str, ...] = ()
    answer: Callable[[str, str, int], int] = lambda method, path, number: 0
    delay: Callable[[str, str, int], float] = lambda method, path, number: 0.0
    before: Callable[[str, str, dict[str, str]], None] = lambda method, path, headers: None
    alter: Callable[[str, str, int, bytes], tuple[int, bytes]] = lambda method, path, status, data: (status, data)
    wait: threading.Event = field(default_factory=threading.Event)
    seen: list[str] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def note(self, method: str, path: str) -> int:
        """How often this method was seen for this path, now included."""
        with self.lock:
            self.seen.append(f"{method} {path}")
            return self.seen.count(f"{method} {path}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        proxy = self.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        number = proxy.note(self.command, path)
        decided = proxy.answer(self.command, path, number)
        if decided > 0:
            return self._send(decided, [], REFUSAL)
        connection = http.client.HTTPConnection(urlsplit(proxy.target).netloc)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in proxy.strip}
        proxy.headers.append({name.lower(): value for name, value in headers.items()})
        proxy.before(self.command, path, headers)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if decided == DENY:
            return self._send(403, [], REFUSAL)
        if decided == DROP:
            self.close_connection = True
            return None
        proxy.wait.wait(proxy.delay(self.command, path, number))
        status, data = proxy.alter(self.command, self.path, answer.status, data)
        with proxy.lock:
            split = urlsplit(self.path)
            proxy.passed.append(Passed(self.command, unquote(split.path), split.query, status, len(data)))
        return self._send(status, answer.getheaders(), data, cut=decided == CUT)

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        told = {name.lower(): value for name, value in headers}.get("content-length", "0")
        self.send_header("Content-Length", told if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up waiting is part of the tests."""


@contextmanager
def passing_on(target: str, certificate: Path | None = None) -> Iterator[Proxy]:
    """A proxy that runs, behind TLS with a certificate's file."""
    made = Proxy(target)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": made}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    made.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    yield made
    made.wait.set()
    server.shutdown()
    server.server_close()
    thread.join()
