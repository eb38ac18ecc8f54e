"""JSON Schemas of the project's files, for editors: from the same tables of keys that the files are read with."""

from __future__ import annotations

from typing import Any, Final

from lakeloop.lakehouse.project.keys import PROJECT, REPORT, SOURCE, VIEW
from lakeloop.lakehouse.project.model_keys import MODEL
from lakeloop.lakehouse.project.readers import Section

KINDS: Final[dict[str, Section]] = {
    "project": PROJECT,
    "source": SOURCE,
    "feature-view": VIEW,
    "model": MODEL,
    "report": REPORT,
}


def json_schema(kind: str) -> dict[str, Any]:
    """The schema of one kind of file, as JSON Schema draft-07; keys that are not built yet are in it."""
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"Lakeloop {kind}"}
    return head | KINDS[kind].schema()
