"""scikit-learn estimators as skops files: no code runs when one is loaded, and equal estimators have equal bytes.

skops writes memory addresses and the time of day into its files; both are replaced by numbers that follow from the
content, so that the same training gives the same hash.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from lakeloop.lakehouse.errors import Corrupt, Invalid

FILE = "model.skops"
TRUSTED = (
    "functools.partial",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
)
"""What scikit-learn's own estimators hold beyond the types that skops trusts by itself."""
EPOCH = (1980, 1, 1, 0, 0, 0)


def save_estimator(model: Any, folder: Path) -> None:
    """Write model.skops; Invalid when the estimator holds a type that would not be loaded again."""
    import skops.io

    data = skops.io.dumps(model)
    _check(data, Invalid)
    (folder / FILE).write_bytes(canonical(data))


def load_estimator(folder: Path) -> Any:
    """The estimator of a folder; Corrupt when it holds a type that is not trusted."""
    import skops.io

    data = (folder / FILE).read_bytes()
    try:
        _check(data, Corrupt)
        return skops.io.loads(data, trusted=list(TRUSTED))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise Corrupt(f"{FILE} is no skops file", todo="train again") from error


def canonical(data: bytes) -> bytes:
    """A skops file with ids and names of its parts counted in order of their place, and no time."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
        parts = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
    numbers: dict[int, int] = {}
    files: dict[str, str] = {}
    schema = _renumbered(schema, parts, numbers, files)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, renamed in files.items():
            archive.writestr(zipfile.ZipInfo(renamed, EPOCH), parts[name])
        text = json.dumps(schema, separators=(",", ":"))
        archive.writestr(zipfile.ZipInfo("schema.json", EPOCH), text)
    return sink.getvalue()


def _renumbered(node: Any, parts: dict[str, bytes], numbers: dict[int, int], files: dict[str, str]) -> Any:
    match node:
        case dict():
            made = {key: _renumbered(value, parts, numbers, files) for key, value in node.items() if key != "__id__"}
            if "__id__" in node:
                made["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
            return made
        case list():
            return [_renumbered(value, parts, numbers, files) for value in node]
        case str() if node in parts:
            return files.setdefault(node, f"{len(files) + 1}{Path(node).suffix}")
        case _:
            return node


def _check(data: bytes, error: type[Invalid] | type[Corrupt]) -> None:
    import skops.io

    unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
    if unknown:
        raise error(
            f"the model holds {', '.join(unknown[:5])}, which is not loaded from a file without being trusted",
            todo="give save(model, folder) and load(folder) in models/<name>.py, or set pickle = true",
        )
