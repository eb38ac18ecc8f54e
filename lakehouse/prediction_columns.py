"""The columns of a prediction log, which no input of a model may be called like. Names only: nothing is imported."""

from __future__ import annotations

COLUMNS: tuple[tuple[str, str], ...] = (
    ("prediction_id", "string"),
    ("request_id", "string"),
    ("id", "string"),
    ("as_of", "timestamp"),
    ("logged_at", "timestamp"),
    ("project", "string"),
    ("model", "string"),
    ("version", "int64"),
    ("arm", "string"),
    ("prediction", "float64"),
    ("decision", "string"),
    ("scores", "list<float64>"),
    ("latency_ms", "float64"),
    ("read_ms", "float64"),
    ("lookup_ms", "float64"),
    ("predict_ms", "float64"),
    ("log_ms", "float64"),
    ("revision", "int64"),
    ("ages", "string"),
    ("feature_versions", "string"),
    ("absent", "list<string>"),
    ("given", "list<string>"),
    ("trace_id", "string"),
    ("sample_rate", "float64"),
)
"""The columns of every prediction, with FORMAT's type names; those of the model's inputs follow.

The latencies are the whole request's: `latency_ms` until its answer was made, and of that reading and checking it,
looking up and deriving, and the model; `log_ms` comes after: until its line could be written. A row stands for
1 / `sample_rate` answers. What an older release logged has null where it knew nothing.
"""
HASHED = "_hash"
"""Behind the name of an input that is logged as a hash: another column, so that its type never changes."""
