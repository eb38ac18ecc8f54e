"""Endpoint, address style, region, credentials and authority come by the standard AWS variables or by a profile, and
reach boto3, delta-rs, DuckDB and pyarrow alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pytest

from lakeloop.lakehouse.errors import Invalid, LakeloopError, Unavailable
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.query.connecting import _secret
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.store import Location
from lakeloop.lakehouse.store.arrow import arrow_filesystem
from lakeloop.lakehouse.store.opening import open_store
from lakeloop.tests.conftest import SECRET
from lakeloop.tests.functional.lakehouse.authority import Authority, make_authority
from lakeloop.tests.proxies import Proxy, passing_on

REGION, TOKEN = "eu-central-1", "a-session-token"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


@pytest.fixture
def secured(s3: str, bucket: str, authority: Authority) -> Iterator[Proxy]:
    """moto behind TLS, with a certificate of an authority that this machine does not know."""
    with passing_on(s3, authority.certificate) as made:
        yield made


def by_variables(url: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_CA_BUNDLE": str(bundle),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_S3_ADDRESSING_STYLE": "path",
    }.items():
        monkeypatch.setenv(name, value)


def by_profile(url: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config = bundle.parent / "config"
    config.write_text(f"""
[profile lab]
endpoint_url = {url}
ca_bundle = {bundle}
region = {REGION}
aws_access_key_id = profile-key
aws_secret_access_key = {SECRET}
aws_session_token = {TOKEN}
s3 =
    addressing_style = path
""")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "lab")


def write_and_read(lake: Lake, proxy: Proxy) -> dict[str, list[Mapping[str, str]]]:
    """A little work of each engine; returns the headers of its requests, by which it is told (its User-Agent)."""
    lake.store.put("key", b"boto3")
    assert lake.store.get("key") == b"boto3"
    lake.record("events", [{"kind": "k", "key": "1"}], "one")
    assert lake.journal("events").fold() == 1
    written = len(proxy.headers)
    assert lake.sql("select kind, key from lakeloop.events").to_pylist() == [{"kind": "k", "key": "1"}]
    files, root = arrow_filesystem(lake.store.location())
    with files.open_input_file(f"{root}/key") as file:
        assert file.read() == b"boto3"

    def of(agent: str, asked: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
        return [one for one in asked if one["user-agent"].startswith(agent)]

    return {
        "boto3": of("Boto3/", proxy.headers),
        "delta-rs": of("object_store/", proxy.headers[:written]),
        "delta-rs again, and DuckDB's extension delta": of("object_store/", proxy.headers[written:]),
        "DuckDB's extension httpfs": of("duckdb/", proxy.headers),
        "pyarrow": of("aws-sdk-cpp/", proxy.headers),
    }


@pytest.mark.parametrize("given", [by_variables, by_profile])
def test_all_four_engines_reach_an_https_endpoint_of_an_authority_of_ones_own(
    secured: Proxy,
    bucket: str,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    given: Callable[[str, Path, pytest.MonkeyPatch], None],
) -> None:
    given(secured.url, authority.bundle, monkeypatch)
    asked = write_and_read(open_lake(f"s3://{bucket}/lake", who="tester"), secured)
    key = "profile-key" if given is by_profile else "moto-key"
    for engine, requests in asked.items():
        assert requests, engine
        assert {one["x-amz-security-token"] for one in requests} == {TOKEN}, engine
        for one in requests:
            scope = one["authorization"].partition("Credential=")[2].split(",")[0].split("/")
            assert (scope[0], *scope[2:]) == (key, REGION, "s3", "aws4_request"), engine
    assert all(path.startswith(f"/{bucket}") for path in (one.split()[1] for one in secured.seen))


def test_without_the_authority_each_engine_refuses_the_endpoint(
    secured: Proxy, bucket: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_variables(secured.url, authority.bundle, monkeypatch)
    lake = open_lake(f"s3://{bucket}/lake")
    write_and_read(lake, secured)
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.delenv("SSL_CERT_FILE")
    asked = len(secured.seen)
    stranger = open_lake(f"s3://{bucket}/lake")
    assert "SSL_CERT_FILE" not in os.environ
    with pytest.raises(Unavailable, match="no trust in https://") as refused:
        stranger.store.get("key")
    assert "AWS_CA_BUNDLE" in refused.value.todo
    with pytest.raises(LakeloopError):
        stranger.table("lakeloop/events")
    scan = f"select * from delta_scan('{lake.url}/tables/lakeloop/events')"
    with Session(stranger.store.location(), lambda name: None) as session, pytest.raises(duckdb.IOException):
        session._connection.execute(scan)
    files, root = arrow_filesystem(stranger.store.location())
    with pytest.raises(OSError, match="certificate"):
        files.open_input_file(f"{root}/key")
    assert len(secured.seen) == asked


def test_an_engine_is_given_nothing_that_it_knows_by_the_region(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for region in ("us-east-1", "eu-central-1", "cn-north-1"):
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        location = open_store("s3://bucket/lake").location()
        assert location.options["AWS_REGION"] == region
        assert location.endpoint == "" == location.options.get("AWS_ENDPOINT_URL", "")
    inside = "https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", inside)
    assert open_store("s3://bucket/lake").location().endpoint == inside


def test_virtual_style_puts_the_bucket_before_the_endpoint_for_delta_rs_alone(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example:9000")
    monkeypatch.setenv("AWS_S3_ADDRESSING_STYLE", "virtual")
    location = open_store("s3://bucket/lake").location()
    assert location.options["AWS_ENDPOINT_URL"] == "https://bucket.store.example:9000"
    assert location.options["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] == "true"
    assert (location.virtual, location.endpoint) == (True, "https://store.example:9000")
    assert "bucket.store" not in _secret(location)
    monkeypatch.setenv("AWS_S3_ADDRESSING_STYLE", "path")
    location = open_store("s3://bucket/lake").location()
    assert (location.virtual, location.options["AWS_ENDPOINT_URL"]) == (False, "https://store.example:9000")


def test_the_address_style_of_a_profile_counts(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[profile lab]\ns3 =\n    addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert open_store("s3://bucket/lake").location().virtual


def test_a_bundle_that_is_not_there_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/bundle.pem")
    with pytest.raises(Invalid, match=r"no CA bundle /no/such/bundle\.pem") as error:
        open_store("s3://bucket/lake")
    assert "AWS_CA_BUNDLE" in error.value.todo


def test_authorities_that_somebody_chose_for_the_process_stay(
    s3: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    monkeypatch.setenv("SSL_CERT_FILE", "chosen")
    open_store("s3://bucket/lake")
    assert os.environ["SSL_CERT_FILE"] == "chosen"
    monkeypatch.delenv("SSL_CERT_FILE")
    open_store("s3://bucket/lake")
    assert os.environ["SSL_CERT_FILE"] == str(authority.bundle)


def test_a_folder_is_pyarrows_own_too(tmp_path: Path) -> None:
    files, root = arrow_filesystem(Location(str(tmp_path)))
    (tmp_path / "key").write_bytes(b"1")
    with files.open_input_file(f"{root}/key") as file:
        assert file.read() == b"1"
