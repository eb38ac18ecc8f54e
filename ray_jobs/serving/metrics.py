"""What an endpoint's processes count, and `/metrics`: the text format of Prometheus, summed over a node's processes.

Counters and histograms include processes that have ended, so a replica that goes takes no count with it. They begin at
nothing with each `deploy`. Gauges are of living processes; `MERGE` says how several become one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from lakeloop.ray_jobs.serving import counts
from lakeloop.ray_jobs.serving.arms import Loaded
from lakeloop.ray_jobs.serving.counts import Counted, Counts, Histogram, Key
from lakeloop.ray_jobs.serving.limits import Admission
from lakeloop.ray_jobs.serving.write_ahead import pending

BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
REASONS = {400: "invalid", 401: "no token", 404: "not found", 405: "method", 413: "too large", 415: "media type"}
"""What a status of 4xx says was wrong with the request."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is named to Prometheus. `merge`: how the gauges of several processes become one."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    merge: Callable[[Iterable[float]], float] = sum


METRICS: Mapping[str, Metric] = {
    "lakeloop_requests_total": Metric("counter", "Requests for predictions, by HTTP status."),
    "lakeloop_rows_total": Metric("counter", "Rows that were answered."),
    "lakeloop_request_seconds": Metric(
        "histogram", "Time from a request's arrival to its answer, of those that were answered with 200."
    ),
    "lakeloop_arm_requests_total": Metric("counter", "Requests that were scored and logged, by arm and version."),
    "lakeloop_arm_rows_total": Metric("counter", "Rows that were scored and logged, by arm and version."),
    "lakeloop_wrong_requests_total": Metric("counter", "Requests that were the caller's mistake, by reason."),
    "lakeloop_refused_requests_total": Metric("counter", "Sound requests that were not answered, by reason."),
    "lakeloop_in_flight_requests": Metric("gauge", "Requests that are being answered."),
    "lakeloop_replicas": Metric("gauge", "Processes that answer."),
    "lakeloop_arm_weight": Metric("gauge", "Share of the requests that an arm is given, from 0 to 1.", max),
    "lakeloop_loaded_revision": Metric("gauge", "Oldest revision of the endpoint's document that answers.", min),
    "lakeloop_wanted_revision": Metric("gauge", "Newest revision of the endpoint's document that was seen.", max),
    "lakeloop_failing_replicas": Metric("gauge", "Processes that cannot load what is wanted, or follow the tokens."),
    "lakeloop_snapshot_age_seconds": Metric("gauge", "Age of the youngest online feature of a view.", max),
    "lakeloop_log_pending_rows": Metric("gauge", "Logged rows that are not in the lake yet."),
    "lakeloop_log_dropped_rows_total": Metric("counter", "Rows that were not logged, as on_full = drop allows."),
}


class EndpointMetrics:
    """What one process counts of one endpoint."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        counts.retire(folder)
        self._counts = Counts(folder)
        self._endpoint = {"endpoint": endpoint}
        self._latency = Histogram(self._counts, "lakeloop_request_seconds", self._endpoint, BOUNDS_S)
        self._rows = self._counts.place("lakeloop_rows_total", self._endpoint)
        self._statuses: dict[int, tuple[int, ...]] = {}
        self._arms: dict[tuple[str, int], tuple[int, int]] = {}
        self._weights: set[tuple[str, str]] = set()
        self._scoring = threading.Lock()
        self._counts.set("lakeloop_replicas", self._endpoint, 1)

    def answered(self, status: int, rows: int, seconds: float) -> None:
        """A `Count`: one request, answered or not. In the event loop only."""
        values = self._counts.values
        for place in self._statuses.get(status) or self._places(status):
            values[place] += 1.0
        if status == 200:
            values[self._rows] += rows
            self._latency.observe(seconds)

    def scored(self, arm: str, version: int, rows: int) -> None:
        """One request's rows were scored and logged. From any thread."""
        with self._scoring:
            requests_at, rows_at = self._arms.get((arm, version)) or self._arm_places(arm, version)
            self._counts.values[requests_at] += 1.0
            self._counts.values[rows_at] += rows

    def tell(
        self, *, admission: Admission, loaded: Loaded, wanted: int, failing: bool, dropped: int, now: datetime
    ) -> None:
        """The gauges, as they are now; to be called every second or so."""
        gauge = self._counts.set
        gauge("lakeloop_in_flight_requests", self._endpoint, admission.in_flight)
        gauge("lakeloop_refused_requests_total", {**self._endpoint, "reason": "overload"}, admission.refused)
        gauge("lakeloop_refused_requests_total", {**self._endpoint, "reason": "timeout"}, admission.late)
        gauge("lakeloop_loaded_revision", self._endpoint, loaded.revision)
        gauge("lakeloop_wanted_revision", self._endpoint, wanted)
        gauge("lakeloop_failing_replicas", self._endpoint, float(failing))
        gauge("lakeloop_log_dropped_rows_total", self._endpoint, dropped)
        self._tell_weights(loaded)
        for view, lookup in loaded.champion.scorer.lookups.items():
            if lookup.newest is not None:
                labels = {**self._endpoint, "view": view}
                gauge("lakeloop_snapshot_age_seconds", labels, (now - lookup.newest).total_seconds())

    def close(self) -> None:
        self._counts.close()

    def _tell_weights(self, loaded: Loaded) -> None:
        weights = {(arm.name, str(arm.version)): arm.weight / 10_000 for arm in loaded.arms}
        for arm, version in self._weights | weights.keys():
            labels = {**self._endpoint, "arm": arm, "version": version}
            self._counts.set("lakeloop_arm_weight", labels, weights.get((arm, version), 0.0))
        self._weights |= weights.keys()

    def _places(self, status: int) -> tuple[int, ...]:
        made = [self._counts.place("lakeloop_requests_total", {**self._endpoint, "status": str(status)})]
        if 400 <= status < 500:
            reason = REASONS.get(status, "other")
            made.append(self._counts.place("lakeloop_wrong_requests_total", {**self._endpoint, "reason": reason}))
        self._statuses[status] = tuple(made)
        return self._statuses[status]

    def _arm_places(self, arm: str, version: int) -> tuple[int, int]:
        labels = {**self._endpoint, "arm": arm, "version": str(version)}
        places = (
            self._counts.place("lakeloop_arm_requests_total", labels),
            self._counts.place("lakeloop_arm_rows_total", labels),
        )
        self._arms[arm, version] = places
        return places


def metrics_folder(log_folder: Path) -> Path:
    return log_folder / "metrics"


def render(log_folder: Path) -> str:
    """The body of /metrics for the processes that log to this folder. Reads the disk."""
    folder = metrics_folder(log_folder)
    counts.retire(folder)
    series = merged(counts.read(folder))
    series["lakeloop_log_pending_rows", ()] = [float(pending(log_folder))]
    lines: list[str] = []
    for name, metric in METRICS.items():
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for labels in sorted(labels for there, labels in series if there == name):
            lines += _lines(name, labels, series[name, labels], metric)
    return "\n".join(lines) + "\n"


def merged(all_counted: Iterable[Counted]) -> dict[Key, list[float]]:
    """One series per name and labels out of those of all processes."""
    apart: dict[Key, list[tuple[float, ...]]] = {}
    for one in all_counted:
        metric = METRICS.get(one.key[0])
        if metric is not None and (one.alive or metric.kind != "gauge"):
            apart.setdefault(one.key, []).append(one.values)
    return {key: [METRICS[key[0]].merge(column) for column in zip(*rows, strict=True)] for key, rows in apart.items()}


def _lines(name: str, labels: tuple[tuple[str, str], ...], values: list[float], metric: Metric) -> list[str]:
    if metric.kind != "histogram":
        return [f"{name}{_braces(labels)} {_number(values[0])}"]
    lines, below = [], 0.0
    for bound, count in zip([*map(_number, BOUNDS_S), "+Inf"], values, strict=False):
        below += count
        lines.append(f"{name}_bucket{_braces((*labels, ('le', bound)))} {_number(below)}")
    return [
        *lines,
        f"{name}_sum{_braces(labels)} {_number(values[-1])}",
        f"{name}_count{_braces(labels)} {_number(below)}",
    ]


def _braces(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
