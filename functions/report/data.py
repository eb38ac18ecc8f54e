"""What the report page shows, as plain values: whoever gathers them needs no plot library, and the page needs no lake.

Every field but the first three may be left out: the section then says what is missing and when it will come. Times
are aware and in UTC. A number that is not known is None or NaN. Texts may come from anybody: the page escapes them
all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from lakeloop.lakehouse.statistics import CalibrationBin, Interval


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """One revision of an endpoint: from `at` on, each version has its share (0 to 1) of the answers.

    Those in `shadow` score along, and do not answer.
    """

    at: datetime
    what: str
    shares: Mapping[str, float]
    shadow: Sequence[str] = ()
    who: str = ""
    why: str = ""
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class PerformancePoint:
    """`ReportData.metric` of one version over a window of `as_of` that begins at `at`: from labels, or estimated."""

    at: datetime
    version: str
    value: Interval
    kind: Literal["realized", "estimated"] = "realized"


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment to be seen on the performance plot; other kinds than those named are drawn alike."""

    at: datetime
    kind: Literal["alarm", "training", "promotion", "rollout", "rollback"] | str
    text: str = ""


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One input: its PSI and, in the same bins, the counts of the reference and of the window.

    A numeric column gives its inner `edges` (one fewer than the counts), any other the `categories` (one per count).
    One count more than that is the last, and that of nulls.
    """

    column: str
    psi: float
    pvalue: float | None = None
    drifted: bool = False
    edges: Sequence[float] = ()
    categories: Sequence[str] = ()
    reference: Sequence[float] = ()
    current: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one version answered in one day; `errors` are counted in `requests`."""

    day: datetime
    version: str
    requests: int
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram of scores: counts of the bins between ascending edges (one more than counts)."""

    name: str
    edges: Sequence[float]
    counts: Sequence[float]


@dataclass(frozen=True, slots=True)
class GateRule:
    """One rule of the gate as it was judged. `passed` None: not judged (such as too few rows); `note` says why."""

    rule: str
    passed: bool | None
    ours: float | None = None
    theirs: float | None = None
    gain: Interval | None = None
    needed: str = ""
    slice: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """The newest verdict: of which version, against which, and each rule."""

    version: str
    verdict: str
    at: datetime | None = None
    against: str = ""
    why: str = ""
    rules: Sequence[GateRule] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """`ReportData.metric` within one part of the test rows, for the champion and for the version that was judged."""

    name: str
    champion: Interval | None = None
    challenger: Interval | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a search, in the order it was started. A value of None: it did not finish."""

    number: int
    value: float | None
    params: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    state: str = "done"


@dataclass(frozen=True, slots=True)
class LineageFact:
    """What the champion was made of; a group is such as tables, rules, code, parameters, environment."""

    group: str
    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Rows of a source that were refused for one reason."""

    source: str
    reason: str
    rows: int
    of_rows: int | None = None
    last_at: datetime | None = None
    example: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """One task of the newest run; `reused`: its output was there already."""

    name: str
    seconds: float
    reused: bool = False
    state: str = "done"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; it is open until `state` says acknowledged, resolved or silenced."""

    at: datetime
    severity: Literal["warn", "page"] | str
    monitor: str
    what: str
    state: str = "open"
    who: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """The answer to a SQL report of the project; a plot takes the first column as x, each numeric one after it as y.

    `note`: why there is no answer.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    plot: Literal["bar", "line", "number", "table"] = "table"
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that one page about one model shows.

    `bound`: the value of `metric` at which performance alarms. `realized`: over the newest window with labels,
    described by `window`. `performance_note`, `drift_against`, `scores_note` and `traffic_note` are words put under
    their headings.
    `threshold`: positive from this score on.
    """

    project: str
    model: str
    generated_at: datetime
    goal: str = ""
    owner: str = ""
    environment: str = ""
    timezone: str = "UTC"
    window: str = ""
    champion: str = ""
    champion_since: datetime | None = None
    metric: str = "roc_auc"
    greater_is_better: bool = True
    bound: float | None = None
    realized: Interval | None = None
    predictions: int | None = None
    threshold: float | None = None
    endpoint: Sequence[EndpointChange] = ()
    performance: Sequence[PerformancePoint] = ()
    performance_note: str = ""
    marks: Sequence[Mark] = ()
    drift: Sequence[ColumnDrift] = ()
    drift_against: str = ""
    traffic: Sequence[Traffic] = ()
    traffic_note: str = ""
    calibration: Mapping[str, Sequence[CalibrationBin]] = field(default_factory=dict)
    scores: Sequence[Distribution] = ()
    scores_note: str = ""
    gate: Gate | None = None
    slices: Sequence[Slice] = ()
    trials: Sequence[Trial] = ()
    trials_metric: str = ""
    lineage: Sequence[LineageFact] = ()
    quality: Sequence[Quarantine] = ()
    stages: Sequence[Stage] = ()
    alerts: Sequence[Alert] = ()
    queries: Sequence[Query] = ()
