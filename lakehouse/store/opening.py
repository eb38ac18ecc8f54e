"""From a lake's url to its store: the one place where an adapter is chosen."""

from __future__ import annotations

import os
from pathlib import Path

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.store.port import Store


def open_store(url: str) -> Store:
    """`s3://bucket/prefix`, `memory://name` (tests), or a folder. No request is made."""
    scheme, found, rest = url.partition("://")
    if not found:
        from lakeloop.lakehouse.store.folder import FolderStore

        return FolderStore(Path(url).expanduser())
    if scheme == "memory":
        from lakeloop.lakehouse.store.memory import MemoryStore

        return MemoryStore(rest)
    bucket, _, prefix = rest.partition("/")
    if scheme == "s3" and bucket:
        from lakeloop.lakehouse.store.s3 import S3Store

        store = S3Store(bucket, prefix)
        if store.ca_bundle:
            # delta-rs and DuckDB's delta extension take authorities from this variable only, whenever they connect.
            os.environ.setdefault("SSL_CERT_FILE", store.ca_bundle)
        return store
    raise Invalid(
        f"{url!r} is not a lake",
        todo="name a folder, or s3://bucket/prefix (any S3-compatible store, with AWS_ENDPOINT_URL)",
    )
