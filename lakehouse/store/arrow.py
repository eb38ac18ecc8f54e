"""The lake's place as pyarrow sees it, with the same connection settings as every other engine."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lakeloop.lakehouse.store.port import Location

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def arrow_filesystem(location: Location) -> tuple[FileSystem, str]:
    """pyarrow's filesystem for a location, and the path of the lake's root in it. No request is made."""
    from pyarrow import fs

    _, found, path = location.uri.partition("://")
    if not found:
        return fs.LocalFileSystem(), location.uri
    options = location.options
    endpoint = urlsplit(location.endpoint)
    authority = {"tls_ca_file_path": options["AWS_CA_BUNDLE"]} if "AWS_CA_BUNDLE" in options else {}
    made = fs.S3FileSystem(
        access_key=options.get("AWS_ACCESS_KEY_ID"),
        secret_key=options.get("AWS_SECRET_ACCESS_KEY"),
        session_token=options.get("AWS_SESSION_TOKEN"),
        anonymous="AWS_ACCESS_KEY_ID" not in options,
        region=options["AWS_REGION"],
        scheme=endpoint.scheme or "https",
        endpoint_override=endpoint.netloc + endpoint.path.rstrip("/") or None,
        force_virtual_addressing=location.virtual,
        **authority,
    )
    return made, path
