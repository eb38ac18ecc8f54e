"""What is counted, and /metrics: read by Prometheus's own parser, and asked by every query of the dashboard."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lakeloop.ray_jobs.serving import counts
from lakeloop.ray_jobs.serving.arms import Arm, Loaded
from lakeloop.ray_jobs.serving.counts import Counts, Histogram
from lakeloop.ray_jobs.serving.limits import Admission, Limits
from lakeloop.ray_jobs.serving.metrics import METRICS, EndpointMetrics, metrics_folder, render

DASHBOARD = Path(__file__).parents[3] / "infra" / "dashboards" / "lakeloop.json"


def samples(folder: Path) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """/metrics as Prometheus's client reads it."""
    families = text_string_to_metric_families(render(folder))
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def value(folder: Path, name: str, **labels: str) -> float | None:
    return samples(folder).get((name, tuple(sorted(labels.items()))))


def counted(folder: Path, loaded: Loaded, now: datetime) -> EndpointMetrics:
    """A process that has counted something of everything."""
    metrics = EndpointMetrics(metrics_folder(folder), "late")
    for status, rows, seconds in [(200, 3, 0.0004), (200, 1, 0.3), (400, 0, 0.0), (401, 0, 0.0), (503, 0, 0.0)]:
        metrics.answered(status, rows, seconds)
    metrics.scored("champion", 3, 3)
    metrics.scored("champion", 3, 1)
    admission = Admission(Limits())
    admission.refused, admission.in_flight = 2, 4
    metrics.tell(admission=admission, loaded=loaded, wanted=6, failing=True, dropped=0, now=now)
    return metrics


@pytest.fixture
def process(tmp_path: Path, loaded: Callable[..., Loaded], now: datetime) -> Iterator[EndpointMetrics]:
    metrics = counted(tmp_path, loaded(), now)
    yield metrics
    metrics.close()


def test_requests_rows_and_latencies_are_counted(process: EndpointMetrics, tmp_path: Path) -> None:
    late = {"endpoint": "late"}
    assert value(tmp_path, "lakeloop_requests_total", **late, status="200") == 2
    assert value(tmp_path, "lakeloop_requests_total", **late, status="503") == 1
    assert value(tmp_path, "lakeloop_wrong_requests_total", **late, reason="invalid") == 1
    assert value(tmp_path, "lakeloop_wrong_requests_total", **late, reason="no token") == 1
    assert value(tmp_path, "lakeloop_refused_requests_total", **late, reason="overload") == 2
    assert value(tmp_path, "lakeloop_rows_total", **late) == 4
    assert value(tmp_path, "lakeloop_arm_rows_total", **late, arm="champion", version="3") == 4
    assert value(tmp_path, "lakeloop_arm_requests_total", **late, arm="champion", version="3") == 2
    assert value(tmp_path, "lakeloop_request_seconds_count", **late) == 2
    assert value(tmp_path, "lakeloop_request_seconds_sum", **late) == pytest.approx(0.3004)
    assert value(tmp_path, "lakeloop_request_seconds_bucket", **late, le="0.0005") == 1
    assert value(tmp_path, "lakeloop_request_seconds_bucket", **late, le="0.25") == 1
    assert value(tmp_path, "lakeloop_request_seconds_bucket", **late, le="0.5") == 2


def test_what_serves_is_told(process: EndpointMetrics, tmp_path: Path) -> None:
    late = {"endpoint": "late"}
    assert value(tmp_path, "lakeloop_replicas", **late) == 1
    assert value(tmp_path, "lakeloop_in_flight_requests", **late) == 4
    assert value(tmp_path, "lakeloop_loaded_revision", **late) == 5
    assert value(tmp_path, "lakeloop_wanted_revision", **late) == 6
    assert value(tmp_path, "lakeloop_failing_replicas", **late) == 1
    assert value(tmp_path, "lakeloop_snapshot_age_seconds", **late, view="weather") == 3600
    assert value(tmp_path, "lakeloop_arm_weight", **late, arm="champion", version="3") == 1
    assert value(tmp_path, "lakeloop_log_pending_rows") == 0


def test_an_arm_that_is_gone_has_no_weight(
    process: EndpointMetrics, tmp_path: Path, loaded: Any, now: datetime
) -> None:
    first = loaded(3)
    both = replace(first, arms=(first.arms[0], Arm("challenger", 4, 1_000, first.arms[0].scorer)))
    for shown in (both, first):
        process.tell(admission=Admission(Limits()), loaded=shown, wanted=5, failing=False, dropped=0, now=now)
    assert value(tmp_path, "lakeloop_arm_weight", endpoint="late", arm="challenger", version="4") == 0


def test_several_processes_are_summed_and_their_gauges_are_of_those_that_live(
    process: EndpointMetrics, tmp_path: Path, loaded: Any, now: datetime
) -> None:
    other = counted(tmp_path, loaded(3, 4), now)
    assert value(tmp_path, "lakeloop_requests_total", endpoint="late", status="200") == 4
    assert value(tmp_path, "lakeloop_replicas", endpoint="late") == 2
    assert value(tmp_path, "lakeloop_loaded_revision", endpoint="late") == 4, "the oldest"
    other.close()
    for _ in range(3):
        assert value(tmp_path, "lakeloop_requests_total", endpoint="late", status="200") == 4
        assert value(tmp_path, "lakeloop_request_seconds_count", endpoint="late") == 4
        assert value(tmp_path, "lakeloop_replicas", endpoint="late") == 1
        assert value(tmp_path, "lakeloop_loaded_revision", endpoint="late") == 5


def test_every_metric_is_given_and_every_line_has_a_type(process: EndpointMetrics, tmp_path: Path) -> None:
    families = {family.name: family for family in text_string_to_metric_families(render(tmp_path))}
    assert {name.removesuffix("_total") for name in METRICS} == families.keys()
    assert all(family.samples and family.documentation for family in families.values())
    assert {family.type for family in families.values()} == {"counter", "gauge", "histogram"}


def test_a_killed_process_has_counted_all_it_counted(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lakeloop.ray_jobs.serving.metrics import EndpointMetrics\n"
        "metrics = EndpointMetrics(Path(sys.argv[1]), 'late')\n"
        "for _ in range(1000): metrics.answered(200, 1, 0.001)\n"
        "print('counted', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script, str(metrics_folder(tmp_path))]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "counted\n"
        os.kill(child.pid, signal.SIGKILL)
    assert value(tmp_path, "lakeloop_requests_total", endpoint="late", status="200") == 1000
    assert value(tmp_path, "lakeloop_replicas", endpoint="late") is None


def test_a_retirement_that_was_killed_before_it_removed_files_counts_nothing_twice(tmp_path: Path) -> None:
    for _ in range(2):
        ended = Counts(tmp_path)
        ended.values[ended.place("lakeloop_rows_total", {"endpoint": "late"})] += 5
        ended.close()
    kept = {path: path.read_bytes() for path in tmp_path.glob("*.counts")}
    assert counts.retire(tmp_path) == 2
    for path, data in kept.items():  # as if it had been killed before the files went
        path.write_bytes(data)
    assert [one.values for one in counts.read(tmp_path)] == [(10.0,)]
    assert counts.retire(tmp_path) == 0
    assert [one.values for one in counts.read(tmp_path)] == [(10.0,)]


def test_a_new_start_forgets_what_ended_processes_counted_but_not_the_living(tmp_path: Path) -> None:
    ended, living = Counts(tmp_path), Counts(tmp_path)
    ended.set("a", {}, 1)
    living.set("b", {}, 2)
    ended.close()
    counts.clear(tmp_path)
    assert [(one.key, one.alive) for one in counts.read(tmp_path)] == [(("b", ()), True)]
    living.close()


def test_more_series_than_a_file_holds_are_dropped_and_the_others_stay_right(tmp_path: Path) -> None:
    full = Counts(tmp_path)
    for number in range(10_000):
        full.set("a", {"label": str(number)}, number)
    kept = {one.key[1][0][1]: one.values[0] for one in counts.read(tmp_path)}
    assert 1_000 < len(kept) < 10_000
    assert all(float(label) == found for label, found in kept.items())
    full.close()


def test_counting_in_one_thread_and_reading_in_another_never_reads_a_torn_file(tmp_path: Path) -> None:
    writer, done = Counts(tmp_path), threading.Event()

    def write() -> None:
        for number in range(2_000):
            Histogram(writer, "h", {"label": str(number % 500)}, (1.0, 2.0)).observe(1.5)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        assert all(one.key[0] == "h" and len(one.values) == 4 for one in counts.read(tmp_path))
    thread.join()
    assert sum(one.values[1] for one in counts.read(tmp_path)) == 2_000
    writer.close()


def test_labels_are_escaped(tmp_path: Path) -> None:
    odd = EndpointMetrics(metrics_folder(tmp_path), 'a "quoted" \\ name\nover two lines')
    odd.answered(200, 1, 0.001)
    assert value(tmp_path, "lakeloop_rows_total", endpoint='a "quoted" \\ name\nover two lines') == 1
    odd.close()


# -- the dashboard -----------------------------------------------------------------------------------------------------


def dashboard() -> Mapping[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def queries() -> list[tuple[str, str]]:
    panels = [(panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel["targets"]]
    return [(title, text.replace("$__rate_interval", "5m").replace("$endpoint", ".*")) for title, text in panels]


def selectors(node: Any) -> Iterator[Any]:
    """The vector selectors below a node of a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    children = (getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector", "param"))
    for child in [*children, *(getattr(node, "args", None) or [])]:
        if child is not None and not isinstance(child, str):
            yield from selectors(child)


@pytest.mark.parametrize(("title", "query"), queries())
def test_the_dashboard_asks_for_what_metrics_gives(
    title: str, query: str, process: EndpointMetrics, tmp_path: Path
) -> None:
    given = samples(tmp_path)
    asked = list(selectors(promql_parser.parse(query)))
    assert asked, "a query that asks for nothing shows nothing"
    for selector in asked:
        labels = {name for there, pairs in given if there == selector.name for name, _ in pairs}
        assert any(there == selector.name for there, _ in given), f"{title}: {selector.name}"
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels


def test_every_metric_is_on_the_dashboard() -> None:
    text = " ".join(query for _, query in queries())
    assert [name for name in METRICS if name not in text] == []


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    board = dashboard()
    assert board["schemaVersion"] >= 36
    assert board["uid"]
    assert len(board["uid"]) <= 40
    assert "id" not in board, "Grafana gives it"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all({"type", "title", "gridPos", "datasource", "targets", "fieldConfig"} <= panel.keys() for panel in panels)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert variables == {"datasource", "endpoint"}
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place, references = panel["gridPos"], [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        assert place["x"] + place["w"] <= 24
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & covered, f"{panel['title']} lies on another"
        cells |= covered


def test_a_process_that_starts_while_another_retires_is_not_taken_for_an_ended_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, retiring = fcntl.flock, list[threading.Thread]()

    def retire_first(fd: int, operation: int) -> None:
        """Before a process locks its own file, another retires, or waits until it may."""
        if operation == fcntl.LOCK_EX and os.fstat(fd).st_ino in {
            one.stat().st_ino for one in tmp_path.glob("*.counts")
        }:
            retiring.append(threading.Thread(target=counts.retire, args=(tmp_path,)))
            retiring[-1].start()
            retiring[-1].join(0.2)
        flock(fd, operation)

    monkeypatch.setattr(counts.fcntl, "flock", retire_first)
    started = Counts(tmp_path)
    started.values[started.place("lakeloop_rows_total", {})] += 5
    (thread,) = retiring
    thread.join()
    assert [(one.values, one.alive) for one in counts.read(tmp_path)] == [((5.0,), True)]
    started.close()
