"""The front of a node on Ray: the server's own paths over HTTP, and gRPC, for all of the endpoints.

It holds no model. What it is asked it asks the endpoints, through the node's HTTP proxy as any caller would: so Serve's
balancing, draining and back-pressure hold for gRPC as for HTTP, and ready means that a replica has just answered. It is
a Serve application of its own ("/", which the endpoints' longer prefixes take precedence over), and Serve starts it
again when it dies.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import TracebackType

import aiohttp
from yarl import URL

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.ray_jobs.serving.grpc_server import Answered, Headers

APPLICATION = "front"
IDLE_S = 15.0
"""How long a connection to the proxy is kept; it closes idle ones itself much later."""
log = logging.getLogger("lakeloop.front")


@dataclass(frozen=True, slots=True)
class Front:
    """What a front is made from. No `grpc_port`: HTTP alone."""

    endpoints: tuple[str, ...]
    host: str
    port: int
    grpc_port: int | None


class Proxy:
    """Asks the node's HTTP proxy, over connections that are kept."""

    def __init__(self, host: str, port: int) -> None:
        near = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
        self._url = f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Proxy:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept", "accept-encoding"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, method: str, path: str, headers: Headers, body: bytes) -> Answered:
        """The answer of whichever replica the proxy chooses. Unavailable when the proxy itself does not answer."""
        assert self._session is not None
        try:
            async with self._session.request(
                method, URL(self._url + path, encoded=True), headers=headers, data=body or None
            ) as answer:
                told = {name.lower(): value for name, value in answer.headers.items()}
                return Answered(answer.status, await answer.read(), told)
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(
                f"the proxy of this node did not answer ({type(error).__name__})", todo="try again"
            ) from error
