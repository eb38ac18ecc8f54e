"""Rules between the keys of one model, and between them and its Python, which is read by `ast` and never imported."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from lakeloop.lakehouse.prediction_columns import COLUMNS
from lakeloop.lakehouse.project.definitions import (
    FLOAT_TYPES,
    INT_TYPES,
    Model,
    Monitor,
    RequestInput,
    Rule,
    Type,
)
from lakeloop.lakehouse.project.documents import Document, did_you_mean, show
from lakeloop.lakehouse.project.metrics import LATENCY, METRICS
from lakeloop.lakehouse.project.positions import Path
from lakeloop.lakehouse.project.rules import fits

# Columns of the prediction log and of the examples: an input of that name could not be told from them.
RESERVED_INPUTS: Final = frozenset([*dict(COLUMNS), "label", "label_known_at", "weight", "group"])


def check_model(model: Model, document: Document, views: Sequence[str]) -> None:
    """Every rule that needs no SQL. `views` are the names of the project's feature views."""
    _check_python(model, document)
    _check_inputs(model, document, views)
    _check_split(model, document)
    _check_metrics(model, document)
    _check_output(model, document)
    for i, rule in enumerate(model.gate.rules):
        _check_rule(rule, ("gate", "rule", i), model, document)
    for i, monitor in enumerate(model.monitors):
        _check_monitor(monitor, ("monitor", i), document)
    _check_names_of_monitors(model, document)
    if model.serving.replicas.min > model.serving.replicas.max:
        document.problem(("serving", "replicas", "min"), "is more than max")
    _check_rollout(model, document)
    if model.success is not None and (model.success.at_least is None) == (model.success.at_most is None):
        document.problem(("success",), "needs one of at_least and at_most")


def _check_rollout(model: Model, document: Document) -> None:
    rollout, sticky = model.serving.rollout, model.serving.sticky
    at = ("serving", "rollout")
    if sorted(rollout.canary) != list(rollout.canary):
        document.problem((*at, "canary"), f"{list(rollout.canary)} does not rise; write the shares in order")
    stepwise = rollout.canary != (100,)
    if stepwise and rollout.hold is None:
        document.problem((*at, "canary"), 'has steps and no time between them; write hold = "1h"')
    if rollout.back_if and not stepwise and rollout.shadow is None:
        todo = 'write canary = [1, 10, 50, 100] and hold = "1h", or shadow = "1h"'
        document.problem((*at, "back_if"), f"has nothing to watch: a version takes over at once; {todo}")
    private = {name for name, one in model.inputs.request.items() if one.private is not None}
    absent = sorted({*model.serving.log.drop, *private} & set(model.inputs.request))
    if rollout.shadow is not None and absent:
        what = f"scores the log, which withholds {', '.join(absent)}"
        document.problem((*at, "shadow"), f"{what}; log it, or begin with canary = [1, …]")
    names = list(model.inputs.request)
    if sticky and sticky not in names:
        document.problem(
            ("serving", "sticky"), f"{show(sticky)} is no input of the request{did_you_mean(sticky, names)}"
        )


def _check_python(model: Model, document: Document) -> None:
    own = f"{model.name}.py"
    functions = _functions(model, document)
    if model.learner.endswith(".py"):
        if model.learner != own:
            document.problem(
                ("learner",), f"{show(model.learner)} is another model's; a model's own Python is \"{own}\""
            )
        elif functions is None:
            todo = f'write models/{own} with train(data, params, run), or learner = "xgboost"'
            document.problem(("learner",), f"models/{own} is missing; {todo}")
        elif "train" not in functions:
            todo = 'write train(data, params, run), or learner = "xgboost"'
            document.problem(("learner",), f"models/{own} has no function train; {todo}")
    if model.inputs.derive and (functions is None or "derive" not in functions):
        document.problem(("inputs", "derive"), f"models/{own} has no function derive(row); write it, or derive = false")
    if model.inputs.derive != bool(model.inputs.derived):
        missing = "name what derive(row) returns in [inputs.derived]" if model.inputs.derive else "write derive = true"
        document.problem(
            ("inputs", "derive" if model.inputs.derive else "derived"), f"derive and derived go together; {missing}"
        )


def _functions(model: Model, document: Document) -> set[str] | None:
    """The names of the module's functions; None when there is no file."""
    if model.python is None:
        return None
    try:
        tree = ast.parse(model.python)
    except (SyntaxError, ValueError) as error:
        line = error.lineno or 0 if isinstance(error, SyntaxError) else 0
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        document.problems.add(f"models/{model.name}.py", line, f"this is not Python: {what}")
        return {"train", "derive"}
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    imported = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    return defined | imported


def _check_inputs(model: Model, document: Document, views: Sequence[str]) -> None:
    inputs = model.inputs
    if not inputs.features and not inputs.request:
        document.problem(
            ("inputs",), "the model has no input; name features, or what the caller sends in [inputs.request]"
        )
    for i, spec in enumerate(inputs.features):
        if spec.view not in views:
            what = f'there is no feature view "{spec.view}"' + did_you_mean(spec.view, views)
            document.problem(("inputs", "features", i), what)
    for section, names in (("request", inputs.request), ("derived", inputs.derived)):
        for name in names:
            _check_input_name(name, ("inputs", section, name), model, document)
    for name in inputs.derived:
        if name in inputs.request:
            document.problem(("inputs", "derived", name), "is in [inputs.request] too; one name, one input")
    for one in inputs.request.values():
        _check_request(one, document)


def _check_input_name(name: str, path: Path, model: Model, document: Document) -> None:
    if name.lower() in RESERVED_INPUTS:
        document.problem(path, "is a column of the prediction log; give the input another name")
    if name in model.inputs.banned:
        document.problem(path, "is banned in [inputs] banned; take it away from one of them")


def _check_request(one: RequestInput, document: Document) -> None:
    path: Path = ("inputs", "request", one.name)
    numeric = one.type in (*INT_TYPES, *FLOAT_TYPES)
    if one.range is not None and not numeric:
        document.problem((*path, "range"), f"{one.type} has no range; ranges are for numbers")
    elif one.range is not None and one.range[0] > one.range[1]:
        document.problem((*path, "range"), f"{show(list(one.range))}: the first must not be more than the second")
    if one.max is not None and one.type != "category":
        document.problem((*path, "max"), f"{one.type} has no vocabulary; max is for category")
    literal = Type("string" if one.type == "category" else one.type)
    for key, values in (("values", one.values), ("default", () if one.default is None else (one.default,))):
        for value in values:
            if not fits(value, literal):
                document.problem((*path, key), f"{show(value)} is not {one.type}")


def _check_split(model: Model, document: Document) -> None:
    split = model.split
    by_time = split.by == "time"
    for key in ("test", "valid"):
        part = getattr(split, key)
        if isinstance(part, timedelta) != by_time and key in document.data["split"]:
            needs = 'a duration such as "21d"' if by_time else "a share such as 0.2"
            document.problem(("split", key), f"split by {split.by} needs {needs}")
        if by_time and isinstance(part, timedelta) and not part:
            document.problem(("split", key), "0s holds no examples")
    if not by_time and "gap" in document.data["split"]:
        document.problem(("split", "gap"), 'a gap is between parts by time; take it away, or by = "time"')
    shares = [part for part in (split.test, split.valid) if not isinstance(part, timedelta)]
    if not by_time and len(shares) == 2 and sum(shares) >= 1:
        document.problem(("split", "test"), "test and valid together leave nothing to train on")


def _check_metrics(model: Model, document: Document) -> None:
    if "search" in document.data:
        _check_metric(model.search.metric, ("search", "metric"), model, document)
    for i, metric in enumerate(model.evaluate.metrics):
        _check_metric(metric, ("evaluate", "metrics", i), model, document)
    if model.success is not None:
        _check_metric(model.success.metric, ("success", "metric"), model, document)
    for i, monitor in enumerate(model.monitors):
        if monitor.metric:
            _check_metric(monitor.metric, ("monitor", i, "metric"), model, document)
    for i, rule in enumerate(model.gate.rules):
        if rule.metric != LATENCY:
            _check_metric(rule.metric, ("gate", "rule", i, "metric"), model, document, extra=(LATENCY,))


def _check_metric(metric: str, path: Path, model: Model, document: Document, extra: tuple[str, ...] = ()) -> None:
    fitting = [*METRICS[model.problem], *extra]
    if metric in fitting:
        return
    if any(metric in known for known in METRICS.values()):
        document.problem(path, f"{show(metric)} does not fit a {model.problem} problem; one of: {', '.join(fitting)}")
    else:
        document.problem(path, f"{show(metric)} is not a metric{did_you_mean(metric, fitting)}")


def _check_output(model: Model, document: Document) -> None:
    if model.problem == "binary":
        return
    for key in document.data.get("output", {}):
        if key == "threshold" or model.output.calibrate != "none":
            document.problem(("output", key), f"is for binary problems; this one is {model.problem}")


def _check_rule(rule: Rule, path: Path, model: Model, document: Document) -> None:
    given = [key for key in ("gain", "at_least", "at_most") if getattr(rule, key) is not None]
    if len(given) != 1:
        document.problem((*path, "metric"), "the rule needs one of gain (against something), at_least and at_most")
    elif rule.against and given != ["gain"]:
        document.problem((*path, given[0]), f"against {show(rule.against)} needs gain, not {given[0]}")
    elif not rule.against and given == ["gain"]:
        document.problem((*path, "gain"), 'over what? write against = "champion" or "baseline"')
    if rule.metric == LATENCY and (rule.against or rule.each or rule.at_least is not None):
        document.problem((*path, "metric"), f"{LATENCY} takes only at_most")
    if rule.against == "baseline" and not model.evaluate.baseline:
        document.problem((*path, "against"), "there is no baseline; write one in [evaluate] baseline")
    if rule.min_rows and not rule.each:
        document.problem((*path, "min_rows"), 'means nothing without each = "slice"; take it away')
    if "confidence" in document.data["gate"]["rule"][path[-1]] and not rule.against:
        document.problem((*path, "confidence"), "means nothing for a bound; take it away, or write against")
    if rule.each == "slice" and not model.evaluate.slices:
        document.problem((*path, "each"), "there are no slices; name them in [evaluate] slices")


def _check_monitor(monitor: Monitor, path: Path, document: Document) -> None:
    given = document.data["monitor"][path[-1]]
    if monitor.watch == "performance":
        foreign, needs = ["stat", "columns", "share"], ["above", "below", "drop"]
        if not monitor.metric:
            document.problem((*path, "metric"), 'is required when watch = "performance"')
    else:
        foreign, needs = ["metric", "below", "drop"], ["above"]
        if monitor.watch == "outputs":
            foreign += ["columns", "share"]
    for key in foreign:
        if key in given:
            document.problem((*path, key), f'means nothing when watch = "{monitor.watch}"; take it away')
    bounds = [key for key in needs if key in given]
    if len(bounds) != 1:
        wanted = " and ".join(needs) if len(needs) == 1 else "one of " + ", ".join(needs)
        document.problem(
            (*path, bounds[-1] if bounds else "name"), f"the monitor needs {wanted}, to know when to alarm"
        )


def _check_names_of_monitors(model: Model, document: Document) -> None:
    names = [monitor.name for monitor in model.monitors]
    for i, name in enumerate(names):
        if name in names[:i] or name == "quarantine":
            taken = "is there twice" if name in names[:i] else "is the ingest's own"
            document.problem(("monitor", i, "name"), f"{show(name)} {taken}; rename it")
    for i, name in enumerate(model.retrain.on):
        if name not in names:
            document.problem(("retrain", "on", i), f"there is no monitor {show(name)}" + did_you_mean(name, names))
    for i, name in enumerate(model.retrain.unless):
        if name not in (*names, "quarantine"):
            what = f"there is no monitor {show(name)}" + did_you_mean(name, [*names, "quarantine"])
            document.problem(("retrain", "unless", i), what)
    for i, name in enumerate(model.retrain.on):
        if name in model.retrain.unless:
            document.problem(("retrain", "on", i), f"{show(name)} is in unless too: it would never start one")
