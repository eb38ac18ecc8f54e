"""A landed object as a file of this machine: copied in bounded memory, hashed, unpacked by its name's ending.

What is copied is one state of the object: where it may have changed under the copy, it is copied again.
"""

from __future__ import annotations

import gzip
import hashlib
import time
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lakeloop.lakehouse.errors import Conflict, Invalid, NotFound
from lakeloop.lakehouse.store import Store

PART = 16 << 20
AT_ONCE = 4
TRIES = 5
CLOCK_S = 2.0
"""S3 tells times in whole seconds: an object is surely unchanged when it is older than the copy by more than this."""
MOST = (1 << 30, 300)
"""A packed file may grow to this many bytes, or by this factor, whichever is more."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A copy of an object, and the SHA-256 of its bytes."""

    path: Path
    sha256: str
    size: int
    began: float
    """`time.monotonic()` before the copy."""


def spool(store: Store, key: str, size: int, folder: Path) -> Spooled:
    """Copy an object, of about this size, to a file in `folder`.

    NotFound when it is gone; Conflict when it changes again and again.
    """
    last = ""
    for _ in range(TRIES):
        began = time.monotonic()
        copied = _copy(store, key, folder / "landed", size, began)
        if copied.size <= PART or copied.sha256 == last or unchanged_since(store, key, copied):
            return copied
        last = copied.sha256
    raise Conflict(f"{key} is written again while it is read", todo="land each file under a name of its own")


def unchanged_since(store: Store, key: str, copied: Spooled) -> bool:
    """Whether the store's own clock says that an object is as it was copied. False when it may not be, or is gone."""
    entry = next((entry for entry in store.list(key, limit=1) if entry.key == key), None)
    return entry is not None and entry.size == copied.size and entry.age_s > time.monotonic() - copied.began + CLOCK_S


def _copy(store: Store, key: str, path: Path, size: int, began: float) -> Spooled:
    digest, count = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for data in parts(store, key, size):
            digest.update(data)
            file.write(data)
            count += len(data)
    return Spooled(path, digest.hexdigest(), count, began)


def parts(store: Store, key: str, size: int) -> Iterator[bytes]:
    """The bytes of an object in order, several ranges at once; also when it is longer than `size` says."""
    first = store.get(key, 0, PART)
    yield first
    at = PART
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while at < size:
            begins = range(at, min(at + AT_ONCE * PART, size), PART)
            yield from pool.map(lambda begin: store.get(key, begin, begin + PART), begins)
            at = begins[-1] + PART
    if len(first) == PART:
        while data := store.get(key, at, at + PART):
            yield data
            at += PART


def unpacked(name: str, path: Path, folder: Path) -> Path:
    """The file itself, or what it holds when its name ends in .gz or .zip. Invalid when it is broken, holds several
    files, or grows beyond reason."""
    if name.endswith(".gz"):
        with open(path, "rb") as packed, gzip.GzipFile(fileobj=packed) as text:
            return _unpack(text, name, path, folder, "gzip")
    if name.endswith(".zip"):
        with _zip(name, path) as archive, _only_member(name, archive) as text:
            return _unpack(text, name, path, folder, "zip")
    return path


def plain_name(name: str) -> str:
    """A file's name without the ending that says how it is packed."""
    return name.removesuffix(".gz").removesuffix(".zip")


def _unpack(text: BinaryIO | gzip.GzipFile, name: str, path: Path, folder: Path, kind: str) -> Path:
    most, target = max(MOST[0], MOST[1] * path.stat().st_size), folder / "unpacked"
    try:
        with open(target, "wb") as file:
            while data := text.read(1 << 20):
                file.write(data)
                if file.tell() > most:
                    raise Invalid(
                        f"it unpacks to more than {most >> 20:,} MiB", where=name, todo="send it in parts, or unpacked"
                    )
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise Invalid(f"this is not a whole {kind} file: {error}", where=name, todo="send it again") from error
    return target


def _zip(name: str, path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise Invalid(f"this is not a whole zip file: {error}", where=name, todo="send it again") from error


def _only_member(name: str, archive: zipfile.ZipFile) -> BinaryIO:
    members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        raise Invalid(f"the archive holds {len(members)} files", where=name, todo="send one file in each archive")
    try:
        return archive.open(members[0])  # type: ignore[return-value]
    except (RuntimeError, NotImplementedError) as error:  # a password; a packing that nobody else uses
        raise Invalid(f"the archive cannot be opened: {error}", where=name, todo="send it as gzip") from error


def same_bytes(store: Store, key: str, copied: Spooled) -> bool:
    """Whether an object still holds what was copied; False when it is gone."""
    if unchanged_since(store, key, copied):
        return True
    digest = hashlib.sha256()
    try:
        for data in parts(store, key, copied.size):
            digest.update(data)
    except NotFound:
        return False
    return digest.hexdigest() == copied.sha256
