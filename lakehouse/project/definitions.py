"""What a project says, as frozen values. Attribute names are the format's keys; nested sections are nested objects.

A definition holds nothing that was looked up: no line numbers, no column types of queries (`binding` finds those), no
clock. Two definitions that compare equal mean the same. Keys whose stage is not built have no attribute here.
Durations are timedeltas, sizes are bytes, lists are tuples, tables by name are mappings in the order of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeAlias

Scalar: TypeAlias = bool | int | float | str
Problem: TypeAlias = Literal["binary", "multiclass", "regression"]
Aggregate: TypeAlias = Literal["count", "sum", "avg", "min", "max", "stddev", "count_distinct", "first", "last"]
OnError: TypeAlias = Literal["quarantine", "stop", "warn"]
Privacy: TypeAlias = Literal["hash", "drop"]
"""How a value stands in the prediction log: as its hash under the lake's key, or not at all."""

INT_TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOAT_TYPES = ("float32", "float64")


@dataclass(frozen=True, slots=True)
class Type:
    """A column's declared type: `int16`, `decimal(10,2)`, `list<string>`. Whether it may be null is the column's."""

    name: str
    precision: int = 0
    scale: int = 0
    item: Type | None = None

    @property
    def stored(self) -> str:
        """The type a table keeps it in, as DuckDB spells it: BIGINT, DOUBLE, …, TIMESTAMP WITH TIME ZONE, or a list."""
        if self.item is not None:
            return f"{self.item.stored}[]"
        if self.name in INT_TYPES:
            return "BIGINT"
        if self.name in FLOAT_TYPES or self.name == "decimal":
            return "DOUBLE"
        return {"bool": "BOOLEAN", "date": "DATE", "timestamp": "TIMESTAMP WITH TIME ZONE"}.get(self.name, "VARCHAR")

    def __str__(self) -> str:
        if self.item is not None:
            return f"list<{self.item}>"
        return f"decimal({self.precision},{self.scale})" if self.name == "decimal" else self.name


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a source and the rules of its values. `range` includes both ends; null breaks only `nullable`;
    `on_error` is the source's by default."""

    name: str
    type: Type
    nullable: bool = False
    range: tuple[float, float] | None = None
    values: tuple[Scalar, ...] = ()
    matches: str = ""
    unique: bool = False
    on_error: OnError | None = None
    private: Privacy | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A query over the project's sources; every row it returns is wrong. `on_error` is the source's by default."""

    name: str
    sql: str
    on_error: OnError


@dataclass(frozen=True, slots=True)
class Read:
    """Where a source's rows come from and how its files are decoded. `null` are the texts that mean null.

    "delta" and "parquet" are tables elsewhere, at `uri`: an absolute path, or s3://bucket/path.
    """

    kind: Literal["landing", "delta", "parquet"] = "landing"
    format: Literal["csv", "jsonl", "parquet"] = "csv"
    null: tuple[str, ...] = ("",)
    delimiter: str = ","
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A table that rows land in, or one elsewhere that is read in place.

    Rows are known at `known_at`, or `lag` after their event time; else when they were ingested.
    """

    name: str
    owner: str
    read: Read
    columns: Mapping[str, Column]
    description: str = ""
    tags: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    rows: Literal["append", "latest", "replace"] = "append"
    event_time: str = ""
    timeless: bool = False
    known_at: str = ""
    lag: timedelta | None = None
    on_error: OnError = "quarantine"
    unlisted: Literal["drop", "keep", "stop"] = "drop"
    checks: tuple[Check, ...] = ()

    @property
    def foreign(self) -> bool:
        """Whether its table lies outside of the lake and is read in place: nothing of it lands, nothing is judged."""
        return self.read.kind != "landing"


@dataclass(frozen=True, slots=True)
class WindowFeature:
    """An aggregate over a window's events: `avg(late::int) filter (where x > 1)`. count(*) has no `expression`."""

    name: str
    aggregate: Aggregate
    expression: str = ""
    where: str = ""

    def column(self, window: str) -> str:
        """The feature's column for one window: `late_share_3h`."""
        return f"{self.name}_{window}"


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows that end at as_of, by their text (`"3h"`), and the features computed over each."""

    over: Mapping[str, timedelta]
    features: tuple[WindowFeature, ...]


@dataclass(frozen=True, slots=True)
class FeatureView:
    """A query whose rows are facts about an entity; with `windows` they are events, and features aggregate them.

    A row is visible at max(event time, `known_at` or event time + `lag`), rounded up to the next multiple of `refresh`;
    `ttl` after its event time it is forgotten. `sql` is the whole text of the file, without a closing semicolon: wrap
    it as `(\\n{sql}\\n)`.
    """

    name: str
    owner: str
    entity: tuple[str, ...]
    event_time: str
    sql: str
    sql_path: str
    description: str = ""
    tags: tuple[str, ...] = ()
    known_at: str = ""
    lag: timedelta = timedelta(0)
    ttl: timedelta | None = None
    refresh: timedelta = timedelta(hours=1)
    online: bool = False
    windows: Windows | None = None


@dataclass(frozen=True, slots=True)
class Success:
    """What the project record promised for the model, measured over `window`."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    window: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Examples:
    """How rows of models/<name>.sql become examples. `no_label`: "drop", or the label if none came in `label_wait`."""

    label_wait: timedelta = timedelta(0)
    no_label: Scalar = "drop"
    where: str = ""
    sample: float = 1.0


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One entry of [inputs] features: `columns` ("*",) or names; `key`: entity to request column; `name`: its "as"."""

    view: str
    columns: tuple[str, ...]
    key: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class RequestInput:
    """One column the caller sends: category, string, bool, timestamp, float32… or int…; `max` bounds a vocabulary."""

    name: str
    type: str
    range: tuple[float, float] | None = None
    values: tuple[Scalar, ...] = ()
    max: int | None = None
    unseen: Literal["null", "error"] = "null"
    default: Scalar | None = None
    private: Privacy | None = None


@dataclass(frozen=True, slots=True)
class DerivedInput:
    """One column that derive(row) returns; types as in RequestInput."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """All the model sees: stored features, what the caller sends, and what derive() makes of a row."""

    features: tuple[FeatureSpec, ...] = ()
    request: Mapping[str, RequestInput] = field(default_factory=dict)
    derived: Mapping[str, DerivedInput] = field(default_factory=dict)
    derive: bool = False
    absent: Literal["null", "error"] = "null"
    banned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """By time, parts are durations counted back from the run's as_of; by group and random, shares of the rows (0..1).

    `valid` is always filled: as long (or as large) as `test` by default. `gap` is `examples.label_wait` by default, and
    means nothing unless `by` is "time".
    """

    by: Literal["time", "group", "random"]
    test: timedelta | float
    valid: timedelta | float
    gap: timedelta = timedelta(0)
    train: Literal["all"] = "all"
    refit: Literal["train", "train+valid", "all"] = "train+valid"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value in every trial."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the values, each equally likely."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class IntRange:
    """Whole numbers, both ends included."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Uniform:
    """Real numbers, uniform between the ends."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LogUniform:
    """Positive numbers, uniform in their logarithm."""

    low: float
    high: float


Dimension: TypeAlias = Constant | Choice | IntRange | Uniform | LogUniform


@dataclass(frozen=True, slots=True)
class Search:
    """The hyperparameter search. An empty `space` means the learner's own; `mode` follows from the metric."""

    metric: str
    mode: Literal["max", "min"]
    trials: int = 1
    time: timedelta | None = None
    stop_at: float | None = None
    searcher: Literal["random"] = "random"
    scheduler: Literal["none", "asha"] = "none"
    space: Mapping[str, Dimension] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """What one trial may use. `memory` in bytes; `parallel` 0 means as many at once as the resources allow."""

    cpu: float = 1
    memory: int | None = None
    timeout: timedelta | None = None
    parallel: int = 0


@dataclass(frozen=True, slots=True)
class Maximize:
    """The threshold at which this is greatest on the validation part."""

    metric: Literal["f1", "youden"]


@dataclass(frozen=True, slots=True)
class Cost:
    """The threshold at which fp × false positives + fn × false negatives is least on the validation part."""

    fp: float
    fn: float


@dataclass(frozen=True, slots=True)
class Output:
    """How a score becomes a decision (binary only), and whether scores are calibrated, both on the validation part."""

    threshold: float | Maximize | Cost = 0.5
    calibrate: Literal["none", "isotonic", "sigmoid"] = "none"


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows looked at apart: each combination of `columns`' values, or those where `where`, over the inputs, holds."""

    name: str
    columns: tuple[str, ...] = ()
    where: str = ""


@dataclass(frozen=True, slots=True)
class Evaluate:
    """What is measured on the test part. `baseline` is SQL over the inputs: the rule that was used before."""

    metrics: tuple[str, ...] = ()
    baseline: str = ""
    slices: tuple[Slice, ...] = ()
    repeat: Literal["last"] = "last"


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition of the gate: better by `gain` than `against`, with `confidence`; or a bound. `each` is "slice"."""

    metric: str
    against: Literal["", "champion", "baseline"] = ""
    gain: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    confidence: float = 0.95
    each: Literal["", "slice"] = ""
    min_rows: int = 0


@dataclass(frozen=True, slots=True)
class Gate:
    """What a new version must pass, and who must approve. `first` says what happens while there is no champion."""

    first: Literal["promote", "approve"] = "promote"
    approve: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas an endpoint may have; `min` is 0 or 1 at least."""

    min: int = 1
    max: int = 1


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a new version takes over: scored beside the log for `shadow`, then given the shares of `canary`, in percent,
    `hold` apart. `back_if` are rules as texts, which `back_if.parse_back_if` reads: one that holds takes it back."""

    shadow: timedelta | None = None
    canary: tuple[int, ...] = (100,)
    hold: timedelta | None = None
    back_if: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PredictionLog:
    """Which part of the predictions is logged, how, and for how long.

    `drop` names inputs. "sync" answers when the rows are in the lake. `disk` bounds, in bytes, what waits on a node to
    be shipped; `on_full` says what happens there.
    """

    sample: float = 1.0
    drop: tuple[str, ...] = ()
    keep: timedelta = timedelta(days=400)
    mode: Literal["async", "sync"] = "async"
    on_full: Literal["refuse", "drop"] = "refuse"
    disk: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Serving:
    """How the endpoint runs. `timeout` bounds one request; `sticky` names the input whose value keeps its arm ("": the
    request's id)."""

    replicas: Replicas = Replicas()
    timeout: timedelta = timedelta(seconds=1)
    rollout: Rollout = Rollout()
    sticky: str = ""
    log: PredictionLog = PredictionLog()


@dataclass(frozen=True, slots=True)
class Monitor:
    """One thing watched over closed windows. `columns`: ("*",) or inputs. It alarms after `for_` bad ones in a row.

    "inputs" and "outputs": `stat` above `above`, in more than `share` of the columns. "performance": `metric` above
    `above`, below `below`, or worse by more than `drop` than the test score at registration.
    """

    name: str
    watch: Literal["inputs", "outputs", "performance"]
    window: timedelta
    columns: tuple[str, ...] = ("*",)
    stat: Literal["psi"] = "psi"
    metric: str = ""
    above: float | None = None
    below: float | None = None
    drop: float | None = None
    share: float = 0.0
    every: timedelta = timedelta(days=1)
    against: Literal["training"] = "training"
    min_rows: int = 0
    for_: int = 1
    severity: Literal["warn", "page"] = "warn"


@dataclass(frozen=True, slots=True)
class Retrain:
    """When to train again: a monitor of `on` alarms, or `new_rows` came. Never while one of `unless` is open."""

    on: tuple[str, ...] = ()
    new_rows: int = 0
    cool_down: timedelta = timedelta(days=1)
    unless: tuple[str, ...] = ("quarantine",)


@dataclass(frozen=True, slots=True)
class Model:
    """A prediction the project makes. `examples_sql` yields one row for each prediction one would have made.

    `learner` is "xgboost", "sklearn" or "<name>.py"; `python` is the text of that file, if there is one. `examples_sql`
    has no closing semicolon: wrap it as `(\\n{sql}\\n)`.
    """

    name: str
    problem: Problem
    owner: str
    learner: str
    examples_sql: str
    sql_path: str
    split: Split
    search: Search
    description: str = ""
    python: str | None = None
    pickle: bool = False
    success: Success | None = None
    examples: Examples = Examples()
    inputs: Inputs = Inputs()
    trial: Trial = Trial()
    output: Output = Output()
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    serving: Serving = Serving()
    monitors: tuple[Monitor, ...] = ()
    retrain: Retrain = Retrain()


@dataclass(frozen=True, slots=True)
class Report:
    """A query shown on the project's page, for one kind of reader."""

    name: str
    title: str
    sql: str
    sql_path: str
    for_: str = "operations"
    plot: Literal["bar", "line", "number", "table"] = "table"


@dataclass(frozen=True, slots=True)
class Environment:
    """A lake the project lives in, and what differs there. `approve`, unless None, overrides all gate.approve."""

    name: str
    lake: str
    endpoint: str = ""
    schedules: bool = True
    approve: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """All that a project's files say. `files` are the texts: `parse_project(project.files)` gives an equal project."""

    name: str
    owner: str
    files: Mapping[str, str] = field(repr=False)
    goal: str = ""
    tags: tuple[str, ...] = ()
    requires: str = ""
    timezone: str = "UTC"
    python: str = "requirements.lock"
    environments: Mapping[str, Environment] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    views: Mapping[str, FeatureView] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    reports: Mapping[str, Report] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """sha256 over the sorted (path, text) of `files`: what was applied, to the byte."""
        digest = hashlib.sha256()
        for path, text in sorted(self.files.items()):
            for part in (path.encode(), text.encode()):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
        return digest.hexdigest()

    def model_version(self, name: str) -> str:
        """The version of a model's rules: 12 hex digits over its files and every view and source it rests on."""
        from lakeloop.lakehouse.project.versions import model_version  # binds SQL, so DuckDB is imported only here

        return model_version(self, name)
