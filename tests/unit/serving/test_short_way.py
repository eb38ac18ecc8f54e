"""What goes the short way, and what goes on to Ray."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lakeloop.ray_jobs.serving.short_way import ShortWay, middlewares, open_for


def answered(path: str, root: str = "", kind: str = "http") -> tuple[str, str]:
    """Who answered, and what was the root of its paths."""
    seen: list[tuple[str, str]] = []

    def app(name: str) -> Any:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            seen.append((name, scope.get("root_path", "")))

        return answer

    async def nothing(*_: Any) -> Any: ...

    open_for(ROUTE, app("endpoint"))
    asyncio.run(ShortWay(app("Ray"))({"type": kind, "path": path, "root_path": root}, nothing, nothing))
    return seen[0]


ROUTE = "/v2/models/short-way"


@pytest.mark.parametrize("rest", ["", "/infer", "/versions/3/infer"])
def test_what_is_below_the_endpoint_goes_straight_to_it(rest: str) -> None:
    assert answered(ROUTE + rest) == ("endpoint", ROUTE)


def test_paths_begin_behind_the_root_that_a_server_is_mounted_at() -> None:
    assert answered(f"/ml{ROUTE}/infer", "/ml") == ("endpoint", f"/ml{ROUTE}")


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes", "/", f"{ROUTE}er/infer", "/v2/models"])
def test_everything_else_goes_on_to_ray(path: str) -> None:
    assert answered(path) == ("Ray", "")


def test_what_is_not_http_goes_on_to_ray() -> None:
    assert answered(ROUTE, kind="lifespan") == ("Ray", "")


def test_ray_is_given_the_middleware_in_the_form_it_asks_for() -> None:
    from starlette.middleware import Middleware

    (one,) = middlewares()
    assert isinstance(one, Middleware)
    assert one.cls is ShortWay
