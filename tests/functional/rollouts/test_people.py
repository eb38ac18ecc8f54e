"""What people start and decide: A/B with named arms, a canary by a plan of its own, and the commands for all of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from lakeloop.functions.start_rollout import start_ab, start_canary
from lakeloop.infra.cli.app import app
from lakeloop.lakehouse import endpoints, registry
from lakeloop.lakehouse.errors import Conflict, Invalid, LakeloopError, NotFound, Refused
from lakeloop.lakehouse.project.definitions import Rollout as Plan
from lakeloop.lakehouse.rollouts.state import Challenger
from lakeloop.tests.functional.rollouts.conftest import MINUTE, STEPS, Interrupted, World

B, C = Challenger("b", 2, 2000), Challenger("c", 3, 1000)


def in_parts(world: World, rules: tuple[str, ...] = ()) -> None:
    """An A/B that answers."""
    world.start_replicas()
    start_ab(world.lake, world.project, "buys", [B, C], rules, "which is better?")
    assert world.weights == [(1, 10_000), (2, 0), (3, 0)]
    world.poll()
    world.step()
    world.poll()
    assert world.weights == [(1, 7000), (2, 2000), (3, 1000)]


def test_an_ab_splits_by_its_shares_until_a_person_ends_it(world: World) -> None:
    in_parts(world)
    world.wait(timedelta(days=30))
    assert world.step() == []
    arms = Counter(world.replicas[0].ask([{"id": f"u{n}", "clicks": 0.5}])["version"] for n in range(1000))
    assert all(abs(arms[version] - expected) < 60 for version, expected in ((1, 700), (2, 200), (3, 100)))
    assert endpoints.finish(world.lake, "shop", "buys", 3, "it sells most") == (1, 3)
    world.step()
    assert world.weights == [(3, 10_000)]


def test_an_arm_of_an_ab_that_breaks_a_rule_ends_it(world: World) -> None:
    in_parts(world, ("errors > 1%",))
    world.behaviour[3] = lambda clicks: clicks["no such key"]  # type: ignore[call-overload,no-any-return]
    world.send(200)
    (done,) = world.step()
    assert done.why.startswith("version 3 goes back: errors > 1%")
    assert (world.weights, world.body["barred"]) == ([(1, 10_000)], [3])
    assert registry.version(world.lake, "shop", "buys", 3).body["status"] == "barred"
    assert world.alerts() == [("roll-out", "open")]


def test_a_promotion_waits_for_the_end_of_an_ab(world: World) -> None:
    in_parts(world)
    world.register(4)
    world.promote(4)
    assert world.step() == []
    endpoints.abort(world.lake, "shop", "buys", "seen enough")
    assert world.weights == [(1, 10_000)]
    world.step()
    assert world.weights == [(4, 10_000)]


def test_a_rollback_ends_an_ab_and_goes_to_the_champion_before(world: World) -> None:
    world.promote(2)
    world.step()
    world.start_replicas()
    start_ab(world.lake, world.project, "buys", [Challenger("c", 3, 1000)], (), "which is better?")
    world.poll()
    world.step()
    assert world.weights == [(2, 9000), (3, 1000)]
    endpoints.rollback(world.lake, "shop", "buys", "people complain")
    world.step()
    assert world.weights == [(1, 10_000)]


@pytest.mark.parametrize(
    ("arms", "error", "words"),
    [
        ([], Invalid, "not named apart"),
        ([B, Challenger("b", 3, 10)], Invalid, "not named apart"),
        ([Challenger("champion", 2, 10)], Invalid, "not named apart"),
        ([B, Challenger("c", 2, 10)], Invalid, "two arms serve one version"),
        ([Challenger("b", 1, 10)], Invalid, "two arms serve one version"),
        ([Challenger("b", 2, 0)], Invalid, "nothing to the champion"),
        ([Challenger("b", 2, 10_000)], Invalid, "nothing to the champion"),
        ([Challenger("b", 77, 10)], NotFound, "no version 77"),
    ],
)
def test_an_ab_that_makes_no_sense_is_refused(
    world: World, arms: list[Challenger], error: type[LakeloopError], words: str
) -> None:
    with pytest.raises(error, match=words):
        start_ab(world.lake, world.project, "buys", arms, (), "")


def test_one_rollout_at_a_time(world: World) -> None:
    in_parts(world)
    with pytest.raises(Refused, match="under way"):
        start_canary(world.lake, world.project, "buys", 2, Plan(None, (1, 100), MINUTE), "")


def test_a_canary_by_its_own_plan_lifts_the_bar_that_the_version_had(world: World) -> None:
    world.promote(2)
    world.step()
    endpoints.rollback(world.lake, "shop", "buys", "bad day")
    world.step()
    world.start_replicas()
    start_canary(world.lake, world.project, "buys", 2, Plan(None, (50, 100), MINUTE), "once more")
    assert (world.body["wanted"], world.body["barred"]) == (2, [])
    assert endpoints.answering(world.lake, "shop", "buys") == 1
    for _ in range(2):
        world.wait(MINUTE)
        world.step()
    assert world.weights == [(2, 10_000)]
    assert endpoints.answering(world.lake, "shop", "buys") == 2
    assert [registry.version(world.lake, "shop", "buys", n).body["status"] for n in (1, 2)] == ["retired", "champion"]


@pytest.mark.parametrize("decide", [endpoints.pause, endpoints.abort])
def test_a_persons_decision_that_meets_a_step_is_made_on_what_is_there_then(
    world: World, decide: Callable[..., Any]
) -> None:
    world.apply(STEPS % "")
    world.start_replicas()
    world.promote(2)
    world.step()
    world.poll()
    person = Interrupted(world.open("person"), world.step)
    decide(person.lake, "shop", "buys", "wait")
    assert person.interrupted
    assert [one.stage for one in world.rollout.steps] == ["load", "share"]
    world.wait(timedelta(days=1))
    assert world.step() == []


def test_a_decision_about_a_rollout_is_not_carried_over_to_another(world: World) -> None:
    in_parts(world)

    def another() -> None:
        endpoints.abort(world.lake, "shop", "buys", "enough")
        start_ab(world.lake, world.project, "buys", [B], (), "again")

    with pytest.raises(Conflict, match="another rollout"):
        endpoints.abort(Interrupted(world.open("person"), another).lake, "shop", "buys", "enough")


class Commands:
    """The command line in this process, on the lake of a world."""

    def __init__(self, world: World) -> None:
        self._lake = world.lake.url

    def __call__(self, *words: str) -> str:
        """What is printed; the error is raised as it is."""
        said = CliRunner().invoke(app, ["rollouts", *words, "--lake", self._lake])
        if said.exception is not None and not isinstance(said.exception, SystemExit):
            raise said.exception
        return said.output


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Commands:
    monkeypatch.chdir(tmp_path)
    world.clock.now = datetime.now(UTC)  # the commands have a clock of their own
    return Commands(world)


def test_the_commands_start_show_and_end_an_ab(world: World, run: Commands) -> None:
    world.start_replicas()
    assert "no rollout yet" in run("list")
    assert "is under way" in run("start", "buys", "--arm", "b=2:20", "--arm", "c=3:10", "--back-if", "errors > 1%")
    world.poll()
    world.step()
    world.poll()
    world.send(100)
    shown = json.loads(run("show", "buys", "--json"))
    assert (shown["kind"], shown["step"], shown["version"]) == ("ab", "30 %", "2, 3")
    assert [(arm["arm"], arm["share"]) for arm in shown["arms"]] == [("champion", "70 %"), ("b", "20 %"), ("c", "10 %")]
    assert sum(arm["requests"] for arm in shown["arms"]) == 100
    assert [rule["says"] for rule in shown["rules"]] == ["early", "early"]
    table = run("show", "buys")
    assert "runs until a person ends it" in table
    assert "champion" in table
    run("abort", "buys", "--why", "seen enough")
    assert "aborted" in run("list")
    assert world.weights == [(1, 10_000)]


def test_the_commands_pause_resume_and_promote_a_canary(world: World, run: Commands) -> None:
    run("start", "buys", "--version", "2", "--canary", "10,100", "--hold", "30m", "--why", "it is better")
    assert "no live replica has reported" in run("list")
    run("pause", "buys", "--why", "lunch")
    assert "paused by" in run("list")
    run("resume", "buys")
    assert "takes over" in run("promote", "buys")
    assert world.weights == [(2, 10_000)]
    assert [registry.version(world.lake, "shop", "buys", n).body["status"] for n in (1, 2)] == ["retired", "champion"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "buys"), "no rollout of buys yet"),
        (("pause", "buys"), "no rollout of buys is under way"),
        (("show", "bys"), "no model 'bys'"),
        (("start", "buys"), "one of --version, --arm and --shadow"),
        (("start", "buys", "--arm", "b=2"), "'b=2' is no arm"),
        (("start", "buys", "--version", "2", "--canary", "50,10"), "does not rise"),
        (("start", "buys", "--version", "2", "--canary", "0,10"), "are no shares"),
        (("start", "buys", "--version", "2", "--hold", "soon"), "no duration"),
        (("start", "buys", "--version", "1"), "is the champion"),
        (("start", "buys", "--shadow", "2", "--back-if", "errors > 200%"), "is not a share"),
    ],
)
def test_what_cannot_be_done_is_said(run: Commands, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(LakeloopError, match=message):
        run(*words)


def test_an_arm_that_was_promoted_meanwhile_and_breaks_a_rule_is_not_rolled_out(world: World) -> None:
    in_parts(world, ("errors > 1%",))
    world.promote(3)
    world.behaviour[3] = lambda clicks: clicks["no such key"]  # type: ignore[call-overload,no-any-return]
    world.send(200)
    world.step()
    assert (world.body["wanted"], world.body["barred"]) == (1, [3])
    assert registry.version(world.lake, "shop", "buys", 1).body["status"] == "champion"
    assert world.step() == []
