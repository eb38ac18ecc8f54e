"""`rollouts`: how a version takes over, seen and steered by a person, whose decision always wins."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from lakeloop.infra.cli import rollout_tables
from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption, WhyOption
from lakeloop.infra.cli.output import facts, out, say, show
from lakeloop.infra.place import Place, find_place
from lakeloop.lakehouse.errors import Invalid, NotFound, Refused

if TYPE_CHECKING:
    from lakeloop.lakehouse.project import Project
    from lakeloop.lakehouse.rollouts.state import Challenger

PANEL = "Serving"
ARM = re.compile(r"([a-z][a-z0-9_-]*)=(\d{1,9})(?::(\d{1,2}(?:\.\d{1,2})?))?")
ModelArgument = Annotated[str, typer.Argument(help="A model of the project")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Shadow, canary and A/B: how versions take over", no_args_is_help=True)
    group.command("list")(rollouts_list)
    group.command("show")(rollouts_show)
    group.command("start")(rollouts_start)
    group.command("pause")(rollouts_pause)
    group.command("resume")(rollouts_resume)
    group.command("abort")(rollouts_abort)
    group.command("promote")(rollouts_promote)
    app.add_typer(group, name="rollouts", rich_help_panel=PANEL)


def rollouts_list(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """The rollout of each endpoint that is under way, else its last one."""
    from lakeloop.lakehouse import endpoints
    from lakeloop.lakehouse.rollouts.state import rollout_of

    place = find_place(lake, env)
    project = place.applied()
    rows = []
    for model in project.models:
        there = endpoints.endpoint(place.lake, project.name, model)
        rollout = rollout_of(there.body) if there is not None else None
        if rollout is not None:
            rows.append(rollout_tables.line(place, project, model, rollout))
    show(rows, as_json=as_json, empty="no rollout yet; a plan is [serving] rollout in models/<name>.toml")


def rollouts_show(
    model: ModelArgument, lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """The steps, what each arm did in the present one, what the rules say, and what the next step waits for."""
    from lakeloop.lakehouse import endpoints
    from lakeloop.lakehouse.rollouts.gathering import gather
    from lakeloop.lakehouse.rollouts.state import rollout_of

    place = find_place(lake, env)
    project = place.applied()
    there = endpoints.endpoint(place.lake, project.name, _known(project, model))
    rollout = rollout_of(there.body) if there is not None else None
    if there is None or rollout is None:
        raise NotFound(f"there was no rollout of {model} yet", todo=f"lakeloop rollouts start {model} --help")
    evidence = gather(place.lake, project.name, model, rollout, place.lake.clock(), everything=True)
    head = {**rollout_tables.line(place, project, model, rollout, evidence), "because": rollout.started.why}
    head |= {
        "sticky": there.body.get("sticky") or "the row's id, else the request's",
        "replicas": rollout_tables.replicas(evidence),
    }
    steps, arms, rules = (
        rollout_tables.steps(rollout),
        rollout_tables.arms(rollout, evidence),
        rollout_tables.rules(rollout, evidence),
    )
    if as_json:
        facts({**head, "steps": steps, "arms": arms, "rules": rules}, as_json=True)
        return
    facts(head, as_json=False)
    for title, rows in (("\nsteps", steps), ("\narms, in this step", arms), ("\nrules", rules)):
        if rows:
            out.print(title, markup=False)
            show(rows, as_json=False)


def rollouts_start(
    model: ModelArgument,
    version: Annotated[int | None, typer.Option(help="A canary of this version, by the shares of --canary")] = None,
    canary: Annotated[str, typer.Option(help="Shares in percent, one after another")] = "1,10,50,100",
    hold: Annotated[str, typer.Option(help="Time between two steps")] = "1h",
    arm: Annotated[list[str] | None, typer.Option("--arm", help="A/B: NAME=VERSION:PERCENT; may be repeated")] = None,
    shadow: Annotated[int | None, typer.Option(help="Score the log with this version, until a person ends it")] = None,
    back_if: Annotated[
        list[str] | None, typer.Option("--back-if", help='A rule such as "errors > 1%"; may be repeated')
    ] = None,
    why: WhyOption = "",
    lake: LakeOption = None,
    env: EnvOption = None,
) -> None:
    """Start an A/B, a challenger in the shadow, or a canary by a plan of its own.

    What is started goes on with `lakeloop work`.
    """
    from lakeloop.functions import start_rollout
    from lakeloop.lakehouse.project.definitions import Rollout as Plan

    if sum((version is not None, bool(arm), shadow is not None)) != 1:
        raise Invalid("this starts one of --version, --arm and --shadow", todo="give one of them")
    place = find_place(lake, env)
    project = place.applied()
    _free(place, project, _known(project, model))
    rules, reason = _checked(back_if or []), why or f"started by {place.lake.who}"
    if arm:
        start_rollout.start_ab(place.lake, project, model, [_arm(text) for text in arm], rules, reason)
    elif shadow is not None:
        start_rollout.start_shadow(place.lake, project, model, shadow, rules, reason)
    elif version is not None:
        plan = Plan(None, _shares(canary), _duration(hold), tuple(rules))
        start_rollout.start_canary(place.lake, project, model, version, plan, reason)
    _go_on(place, project, model, "is under way")


def rollouts_pause(model: ModelArgument, why: WhyOption = "", lake: LakeOption = None, env: EnvOption = None) -> None:
    """No automatic step, forward or back, until `resume`. Traffic stays as it is."""
    from lakeloop.lakehouse import endpoints

    place = find_place(lake, env)
    endpoints.pause(place.lake, place.applied().name, model, why)
    say(f"the rollout of {model} is paused\nnext: lakeloop rollouts resume {model}")


def rollouts_resume(model: ModelArgument, why: WhyOption = "", lake: LakeOption = None, env: EnvOption = None) -> None:
    """Automatic steps again."""
    from lakeloop.lakehouse import endpoints

    place = find_place(lake, env)
    project = place.applied()
    endpoints.resume(place.lake, project.name, model, why)
    _go_on(place, project, model, "goes on")


def rollouts_abort(model: ModelArgument, why: WhyOption = "", lake: LakeOption = None, env: EnvOption = None) -> None:
    """End it: the champion has all of the traffic at once. The version of a canary is barred."""
    from lakeloop.lakehouse import endpoints, registry

    place = find_place(lake, env)
    project = place.applied()
    reason = why or f"aborted by {place.lake.who}"
    rollout = endpoints.abort(place.lake, project.name, model, reason)
    if rollout.kind == "canary":
        registry.set_status(place.lake, project.name, model, rollout.version, "barred", reason)
    if endpoints.champion(place.lake, project.name, model) == rollout.champion:
        registry.set_status(place.lake, project.name, model, rollout.champion, "champion", reason)
    _go_on(place, project, model, f"is ended; version {rollout.champion} answers")


def rollouts_promote(
    model: ModelArgument,
    version: Annotated[int | None, typer.Option(help="Which one takes over, of an A/B; default: the first")] = None,
    why: WhyOption = "",
    lake: LakeOption = None,
    env: EnvOption = None,
) -> None:
    """End it: the new version takes over now, whatever the rules say."""
    from lakeloop.lakehouse import endpoints, registry

    place = find_place(lake, env)
    project = place.applied()
    _free(place, project, _known(project, model))
    reason = why or f"promoted by {place.lake.who}"
    before, now = endpoints.finish(place.lake, project.name, model, version, reason)
    registry.set_status(place.lake, project.name, model, now, "champion", reason)
    registry.set_status(place.lake, project.name, model, before, "retired", f"version {now} is the champion")
    _go_on(place, project, model, f"is ended; version {now} takes over")


def _go_on(place: Place, project: Project, model: str, words: str) -> None:
    from lakeloop.functions.roll_out import roll_out

    roll_out(place.lake, project)
    say(f"the rollout of {model} {words}\nnext: lakeloop rollouts show {model}")


def _known(project: Project, model: str) -> str:
    if model not in project.models:
        raise NotFound(f"{project.name} has no model {model!r}", todo=f"name one of: {', '.join(project.models)}")
    return model


def _free(place: Place, project: Project, model: str) -> None:
    from lakeloop.lakehouse.freezing import frozen

    stop = frozen(place.lake, project.name, model)
    if stop is not None:
        raise Refused(f"{model} is frozen by {stop.who}: {stop.why}", todo=f"lakeloop unfreeze {model}")


def _arm(text: str) -> Challenger:
    from lakeloop.lakehouse.rollouts.state import Challenger

    found = ARM.fullmatch(text)
    if found is None or found[3] is None:
        raise Invalid(f"{text!r} is no arm", todo="write NAME=VERSION:PERCENT, such as b=7:20")
    return Challenger(found[1], int(found[2]), round(float(found[3]) * 100))


def _shares(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    shares = [int(part) for part in parts if part.isascii() and part.isdigit()]
    if len(shares) != len(parts) or not shares or not 1 <= min(shares) <= max(shares) <= 100:
        raise Invalid(f"{text!r} are no shares", todo="write percents from 1 to 100, such as 1,10,50,100")
    if sorted(set(shares)) != shares:
        raise Invalid(f"{text} does not rise", todo="write the shares in order, each once")
    return tuple(shares)


def _duration(text: str) -> timedelta:
    from lakeloop.lakehouse.project.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise Invalid(f"{text!r} is no duration", todo="write it as 15m, 3h or 7d") from None


def _checked(rules: list[str]) -> list[str]:
    from lakeloop.lakehouse.project.back_if import parse_back_if

    for rule in rules:
        try:
            parse_back_if(rule)
        except ValueError as error:
            raise Invalid(f"--back-if {rule!r} {error}") from None
    return rules
