"""Lakeloop: the whole MLOps loop on a bucket. `import lakeloop as ll` is the notebook's door."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakeloop.lakehouse.lake import Lake

__all__ = ["connect"]


def connect(lake: str | None = None) -> Lake:
    """The lake at a folder or `s3://bucket/prefix`; a name is an environment of the project here.

    Default: LAKELOOP_LAKE, the project's first environment, ./.lake. Ask it with `.sql("select …")`.
    """
    from lakeloop.infra.place import find_place

    is_url = lake is not None and ("/" in lake or lake.startswith("."))
    return find_place(lake if is_url else None, None if is_url else lake).lake
