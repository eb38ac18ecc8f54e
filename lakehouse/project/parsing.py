"""From a project's files to its definitions, with every problem found in one pass.

Only `find_project` and `read_project` touch a disk. `parse_project` takes the texts, so that what a lake has stored is
read by the same code as what a person has in a folder. No code of the user's is run or imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.project.definitions import Environment, FeatureView, Model, Project, Report, Source
from lakeloop.lakehouse.project.documents import (
    Document,
    Problems,
    did_you_mean,
    header_document,
    toml_document,
)
from lakeloop.lakehouse.project.keys import PROJECT, REPORT, SOURCE, VIEW
from lakeloop.lakehouse.project.model_keys import MODEL
from lakeloop.lakehouse.project.model_rules import check_model
from lakeloop.lakehouse.project.not_yet import NOT_BUILT
from lakeloop.lakehouse.project.readers import BAD, NAME, Place, Section
from lakeloop.lakehouse.project.rules import check_names, check_project, check_source, check_view

PROJECT_FILE = "lakeloop.toml"
_PATTERNS = (
    PROJECT_FILE,
    "sources/*.toml",
    "features/*.sql",
    "models/*.toml",
    "models/*.sql",
    "models/*.py",
    "reports/*.sql",
)
_REFUSED = ("sources/*.py", "features/*.py")
_FOLDERS = ("sources", "features", "models", "reports", "tests")
_STRAY = {"sources": {"toml", "py"}, "features": {"sql", "py"}, "models": {"toml", "sql", "py"}, "reports": {"sql"}}
_CLOSING = re.compile(r";\s*$")


def find_project(start: Path) -> Path:
    """The nearest folder, from `start` upwards, that holds a lakeloop.toml."""
    for folder in (start, *start.resolve().parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    todo = "go to the project's folder, or make one with `lakeloop init`"
    raise NotFound(f"there is no {PROJECT_FILE} in {start} or in any folder above it", todo=todo)


def read_project(folder: Path) -> Project:
    """The project in `folder`. Invalid carries every problem as `file:line: [section] key: what; what to do`."""
    if not (folder / PROJECT_FILE).is_file():
        near = [p.name for p in sorted(folder.glob("*.toml"))] if folder.is_dir() else []
        seen = f"; there is {', '.join(near)}" if near else ""
        todo = "name the project's folder, or make one with `lakeloop init`"
        raise NotFound(f"there is no {PROJECT_FILE} in {folder}{seen}", todo=todo)
    problems = Problems()
    files: dict[str, str] = {}
    for path in _project_files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            files[name] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            problems.add(name, 0, "is not UTF-8 text; save it as UTF-8")
            files[name] = ""
    for stray, what in _strays(folder):
        problems.add(stray, 0, what)
    return _parse(files, problems, str(folder))


def _project_files(folder: Path) -> Iterator[Path]:
    for pattern in (*_PATTERNS, *_REFUSED):
        yield from sorted(
            path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith((".", "__"))
        )


def _strays(folder: Path) -> Iterator[tuple[str, str]]:
    """Files and folders that were surely meant to be part of the project and would be passed over."""
    for path in sorted(folder.iterdir()):
        if (
            path.is_dir()
            and path.name not in _FOLDERS
            and path.name in {"source", "feature", "model", "report", "views"}
        ):
            yield path.name, "is not a folder of the format" + did_you_mean(path.name, _FOLDERS)
    for kind, endings in _STRAY.items():
        for path in sorted((folder / kind).glob("*.*")):
            ending = path.suffix.removeprefix(".")
            if path.is_file() and ending in {"toml", "sql", "py", "tml", "yaml", "yml", "json"} - endings:
                yield (
                    f"{kind}/{path.name}",
                    f"a file in {kind}/ ends in {' or '.join(f'.{e}' for e in sorted(endings))}",
                )


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns)


def parse_project(files: Mapping[str, str], root: str = "") -> Project:
    """The project that these texts, by their path in it, describe. `root` is only for the message's first line."""
    return _parse(files, Problems(), root)


def _parse(files: Mapping[str, str], problems: Problems, root: str) -> Project:
    if PROJECT_FILE not in files:
        raise NotFound(f"there is no {PROJECT_FILE} among the project's files", where=root)
    for path in (path for path in sorted(files) if _matches(path, _REFUSED)):
        problems.add(path, 0, f"a source or view in Python {NOT_BUILT}; leave it out")
    files = {path: text for path, text in files.items() if _matches(path, _PATTERNS)}
    document = toml_document(PROJECT_FILE, "project", files[PROJECT_FILE], problems)
    head = _read(document, PROJECT)
    given: dict[str, Any] = head if isinstance(head, dict) else {"name": "", "owner": ""}
    if document is not None:
        check_project(given, document)
    found: dict[str, Any] = {
        "sources": _sources(files, problems),
        "views": _views(files, problems),
        "models": _models(files, problems, str(given["owner"])),
        "reports": _reports(files, problems),
    }
    check_names(files, problems)
    name = document.data.get("name", "") if document is not None else ""
    problems.raise_if_any(f"{name} ({root})" if root else str(name))
    environments = given.pop("environments", {}) or {"dev": Environment("dev", ".lake")}
    return Project(**given, **found, environments=environments, files=files)


def _read(document: Document | None, section: Section, **given: Any) -> Any:
    """The definition in a document; BAD, with the problems noted, when there is none."""
    if document is None:
        return BAD
    return section.read(document.data, Place(document, (), document.kind), **given)


def _stems(files: Mapping[str, str], folder: str, ending: str) -> list[str]:
    prefix, suffix = f"{folder}/", f".{ending}"
    found = (p for p in files if p.startswith(prefix) and p.endswith(suffix))
    return sorted(path.removeprefix(prefix).removesuffix(suffix) for path in found)


def _named(path: str, stem: str, problems: Problems) -> None:
    if not NAME.fullmatch(stem):
        problems.add(
            path, 0, f'the name "{stem}" may have small letters, digits and _, a letter first; rename the file'
        )


def statement(text: str) -> str:
    """A file's SQL without a closing semicolon, with its header, so that lines keep their numbers."""
    return _CLOSING.sub("", text.rstrip())


def _sources(files: Mapping[str, str], problems: Problems) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for name in _stems(files, "sources", "toml"):
        path = f"sources/{name}.toml"
        _named(path, name, problems)
        document = toml_document(path, "source", files[path], problems)
        source = _read(document, SOURCE, name=name)
        if document is not None and isinstance(source, Source):
            check_source(source, document)
            found[name] = source
    return found


def _views(files: Mapping[str, str], problems: Problems) -> dict[str, FeatureView]:
    found: dict[str, FeatureView] = {}
    for name in _stems(files, "features", "sql"):
        path = f"features/{name}.sql"
        _named(path, name, problems)
        document = header_document(path, "feature-view", files[path], problems)
        view = _read(document, VIEW, name=name, sql=statement(files[path]), sql_path=path)
        if document is not None and isinstance(view, FeatureView):
            check_view(view, document)
            found[name] = view
    return found


def _reports(files: Mapping[str, str], problems: Problems) -> dict[str, Report]:
    found: dict[str, Report] = {}
    for name in _stems(files, "reports", "sql"):
        path = f"reports/{name}.sql"
        _named(path, name, problems)
        document = header_document(path, "report", files[path], problems)
        report = _read(document, REPORT, name=name, sql=statement(files[path]), sql_path=path)
        if isinstance(report, Report):
            found[name] = report
    return found


def _models(files: Mapping[str, str], problems: Problems, owner: str) -> dict[str, Model]:
    found: dict[str, Model] = {}
    stems = {ending: _stems(files, "models", ending) for ending in ("toml", "sql", "py")}
    views = _stems(files, "features", "sql")
    for name in sorted({*stems["toml"], *stems["sql"], *stems["py"]}):
        path, sql_path = f"models/{name}.toml", f"models/{name}.sql"
        if path not in files:
            there = sql_path if sql_path in files else f"models/{name}.py"
            problems.add(
                there, 0, f"{path} is missing; a model is {name}.toml, {name}.sql and, for its Python, {name}.py"
            )
            continue
        _named(path, name, problems)
        if sql_path not in files:
            problems.add(path, 0, f"{sql_path} is missing: the query of this model's examples")
        document = toml_document(path, "model", files[path], problems)
        python = files.get(f"models/{name}.py")
        sql = statement(files.get(sql_path, ""))
        model = _read(
            document, MODEL, name=name, project_owner=owner, examples_sql=sql, sql_path=sql_path, python=python
        )
        if document is not None and isinstance(model, Model):
            check_model(model, document, views)
            found[name] = model
    return found
