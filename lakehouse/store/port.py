"""The port to an object store: four verbs and one precondition, and nothing that some store cannot keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, Protocol


class Entry(NamedTuple):
    """One listed object; with a delimiter also a common prefix, whose key ends with it and whose size is 0."""

    key: str
    size: int
    age_s: float
    """Seconds since it was written, by the store's own clock."""
    tag: str = ""
    """Another one whenever the object is written anew: S3's ETag, a file's inode, time and size. Empty for a common
    prefix."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where the lake lies, for engines that read it by themselves (delta-rs, DuckDB)."""

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


class Store(Protocol):
    """Objects under keys. Every adapter passes `lakehouse.testing.StoreContract`.

    Errors: NotFound, AlreadyExists, Unknown (the answer to a conditional put was lost and the key is now taken),
    Denied, Unavailable (after bounded retries).
    """

    @property
    def url(self) -> str: ...

    def location(self) -> Location:
        """The lake's place for other engines. Invalid where no other process can reach it (memory)."""
        ...

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes [start, stop) of an object: one GET."""
        ...

    def put(self, key: str, body: bytes | BinaryIO, *, if_absent: bool = False) -> None:
        """Write an object whole: one PUT; a reader sees the old bytes or the new.

        `if_absent`: AlreadyExists if the key is taken.
        """
        ...

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[Entry]:
        """Objects whose key begins with `prefix` and sorts behind `after`, by the order of the keys' UTF-8 bytes."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; a key that is not there is no error."""
        ...
