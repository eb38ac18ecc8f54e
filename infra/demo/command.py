"""`lakeloop demo`: runs the story with progress, and ends with a table, the report, and three questions to try."""

from __future__ import annotations

import os
from pathlib import Path

import lakeloop
from lakeloop.functions.report.gathering import write_report
from lakeloop.infra.cli.output import err, out, say
from lakeloop.infra.demo import summary
from lakeloop.infra.demo.loop import END, MODEL, PROJECT, Demo
from lakeloop.infra.place import DEFAULT_LAKE
from lakeloop.infra.progress import bars
from lakeloop.infra.training import LocalRay
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import NotFound, Refused
from lakeloop.lakehouse.lake import Lake, open_lake

REPORT = "lakeloop-demo.html"


def run_demo(url: str | None, *, fresh: bool = False, quiet: bool = False) -> None:
    """Run, or go on with, the demo in the lake `url` (default: LAKELOOP_LAKE, ./.lake)."""
    folder = example()
    lake = open_lake(url or os.environ.get("LAKELOOP_LAKE") or DEFAULT_LAKE)
    others = [name for name in applied.names(lake) if name != PROJECT]
    if fresh:
        _remove(lake, others)
    with (
        bars(quiet=quiet, console=err) as progress,
        LocalRay(lake, folder, say=lambda text: _line(text, quiet), serve=True) as ray,
    ):
        demo = Demo(lake, folder, ray, progress, lambda text: _line(text, quiet))
        finished = demo.finished()
        if not finished:
            demo.run()
    if finished:
        say("this lake holds a finished demo; `lakeloop demo --fresh` runs it again", quiet=quiet)
    project = applied.load(lake, PROJECT)[0]
    path = Path(REPORT).absolute()
    write_report(lake, project, MODEL, path, as_of=END)
    summary.show(lake, project)
    out.print(f"\nreport: {path}", markup=False)
    out.print(summary.questions(lake.url), markup=False)


def example() -> Path:
    """The folder of the example project, which is part of the sources and not of the installed package."""
    folder = Path(next(iter(lakeloop.__path__))) / "examples" / PROJECT
    if not (folder / "lakeloop.toml").is_file():
        raise NotFound(
            "the demo's project is not here",
            where=str(folder),
            todo="run the demo from a clone of the repository: make demo",
        )
    return folder


def _line(text: str, quiet: bool) -> None:
    if not quiet:
        err.print(text, markup=False)


def _remove(lake: Lake, others: list[str]) -> None:
    if others:
        raise Refused(
            f"this lake holds other projects too: {', '.join(others)}",
            where=lake.url,
            todo="name another lake with --lake",
        )
    if applied.names(lake) == [PROJECT]:
        lake.store.delete([entry.key for entry in lake.store.list()])
