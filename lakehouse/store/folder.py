"""A store in a folder of this machine.

A put writes a temporary file and then links (`if_absent`) or renames it: both are atomic, so a reader sees whole
objects only, and a process killed at any point leaves at most a file in `.tmp`. Power loss is not covered: nothing is
flushed to the disk by force.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from lakeloop.lakehouse.errors import AlreadyExists, Denied, Invalid, NotFound, Unavailable
from lakeloop.lakehouse.keys import check_key
from lakeloop.lakehouse.store.port import Entry, Location

TEMPORARY = ".tmp"


class FolderStore:
    """Objects as files below `root`, which is made when the first object is written."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(self.root)
        if self.root.exists() and not self.root.is_dir():
            raise Invalid("this is a file, not a folder", where=self.url, todo="name a folder, or s3://bucket/prefix")

    def location(self) -> Location:
        return Location(self.url)

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        try:
            with open(self.root / check_key(key), "rb") as file:
                file.seek(start)
                return file.read() if stop is None else file.read(max(0, stop - start))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(f"no object {key}", where=self.url) from None
        except OSError as error:
            raise _translated(error, self.url) from error

    def put(self, key: str, body: bytes | BinaryIO, *, if_absent: bool = False) -> None:
        target = self.root / check_key(key)
        temporary = self.root / TEMPORARY / uuid.uuid4().hex
        try:
            _make_parent(temporary)
            with open(temporary, "wb") as file:
                if isinstance(body, bytes):
                    file.write(body)
                else:
                    shutil.copyfileobj(body, file)
            self._publish(temporary, target, if_absent)
        except FileExistsError:
            raise AlreadyExists(f"{key} is taken", where=self.url) from None
        except OSError as error:
            raise _translated(error, self.url) from error
        finally:
            with suppress(OSError):  # as it mostly is: renamed, or never made
                temporary.unlink()

    def _publish(self, temporary: Path, target: Path, if_absent: bool) -> None:
        """A concurrent delete may remove the target's empty folder between its making and the link: then once more."""
        while True:
            try:
                _make_parent(target)
                os.link(temporary, target) if if_absent else os.replace(temporary, target)
                return
            except FileNotFoundError:
                if not temporary.exists():
                    raise
            except FileExistsError:
                if target.is_dir():
                    raise NotADirectoryError(None, None, str(target)) from None
                raise

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[Entry]:
        if delimiter not in ("", "/"):
            raise Invalid(f"cannot list by the delimiter {delimiter!r}", todo="use '/'")
        folder = prefix.rpartition("/")[0]
        found = self._walk(self.root / folder, f"{folder}/" if folder else "", prefix, after, delimiter, time.time())
        return islice(found, limit)

    def _walk(self, path: Path, base: str, prefix: str, after: str, delimiter: str, now: float) -> Iterator[Entry]:
        """Depth first, a folder sorted as its name with '/', which is the order of the whole keys."""
        try:
            entries = list(os.scandir(path))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _translated(error, self.url) from error
        named = (
            (f"{base}{e.name}/" if e.is_dir() else f"{base}{e.name}", e) for e in entries if base or e.name != TEMPORARY
        )
        for key, entry in sorted(named, key=lambda pair: pair[0].encode()):
            if not key.startswith(prefix) and not (key.endswith("/") and prefix.startswith(key)):
                continue
            if key.endswith("/"):
                if delimiter and key.startswith(prefix) and key != prefix:
                    if key.encode() > after.encode() and next(
                        self._walk(Path(entry.path), key, key, "", "", now), None
                    ):
                        yield Entry(key, 0, 0.0)
                elif not (after and key.encode() < after.encode() and not after.startswith(key)):
                    yield from self._walk(Path(entry.path), key, prefix, after, delimiter, now)
            elif key.encode() > after.encode():
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                tag = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
                yield Entry(key, status.st_size, max(0.0, now - status.st_mtime), tag)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self.root / check_key(key)
            try:
                path.unlink(missing_ok=True)
                _drop_empty_folders(path.parent, self.root)
            except NotADirectoryError:
                continue
            except OSError as error:
                raise _translated(error, self.url) from error


def _make_parent(path: Path) -> None:
    """FileExistsError would read as "the key is taken": a file in the way is NotADirectoryError, a folder removed
    meanwhile FileNotFoundError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        kind = NotADirectoryError if path.parent.exists() else FileNotFoundError
        raise kind(None, None, str(path.parent)) from None


def _drop_empty_folders(folder: Path, root: Path) -> None:
    while folder != root:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _translated(error: OSError, url: str) -> Exception:
    if isinstance(error, PermissionError) or error.errno == 30:  # EROFS
        return Denied(
            f"no permission: {error.strerror} ({error.filename})",
            where=url,
            todo="check who owns the folder, or name another with --lake",
        )
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return Invalid(
            f"a file lies where a folder is needed, or a folder where a file is: {error.filename}",
            where=url,
            todo="move it away, or name another lake with --lake",
        )
    return Unavailable(
        f"the folder cannot be used: {error.strerror or error}",
        where=url,
        todo="free space or check the disk, then try again",
    )
