"""What the front does between a caller and the node's proxy: here the proxy is a server of this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.ray_jobs.machine import free_ports
from lakeloop.ray_jobs.serving.front import MARK, Proxy, Relayed, reply_of
from lakeloop.ray_jobs.serving.grpc_server import Answered, asking
from lakeloop.ray_jobs.serving.server import Server


def relaying(port: int, ask: Callable[[Any], Awaitable[Any]], *, asleep: bool = False) -> Any:
    """What `ask` gets of the root of a server whose endpoints are elsewhere."""

    async def run() -> Any:
        proxy = Proxy("127.0.0.1", port)
        await proxy.open()
        try:
            faces = {name: Relayed(name, proxy.ask, asleep) for name in ("late", "sum")}
            return await ask(asking(Server(lambda: faces)))
        finally:
            await proxy.close()

    return asyncio.run(run())


def test_paths_bodies_and_statuses_go_through_as_they_are(serves: Any) -> None:
    async def all_of(ask: Any) -> list[Answered]:
        body = json.dumps({"instances": [{"a": 1, "b": 2, "seats": 3}]}).encode()
        return [
            await ask("POST", "/v1/models/sum:predict", {}, body),
            await ask("POST", "/v1/models/sum/versions/1:predict", {}, body),
            await ask("POST", "/v1/models/sum/versions/9:predict", {}, body),
            await ask("POST", "/v1/models/sum:predict", {}, b"["),
            await ask("PUT", "/v1/models/sum:predict", {}, b""),
            await ask("GET", "/v1/models/sum", {}, b""),
            await ask("GET", "/v1/models/s%2F..%2Fm", {}, b""),
            await ask("GET", "/v2/health/ready", {}, b""),
            await ask("GET", "/openapi.json", {}, b""),
        ]

    right, versioned, unknown, broken, method, status, odd, ready, document = relaying(serves.port, all_of)
    assert json.loads(right.body) == json.loads(versioned.body) == {"predictions": [6.0]}
    assert (unknown.status, broken.status, odd.status) == (404, 400, 404)
    assert "version '9'" in json.loads(unknown.body)["error"]
    assert (method.status, method.headers["allow"]) == (405, "POST")
    assert json.loads(status.body)["model_version_status"][0]["state"] == "AVAILABLE"
    assert (ready.status, document.status) == (200, 200)
    assert "/v2/models/late/infer" in json.loads(document.body)["paths"]


def test_a_proxy_that_is_gone_is_unavailable() -> None:
    async def both(ask: Any) -> tuple[Answered, Answered]:
        return await ask("GET", "/v2/health/ready", {}, b""), await ask("POST", "/v1/models/late:predict", {}, b"{}")

    ready, predicted = relaying(free_ports(1)[0], both)
    assert (ready.status, predicted.status) == (503, 503)
    assert predicted.headers["retry-after"] == "1"

    async def alone() -> None:
        proxy = Proxy("127.0.0.1", free_ports(1)[0])
        await proxy.open()
        try:
            await proxy.ask("GET", "/v2", {}, b"")
        finally:
            await proxy.close()

    with pytest.raises(Unavailable, match="did not answer"):
        asyncio.run(alone())


def test_a_question_that_comes_back_is_not_asked_again(serves: Any) -> None:
    async def once(ask: Any) -> Answered:
        return await ask("GET", "/v2/models/late", {MARK[0].decode(): MARK[1].decode()}, b"")

    assert relaying(serves.port, once).status == 503


def test_an_endpoint_that_may_sleep_is_not_woken_to_see_if_it_is_ready() -> None:
    async def once(ask: Any) -> Answered:
        return await ask("GET", "/v2/health/ready", {}, b"")

    assert relaying(free_ports(1)[0], once, asleep=True).status == 200


def test_an_error_of_the_proxy_s_own_is_told_as_no_replica() -> None:
    reply = reply_of(Answered(500, b"Internal Server Error", {"content-type": "text/plain"}))
    assert (reply.status, json.loads(reply.body)["error"]) == (503, "no replica answers")
    ours = reply_of(Answered(500, b'{"error": "x"}', {"content-type": "application/json"}))
    assert (ours.status, ours.body) == (500, b'{"error": "x"}')


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("10.0.0.5", "http://10.0.0.5:80")],
)
def test_a_proxy_on_all_addresses_is_asked_on_this_machine_s(host: str, url: str) -> None:
    assert Proxy(host, 80).url == url
