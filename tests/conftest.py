"""A moto server for each test process, and lakes in a folder and in a bucket of it."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lakeloop.lakehouse.lake import Lake
    from lakeloop.tests.proxies import Proxy


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules marked `slow_on_s3` test what does not depend on the store: in a bucket they are for `make test-all`."""
    for item in items:
        call = getattr(item, "callspec", None)
        if call is not None and call.params.get("lake_url") == "s3" and item.get_closest_marker("slow_on_s3"):
            item.add_marker(pytest.mark.slow)


SECRET = "moto-secret-that-no-message-may-show"
CLEARED = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_S3_ADDRESSING_STYLE",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "LAKELOOP_LAKE",
    "LAKELOOP_USER",
)


# moto looks whether a key is there and writes it then: of two creates at one moment both may win, about once in a
# thousand under load, and a count is lost. Writes one by one keep the promise that S3 gives.
MOTO = """
import logging, sys, threading
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
put_object, writing = S3Response.put_object, threading.Lock()
def put_singly(response):
    with writing:
        return put_object(response)
S3Response.put_object = put_singly
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of a moto server in a process of its own, since delta-rs keeps the GIL in some calls (`history`) and
    would wait for itself. It ends when its standard input does, however the tests end."""
    with subprocess.Popen(
        [sys.executable, "-c", MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.communicate()


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of the moto server of this test process."""
    with moto_server() as url:
        yield url


@pytest.fixture
def s3(moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The standard AWS variables point to moto, and nothing of this machine's own configuration is read. Returns moto's
    address."""
    for name in CLEARED:
        monkeypatch.setenv(name, "")  # so that what a test sets by itself is undone too
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "moto-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
    return moto_url


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before moto, which the AWS variables now point to."""
    from lakeloop.tests.proxies import passing_on

    with passing_on(s3) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


@pytest.fixture
def bucket(s3: str) -> str:
    """A new, empty bucket."""
    import boto3

    name = f"lake-{uuid.uuid4().hex[:20]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["folder", "s3"])
def lake_url(request: pytest.FixtureRequest) -> str:
    """A place for a lake: a folder, and a prefix in a bucket."""
    if request.param == "folder":
        return str(request.getfixturevalue("tmp_path") / "lake")
    return f"s3://{request.getfixturevalue('bucket')}/some/prefix"


@pytest.fixture
def lake(lake_url: str) -> Lake:
    """An empty lake, in a folder and on S3."""
    from lakeloop.lakehouse.lake import open_lake

    return open_lake(lake_url, who="tester")


@pytest.fixture
def folder_lake(tmp_path: Path) -> Lake:
    """An empty lake in a folder."""
    from lakeloop.lakehouse.lake import open_lake

    return open_lake(str(tmp_path / "lake"), who="tester")


@pytest.fixture
def reopened() -> Callable[[Lake], Lake]:
    """The same lake as another process would open it."""
    from lakeloop.lakehouse.lake import open_lake

    return lambda lake: open_lake(lake.url, who="another")
