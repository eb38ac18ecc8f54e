"""Every key of models/<name>.toml: its reader, and the definition each section makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from lakeloop.lakehouse.project.back_if import EXAMPLES, parse_back_if
from lakeloop.lakehouse.project.definitions import (
    FLOAT_TYPES,
    INT_TYPES,
    Choice,
    Constant,
    Cost,
    DerivedInput,
    Evaluate,
    Examples,
    FeatureSpec,
    Gate,
    Inputs,
    IntRange,
    LogUniform,
    Maximize,
    Model,
    Monitor,
    Output,
    PredictionLog,
    Replicas,
    RequestInput,
    Retrain,
    Rollout,
    Rule,
    Search,
    Serving,
    Slice,
    Split,
    Success,
    Trial,
    Uniform,
)
from lakeloop.lakehouse.project.documents import did_you_mean, show
from lakeloop.lakehouse.project.keys import COLUMN_NAME, COLUMN_NAMES, NAME_TEXT, PRIVATE, RANGE, TEXTS
from lakeloop.lakehouse.project.metrics import DEFAULT_METRIC, better
from lakeloop.lakehouse.project.not_yet import NOT_BUILT
from lakeloop.lakehouse.project.readers import (
    BAD,
    Either,
    Flag,
    Key,
    ListOf,
    Named,
    Number,
    OneOf,
    Place,
    Scalar,
    Section,
    Shorthand,
    Text,
    duration,
    size,
)

INPUT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
INPUT_TYPE: Final = OneOf(("category", *FLOAT_TYPES, *INT_TYPES, "bool", "timestamp", "string"))
SHARE: Final = Number(0, 1)
COUNT: Final = Number(0, whole=True)
COLUMNS: Final = Either(
    (((str,), Text(like=re.compile(r"\*"), expected='"*" or a list of columns')), ((list,), COLUMN_NAMES)),
    '"*" or a list of columns',
)


def _columns(columns: str | tuple[str, ...]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else columns


class LearnerReader:
    """A built-in learner, or a Python file with train()."""

    words = ("xgboost", "sklearn")

    def read(self, value: Any, at: Place) -> Any:
        if isinstance(value, str) and (value in (*self.words, "lightgbm") or value.endswith(".py")):
            return value
        near = did_you_mean(value, self.words) if isinstance(value, str) else ""
        near = near if "did you mean" in near else "; one of: xgboost, sklearn, <name>.py"
        return at.problem(f"{show(value)} is not a learner{near}")

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(self.words)}, {"type": "string", "pattern": r"\.py$"}]}


class BackIfReader:
    """One rule of `back_if`, kept as the text it is."""

    def read(self, value: Any, at: Place) -> Any:
        if not isinstance(value, str):
            return at.problem(f"{show(value)} is not a rule; write {EXAMPLES}")
        try:
            parse_back_if(value)
        except ValueError as error:
            return at.problem(f"{show(value)} {error}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "description": f"a rule: {EXAMPLES}"}


class FeatureReader:
    """One entry of [inputs] features: "view.*", "view.column", "view.column as name", or a table."""

    spelled = re.compile(r"([a-z][a-z0-9_]*)\.(\*|[^\s.]+)(?:\s+as\s+([A-Za-z][A-Za-z0-9_]*))?")
    keys = Section(
        lambda columns="*", **given: FeatureSpec(columns=_columns(columns), **given),
        {
            "view": Key(NAME_TEXT, required=True),
            "columns": Key(COLUMNS),
            "key": Key(Named(Section(dict, {}))),
            "prefix": Key(Text()),
        },
    )

    def read(self, value: Any, at: Place) -> Any:
        if isinstance(value, Mapping):
            key = value.get("key", {})
            if not isinstance(key, Mapping) or not all(isinstance(column, str) for column in key.values()):
                return at.key("key").problem('is not a table of the view\'s key = "column of the request"')
            spec = self.keys.read({name: v for name, v in value.items() if name != "key"}, at)
            return spec if spec is BAD else FeatureSpec(spec.view, spec.columns, dict(key), spec.prefix)
        found = self.spelled.fullmatch(value) if isinstance(value, str) else None
        if found is None or (found.group(2) == "*" and found.group(3)):
            return at.problem(f'{show(value)} is not a feature; write "view.*", "view.column" or "view.column as name"')
        return FeatureSpec(found.group(1), (found.group(2),), name=found.group(3) or "")

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, {"type": "object"}]}


class DimensionReader:
    """One entry of [search.space]: a constant, or a table with one of choice, int, uniform, log."""

    words = "write a constant, { choice = [] }, { int = [a, b] }, { uniform = [a, b] } or { log = [a, b] }"

    def read(self, value: Any, at: Place, name: str = "") -> Any:
        if not isinstance(value, Mapping):
            read = Scalar().read(value, at)
            return read if read is BAD else Constant(read)
        if not any(kind in value for kind in ("choice", "int", "uniform", "log")):
            if value and all(isinstance(element, (Mapping, int, float, str)) for element in value.values()):
                return at.problem(f"a space of its own for one algorithm {NOT_BUILT}; {self.words}")
            return at.problem(f"{show(value)} is not a dimension; {self.words}")
        if len(value) != 1:
            return at.problem(f"{show(value)} has {len(value)} keys, not one; {self.words}")
        kind, inside = next(iter(value.items()))
        return self.choice(inside, at) if kind == "choice" else self.span(kind, inside, at)

    def choice(self, inside: Any, at: Place) -> Any:
        values = ListOf(Scalar(), filled=True).read(inside, at)
        return values if values is BAD else Choice(values)

    def span(self, kind: str, inside: Any, at: Place) -> Any:
        ends = ListOf(Number(whole=kind == "int"), exactly=2).read(inside, at)
        if ends is BAD:
            return BAD
        low, high = ends
        if low >= high:
            return at.problem(f"{show(inside)}: the first must be less than the second")
        if kind == "log" and low <= 0:
            return at.problem(f"{show(inside)}: a logarithm needs numbers above 0")
        return {"int": IntRange, "uniform": Uniform, "log": LogUniform}[kind](low, high)

    def schema(self) -> dict[str, Any]:
        return {}


class SliceReader:
    """One entry of [evaluate] slices: a column, a list of columns, or { name, where }."""

    keys = Section(
        Slice, {"name": Key(Text(filled=True), required=True), "where": Key(Text(filled=True), required=True)}
    )

    def read(self, value: Any, at: Place) -> Any:
        if isinstance(value, Mapping):
            return self.keys.read(value, at)
        columns = ListOf(COLUMN_NAME, distinct=True, filled=True).read([value] if isinstance(value, str) else value, at)
        return columns if columns is BAD else Slice("+".join(columns), columns=columns)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, self.keys.schema()]}


class ThresholdReader:
    """A number, or what the threshold is to be best at on the validation part."""

    expected = 'a number, { maximize = "f1" } or { cost = { fp = 1, fn = 5 } }'
    cost = Section(
        Cost, {"fp": Key(Number(0, above=True), required=True), "fn": Key(Number(0, above=True), required=True)}
    )
    keys = Section(dict, {"maximize": Key(OneOf(("f1", "youden"))), "cost": Key(cost)})

    def read(self, value: Any, at: Place) -> Any:
        if not isinstance(value, Mapping):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return SHARE.read(value, at) if number else at.problem(f"{show(value)} is not {self.expected}")
        found = self.keys.read(value, at)
        if found is BAD:
            return BAD
        if len(found) != 1:
            return at.problem(f"{show(value)} is not {self.expected}")
        return Maximize(found["maximize"]) if "maximize" in found else found["cost"]

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [SHARE.schema(), self.keys.schema()]}


REQUEST_INPUT: Final = Section(
    RequestInput,
    {
        "type": Key(INPUT_TYPE, required=True),
        "range": Key(RANGE),
        "values": Key(ListOf(Scalar(), distinct=True, filled=True)),
        "max": Key(Number(1, whole=True)),
        "unseen": Key(OneOf(("null", "error"))),
        "default": Key(Scalar()),
        "private": Key(PRIVATE),
    },
)
INPUT_EXPECTED: Final = "an input's name: letters, digits and _, a letter first"

INPUTS: Final = Section(
    Inputs,
    {
        "features": Key(ListOf(FeatureReader())),
        "derive": Key(Flag()),
        "absent": Key(OneOf(("null", "error"))),
        "banned": Key(TEXTS),
        "request": Key(Named(Shorthand(REQUEST_INPUT, "type"), INPUT_NAME, INPUT_EXPECTED)),
        "derived": Key(
            Named(
                Shorthand(Section(DerivedInput, {"type": Key(INPUT_TYPE, required=True)}), "type"),
                INPUT_NAME,
                INPUT_EXPECTED,
            )
        ),
    },
)

PART: Final = Either(
    (((str,), duration()), ((int, float), Number(0, 1, above=True))),
    'a duration such as "21d", or a share such as 0.2',
)
SPLIT: Final = Section(
    dict,
    {
        "by": Key(OneOf(("time", "group", "random", "column"))),
        "test": Key(PART, required=True),
        "valid": Key(PART),
        "gap": Key(duration()),
        "train": Key(Either((((str,), Text()),), '"all" or a duration')),
        "refit": Key(OneOf(("train", "train+valid", "all"))),
        "seed": Key(COUNT),
    },
)

SEARCH: Final = Section(
    dict,
    {
        "metric": Key(Text(filled=True), required=True),
        "mode": Key(OneOf(("max", "min"))),
        "trials": Key(Number(1, whole=True)),
        "time": Key(duration(or_empty=True, positive=True)),
        "stop_at": Key(Number()),
        "searcher": Key(OneOf(("random", "grid", "optuna"))),
        "scheduler": Key(OneOf(("none", "asha", "median", "pbt"))),
        "space": Key(Named(DimensionReader(), INPUT_NAME, "a parameter's name")),
    },
)

TRIAL: Final = Section(
    Trial,
    {
        "cpu": Key(Number(0, above=True)),
        "gpu": Key(Number(0), attr=None),
        "memory": Key(size()),
        "workers": Key(Number(1, whole=True), attr=None),
        "timeout": Key(duration(or_empty=True, positive=True)),
        "parallel": Key(COUNT),
    },
)

RULE: Final = Section(
    Rule,
    {
        "metric": Key(Text(filled=True), required=True),
        "sql": Key(Text(), attr=None),
        "against": Key(OneOf(("", "champion", "baseline"))),
        "gain": Key(Number()),
        "at_least": Key(Number()),
        "at_most": Key(Number()),
        "confidence": Key(Number(0.5, 0.9999)),
        "each": Key(OneOf(("", "slice", "group"))),
        "min_rows": Key(COUNT),
    },
)

GATE: Final = Section(
    lambda rule=(), **given: Gate(rules=rule, **given),
    {"first": Key(OneOf(("promote", "approve"))), "approve": Key(TEXTS), "rule": Key(ListOf(RULE))},
)

SERVING: Final = Section(
    Serving,
    {
        "replicas": Key(Section(Replicas, {"min": Key(COUNT), "max": Key(Number(1, whole=True))})),
        "absent": Key(OneOf(("null", "error")), attr=None),
        "timeout": Key(duration(positive=True)),
        "rollout": Key(
            Section(
                Rollout,
                {
                    "shadow": Key(duration(or_empty=True, positive=True)),
                    "canary": Key(ListOf(Number(1, 100, whole=True), distinct=True, filled=True)),
                    "hold": Key(duration(or_empty=True, positive=True)),
                    "back_if": Key(ListOf(BackIfReader(), distinct=True)),
                },
            )
        ),
        "sticky": Key(Text()),
        "log": Key(
            Shorthand(
                Section(
                    PredictionLog,
                    {
                        "sample": Key(SHARE),
                        "drop": Key(COLUMN_NAMES),
                        "keep": Key(duration(positive=True)),
                        "mode": Key(OneOf(("async", "sync"))),
                        "on_full": Key(OneOf(("refuse", "drop"))),
                        "disk": Key(size(positive=True)),
                    },
                ),
                "mode",
            )
        ),
    },
)

WATCHES: Final = (
    *("inputs", "outputs", "performance", "estimated_performance", "labels"),
    *("online_offline", "freshness", "traffic", "sql"),
)
MONITOR: Final = Section(
    lambda columns="*", **given: Monitor(columns=_columns(columns), **given),
    {
        "name": Key(NAME_TEXT, required=True),
        "watch": Key(OneOf(WATCHES), required=True),
        "columns": Key(COLUMNS),
        "stat": Key(Text(filled=True)),
        "metric": Key(Text(filled=True)),
        "above": Key(Number()),
        "below": Key(Number()),
        "drop": Key(Number(0)),
        "share": Key(SHARE),
        "window": Key(duration(positive=True), required=True),
        "every": Key(duration(positive=True)),
        "against": Key(OneOf(("training", "previous", "same hour last week"))),
        "min_rows": Key(COUNT),
        "for": Key(Number(1, whole=True), attr="for_"),
        "severity": Key(OneOf(("warn", "page"))),
        "notify": Key(Text(), attr=None),
    },
)


def _model(
    name: str,
    project_owner: str,
    split: dict[str, Any],
    search: dict[str, Any] | None = None,
    examples: Examples = Examples(),  # noqa: B008 (frozen)
    monitor: tuple[Monitor, ...] = (),
    **given: Any,
) -> Model:
    """Fill the defaults that follow from other keys: the gap, the validation part, the metric and its direction."""
    split = {"by": "time", "gap": examples.label_wait, "valid": split["test"], **split}
    search = search or {"metric": DEFAULT_METRIC[given["problem"]]}
    search = {"mode": better(search["metric"]), **search}
    given = {"learner": f"{name}.py", "owner": project_owner, **given}
    return Model(name=name, split=Split(**split), search=Search(**search), examples=examples, monitors=monitor, **given)


MODEL: Final = Section(
    _model,
    {
        "description": Key(Text()),
        "owner": Key(Text(filled=True)),
        "problem": Key(OneOf(("binary", "multiclass", "regression")), required=True),
        "learner": Key(LearnerReader()),
        "pickle": Key(Flag()),
        "success": Key(
            Section(
                Success,
                {
                    "metric": Key(Text(filled=True), required=True),
                    "at_least": Key(Number()),
                    "at_most": Key(Number()),
                    "window": Key(duration(positive=True)),
                },
            )
        ),
        "examples": Key(
            Section(
                Examples,
                {
                    "label_wait": Key(duration()),
                    "no_label": Key(Scalar()),
                    "where": Key(Text()),
                    "sample": Key(Number(0, 1, above=True)),
                },
            )
        ),
        "inputs": Key(INPUTS, required=True),
        "split": Key(SPLIT, required=True),
        "search": Key(SEARCH),
        "trial": Key(TRIAL),
        "output": Key(
            Section(
                Output, {"threshold": Key(ThresholdReader()), "calibrate": Key(OneOf(("none", "isotonic", "sigmoid")))}
            )
        ),
        "evaluate": Key(
            Section(
                Evaluate,
                {
                    "metrics": Key(TEXTS),
                    "baseline": Key(Text()),
                    "slices": Key(ListOf(SliceReader())),
                    "groups": Key(TEXTS, attr=None),
                    "repeat": Key(OneOf(("last", "first", "all"))),
                },
            )
        ),
        "gate": Key(GATE),
        "serving": Key(SERVING),
        "monitor": Key(ListOf(MONITOR)),
        "retrain": Key(
            Section(
                Retrain,
                {
                    "on": Key(TEXTS),
                    "new_rows": Key(COUNT),
                    "schedule": Key(Text(), attr=None),
                    "cool_down": Key(duration()),
                    "unless": Key(TEXTS),
                },
            )
        ),
    },
)
