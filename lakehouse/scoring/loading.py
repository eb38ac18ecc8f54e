"""From the registry's record of a version to a scorer that answers: every file is checked against its hash."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lakeloop.lakehouse.artifacts import Artifact
from lakeloop.lakehouse.errors import Corrupt
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.learners.choosing import learner_named
from lakeloop.lakehouse.learners.modules import load_module
from lakeloop.lakehouse.learners.protocol import Learner
from lakeloop.lakehouse.scoring.derivation import Derive
from lakeloop.lakehouse.scoring.scorer import Lookup, Scorer
from lakeloop.lakehouse.scoring.signature import Signature

MODEL_FOLDER = "model/"
SIGNATURE = "signature.json"
CODE = "code.py"


def load_scorer(
    lake: Lake, project: str, model: str, version: int, snapshots: Mapping[str, Mapping[str, Any]]
) -> Scorer:
    """The scorer of a registered version.

    `snapshots` names, by feature view, the online snapshot to look up: {"key": …, "sha256": …}. A view without one is
    absent. Cost: one GET per file of the model and per snapshot. Corrupt when bytes do not match, NotFound for no
    such version.
    """
    from lakeloop.lakehouse.registry import version as registered

    return scorer_of(lake, registered(lake, project, model, version).body, snapshots)


def scorer_of(lake: Lake, body: Mapping[str, Any], snapshots: Mapping[str, Mapping[str, Any]]) -> Scorer:
    """The scorer of a version's record."""
    signature, learner, loaded, derive = load_model(lake, body)
    return Scorer(signature, learner, loaded, derive, open_lookups(lake, signature, snapshots), int(body["version"]))


def load_model(lake: Lake, body: Mapping[str, Any]) -> tuple[Signature, Learner, Any, Derive | None]:
    """Signature, learner, model and derive() of a version's record."""
    artifacts = [Artifact.from_json(one) for one in body["artifacts"]]
    signature = signature_of(lake, body)
    code = _bytes(lake, artifacts, CODE).decode() if any(one.name == CODE for one in artifacts) else None
    learner = _learner(body["learner"], signature, code)
    with tempfile.TemporaryDirectory(prefix="lakeloop-model-") as folder:
        files = [one for one in artifacts if one.name.startswith(MODEL_FOLDER)]
        lake.artifacts.get_folder(files, Path(folder))
        loaded = learner.load(Path(folder) / MODEL_FOLDER)
    derive = getattr(load_module(_file(body["learner"]), code), "derive", None) if code is not None else None
    return signature, learner, loaded, derive if signature.derive else None


def signature_of(lake: Lake, body: Mapping[str, Any]) -> Signature:
    """The signature of a version's record."""
    return Signature.from_bytes(_bytes(lake, [Artifact.from_json(one) for one in body["artifacts"]], SIGNATURE))


def open_lookups(lake: Lake, signature: Signature, snapshots: Mapping[str, Mapping[str, Any]]) -> dict[str, Lookup]:
    """A lookup for every view of the signature that a snapshot is named for."""
    from lakeloop.lakehouse.features.online import open_snapshot

    wanted = {use.view for use in signature.views}
    return {
        view: open_snapshot(lake, where["key"], where["sha256"]) for view, where in snapshots.items() if view in wanted
    }


def _learner(record: Mapping[str, Any], signature: Signature, code: str | None) -> Learner:
    return learner_named(
        record["name"],
        signature.problem,
        max(2, len(signature.classes)),
        int(record.get("threads", 1)),
        code,
        bool(record.get("pickle", False)),
    )


def _file(record: Mapping[str, Any]) -> str:
    return str(record.get("file") or "models/model.py")


def _bytes(lake: Lake, artifacts: Sequence[Artifact], name: str) -> bytes:
    found = next((one for one in artifacts if one.name == name), None)
    if found is None:
        raise Corrupt(f"the model's record names no {name}", todo="train again")
    return lake.artifacts.get(found.key, found.sha256)
