"""A proxy before moto that does to requests what networks and odd vendors do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

DROP = -1
"""Instead of a status: the request is passed on, and the connection closed without an answer."""


@dataclass
class Proxy:
    """Passes requests on to S3. `answer` may give a status to answer with instead (nothing is passed on), or DROP;
    `delay` seconds go by before an answer."""

    target: str
    strip: tuple[str, ...] = ()
    answer: Callable[[str, str, int], int] = lambda method, path, number: 0
    delay: Callable[[str, str, int], float] = lambda method, path, number: 0.0
    wait: threading.Event = field(default_factory=threading.Event)
    seen: list[str] = field(default_factory=list)
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
            return self._send(decided, [], b"<Error><Code>Proxy</Code><Message>made to fail</Message></Error>")
        connection = http.client.HTTPConnection(urlsplit(proxy.target).netloc)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in proxy.strip}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if decided == DROP:
            self.close_connection = True
            return None
        proxy.wait.wait(proxy.delay(self.command, path, number))
        return self._send(answer.status, answer.getheaders(), data)

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up waiting is part of the tests."""


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before moto, which the AWS variables now point to."""
    made = Proxy(s3)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": made}))
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.wait.set()
    server.shutdown()
    server.server_close()
    thread.join()
