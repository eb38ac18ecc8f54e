"""What the page gathers: from a replayed lake, written row by row, and from one where nothing has happened yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pyarrow as pa
import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.report.gathering import gather, write_report
from lakeloop.lakehouse import applied, endpoints, registry
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.lake import open_lake
from lakeloop.lakehouse.project import parse_project
from lakeloop.lakehouse.scoring.signature import Input, NumberProfile, Signature

FILES = {
    "lakeloop.toml": """\
name = "churn"
goal = "Keep customers who would leave"
owner = "crm"
timezone = "Europe/Berlin"
""",
    "sources/customers.toml": """\
owner = "crm"
read = { kind = "landing", format = "csv" }
key = ["customer_id", "day"]
event_time = "day"
[columns]
customer_id = "int64"
day         = "date"
logins      = "int32"
churned     = "bool?"
""",
    "models/churn.toml": """\
problem = "binary"
learner = "sklearn"
[inputs.request]
logins = "float32"
[split]
by = "time"
test = "90d"
[[monitor]]
name = "realized"
watch = "performance"
metric = "roc_auc"
drop = 0.05
window = "7d"
""",
    "models/churn.sql": """\
select concat_ws('-', customer_id, day) as id, day as as_of, logins,
       churned as label, day + interval 30 days as label_known_at
from customers
""",
    "reports/good.sql": """\
-- /// report
-- title = "Answers"
-- plot = "bar"
-- ///
select version, count(*) as n from predictions group by 1 order by 1
""",
    "reports/wrong.sql": """\
-- /// report
-- title = "Broken"
-- ///
select logins / nothing from customers
""",
}
WALL = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 7, 4, 12, tzinfo=UTC)
DAYS = {1: (100, "v1"), 2: (100, "one class"), 3: (20, "few"), 4: (300, "v2"), 5: (100, "labels not known yet")}


def day(number, hour=12):
    return datetime(2024, 6, number, hour, tzinfo=UTC)


def churned(number, i):
    return number != 2 and i % 3 == 0


@pytest.fixture
def project():
    return parse_project(FILES)


@pytest.fixture
def empty(tmp_path, project):
    minutes = count()
    lake = open_lake(str(tmp_path / "lake"), who="ana", clock=lambda: WALL + timedelta(minutes=next(minutes)))
    applied.publish(lake, project, code_version="git:1")
    return lake


@pytest.fixture
def lake(empty, project):
    """Version 1 answered on the first three days, version 2 since the fourth; the wall clock says 2026."""
    customers(empty, project)
    for version, as_of in ((1, day(1, 0) - timedelta(days=1)), (2, day(4, 0))):
        train(empty, version, as_of)
        promote(empty, version, version - 1 or None, f"version {version} is better")
        answers(empty, version)
    monitors(empty)
    return empty


def customers(lake, project):
    rows = ["customer_id,day,logins,churned"]
    rows += [f"{i},2024-06-{at:02},{i % 7},{churned(at, i)}" for at, (n, _) in DAYS.items() for i in range(n)]
    rows += ["900,2024-06-01,many,true", "901,2024-06-01,lots,true"]
    land(lake, project, "customers", "customers.csv", "\n".join(rows).encode())
    ingest_data(lake, project)


def promote(lake, version, before, why):
    endpoints.promote(lake, "churn", "churn", version, expected=before, why=why)
    serve(lake, version)


def serve(lake, version):
    endpoints.serve(lake, lake.documents.get("endpoints", "churn.churn"), version, {}, f"champion is version {version}")


def train(lake, version, as_of):
    common = {"project": "churn", "model": "churn", "run": f"run-{version}"}
    assert registry.register(lake, "churn", "churn", f"run-{version}", body(lake, version)) == version
    run = {"status": "finished", "trigger": "by hand", "as_of": as_of, "version": version}
    lake.record("runs", [common | run | {"logged_at": lake.clock()}])
    trial = common | {"attempt": 1, "params": '{"depth": 3}', "seconds": 2.0, "logged_at": lake.clock()}
    steps = [(0, 1, 0.5, "running"), (0, 2, 0.7, "done"), (1, 3, 0.6, "running")]
    lake.record("trials", [trial | dict(zip(("trial", "seq", "value", "status"), step, strict=True)) for step in steps])
    task = common | {"task": "fit", "started": lake.clock()}
    lake.record(
        "tasks", [task | {"status": "started"}, task | {"status": "done", "seconds": 4.0, "ended": lake.clock()}]
    )
    lake.record("verdicts", verdict(lake, version, common))


def body(lake, version):
    profile = NumberProfile((1.0, 3.0), (10, 20, 30), 5)
    inputs = (Input("logins", "request", "float32", "number", profile=profile),)
    signature = Signature("binary", inputs, classes=("false", "true"), positive="true", threshold=0.4)
    artifact = lake.artifacts.put("runs", f"run-{version}", "signature.json", signature.to_bytes())
    metric = {"subject": "model", "metric": "roc_auc", "value": 0.8, "low": 0.7, "high": 0.9, "rows": 50}
    return {
        "artifacts": [artifact.to_json()],
        "metrics": [metric | {"slice": ""}, metric | {"slice": "plan=gold"}],
        "params": {"depth": 3},
        "lineage": {"tables": {"churn/customers": 1}, "definition": "abc", "trigger": "by hand"},
        "model_hash": "f00d",
    }


def verdict(lake, version, common):
    found = common | {"version": version, "champion": version - 1 or None, "verdict": "promoted", "rows": 50}
    found |= {"rule": "roc_auc against champion", "metric": "roc_auc", "against": "champion", "passed": True}
    found |= {"ours": 0.8, "gain": 0.05, "low": 0.01, "high": 0.09, "logged_at": lake.clock()}
    whole = found | {"slice": "", "theirs": 0.75, "needed": "a gain of at least +0"}
    return [whole, found | {"slice": "plan=gold", "theirs": 0.7, "needed": "no certain loss beyond -0.03"}]


def answers(lake, version):
    """Version 1 is always right; version 2 ranks at random."""
    rows = [
        answer(lake, version, at, i, (0.9 if churned(at, i) else 0.1) if version == 1 else (i * 37 % 100) / 100)
        for at, (n, _) in DAYS.items()
        if (at >= 4) == (version == 2)
        for i in range(n)
    ]
    append(lake, rows)


def answer(lake, version, at, i, score):
    who = f"{i}-2024-06-{at:02}"
    row = {"prediction_id": f"{who}#0", "id": who, "as_of": day(at), "logged_at": lake.clock(), "version": version}
    return row | {"project": "churn", "model": "churn", "prediction": score, "logins": float(i % 7)}


def append(lake, rows):
    times = dict.fromkeys(("as_of", "logged_at"), pa.timestamp("us", "UTC"))
    table = pa.table({name: pa.array([row[name] for row in rows], times.get(name)) for name in rows[0]})
    lake.journal("predictions.churn.churn").append(table, f"answers-{rows[0]['id']}")


def monitors(lake):
    common = {"project": "churn", "model": "churn", "rows": 120, "logged_at": lake.clock(), "breached": True}
    common |= {"window_start": day(1, 0), "window_end": day(5, 0)}
    realized = common | {"monitor": "realized", "watch": "performance", "subject": "", "stat": "roc_auc"}
    realized |= {"low": 0.6, "high": 0.7, "bound": 0.66}
    other = realized | {"version": 1, "value": 0.9, "window_end": day(6, 0)}
    inputs = common | {"monitor": "inputs", "watch": "inputs", "version": 1}
    share = inputs | {"subject": "", "stat": "share of columns", "value": 1.0}
    column = inputs | {"subject": "logins", "stat": "psi", "value": 0.4, "p_value": 0.001}
    lake.record("monitor_results", [realized | {"version": 2, "value": 0.65}, other, share, column])
    alert = {"alert": "a1", "project": "churn", "model": "churn", "monitor": "realized", "severity": "page"}
    for at, status, message in ((5, "open", "too low"), (6, "resolved", "good again")):
        fact = {"status": status, "message": message, "window_end": day(at, 0), "logged_at": lake.clock()}
        lake.record("alerts", [alert | fact])


@pytest.fixture
def found(lake, project):
    return gather(lake, project, "churn", as_of=NOW)


def test_a_project_that_was_only_applied_has_a_page(empty, project, tmp_path):
    path = write_report(empty, project, "churn", tmp_path / "pages" / "churn.html", NOW)
    page = path.read_text()
    assert "none yet" in page
    assert "No labels have come yet" in page
    assert "Keep customers who would leave" in page


def test_days_with_one_class_with_few_labels_or_none_are_no_points(found):
    assert [(p.at, p.version, p.value.rows) for p in found.performance] == [
        (datetime(2024, 5, 31, 22, tzinfo=UTC), "v1", 100),  # midnight in Berlin
        (datetime(2024, 6, 3, 22, tzinfo=UTC), "v2", 300),
    ]
    assert found.performance[0].value.value == 1.0
    assert found.performance[1].value.low < 0.6


def test_labels_are_used_from_the_moment_they_are_known(lake, project):
    before = gather(lake, project, "churn", as_of=datetime(2024, 7, 3, 23, 59, tzinfo=UTC))
    assert [p.version for p in before.performance] == ["v1"]


def test_a_replay_is_placed_where_its_data_are(found):
    assert found.champion == "v2"
    assert found.champion_since == day(4)
    changes = [(c.at, dict(c.shares), c.what) for c in found.endpoint]
    assert changes == [(day(1), {"v1": 1.0}, "promotion"), (day(4), {"v2": 1.0}, "promotion")]
    assert found.endpoint[1].why == "version 2 is better"
    assert {(m.kind, m.at) for m in found.marks} == {
        ("alarm", day(5, 0)),
        ("training", day(1, 0) - timedelta(days=1)),
        ("training", day(4, 0)),
        ("promotion", day(1)),
        ("promotion", day(4)),
    }
    assert found.gate.at == day(4, 0)


def test_a_version_without_an_answer_is_placed_where_it_was_trained(lake, project):
    train(lake, 3, day(6, 0))
    endpoints.promote(lake, "churn", "churn", 3, expected=2, why="better still")
    assert gather(lake, project, "churn", as_of=NOW).champion_since == day(6, 0)


def test_what_comes_after_the_moment_is_left_out(lake, project):
    early = gather(lake, project, "churn", as_of=day(2, 23))
    assert (early.champion, early.predictions, early.gate.version) == ("v1", 200, "v1")
    assert early.alerts == []
    assert early.realized is None


def test_a_rollback_is_told_from_a_promotion(lake, project):
    endpoints.rollback(lake, "churn", "churn", "it was worse")
    serve(lake, 1)
    append(lake, [answer(lake, 1, 7, 0, 0.5)])
    found = gather(lake, project, "churn", as_of=NOW)
    assert (found.champion, found.champion_since) == ("v1", day(7))
    assert ("rollback", day(7)) in [(m.kind, m.at) for m in found.marks]
    assert [c.what for c in found.endpoint] == ["promotion", "promotion", "rollback"]


def test_the_headline_is_the_champions_newest_result(found):
    assert (found.realized.value, found.realized.low, found.bound) == (0.65, 0.6, 0.66)
    assert found.window == "Realized by v2, 1 Jun 2024 to 5 Jun 2024"


def test_without_a_monitor_the_headline_is_over_all_labels(empty, project):
    customers(empty, project)
    train(empty, 1, day(1, 0))
    answers(empty, 1)
    found = gather(empty, project, "churn", as_of=NOW)
    assert (found.realized.rows, found.bound, found.window) == (220, None, "Realized by v1, all labels")


def test_answers_are_counted_by_day_and_version(found):
    assert found.predictions == 620
    counted = [(t.version, t.requests) for t in found.traffic]
    assert counted == [("v1", 100), ("v1", 100), ("v1", 20), ("v2", 300), ("v2", 100)]


def test_versions_with_few_labels_have_no_curves(lake, project, found):
    assert set(found.calibration) == {d.name for d in found.scores} == {"v1", "v2"}
    assert sum(found.scores[0].counts) == 220
    assert gather(lake, project, "churn", as_of=day(30) + timedelta(days=1)).scores == []


def test_drift_has_the_windows_own_distribution(found):
    (column,) = found.drift
    assert (column.column, column.psi, column.drifted, column.pvalue) == ("logins", 0.4, True, 0.001)
    assert column.reference == [10, 20, 30, 5]
    logins = [i % 7 for number in (1, 2, 3) for i in range(DAYS[number][0])]
    bins = [sum(x <= 1 for x in logins), sum(1 < x <= 3 for x in logins), sum(x > 3 for x in logins), 0]
    assert column.current == bins


def test_the_gate_shows_every_rule_and_slices_fall_back_to_what_it_noted(found):
    assert (found.gate.version, found.gate.against, found.gate.verdict) == ("v2", "v1", "promoted")
    rules = [(r.slice, r.ours, r.theirs, r.gain.value) for r in found.gate.rules]
    assert rules == [("", 0.8, 0.75, 0.05), ("plan=gold", 0.8, 0.7, 0.05)]
    (part,) = found.slices  # the champion's test rows are not in this lake
    assert (part.name, part.champion.value, part.challenger.low) == ("plan=gold", 0.7, 0.7)


def test_a_trial_that_did_not_finish_has_no_value(found):
    assert [(t.number, t.value, t.state) for t in found.trials] == [(0, 0.7, "done"), (1, None, "running")]
    assert [(s.name, s.seconds, s.state) for s in found.stages] == [("fit", 4.0, "done")]


def test_lineage_names_what_the_champion_was_made_of(found):
    facts = {(fact.group, fact.name): fact.value for fact in found.lineage}
    assert facts["training", "run"] == "run-2"
    assert facts["tables", "churn/customers"] == "version 1"
    assert facts["parameters", "depth"] == "3"
    assert facts["model", "sha256"] == "f00d"


def test_refused_rows_of_one_kind_are_counted_together(found):
    (refused,) = found.quality
    assert (refused.source, refused.reason) == ("customers", "logins is not an int32")
    assert (refused.rows, refused.of_rows) == (2, 622)
    assert "logins=lots" in refused.example
    assert refused.last_at is None  # 2026 is not a moment of this page


def test_an_alert_tells_what_opened_it_and_what_became_of_it(found):
    (alert,) = found.alerts
    assert (alert.at, alert.what, alert.state, alert.why) == (day(5, 0), "too low", "resolved", "good again")


def test_a_report_that_cannot_be_answered_says_so_and_breaks_nothing(lake, project, tmp_path):
    good, wrong = gather(lake, project, "churn", as_of=NOW).queries
    assert (good.columns, good.rows) == (["version", "n"], [[1, 220], [2, 400]])
    assert "nothing" in wrong.note
    page = write_report(lake, project, "churn", tmp_path / "churn.html", NOW).read_text()
    assert "It could not be answered" in page
    assert "too low" in page


def test_an_unknown_model_is_named(empty, project):
    with pytest.raises(NotFound, match="no model 'chum'"):
        gather(empty, project, "chum", as_of=NOW)
