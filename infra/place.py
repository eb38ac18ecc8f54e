"""Where a command works: the project of this folder, and the lake. The composition root of the command line."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lakeloop.lakehouse.errors import Invalid, NotFound

if TYPE_CHECKING:
    from lakeloop.lakehouse.lake import Lake
    from lakeloop.lakehouse.project import Project
    from lakeloop.lakehouse.project.definitions import Environment

DEFAULT_LAKE = ".lake"


@dataclass(frozen=True, slots=True)
class Place:
    """A lake, and the project folder the command was called from, if there is one."""

    lake: Lake
    folder: Path | None
    local: Project | None
    """The project as its files say it now; commands that act use the applied one."""
    environment: str = ""
    """Which of the project's environments this is, where it has any."""

    def applied(self) -> Project:
        """The definition in force of this folder's project, else of the lake's only one. NotFound with the way out."""
        from lakeloop.lakehouse import applied

        if self.local is not None:
            return applied.load(self.lake, self.local.name)[0]
        there = applied.names(self.lake)
        if len(there) == 1:
            return applied.load(self.lake, there[0])[0]
        if not there:
            raise NotFound(
                "no project is applied in this lake",
                where=self.lake.url,
                todo="run `lakeloop apply` in a project's folder",
            )
        raise Invalid(
            f"the lake has several projects: {', '.join(there)}", todo="call this from the folder of one of them"
        )

    def project(self) -> Project:
        """The project of this folder. NotFound outside of one."""
        if self.local is None:
            raise NotFound(
                "there is no lakeloop.toml here or in any folder above",
                where=str(Path.cwd()),
                todo="go to a project's folder, or make one: lakeloop init NAME",
            )
        return self.local

    def differs(self) -> bool:
        """Whether the files say something that is not applied."""
        from lakeloop.lakehouse import applied

        if self.local is None:
            return False
        current = self.lake.documents.latest(applied.KIND, self.local.name)
        return current is not None and current.body["hash"] != self.local.hash


def find_place(
    lake: str | None = None, environment: str | None = None, *, start: Path | None = None, need_project: bool = False
) -> Place:
    """The lake is `--lake`, else LAKELOOP_LAKE, else the environment's, else ./.lake."""
    from lakeloop.lakehouse.lake import open_lake

    folder, local = _project(start or Path.cwd(), need_project)
    wanted = environment or os.environ.get("LAKELOOP_ENV") or ""
    chosen = _environment(local, wanted)
    url = lake or os.environ.get("LAKELOOP_LAKE") or _lake_of(folder, chosen, wanted)
    return Place(open_lake(url), folder, local, chosen.name if chosen else "")


def code_version(folder: Path, project: Project) -> str:
    """The Git commit of a project's folder (`+` when its files differ from it), else the hash of its files.

    Git is not needed.
    """
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", ".") if commit else ""
    except (OSError, subprocess.SubprocessError):
        commit = changed = ""
    return f"git:{commit}{'+' if changed else ''}" if commit else f"files:{project.hash[:12]}"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _project(start: Path, needed: bool) -> tuple[Path | None, Project | None]:
    from lakeloop.lakehouse.project import find_project, read_project

    try:
        folder = find_project(start)
    except NotFound:
        if needed:
            raise
        return None, None
    return folder, read_project(folder)


def _environment(project: Project | None, wanted: str) -> Environment | None:
    """The environment of this name, else the first that the project declares."""
    environments = project.environments if project else {}
    if project and wanted and wanted not in environments:
        raise Invalid(
            f"there is no environment {wanted!r}",
            where="lakeloop.toml",
            todo=f"name one of: {', '.join(environments) or 'none is declared'}",
        )
    return environments[wanted] if wanted in environments else next(iter(environments.values()), None)


def _lake_of(folder: Path | None, chosen: Environment | None, wanted: str) -> str:
    if folder is None:
        if wanted:
            raise Invalid(
                f"there is no environment {wanted!r} outside of a project",
                todo="go to the project's folder, or name the lake with --lake",
            )
        return DEFAULT_LAKE
    url = chosen.lake if chosen else DEFAULT_LAKE
    if chosen and chosen.endpoint:
        os.environ.setdefault("AWS_ENDPOINT_URL", chosen.endpoint)
    return url if "://" in url or Path(url).is_absolute() else str(folder / url)
