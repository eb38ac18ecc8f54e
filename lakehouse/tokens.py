"""Bearer tokens of an endpoint: who may ask it. One document per endpoint, whose history says who made and took what.

An endpoint without the document is open to whoever reaches it. From its first token on it answers only to one, also
when all have been revoked or are over; `open_to_all` lifts that. The lake holds no token, only its SHA-256: a token is
256 random bits, so there is nothing to guess and a slow or salted hash would add nothing but time to each request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.endpoints import endpoint_id
from lakeloop.lakehouse.errors import AlreadyExists, Corrupt, Invalid, NotFound
from lakeloop.lakehouse.lake import Lake

KIND = "tokens"
PREFIX = "lakeloop_"
"""So that scanners for leaked secrets can know one."""
RANDOM_BYTES = 32
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token: never the token."""

    name: str
    digest: bytes
    created: datetime
    expires: datetime | None = None

    def valid(self, now: datetime) -> bool:
        return self.expires is None or now < self.expires


@dataclass(frozen=True, slots=True)
class Keyring:
    """Who may ask an endpoint at one revision of its document."""

    needed: bool = False
    tokens: tuple[Token, ...] = ()
    revision: int = 0

    def admits(self, authorization: str | bytes | None, now: datetime) -> bool:
        """Whether a request with this Authorization header may pass.

        Each token is compared in constant time, and all are, whichever fits.
        """
        if not self.needed:
            return True
        digest = digest_of(authorization)
        fits = [hmac.compare_digest(token.digest, digest) and token.valid(now) for token in self.tokens]
        return any(fits)


OPEN = Keyring()


def create(lake: Lake, project: str, model: str, name: str, expires: datetime | None = None) -> tuple[str, Revision]:
    """A new token, and the revision that knows it. It can be read here, and never again.

    AlreadyExists for a name in use; a Conflict when somebody else changed the endpoint's tokens at the same moment.
    """
    if not NAME.fullmatch(name):
        raise Invalid(f"{name!r} cannot be the name of a token", todo="use a-z, 0-9, '_', '.' and '-'")
    if expires is not None and expires <= lake.clock():
        raise Invalid(f"the token would be over at once ({expires.isoformat()})", todo="choose a time to come")
    there = lake.documents.latest(KIND, endpoint_id(project, model))
    tokens = _tokens(there)
    if any(one["name"] == name for one in tokens):
        raise AlreadyExists(
            f"{model} has a token {name!r}", todo=f"choose another name, or: lakeloop tokens revoke {model} {name}"
        )
    secret = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    record = {
        "name": name,
        "sha256": hashlib.sha256(secret.encode()).hexdigest(),
        "created": lake.clock().isoformat(),
        "expires": expires.isoformat() if expires else None,
    }
    return secret, _write(lake, project, model, there, [*tokens, record], needed=True, why=f"token {name} was made")


def revoke(lake: Lake, project: str, model: str, name: str) -> Revision:
    """Take a token back. NotFound when there is none of that name."""
    there = lake.documents.latest(KIND, endpoint_id(project, model))
    tokens = _tokens(there)
    rest = [one for one in tokens if one["name"] != name]
    if len(rest) == len(tokens):
        raise NotFound(f"{model} has no token {name!r}", todo=f"see `lakeloop tokens list {model}`")
    return _write(lake, project, model, there, rest, needed=True, why=f"token {name} was revoked")


def open_to_all(lake: Lake, project: str, model: str) -> Revision:
    """Let the endpoint answer without a token again, and forget those it has. NotFound when it needs none."""
    there = lake.documents.latest(KIND, endpoint_id(project, model))
    if not keyring(there).needed:
        raise NotFound(f"{model} needs no token", todo="nothing is to be done")
    return _write(lake, project, model, there, [], needed=False, why="opened to all")


def keyring(revision: Revision | None) -> Keyring:
    """What a document says; without one, the endpoint is open. Corrupt if it cannot be understood."""
    if revision is None:
        return OPEN
    try:
        tokens = tuple(map(_token, revision.body["tokens"]))
        return Keyring(bool(revision.body["needed"]), tokens, revision.number)
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(
            f"the tokens of {revision.id} cannot be read ({error!r})", todo="restore the document from a copy"
        ) from error


def of_endpoint(lake: Lake, project: str, model: str) -> Keyring:
    """The tokens of an endpoint as they are now."""
    return keyring(lake.documents.latest(KIND, endpoint_id(project, model)))


def digest_of(authorization: str | bytes | None) -> bytes:
    """The SHA-256 of the token in an Authorization header; of nothing, which fits no token, when there is none."""
    given = authorization.encode() if isinstance(authorization, str) else authorization or b""
    scheme, _, token = given.partition(b" ")
    return hashlib.sha256(token.strip() if scheme.lower() == b"bearer" else b"").digest()


def _write(
    lake: Lake, project: str, model: str, there: Revision | None, tokens: list[Any], *, needed: bool, why: str
) -> Revision:
    body = {"project": project, "model": model, "needed": needed, "tokens": tokens}
    if there is None:
        return lake.documents.create(KIND, endpoint_id(project, model), body, why)
    return lake.documents.update(there, body, why)


def _tokens(there: Revision | None) -> list[dict[str, Any]]:
    return list(there.body["tokens"]) if there else []


def _token(record: Mapping[str, Any]) -> Token:
    expires = record["expires"]
    return Token(
        record["name"],
        bytes.fromhex(record["sha256"]),
        datetime.fromisoformat(record["created"]),
        datetime.fromisoformat(expires) if expires else None,
    )
