"""A store in an S3-compatible bucket, through boto3. The one place that knows S3's error codes.

Retries are ours (tenacity), not botocore's, because a conditional put that is repeated after a lost answer can meet
its own success: then the answer is Unknown, and the caller looks. 409 ConditionalRequestConflict means that nothing
was written, so it is simply tried again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, BinaryIO, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from lakeloop.lakehouse.errors import AlreadyExists, Denied, Invalid, LakeloopError, NotFound, Unavailable, Unknown
from lakeloop.lakehouse.keys import check_key
from lakeloop.lakehouse.store.port import Entry, Location

T = TypeVar("T")
ENDPOINT_TODO = "check AWS_ENDPOINT_URL and that the server runs, then try again"


def default_retrying() -> Retrying:
    """Five tries with full jitter, at most about 6 seconds in all."""
    return Retrying(
        retry=retry_if_exception_type((Unavailable, _NothingWritten)),
        wait=wait_random_exponential(multiplier=0.1, max=3),
        stop=stop_after_attempt(5),
        reraise=True,
    )


class S3Store:
    """Objects below a prefix of a bucket.

    Endpoint, region and credentials come by the standard AWS variables and profiles.
    """

    def __init__(self, bucket: str, prefix: str, *, retrying: Retrying | None = None, client: Any = None) -> None:
        self.bucket, self.prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._retrying = retrying or default_retrying()
        try:
            self._session = boto3.Session()
            self._client = client or self._session.client("s3", config=_config())
        except (BotoCoreError, ValueError) as error:
            raise _translated_setup(error, self.url) from error

    def location(self) -> Location:
        found = self._session.get_credentials()
        credentials = found.get_frozen_credentials() if found else None
        endpoint = self._client.meta.endpoint_url
        options = {"AWS_REGION": self._client.meta.region_name or "us-east-1"}
        if (
            os.environ.get("AWS_ENDPOINT_URL")
            or os.environ.get("AWS_ENDPOINT_URL_S3")
            or "amazonaws.com" not in endpoint
        ):
            options["AWS_ENDPOINT_URL"] = endpoint
            options["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
        if credentials:
            options["AWS_ACCESS_KEY_ID"], options["AWS_SECRET_ACCESS_KEY"] = (
                credentials.access_key,
                credentials.secret_key,
            )
            if credentials.token:
                options["AWS_SESSION_TOKEN"] = credentials.token
        return Location(self.url, options)

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None and stop <= start:
            return b""
        extra = {} if start == 0 and stop is None else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}

        def call() -> bytes:
            try:
                body: bytes = self._client.get_object(Bucket=self.bucket, Key=self.prefix + check_key(key), **extra)[
                    "Body"
                ].read()
            except ClientError as error:
                if _code(error) == "InvalidRange":
                    return b""
                raise
            return body

        return self._try(call, key)

    def put(self, key: str, body: bytes | BinaryIO, *, if_absent: bool = False) -> None:
        extra = {"IfNoneMatch": "*"} if if_absent else {}
        doubtful = False

        def call() -> None:
            nonlocal doubtful
            if not isinstance(body, bytes):
                body.seek(0)
            try:
                self._translate(
                    lambda: self._client.put_object(
                        Bucket=self.bucket, Key=self.prefix + check_key(key), Body=body, **extra
                    ),
                    key,
                )
            except Unavailable:
                doubtful = True
                raise
            except AlreadyExists:
                if doubtful:
                    raise Unknown(
                        f"the answer to the write of {key} was lost; it may be ours",
                        where=self.url,
                        todo="read it before writing again",
                    ) from None
                raise

        self._retrying.copy()(call)

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[Entry]:
        token: dict[str, str] = {"StartAfter": self.prefix + after} if after else {}
        left = limit
        while left is None or left > 0:
            asked = {
                "Prefix": self.prefix + prefix,
                "MaxKeys": min(left or 1000, 1000),
                "Delimiter": delimiter,
                **token,
            }
            page = self._try(partial(self._client.list_objects_v2, Bucket=self.bucket, **asked), prefix)
            entries = self._entries(page)
            yield from entries
            left = None if left is None else left - len(entries)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _entries(self, page: Any) -> Sequence[Entry]:
        """Ages by the answer's own Date, so that no writer's clock counts."""
        stamp = page["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(stamp) if stamp else datetime.now(UTC)
        cut = len(self.prefix)
        found = [
            Entry(o["Key"][cut:], o["Size"], max(0.0, (now - o["LastModified"]).total_seconds()), o.get("ETag", ""))
            for o in page.get("Contents", [])
        ]
        found += [Entry(p["Prefix"][cut:], 0, 0.0) for p in page.get("CommonPrefixes", [])]
        return sorted(found, key=lambda entry: entry.key.encode())

    def delete(self, keys: Iterable[str]) -> None:
        names = [{"Key": self.prefix + check_key(key)} for key in keys]
        for at in range(0, len(names), 1000):
            part = names[at : at + 1000]
            asked = {"Objects": part, "Quiet": True}
            answer = self._try(partial(self._client.delete_objects, Bucket=self.bucket, Delete=asked), "")
            for error in answer.get("Errors", []):
                raise Denied(
                    f"{error.get('Code')}: {error.get('Key')} was not deleted",
                    where=self.url,
                    todo="check this role's s3:DeleteObject",
                )

    def _try(self, call: Callable[[], T], key: str) -> T:
        return self._retrying.copy()(lambda: self._translate(call, key))

    def _translate(self, call: Callable[[], T], key: str) -> T:
        try:
            return call()
        except ClientError as error:
            raise _translated(error, key, self) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise Denied(
                "no AWS credentials were found",
                where=self.url,
                todo="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            ) from error
        except (EndpointConnectionError, HTTPClientError) as error:
            raise Unavailable(
                f"no answer from {self._client.meta.endpoint_url}", where=self.url, todo=ENDPOINT_TODO
            ) from error
        except BotoCoreError as error:
            raise Unavailable(f"the request failed: {error}", where=self.url, todo=ENDPOINT_TODO) from error


class _NothingWritten(Unavailable):
    """409 to a racing conditional put: no doubt, only try again."""


def _config() -> Config:
    path_style = {"addressing_style": os.environ.get("AWS_S3_ADDRESSING_STYLE", "auto")}
    return Config(
        retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60, s3=path_style, max_pool_connections=32
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _translated(error: ClientError, key: str, store: S3Store) -> LakeloopError:
    code = _code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    where = store.url
    if code == "NoSuchBucket":
        return NotFound(
            f"there is no bucket {store.bucket!r}",
            where=where,
            todo="create it, or name another with --lake or LAKELOOP_LAKE",
        )
    if status == 412:
        return AlreadyExists(f"{key} is taken", where=where)
    if status == 409:
        return _NothingWritten(f"{key} is being written by another", where=where, todo="try again")
    if status == 404:
        return NotFound(f"no object {key}", where=where)
    if status in (401, 403):
        return Denied(
            f"{code or status}: no permission for {key or 'the bucket'}",
            where=where,
            todo="check the credentials and this role's policy",
        )
    if status == 501:
        return Invalid(
            "the store does not know conditional writes (501)",
            where=where,
            todo="use a store that honours If-None-Match; `lakeloop lake doctor` tells",
        )
    if status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout"):
        return Unavailable(f"the store answered {status} {code}", where=where, todo="try again")
    return Invalid(
        f"the store answered {status} {code}: {error.response.get('Error', {}).get('Message', '')}",
        where=where,
        todo="check the bucket's name and region",
    )


def _translated_setup(error: Exception, url: str) -> LakeloopError:
    if isinstance(error, ProfileNotFound):
        return Invalid(str(error), where=url, todo="check AWS_PROFILE")
    return Invalid(f"the connection cannot be set up: {error}", where=url, todo="check AWS_ENDPOINT_URL and AWS_REGION")
