"""`train`, `runs`, `models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakeloop.infra.cli.options import AsOfOption, EnvOption, JsonOption, LakeOption, QuietOption, WhyOption, moment
from lakeloop.infra.cli.output import facts, out, say, show
from lakeloop.infra.place import Place, find_place
from lakeloop.lakehouse.errors import Invalid, NotFound, Refused

if TYPE_CHECKING:
    from lakeloop.functions.gate_model import Verdict
    from lakeloop.lakehouse.project import Project

PANEL = "Models"
ModelArgument = Annotated[str, typer.Argument(help="A model of the project")]


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(train)
    for name, commands, text in (
        ("runs", (runs_list, runs_show, runs_compare), "Training runs"),
        (
            "models",
            (
                models_list,
                models_show,
                models_history,
                models_promote,
                models_approve,
                models_refuse,
                models_rollback,
                models_lineage,
            ),
            "Versions of models",
        ),
    ):
        group = typer.Typer(help=text, no_args_is_help=True)
        for command in commands:
            group.command(command.__name__.split("_", 1)[1])(command)
        app.add_typer(group, name=name, rich_help_panel=PANEL)


def train(
    model: ModelArgument,
    as_of: AsOfOption = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build features, search, fit, evaluate and register a version, then let the gate judge it.

    Resumes a run that was stopped.
    """
    from lakeloop.functions.build_features import build_features
    from lakeloop.functions.gate_model import gate_model
    from lakeloop.functions.roll_out import roll_out
    from lakeloop.infra.progress import TrainingProgress
    from lakeloop.infra.training import LocalRay
    from lakeloop.lakehouse import runs

    place = find_place(lake, env)
    project = place.applied()
    _known(project, model)
    if place.differs():
        say("the folder says something that is not applied yet; this trains what is applied", quiet=quiet)
    at = moment(as_of)
    build_features(place.lake, project, as_of=at)
    waiting = next(
        (
            run
            for run in runs.open_runs(place.lake)
            if run.project == project.name and run.model == model and not run.finished
        ),
        None,
    )
    run = (
        waiting.run
        if waiting
        else runs.open_run(
            place.lake,
            project,
            model,
            trigger="by hand",
            as_of=at,
            incident=f"by hand {place.lake.clock().isoformat()}",
        )
    )
    assert run is not None
    with (
        LocalRay(place.lake, place.folder, say=lambda text: say(text, quiet=quiet)) as ray,
        TrainingProgress(quiet=quiet or as_json) as progress,
    ):
        version = ray.train(run, progress.watch)
    verdicts = [verdict for verdict in gate_model(place.lake, project) if verdict.run == run]
    roll_out(place.lake, project)
    for verdict in verdicts:
        _show_verdict(verdict, as_json=as_json)
    if not as_json:
        say(f"next: lakeloop models show {model} {version}, lakeloop serve", quiet=quiet)
    if any(verdict.verdict == "refused" for verdict in verdicts):
        raise Refused(
            f"version {version} of {model} was not promoted", todo=f"see `lakeloop models show {model} {version}`"
        )


def runs_list(
    model: Annotated[str | None, typer.Option("--model", help="Only this model's")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only these: started, finished, failed, lost")] = None,
    param: Annotated[list[str] | None, typer.Option("--param", help="Only with this parameter: max_depth=6")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Default: the one its model is tuned for")] = None,
    above: Annotated[float | None, typer.Option("--above", help="Only with more of the metric")] = None,
    below: Annotated[float | None, typer.Option("--below", help="Only with less of the metric")] = None,
    order: Annotated[str, typer.Option("--order", help="newest, or by the metric: highest, lowest")] = "newest",
    limit: Annotated[int, typer.Option("--limit", help="The first so many; 0: all")] = 1000,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs, newest first, with their result and the gate's verdict."""
    from typing import cast

    from lakeloop.lakehouse.run_list import Order, find_runs

    place = find_place(lake, env)
    found = find_runs(
        place.lake,
        model=model or "",
        status=status or "",
        params=dict(_pair(text) for text in param or ()),
        metric=metric or {name: one.search.metric for name, one in place.applied().models.items()},
        above=above,
        below=below,
        order=cast(Order, order),
        limit=limit,
    )
    facts_of = ["run", "model", "status", "version", "verdict", "trigger", "as_of", "seconds", "first_logged_at"]
    rows = found.select([*facts_of, "metric", "value", "low", "high"]).to_pylist()
    for row in rows:
        row["started"] = row.pop("first_logged_at")
        if row["value"] is not None and not as_json:
            between = "" if row["low"] is None else f" [{row['low']:.4f}, {row['high']:.4f}]"
            row["score"] = f"{row['metric']} {row['value']:.4f}{between}"
    show(
        rows,
        as_json=as_json,
        columns=None
        if as_json
        else ["run", "model", "status", "version", "score", "verdict", "as_of", "seconds", "trigger"],
        empty="no run yet; next: lakeloop train MODEL",
    )
    if limit and len(rows) == limit:
        say(f"the first {limit}; more with --limit")


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise Invalid(f"--param {text!r} names no value", todo="write it as max_depth=6")
    return name, value


def runs_show(run: str, lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """One run: facts, tasks, trials."""
    place = find_place(lake, env)
    found = place.lake.sql("select * from lakeloop.runs where run = ?", [run]).to_pylist()
    if not found:
        raise NotFound(f"there is no run {run!r}", todo="see `lakeloop runs list`")
    from lakeloop.lakehouse.runs import redaction

    forgotten = {"forgotten": text} if (text := redaction(place.lake, run)) else {}
    tasks = place.lake.sql(
        "select task, status, seconds, error from lakeloop.tasks where run = ? order by started", [run]
    ).to_pylist()
    trials = place.lake.sql(
        "select trial, arg_max(status, logged_at) as status, max_by(value, attempt * 1000000 + seq) as value, "
        "max(seconds) as seconds, any_value(params) as params "
        "from lakeloop.trials where run = ? group by trial order by trial",
        [run],
    ).to_pylist()
    if as_json:
        facts({**found[0], **forgotten, "tasks": tasks, "trials": trials}, as_json=True)
        return
    facts(
        {name: value for name, value in found[0].items() if value is not None and name != "environment"} | forgotten,
        as_json=False,
    )
    show(tasks, as_json=False, title="\ntasks")
    show(trials, as_json=False, title="\ntrials", empty="no trials")


def runs_compare(runs: list[str], lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Metrics and parameters of several runs side by side."""
    import json

    place = find_place(lake, env)
    rows: list[dict[str, Any]] = []
    columns: dict[str, dict[str, Any]] = {}
    for run in runs:
        found = place.lake.sql("select params, version from lakeloop.runs where run = ?", [run]).to_pylist()
        if not found:
            raise NotFound(f"there is no run {run!r}", todo="see `lakeloop runs list`")
        metrics = place.lake.sql(
            "select metric, value from lakeloop.metrics where run = ? and subject = 'model' and slice = ''", [run]
        ).to_pylist()
        columns[run] = {
            "version": found[0]["version"],
            **{m["metric"]: m["value"] for m in metrics},
            **json.loads(found[0]["params"] or "{}"),
        }
    for name in dict.fromkeys(name for values in columns.values() for name in values):
        rows.append({"": name, **{run: values.get(name) for run, values in columns.items()}})
    show(rows, as_json=as_json)


def models_list(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Every model of the project, and its versions."""
    from lakeloop.lakehouse import endpoints, registry

    place = find_place(lake, env)
    project = place.applied()
    rows = []
    for model, definition in project.models.items():
        there = endpoints.endpoint(place.lake, project.name, model)
        for found in registry.versions(place.lake, project.name, model):
            main = registry.metric(found.body, definition.search.metric) or {}
            score = f"{definition.search.metric} {main['value']:.4f}" if main.get("value") is not None else ""
            rows.append(
                {
                    "model": model,
                    "version": found.body["version"],
                    "status": endpoints.standing(there, found.body["version"], found.body["status"]),
                    "score": score,
                    "trained_as_of": found.body["as_of"],
                    "run": found.body["run"],
                    "pickle": found.body["learner"]["pickle"],
                }
            )
        if not any(row["model"] == model for row in rows):
            rows.append({"model": model, "version": None, "status": "not trained yet"})
    show(rows, as_json=as_json, columns=["model", "version", "status", "score", "trained_as_of", "run", "pickle"])


def models_show(
    model: ModelArgument,
    version: Annotated[int | None, typer.Argument(help="Default: the champion")] = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """One version: metrics against the baseline, the gate's verdict, lineage."""
    from lakeloop.lakehouse import endpoints, registry

    place = find_place(lake, env)
    project = place.applied()
    body = registry.version(place.lake, project.name, model, _version(place, project, model, version)).body
    there = endpoints.endpoint(place.lake, project.name, model)
    body = {**body, "status": endpoints.standing(there, body["version"], body["status"])}
    verdicts = place.lake.sql(
        "select rule, slice, ours, theirs, gain, low, high, needed, passed, verdict from lakeloop.verdicts "
        "where project = ? and model = ? and version = ? order by passed, slice",
        [project.name, model, body["version"]],
    ).to_pylist()
    if as_json:
        facts({**body, "verdicts": verdicts}, as_json=True)
        return
    definition = project.models.get(model)
    facts(
        {
            "model": model,
            "version": body["version"],
            "status": body["status"],
            "goal": project.goal,
            "description": definition.description if definition else "",
            "run": body["run"],
            "learner": body["learner"]["name"],
            "model_hash": body["model_hash"],
            "parameters": body["params"],
            "rows": body["counts"],
        },
        as_json=False,
    )
    whole = [one for one in body["metrics"] if not one["slice"]]
    table = [
        {
            "metric": one["metric"],
            "model": one["value"],
            "low": one["low"],
            "high": one["high"],
            "baseline": (registry.metric(body, one["metric"], subject="baseline") or {}).get("value"),
            "rows": one["rows"],
        }
        for one in whole
        if one["subject"] == "model"
    ]
    show(table, as_json=False, title="\non the test part")
    show(verdicts, as_json=False, title="\nthe gate", empty="not judged yet")
    out.print("\nlineage")
    facts(body["lineage"] | {"environment": body["environment"]}, as_json=False)


def models_history(
    model: ModelArgument, lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Every change of champion: who, when, why."""
    from lakeloop.lakehouse import endpoints

    place = find_place(lake, env)
    project = place.applied()
    _known(project, model)
    rows = endpoints.history(place.lake, project.name, model)
    show(
        [{"version": r["version"], "since": r["at"], "who": r["who"], "why": r["why"]} for r in rows],
        as_json=as_json,
        empty=f"{model} never had a champion; next: lakeloop train {model}",
    )


def models_promote(
    model: ModelArgument, version: int, why: WhyOption = "", lake: LakeOption = None, env: EnvOption = None
) -> None:
    """Make a version the champion by hand, whatever the gate said."""
    _promote(find_place(lake, env), model, version, why or "promoted by hand")


def models_approve(
    model: ModelArgument, version: int, why: WhyOption = "", lake: LakeOption = None, env: EnvOption = None
) -> None:
    """Approve a version that waits for it."""
    from lakeloop.lakehouse import registry

    place = find_place(lake, env)
    status = registry.version(place.lake, place.applied().name, model, version).body["status"]
    if status != "waiting":
        raise Refused(
            f"version {version} of {model} does not wait for an approval, it is {status}",
            todo=f"to promote it all the same: lakeloop models promote {model} {version}",
        )
    _promote(place, model, version, why or f"approved by {place.lake.who}")


def models_refuse(
    model: ModelArgument, version: int, why: WhyOption = "", lake: LakeOption = None, env: EnvOption = None
) -> None:
    """Refuse a version that waits for an approval."""
    from lakeloop.lakehouse import registry

    place = find_place(lake, env)
    registry.set_status(
        place.lake, place.applied().name, model, version, "refused", why or f"refused by {place.lake.who}"
    )
    say(f"version {version} of {model} is refused")


def models_rollback(model: ModelArgument, why: WhyOption = "", lake: LakeOption = None, env: EnvOption = None) -> None:
    """Back to the champion before this one, which is barred until a person promotes it again.

    Running endpoints follow at once.
    """
    from lakeloop.functions.roll_out import roll_out
    from lakeloop.lakehouse import endpoints, registry

    place = find_place(lake, env)
    project = place.applied()
    _known(project, model)
    _not_frozen(place, project, model)
    reason = why or f"rolled back by {place.lake.who}"
    now, before = endpoints.rollback(place.lake, project.name, model, reason)
    registry.set_status(place.lake, project.name, model, now, "barred", reason)
    registry.set_status(place.lake, project.name, model, before, "champion", reason)
    roll_out(place.lake, project)
    say(
        f"{model}: version {now} is barred, version {before} is the champion again\n"
        f"next: lakeloop models history {model}"
    )


def models_lineage(
    model: ModelArgument,
    version: Annotated[int | None, typer.Argument(help="Default: the champion")] = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a version was made from, and where it went."""
    from lakeloop.lakehouse import foreign, registry
    from lakeloop.lakehouse.runs import redaction

    place = find_place(lake, env)
    project = place.applied()
    number = _version(place, project, model, version)
    body = registry.version(place.lake, project.name, model, number).body
    in_place = foreign.described(place.lake, body["lineage"]["tables"])
    used = place.lake.sql(
        "select count(*) as predictions, min(as_of) as first_as_of, max(as_of) as last_as_of from lakeloop.predictions "
        "where project = ? and model = ? and version = ?",
        [project.name, model, number],
    ).to_pylist()[0]
    facts(
        {
            "model": model,
            "version": number,
            "run": body["run"],
            **({"forgotten": text} if (text := redaction(place.lake, body["run"])) else {}),
            **body["lineage"],
            **({"read_in_place": in_place} if in_place else {}),
            "parameters": body["params"],
            "model_hash": body["model_hash"],
            "environment": body["environment"],
            **used,
        },
        as_json=as_json,
    )


def _promote(place: Place, model: str, version: int, why: str) -> None:
    from lakeloop.functions.gate_model import promote
    from lakeloop.functions.roll_out import roll_out
    from lakeloop.lakehouse import endpoints, registry
    from lakeloop.lakehouse.rollouts.state import running

    project = place.applied()
    _known(project, model)
    registry.version(place.lake, project.name, model, version)
    _not_frozen(place, project, model)
    promote(
        place.lake,
        project.name,
        model,
        version,
        expected=endpoints.champion(place.lake, project.name, model),
        why=why,
        by_hand=True,
    )
    roll_out(place.lake, project)
    there = endpoints.endpoint(place.lake, project.name, model)
    rollout = running(there.body) if there is not None else None
    if rollout is not None and rollout.kind == "canary" and rollout.version == version:
        say(f"version {version} of {model} takes over step by step\nnext: lakeloop rollouts show {model}")
        return
    if there is not None and there.body["arms"][0]["version"] != version:
        what = "`lakeloop work` begins its rollout" if rollout is None else "its rollout begins when this one is over"
        say(f"version {version} of {model} is wanted; {what}\nnext: lakeloop rollouts show {model}")
        return
    say(f"version {version} is the champion of {model}\nnext: lakeloop models history {model}")


def _version(place: Place, project: Project, model: str, version: int | None) -> int:
    from lakeloop.lakehouse import endpoints

    _known(project, model)
    number = version if version is not None else endpoints.champion(place.lake, project.name, model)
    if number is None:
        raise NotFound(f"{model} has no champion yet", todo=f"name a version, or train one: lakeloop train {model}")
    return number


def _known(project: Project, model: str) -> None:
    if model not in project.models:
        raise NotFound(
            f"{project.name} has no model {model!r}",
            todo=f"name one of: {', '.join(sorted(project.models)) or 'none is declared'}",
        )


def _not_frozen(place: Place, project: Project, model: str) -> None:
    """Refused while a person holds the model: its endpoint would not follow."""
    from lakeloop.lakehouse.freezing import frozen

    stop = frozen(place.lake, project.name, model)
    if stop is not None:
        raise Refused(f"{model} is frozen by {stop.who}: {stop.why}", todo=f"lakeloop unfreeze {model}")


def _show_verdict(verdict: Verdict, *, as_json: bool) -> None:
    if as_json:
        facts(
            {
                "model": verdict.model,
                "run": verdict.run,
                "version": verdict.version,
                "verdict": verdict.verdict,
                "why": verdict.why,
            },
            as_json=True,
        )
    else:
        out.print(f"{verdict.model} version {verdict.version}: {verdict.verdict}: {verdict.why}", markup=False)
