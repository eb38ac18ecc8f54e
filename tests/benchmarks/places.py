"""Where benchmarks run: a folder, a bucket of a moto server of their own; and how large."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.conftest import moto_server


def scaled(size: int) -> int:
    """A size, divided by the argument of the command line: a quick trial of a benchmark."""
    return max(1, size // int(sys.argv[1])) if len(sys.argv) > 1 else size


@contextmanager
def moto() -> Iterator[str]:
    """`s3://bucket` of a new moto server, to which the AWS variables point from now on."""
    import boto3

    with moto_server() as endpoint:
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ALLOW_HTTP": "true",
        }
        boto3.client("s3").create_bucket(Bucket="bench")
        yield "s3://bench"


def in_folder_and_on_moto(call: Callable[[str, str], None]) -> None:
    """The call with a place and its name in a report, twice."""
    with tempfile.TemporaryDirectory() as folder:
        call(f"{folder}/lake", "a folder")
    with moto() as url:
        call(url, "moto")
