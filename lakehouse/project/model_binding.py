"""Binding a model: the columns of its examples against what it says it is sent, and its features against the views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.bound import Columns, Feature
from lakeloop.lakehouse.project.definitions import FeatureSpec, FeatureView, Model
from lakeloop.lakehouse.project.documents import Document, did_you_mean, show
from lakeloop.lakehouse.project.model_rules import RESERVED_INPUTS
from lakeloop.lakehouse.project.positions import Path
from lakeloop.lakehouse.project.stored_types import FEATURES, LABELS, NUMBERS, TIMES, accepts, input_type
from lakeloop.lakehouse.project.view_binding import expression_type, one_line

_OWN = ("id", "as_of", "label", "label_known_at", "weight", "group")
_MEANING = {
    "id": "a text that names the prediction",
    "as_of": "the moment of the prediction",
    "label": "what came true, null where it is not known",
    "label_known_at": "the moment the label was known",
}


def check_examples(model: Model, columns: Columns, document: Document) -> None:
    """Lakeloop's own columns are there, with their types; the others are the inputs of the request, and the reverse."""
    problems = document.problems
    for name, meaning in _MEANING.items():
        if name not in columns:
            problems.add(model.sql_path, 0, f'the query gives no column "{name}": {meaning}')
    if model.split.by == "group" and "group" not in columns:
        problems.add(model.sql_path, 0, 'the query gives no column "group", and the split is by group')
    wanted = {
        "id": ("VARCHAR", "BIGINT"),
        "as_of": TIMES,
        "label": LABELS[model.problem],
        "label_known_at": TIMES,
        "weight": NUMBERS,
    }
    for name, kinds in wanted.items():
        if name in columns and columns[name] not in kinds:
            spelled = f"{columns[name]}, not {' or '.join(kinds)}"
            problems.add(model.sql_path, 0, f'column "{name}" is {spelled}' + _problem_hint(name, model))
    _check_request(model, columns, document)


def _problem_hint(name: str, model: Model) -> str:
    return f", which a {model.problem} problem needs" if name == "label" else "; cast it"


def _check_request(model: Model, columns: Columns, document: Document) -> None:
    request = model.inputs.request
    sent = [name for name in columns if name not in _OWN]
    for name in sent:
        if name not in request:
            todo = f'add {name} = "…" to [inputs.request] of {model.name}.toml, or leave it out'
            document.problems.add(model.sql_path, 0, f'column "{name}" is not an input of the request; {todo}')
    for name, one in request.items():
        path: Path = ("inputs", "request", name)
        if name not in columns:
            what = f"{model.name}.sql gives no such column{did_you_mean(name, sent)}"
            document.problem(path, what)
        elif not accepts(one.type, columns[name]):
            document.problem(
                path, f"is {one.type} here and {columns[name]} in {model.name}.sql; cast it there, or change it here"
            )
    _check_no_label(model, columns, document)


def _check_no_label(model: Model, columns: Columns, document: Document) -> None:
    value = model.examples.no_label
    if value == "drop" or "label" not in columns:
        return
    kinds = {"BOOLEAN": bool, "VARCHAR": str, "BIGINT": int, "DOUBLE": (int, float)}
    fits = isinstance(value, kinds.get(columns["label"], str))  # type: ignore[arg-type]
    if not fits or (isinstance(value, bool) and columns["label"] != "BOOLEAN"):
        document.problem(
            ("examples", "no_label"), f'{show(value)} is neither "drop" nor a label: those are {columns["label"]}'
        )


@dataclass(frozen=True, slots=True)
class ViewColumns:
    """What a model needs to know of a bound view."""

    view: FeatureView
    columns: Columns
    features: Columns


def resolve_features(
    model: Model, columns: Columns, views: Mapping[str, ViewColumns], document: Document
) -> tuple[Feature, ...]:
    """The model's stored inputs, in the order of the file; of views that did not bind, none."""
    found: list[Feature] = []
    for i, spec in enumerate(model.inputs.features):
        if spec.view in views:
            found += _resolve(model, spec, columns, views[spec.view], document, ("inputs", "features", i))
    taken = {**model.inputs.request, **model.inputs.derived}
    seen: set[str] = set()
    for feature in found:
        _check_feature(feature, model, seen, taken, document)
        seen.add(feature.name)
    return tuple(found)


def _resolve(
    model: Model, spec: FeatureSpec, columns: Columns, bound: ViewColumns, document: Document, path: Path
) -> list[Feature]:
    if not bound.view.online:
        todo = f"write online = true in {bound.view.sql_path}"
        document.problem(path, f"view {spec.view} is not online, so an endpoint could not look it up; {todo}")
    names = list(bound.features) if spec.columns == ("*",) else list(spec.columns)
    key = _key(model, spec, columns, bound, document, path)
    found = []
    for name in names:
        kind = bound.features.get(name)
        if kind is None:
            what = f'view {spec.view} has no feature "{name}"{did_you_mean(name, list(bound.features))}'
            document.problem(path, what)
        elif kind not in FEATURES:
            what = f"{spec.view}.{name} is {kind}, which a model cannot take; cast it, or name the columns you want"
            document.problem(path, what)
        else:
            found.append(Feature(spec.view, name, spec.name or spec.prefix + name, key, kind))
    return found


def _key(
    model: Model, spec: FeatureSpec, columns: Columns, bound: ViewColumns, document: Document, path: Path
) -> tuple[str, ...]:
    """The request columns that give the view's entity, in its order."""
    for name in spec.key:
        if name not in bound.view.entity:
            document.problem(path, f'"{name}" is not a key of view {spec.view}{did_you_mean(name, bound.view.entity)}')
    key = tuple(spec.key.get(name, name) for name in bound.view.entity)
    for name, sent in zip(bound.view.entity, key, strict=True):
        if sent not in model.inputs.request:
            todo = f'add it to [inputs.request], or write {{ view = "{spec.view}", key = {{ {name} = "…" }} }}'
            document.problem(path, f'view {spec.view} is looked up by "{sent}", which the caller does not send; {todo}')
        elif sent in columns and columns[sent] != bound.columns[name]:
            key_type = f"the key {name} of view {spec.view} is {bound.columns[name]}"
            document.problem(path, f'"{sent}" is {columns[sent]} in {model.name}.sql, and {key_type}; cast one of them')
    return key


def _check_feature(
    feature: Feature, model: Model, seen: set[str], taken: Mapping[str, object], document: Document
) -> None:
    path: Path = ("inputs", "features")
    full = f"{feature.view}.{feature.column}"
    if feature.name in seen or feature.name in taken:
        todo = f'write "{full} as other_name", or a prefix'
        document.problem(path, f'{full} gives a second input "{feature.name}"; {todo}')
    if feature.name.lower() in RESERVED_INPUTS:
        document.problem(
            path, f'{full}: "{feature.name}" is a column of the prediction log; write "{full} as other_name"'
        )
    if feature.column in model.inputs.banned or feature.name in model.inputs.banned:
        document.problem(path, f"{full} is banned in [inputs] banned; take it away from one of them")


def all_inputs(model: Model, features: tuple[Feature, ...]) -> dict[str, str]:
    """Every input and its stored type: request, then features, then derived."""
    request = {name: input_type(one.type) for name, one in model.inputs.request.items()}
    derived = {name: input_type(one.type) for name, one in model.inputs.derived.items()}
    return request | {feature.name: feature.type for feature in features} | derived


def check_expressions(model: Model, columns: Columns, inputs: Columns, document: Document) -> None:
    """The SQL expressions of the model's TOML bind over the inputs, or over the examples."""
    baseline = {"regression": NUMBERS, "binary": (*NUMBERS, "BOOLEAN")}.get(model.problem, LABELS["multiclass"])
    if model.evaluate.baseline:
        _check_expression(model.evaluate.baseline, "inputs", inputs, baseline, ("evaluate", "baseline"), document)
    if model.examples.where:
        _check_expression(model.examples.where, "examples", columns, ("BOOLEAN",), ("examples", "where"), document)
    for i, one in enumerate(model.evaluate.slices):
        path: Path = ("evaluate", "slices", i)
        if one.where:
            _check_expression(one.where, "inputs", inputs, ("BOOLEAN",), path, document)
        _check_columns(one.columns, inputs, path, document)
    _check_columns(model.serving.log.drop, inputs, ("serving", "log", "drop"), document)
    for i, monitor in enumerate(model.monitors):
        if monitor.columns != ("*",):
            path = ("monitor", i, "columns")
            _check_columns(monitor.columns, inputs, path, document)
            for name in set(monitor.columns) & set(model.serving.log.drop):
                document.problem(path, f'"{name}" is not logged: [serving.log] drop names it')


def _check_columns(names: tuple[str, ...], inputs: Columns, path: Path, document: Document) -> None:
    for name in names:
        if name not in inputs:
            document.problem(path, f'"{name}" is not an input{did_you_mean(name, list(inputs))}')


def _check_expression(
    text: str, table: str, columns: Columns, kinds: tuple[str, ...], path: Path, document: Document
) -> None:
    try:
        kind = expression_type(text, table, columns)
    except Invalid as error:
        document.problem(path, one_line(error))
        return
    if kind not in kinds:
        document.problem(path, f"{show(text)} is {kind}, not {' or '.join(kinds)}")
