"""What the demo ends with: one short table, read from the lake, and questions to go on with."""

from __future__ import annotations

import os
from typing import Any

from rich.table import Table

from lakeloop.functions.check_monitors import truth_and_scores
from lakeloop.infra.cli.output import out
from lakeloop.infra.demo.loop import DONE, MODEL, PROJECT
from lakeloop.infra.place import DEFAULT_LAKE
from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project
from lakeloop.lakehouse.statistics.resampling import bootstrap

QUESTIONS = (
    "select carrier, count(*) n, avg(label::int) late, avg(prediction) predicted "
    "from predictions_labelled group by carrier order by n desc",
    "select version, metric, slice, value, low, high from metrics "
    "where subject = 'model' and slice like 'origin%' and metric = 'roc_auc'",
    "select source, reason, row from quarantine",
)


def show(lake: Lake, project: Project) -> None:
    """Versions with their AUCs, drift, the log, and seconds by stage."""
    out.print(_versions(lake, project))
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(lake).items():
        facts.add_row(name, value)
    out.print(facts)


def questions(url: str) -> str:
    """Three questions in SQL, as commands."""
    lake = "" if url == os.path.abspath(DEFAULT_LAKE) else f"--lake {url} "
    return "\n".join(
        (
            "\nthree questions to try:",
            *(f'  lakeloop query {lake}"{sql}"' for sql in QUESTIONS),
            f"and: lakeloop status | runs list | models history {MODEL} | models rollback {MODEL} | "
            f"predictions list {MODEL} | predictions show ID",
        )
    )


def _versions(lake: Lake, project: Project) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title="\nlate_arrival and cancellation, by version",
        title_justify="left",
    )
    for name in (
        "model",
        "version",
        "trained as of",
        "metric",
        "test part [95 %]",
        "baseline",
        "July, realized [95 %]",
        "status",
    ):
        table.add_column(name)
    for model, definition in project.models.items():
        there = endpoints.endpoint(lake, PROJECT, model)
        for found in reversed(registry.versions(lake, PROJECT, model)):
            body, metric = found.body, definition.search.metric
            number = int(body["version"])
            measured, baseline = registry.metric(body, metric), registry.metric(body, metric, subject="baseline")
            table.add_row(
                model,
                str(number),
                str(body["as_of"])[:10],
                metric,
                _interval(measured),
                _interval(baseline),
                realized(lake, project, model, number),
                endpoints.standing(there, number, str(body["status"])),
            )
    return table


def realized(lake: Lake, project: Project, model: str, version: int) -> str:
    """The search's metric of a version on all of its labelled predictions."""
    rows = lake.sql(
        "select * from predictions_labelled where model = ? and version = ? and label is not null "
        "qualify row_number() over (partition by id order by as_of desc, logged_at desc) = 1",
        [model, version],
        project=project.name,
    )
    if not rows.num_rows:
        return "not asked"
    signature = registry.signature(lake, project.name, model, version)
    y, prediction = truth_and_scores(signature, rows)
    found = bootstrap(
        signature.problem, project.models[model].search.metric, y, prediction, threshold=signature.threshold
    )
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}], {found.rows:,} rows"


def _facts(lake: Lake) -> dict[str, str]:
    runs = lake.sql("select count(*) n, count(*) filter (where status = 'finished') f from lakeloop.runs").to_pylist()[
        0
    ]
    trials = lake.sql("select count(distinct (run, trial)) n from lakeloop.trials").column("n")[0].as_py()
    logged = lake.sql(
        "select count(*) n, count(distinct prediction_id) d from lakeloop.predictions where project = ? and model = ?",
        [PROJECT, MODEL],
    ).to_pylist()[0]
    drifted = lake.sql(
        "select subject, value from lakeloop.monitor_results where watch = 'inputs' and subject <> '' and breached "
        "qualify window_end = max(window_end) over () order by value desc"
    ).to_pylist()
    quarantined = lake.sql("select count(*) n from lakeloop.quarantine").column("n")[0].as_py()
    done = lake.documents.latest(DONE, PROJECT)
    body: dict[str, Any] = dict(done.body) if done else {"answered": 0, "failures": [], "seconds": {}}
    worst = ", ".join(f"{row['subject']} {row['value']:.1f}" for row in drifted[:5])
    stages = "\n".join(f"{seconds:6.1f} s  {name}" for name, seconds in body["seconds"].items())
    return {
        "runs": f"{runs['n']} ({runs['f']} finished), {trials} trials",
        "requests": f"{body['answered']:,} answered, {len(body['failures'])} dropped; "
        f"{logged['d']:,} predictions logged, {logged['n'] - logged['d']} of them twice",
        "drifted columns": f"{len(drifted)} in the last week (psi > 0.2): {worst}" if drifted else "none",
        "quarantine": f"{quarantined} rows",
        "seconds": stages,
    }


def _interval(measured: Any) -> str:
    if not measured or measured["value"] is None:
        return ""
    if measured["low"] is None:
        return f"{measured['value']:.3f}"
    return f"{measured['value']:.3f} [{measured['low']:.3f}, {measured['high']:.3f}]"
