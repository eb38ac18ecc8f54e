"""`check`, `test`, `plan`, `apply`: from a folder of files to the definition in force."""

from __future__ import annotations

from typing import Annotated

import typer

from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption, QuietOption, WhyOption
from lakeloop.infra.cli.output import facts, out, say
from lakeloop.infra.place import Place, code_version, find_place
from lakeloop.lakehouse.errors import Refused, Unavailable

PANEL = "Project"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(check)
    app.command("test", rich_help_panel=PANEL)(run_tests)
    app.command(rich_help_panel=PANEL)(plan)
    app.command(rich_help_panel=PANEL)(apply)


def check(
    lake: LakeOption = None,
    env: EnvOption = None,
    leakage: Annotated[
        bool, typer.Option("--leakage/--no-leakage", help="Look in the data for inputs that know the future")
    ] = True,
    quiet: QuietOption = False,
) -> None:
    """Check the project's files, its SQL, and (when there are data) that no input knows the future."""
    from lakeloop.functions.check_leakage import check_leakage
    from lakeloop.lakehouse.applied import bound

    place = find_place(lake, env, need_project=True)
    definition = place.project()
    bound(definition)
    say(f"{definition.name}: {_counts(place)}; every file and query is right", quiet=quiet)
    if not leakage:
        return
    found = 0
    for model in definition.models:
        checked = check_leakage(place.lake, definition, model)
        if not checked.moments:
            say(f"{model}: leakage not checked, there are no labelled examples in {place.lake.url} yet", quiet=quiet)
            continue
        for leak in checked.leaks:
            out.print(f"{model}: leak: {leak}", markup=False)
        found += len(checked.leaks)
        if not checked.leaks:
            say(
                f"{model}: no input knows the future ({checked.rows} predictions at {checked.moments} moments, "
                "recomputed from what was known)",
                quiet=quiet,
            )
    if found:
        raise Refused(
            f"{found} inputs know what could not be known at as_of",
            where=str(place.folder),
            todo="use values that were known by then; `lag` says when a row is known",
        )


def run_tests(
    lake: LakeOption = None,
    env: EnvOption = None,
    select: Annotated[str, typer.Option("-k", help="Only tests whose name contains this")] = "",
) -> None:
    """Run the project's own tests (tests/test_*.py) with pytest.

    The fixture `project` gives features and examples of given rows.
    """
    place = find_place(lake, env, need_project=True)
    folder = place.folder
    assert folder is not None
    if not (folder / "tests").is_dir():
        say(f"no tests in {folder / 'tests'}; a test is a function test_… there, with the fixture `project`")
        return
    try:
        import pytest
    except ImportError as error:
        raise Unavailable("pytest is not installed", todo="pip install pytest") from error
    plugins = ["-p", "lakeloop.functions.project_tests", "-p", "no:cacheprovider"]
    arguments = [str(folder / "tests"), "-q", *plugins, f"--rootdir={folder}", "--import-mode=importlib"]
    code = pytest.main([*arguments, *(["-k", select] if select else [])])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        say(f"no tests in {folder / 'tests'}")
    elif code != 0:
        raise Refused("the project's tests failed", where=str(folder), todo="mend them")


def plan(lake: LakeOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Say what `apply` would change."""
    from lakeloop.lakehouse import applied

    place = find_place(lake, env, need_project=True)
    definition = place.project()
    current = place.lake.documents.latest(applied.KIND, definition.name)
    before = dict(current.body["files"]) if current else {}
    changes = {
        "lake": place.lake.url,
        "in_force": current.number if current else 0,
        "added": sorted(set(definition.files) - set(before)),
        "changed": sorted(name for name, text in definition.files.items() if name in before and before[name] != text),
        "removed": sorted(set(before) - set(definition.files)),
    }
    facts(changes, as_json=as_json)


def apply(
    lake: LakeOption = None,
    env: EnvOption = None,
    why: WhyOption = "",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make this folder's definition the one in force in the lake. Makes the lake when there is none."""
    from lakeloop.lakehouse import applied
    from lakeloop.lakehouse.applied import bound
    from lakeloop.lakehouse.probing import init_lake

    place = find_place(lake, env, need_project=True)
    definition, folder = place.project(), place.folder
    assert folder is not None
    bound(definition)
    _, made = init_lake(place.lake)
    if made:
        say(f"made a lake in {place.lake.url}", quiet=quiet)
    revision, changed = applied.publish(
        place.lake,
        definition,
        code_version=code_version(folder, definition),
        why=why,
        environment=place.environment,
    )
    if as_json:
        facts(
            {
                "project": definition.name,
                "revision": revision.number,
                "changed": changed,
                "hash": definition.hash,
                "lake": place.lake.url,
            },
            as_json=True,
        )
    elif changed:
        say(
            f"applied {definition.name} ({_counts(place)}) as revision {revision.number}\n"
            "next: lakeloop ingest SOURCE FILE",
            quiet=quiet,
        )
    else:
        say(f"{definition.name} is in force already, as revision {revision.number}", quiet=quiet)


def _counts(place: Place) -> str:
    definition = place.project()
    parts = {"source": definition.sources, "view": definition.views, "model": definition.models}
    return ", ".join(f"{len(found)} {name}{'' if len(found) == 1 else 's'}" for name, found in parts.items())
