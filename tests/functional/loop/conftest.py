"""One Ray cluster for all stories; each story on a lake in a folder or a bucket, which only the environment tells."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from lakeloop.tests.functional.loop.driver import Loop
from lakeloop.tests.functional.loop.stories import diabetes, digits, flights

STORIES = {"diabetes": diabetes, "digits": digits, "flights": flights}
LONG = ("diabetes in a folder", "diabetes on s3", "digits in a folder")
PLACES = ("flights on s3", *(pytest.param(place, marks=pytest.mark.slow) for place in LONG))


@pytest.fixture(scope="module")
def environment(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """The standard AWS variables, set before Ray starts: its workers inherit them."""
    nothing = str(tmp_path_factory.mktemp("aws") / "no-such-file")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "LAKELOOP_LAKE", "LAKELOOP_ENV"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", moto_url)
        patch.setenv("AWS_ACCESS_KEY_ID", "moto-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "moto-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", nothing)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", nothing)
        yield patch


@pytest.fixture(scope="module")
def cluster(environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    from lakeloop.ray_jobs.cluster import start_local

    with start_local(tmp_path_factory.mktemp("ray"), serve=True) as started:
        yield started


@pytest.fixture(scope="module", params=PLACES)
def loop(
    request: pytest.FixtureRequest,
    cluster: Any,
    environment: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Loop]:
    """A story on its lake: learnt, served, and asked through its calm phase, whose labels have come."""
    name, _, place = request.param.partition(" ")
    folder = tmp_path_factory.mktemp(name)
    environment.setenv("LAKELOOP_LAKE", new_bucket() if place == "on s3" else str(folder / "lake"))
    loop = Loop(STORIES[name](), folder / "project")
    loop.learn()
    with loop.serve(folder / "predictions"):
        loop.answers = loop.live(loop.story.calm)
        yield loop


def new_bucket() -> str:
    import boto3

    name = f"lake-{uuid.uuid4().hex[:20]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/team/lake"
