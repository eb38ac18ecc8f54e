"""Where everything lies: the names of objects in a lake, as pure functions. No other module spells a prefix."""

from __future__ import annotations

import re
from datetime import datetime

from lakeloop.lakehouse.errors import Invalid

LAST_REVISION = 99_999_999
LONGEST = 1024
NAME = re.compile(r"[a-z][a-z0-9_]*")
REVISION = re.compile(r"([0-9]{8})\.json")

FORMAT = "_lake/format.json"
COPYING = "_lake/copying.json"
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

    Relative, no empty, `.` or `..` part, no control characters, at most 1,024 bytes (S3's limit) and 255 in a part (a
    folder's limit), so that every lake can be copied to every kind of place.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or _unfit(key):
        raise Invalid(f"{key!r} cannot be a key of a lake", todo="use relative paths without '..', empty parts or '\\'")
    if len(key.encode()) > LONGEST or any(len(part.encode()) > 255 for part in parts):
        raise Invalid(
            f"the key {key[:60]!r}… is longer than 1,024 bytes, or one of its parts than 255", todo="use shorter names"
        )
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself, or Invalid when no key can begin so: a list looks at nothing outside of the lake either."""
    folders = prefix.split("/")[:-1]
    if any(part in ("", ".", "..") for part in folders) or _unfit(prefix):
        raise Invalid(f"no key of a lake begins with {prefix!r}", todo="use relative paths without '..' or empty parts")
    return prefix


def _unfit(text: str) -> bool:
    """Control characters, '\\', and halves of a character that have no UTF-8."""
    return any(ord(c) < 32 or ord(c) == 127 or c == "\\" or "\ud800" <= c <= "\udfff" for c in text)


def check_name(name: str, kind: str) -> str:
    """The name itself, or Invalid: lower case letters, digits and `_`, beginning with a letter."""
    if not NAME.fullmatch(name):
        raise Invalid(f"{name!r} cannot be the name of a {kind}", todo="use a-z, 0-9 and _, beginning with a letter")
    return name


def documents(kind: str) -> str:
    return f"docs/{_one_part(kind)}/"


def revisions(kind: str, doc_id: str) -> str:
    return f"docs/{_one_part(kind)}/{_one_part(doc_id)}/"


def revision(kind: str, doc_id: str, number: int) -> str:
    """Counted down, so that a LIST shows the newest first."""
    return f"{revisions(kind, doc_id)}{LAST_REVISION - number:08d}.json"


def revision_number(key: str) -> int | None:
    """Which revision a key is, or None for a file that some other tool left there."""
    found = REVISION.fullmatch(key.rsplit("/", 1)[1])
    return LAST_REVISION - int(found[1]) if found else None


def _one_part(name: str) -> str:
    """A document's kind or id, or Invalid."""
    if "/" in name:
        raise Invalid(f"{name!r}: a document's kind and id are one part of a key each", todo="leave out '/'")
    return check_key(name)


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


def raw(project: str, source: str, at: datetime, mark: str, file: str) -> str:
    """Where a file goes that was ingested; `mark` tells it from others of its name."""
    return _marked(f"raw/{project}/{source}/{at:%Y-%m-%d}/", mark, file)


def quarantined_file(project: str, source: str, mark: str, file: str) -> str:
    return _marked(quarantined(project, source), mark, file)


def _marked(prefix: str, mark: str, file: str) -> str:
    """A name that was as long as a key may be is shortened to its end: what comes before it here is longer."""
    key = f"{prefix}{mark}/{file}"
    if len(key.encode()) <= LONGEST:
        return key
    return f"{prefix}{mark}/{file.encode()[-200:].decode(errors='ignore').rpartition('/')[2]}"


def quarantined(project: str, source: str = "") -> str:
    return f"quarantine/{project}/{source}/" if source else f"quarantine/{project}/"


def online(project: str, view: str, version: str, sha256: str) -> str:
    return f"online/{project}/{view}/{version}/{sha256}.arrow"


def open_run(run: str) -> str:
    return f"open/{run}"


def event(kind: str, key: str) -> str:
    return f"events/pending/{kind}-{key}"
