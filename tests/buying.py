"""The files of a small project: visits to a shop, and a model that says who buys."""

from __future__ import annotations

FILES = {
    "lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n',
    "sources/visits.toml": """owner = "crm"
read = { kind = "landing", format = "csv", null = [""] }
key = ["id"]
rows = "latest"
event_time = "seen"
[columns]
id = "string"
seen = "timestamp"
clicks = "int32"
bought = "bool?"
known = "timestamp?"
""",
    "models/buys.toml": """problem = "binary"
learner = "sklearn"
[inputs.request]
clicks = "float32"
[split]
by = "time"
test = "7d"
[search]
metric = "accuracy"
""",
    "models/buys.sql": """select id, seen as as_of, clicks::double as clicks, bought as label, known as label_known_at
from visits
""",
}
