"""Rules between the keys of one file (the project, a source, a view), and between the names of all files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from lakeloop.lakehouse.project.definitions import FLOAT_TYPES, INT_TYPES, Column, FeatureView, Source, Type
from lakeloop.lakehouse.project.documents import Document, Problems, did_you_mean, show
from lakeloop.lakehouse.project.places import check_place

_COMPARISON: Final = re.compile(r"(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)")
# Schemas of the query layer: a project is a schema there.
RESERVED_PROJECTS: Final = ("lakeloop", "main", "temp", "system", "information_schema", "pg_catalog")
NUMBERS: Final = (*INT_TYPES, *FLOAT_TYPES, "decimal")
TIMES: Final = ("timestamp", "date")


def check_project(given: Mapping[str, Any], document: Document) -> None:
    """The project's name is free, and this release is one it wants."""
    if given["name"] in RESERVED_PROJECTS:
        document.problem(("name",), f'"{given["name"]}" is a name of the query layer; choose another')
    if wrong := unmet(str(given.get("requires", "")), installed_version()):
        document.problem(("requires",), wrong)


def installed_version() -> str:
    """The release that runs; "" when it is not installed as a package."""
    try:
        return version("lakeloop")
    except PackageNotFoundError:
        return ""


def unmet(requires: str, release: str) -> str:
    """Why `release` is not one of `requires` (`lakeloop >=0.3,<0.4`); empty when it is."""
    wanted = requires.strip().removeprefix("lakeloop").strip()
    if not wanted:
        return ""
    for part in wanted.split(","):
        found = _COMPARISON.fullmatch(part.strip())
        if found is None:
            return f'"{requires}" is not a range of releases; write "lakeloop >=0.3,<0.4"'
        if release and not _holds(_numbers(release), found.group(1), _numbers(found.group(2))):
            return f'this is lakeloop {release}, and the project wants "{requires}"; install one of those'
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(n) for n in re.findall(r"\d+", text)[:3])
    return numbers + (0,) * (3 - len(numbers))


def _holds(left: tuple[int, ...], sign: str, right: tuple[int, ...]) -> bool:
    return {
        ">=": left >= right,
        "<=": left <= right,
        "==": left == right,
        "!=": left != right,
        ">": left > right,
        "<": left < right,
    }[sign]


def check_names(files: Mapping[str, str], problems: Problems) -> None:
    """Sources and views share one namespace: the names that SQL may use. `<source>_history` is taken by the source."""
    sources = [p[8:-5] for p in files if p.startswith("sources/") and p.endswith(".toml")]
    for path in sorted(p for p in files if p.startswith("features/") and p.endswith(".sql")):
        name = path[9:-4]
        if name in sources:
            problems.add(
                path, 0, f"sources/{name}.toml has this name too, and SQL could not tell them apart; rename one"
            )
    for name in sorted(f"{s}_history" for s in sources):
        for path in (f"sources/{name}.toml", f"features/{name}.sql"):
            if path in files:
                problems.add(path, 0, f"the name is taken: {name} holds every version of {name[:-8]}'s rows; rename it")


def check_source(source: Source, document: Document) -> None:
    """Times, keys and columns of a source fit together."""
    _check_time(source, document)
    check_place(source, document)
    if source.rows == "latest" and not source.key:
        document.problem(("rows",), '"latest" needs a key to know which rows are the same; write key = ["…"]')
    for i, name in enumerate(source.key):
        column = _known_column(source, name, document, ("key", i))
        if column is not None and column.nullable:
            document.problem(("columns", name), 'is in the key, so it may not be null; take the "?" away')
    for column in source.columns.values():
        check_rules_of_values(column, document)
    _check_checks(source, document)


def _check_time(source: Source, document: Document) -> None:
    if source.event_time and source.timeless:
        document.problem(("timeless",), "a timeless source has no event_time; take one away")
    elif not source.event_time and not source.timeless:
        todo = "write the column that says when a row happened, or timeless = true"
        document.problem(("event_time",), f"is required and not given; {todo}")
    if source.known_at and source.lag is not None:
        document.problem(("lag",), "known_at says the same thing another way; take one away")
    for key, name in (("event_time", source.event_time), ("known_at", source.known_at)):
        column = _known_column(source, name, document, (key,)) if name else None
        if column is None:
            continue
        if column.type.name not in TIMES:
            document.problem((key,), f'"{name}" is {column.type}, not a timestamp or a date')
        if key == "event_time" and column.nullable:
            document.problem(("columns", name), 'is the event time, so it may not be null; take the "?" away')


def _known_column(source: Source, name: str, document: Document, path: tuple[str | int, ...]) -> Column | None:
    column = source.columns.get(name)
    if column is None:
        document.problem(path, f'"{name}" is not a column' + did_you_mean(name, list(source.columns)))
    return column


def _check_checks(source: Source, document: Document) -> None:
    names = [check.name for check in source.checks]
    for i, name in enumerate(names):
        if name in names[:i]:
            document.problem(("check", i, "name"), f"{show(name)} is there twice")


def check_rules_of_values(column: Column, document: Document) -> None:
    """The rules of a column fit its type."""
    path, kind = ("columns", column.name), column.type
    if column.range is not None and kind.name not in NUMBERS:
        document.problem((*path, "range"), f"{kind} has no range; ranges are for numbers")
    elif column.range is not None and column.range[0] > column.range[1]:
        document.problem((*path, "range"), f"{show(list(column.range))}: the first must not be more than the second")
    for value in column.values:
        if not fits(value, kind):
            document.problem((*path, "values"), f"{show(value)} is not {kind}")
    if column.matches:
        _check_pattern(column, document)


def _check_pattern(column: Column, document: Document) -> None:
    path = ("columns", column.name, "matches")
    if column.type.name != "string":
        document.problem(path, f"{column.type} has no text to match; patterns are for string")
    try:
        re.compile(column.matches)
    except re.error as error:
        document.problem(path, f"{show(column.matches)} is not a regular expression: {error}")


def fits(value: object, kind: Type) -> bool:
    """Whether a literal of TOML can be a value of this type."""
    if kind.name == "bool":
        return isinstance(value, bool)
    if kind.name in INT_TYPES:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind.name in NUMBERS:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, str)


def check_view(view: FeatureView, document: Document) -> None:
    """Times of a view fit together, and its features' names do not collide."""
    if view.known_at and "lag" in document.data:
        document.problem(("lag",), "known_at says the same thing another way; take one away")
    for key, name in (("event_time", view.event_time), ("known_at", view.known_at)):
        if name and name in view.entity:
            document.problem((key,), f'"{name}" is a key column; the entity is who, {key} is when')
    if view.windows is None:
        return
    if view.ttl is not None:
        document.problem(("ttl",), "a view with windows forgets by its windows; take ttl away")
    seen = {*view.entity, view.event_time, view.known_at}
    for feature in view.windows.features:
        for window in view.windows.over:
            column = feature.column(window)
            if column in seen:
                document.problem(("windows", feature.name), f'gives a second column "{column}"; rename the feature')
            seen.add(column)
