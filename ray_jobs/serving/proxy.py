"""The way from gRPC to HTTP: a client of this node's own HTTP server (Ray Serve's proxy, or a plain server)."""

from __future__ import annotations

import aiohttp
from yarl import URL

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.ray_jobs.serving.grpc_server import Answered, Headers

IDLE_S = 15.0
"""How long a connection is kept; both servers close idle ones later themselves."""
MARK = (b"x-lakeloop-front", b"1")
"""A header of what is asked this way."""
ASKED_BY = {MARK[0].decode(): MARK[1].decode()}


class Proxy:
    """Asks the HTTP server of this node, over connections that are kept."""

    def __init__(self, host: str, port: int) -> None:
        near = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
        self.url = f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept", "accept-encoding"),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, method: str, path: str, headers: Headers, body: bytes) -> Answered:
        """The answer of whichever process the server chooses. Unavailable when the server itself does not answer."""
        assert self._session is not None
        try:
            async with self._session.request(
                method, URL(self.url + path, encoded=True), headers={**headers, **ASKED_BY}, data=body or None
            ) as answer:
                told = {name.lower(): value for name, value in answer.headers.items()}
                return Answered(answer.status, await answer.read(), told)
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(
                f"the HTTP server of this node did not answer ({type(error).__name__})", todo="try again"
            ) from error
