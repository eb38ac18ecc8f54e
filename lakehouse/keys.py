"""Where everything lies: the names of objects in a lake, as pure functions. No other module spells a prefix."""

from __future__ import annotations

import re
from datetime import datetime

from lakeloop.lakehouse.errors import Invalid

LAST_REVISION = 99_999_999
NAME = re.compile(r"[a-z][a-z0-9_]*")

FORMAT = "_lake/format.json"
FORGET_KEY = "_lake/forget.key"
EVENTS = "events/pending/"
OPEN_RUNS = "open/"
LANDING = "landing/"
DOCUMENTS = "docs/"
INBOX = "inbox/"
QUARANTINED_SEGMENTS = "quarantine/inbox/"
RETRIED = ".quarantine.jsonl"
"""How a landed file ends whose rows come out of quarantine: JSON Lines, whatever the source's format is."""


def check_key(key: str) -> str:
    """The key itself, or Invalid.

    Relative, no empty, `.` or `..` part, no control characters, at most 1,024 bytes (S3's limit).
    """
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts) or any(ord(c) < 32 or c == "\\" for c in key):
        raise Invalid(f"{key!r} cannot be a key of a lake", todo="use relative paths without '..', empty parts or '\\'")
    if len(key.encode()) > 1024:
        raise Invalid(f"the key {key[:60]!r}… is longer than 1,024 bytes", todo="use shorter names")
    return key


def check_name(name: str, kind: str) -> str:
    """The name itself, or Invalid: lower case letters, digits and `_`, beginning with a letter."""
    if not NAME.fullmatch(name):
        raise Invalid(f"{name!r} cannot be the name of a {kind}", todo="use a-z, 0-9 and _, beginning with a letter")
    return name


def documents(kind: str) -> str:
    return f"docs/{kind}/"


def revisions(kind: str, doc_id: str) -> str:
    return f"docs/{kind}/{doc_id}/"


def revision(kind: str, doc_id: str, number: int) -> str:
    """Counted down, so that a LIST shows the newest first."""
    return f"docs/{kind}/{doc_id}/{LAST_REVISION - number:08d}.json"


def revision_number(key: str) -> int:
    return LAST_REVISION - int(key.rsplit("/", 1)[1].removesuffix(".json"))


def table(name: str) -> str:
    return f"tables/{name}"


def inbox(journal: str) -> str:
    return f"inbox/{journal}/"


def segment(journal: str, name: str) -> str:
    return f"inbox/{journal}/{name}"


def artifact(owner_kind: str, owner_id: str, sha256: str) -> str:
    return f"artifacts/{owner_kind}/{owner_id}/{sha256}"


def landing(project: str, source: str = "") -> str:
    return f"landing/{project}/{source}/" if source else f"landing/{project}/"


def raw(project: str, source: str, at: datetime, file: str) -> str:
    return f"raw/{project}/{source}/{at:%Y-%m-%d}/{file}"


def quarantined(project: str, source: str = "") -> str:
    return f"quarantine/{project}/{source}/" if source else f"quarantine/{project}/"


def online(project: str, view: str, version: str, sha256: str) -> str:
    return f"online/{project}/{view}/{version}/{sha256}.arrow"


def open_run(run: str) -> str:
    return f"open/{run}"


def event(kind: str, key: str) -> str:
    return f"events/pending/{kind}-{key}"
