"""Projects to test with: the flights example, the smallest one, and changes to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lakeloop.lakehouse.project.definitions import Project
from lakeloop.lakehouse.project.parsing import parse_project, read_project

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"

SMALLEST = {
    "lakeloop.toml": """\
name = "churn"
goal = "Keep customers who would leave"
owner = "crm"
""",
    "sources/customers.toml": """\
owner = "crm"
read = { kind = "landing", format = "csv" }
key = ["customer_id", "month_end"]
event_time = "month_end"
[columns]
customer_id = "int64"
month_end   = "date"
plan        = "string"
logins      = "int32"
churned     = "bool?"
""",
    "models/churn.toml": """\
problem = "binary"
learner = "sklearn"
[inputs.request]
plan   = "category"
logins = "float32"
[split]
by = "time"
test = "90d"
""",
    "models/churn.sql": """\
select concat_ws('-', customer_id, month_end) as id, month_end as as_of,
       plan, logins, churned as label, month_end + interval 30 days as label_known_at
from customers
""",
}

# A path and what becomes of its text: None removes the file, a pair replaces a part of it, a text is the whole file.
Change = Mapping[str, "str | tuple[str, str] | None"]


def flights() -> Project:
    """The example that the README runs."""
    return read_project(FLIGHTS)


def changed(files: Mapping[str, str], change: Change) -> dict[str, str]:
    """The texts after a change; a part to be replaced must be there."""
    found = dict(files)
    for path, new in change.items():
        if new is None:
            del found[path]
        elif isinstance(new, str):
            found[path] = new
        else:
            assert new[0] in found[path], f"{path} does not hold {new[0]!r}"
            found[path] = found[path].replace(new[0], new[1], 1)
    return found


def smallest(change: Change | None = None) -> Project:
    """The smallest project, changed."""
    return parse_project(changed(SMALLEST, change or {}))
