"""Artifacts: models, reports and data sets by the hash of their bytes, each below the one thing that owns it.

Nothing is shared between owners, so deleting an owner is safe. What is read is checked against its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lakeloop.lakehouse import keys
from lakeloop.lakehouse.errors import AlreadyExists, Corrupt, Unknown
from lakeloop.lakehouse.store import Store


@dataclass(frozen=True, slots=True)
class Artifact:
    """Where bytes lie, and what they must be."""

    key: str
    sha256: str
    size: int
    name: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Artifact:
        return cls(record["key"], record["sha256"], record["size"], record["name"])


class Artifacts:
    """All artifacts of a lake."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, owner_kind: str, owner_id: str, name: str, data: bytes) -> Artifact:
        """Keep bytes; the same bytes again for the same owner are one object. What is returned for is there."""
        sha256 = hashlib.sha256(data).hexdigest()
        key = keys.artifact(owner_kind, owner_id, sha256)
        try:
            with suppress(AlreadyExists):  # the key is the hash of the bytes
                self._store.put(key, data, if_absent=True)
        except Unknown:
            if not any(entry.key == key for entry in self._store.list(key, limit=1)):
                raise
        return Artifact(key, sha256, len(data), name)

    def get(self, key: str, sha256: str) -> bytes:
        """The bytes, or Corrupt when they are not what was kept."""
        data = self._store.get(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Corrupt(
                f"the bytes of {key} do not match their hash",
                todo="restore the object from a copy of the lake, or train again",
            )
        return data

    def put_folder(self, owner_kind: str, owner_id: str, folder: Path) -> list[Artifact]:
        """Every file below a folder, by its relative path."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [self.put(owner_kind, owner_id, str(path.relative_to(folder)), path.read_bytes()) for path in files]

    def delete(self, owner_kind: str, owner_id: str) -> int:
        """Remove all that one owner has; returns how many objects. Others lose nothing, whatever bytes they have in
        common with it; what a writer puts for this owner meanwhile may stay. Safe to repeat."""
        found = [entry.key for entry in self._store.list(keys.artifact(owner_kind, owner_id, ""))]
        self._store.delete(found)
        return len(found)

    def get_folder(self, artifacts: Iterable[Artifact], folder: Path) -> None:
        """Write artifacts below a folder under their names."""
        for artifact in artifacts:
            target = folder / keys.check_key(artifact.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.get(artifact.key, artifact.sha256))
