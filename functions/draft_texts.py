"""The texts of a drafted project, from the choices. What a person may want to change stands there as a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Final

from lakeloop.functions.draft_choices import Choices, Wish
from lakeloop.functions.draft_target import Target
from lakeloop.functions.infer_columns import Found, missing_texts
from lakeloop.functions.spelling import entries, sql_name, toml_key, toml_value

CONSTANT: Final = "timestamptz '2000-01-01'"
WIDTH: Final = 100
HEAD: Final = "-- One row for every prediction one would have made. What stands between as_of and label are the inputs."


def project_text(wish: Wish) -> str:
    """lakeloop.toml."""
    goal = f"Predict {wish.label}" if wish.label else ""
    return entries(
        [
            ("name", toml_value(wish.name), ""),
            ("goal", toml_value(goal), "one sentence; shown first on the page"),
            ("owner", toml_value(wish.owner), ""),
        ]
    )


def source_text(choices: Choices) -> str:
    """sources/<source>.toml."""
    wish, read, key = choices.wish, choices.read, choices.key
    options = [f'kind = "landing", format = "{read.format}"']
    missing = missing_texts(list(choices.columns.values()))
    options += [f"null = {toml_value(['', *missing])}"] if missing else []
    options += [f"delimiter = {toml_value(read.delimiter)}"] if read.delimiter != "," else []
    head = [("owner", toml_value(wish.owner), ""), ("read", f"{{ {', '.join(options)} }}", "")]
    if key:
        head += [("key", toml_value(list(key)), ""), ("rows", '"latest"', "a key that comes again replaces its row")]
    time = (
        ("event_time", toml_value(wish.time), "")
        if wish.time
        else ("timeless", "true", "no column says when a row happened")
    )
    types = [(toml_key(name), toml_value(_declared(one, choices)), "") for name, one in choices.columns.items()]
    return f'{entries([*head, time])}\n[columns]  # "?" = may be null\n{entries(types)}'


def _declared(one: Found, choices: Choices) -> str:
    """The type; a label may always be null, since it comes later than its row."""
    null = one.name == choices.wish.label or (one.nullable and one.name not in (choices.wish.time, *choices.key))
    return f"{one.type}{'?' if null else ''}"


def model_text(choices: Choices, target: Target, parts: Mapping[str, Any], remark: str) -> str:
    """models/<name>.toml. `parts` are the keys of [split]."""
    own = f'or "xgboost", or "{choices.wish.name}.py" with train(data, params, run)'
    head = entries([("problem", toml_value(target.problem), ""), ("learner", '"sklearn"', own)])
    request = entries([(one.name, toml_value(one.type), "") for one in choices.inputs])
    others = "".join(f"# {name}: {reason}\n" for name, reason in (choices.others or {}).items())
    split = entries([(name, toml_value(value), remark if name == "by" else "") for name, value in parts.items()])
    no_inputs = f"# Not inputs:\n{others}" if others else ""
    sent = "[inputs.request]  # what the caller sends; take out what is not known at as_of"
    return f"{head}\n{sent}\n{request}{no_inputs}\n[split]\n{split}"


def examples_text(choices: Choices, target: Target, delay: str) -> str:
    """models/<name>.sql. `delay`: how long after `as_of` the label is known, as an interval of SQL."""
    time = choices.wish.time
    at = sql_name(time) if time else CONSTANT
    row = next(
        name for name in ("this_row", *(f"this_row_{i}" for i in range(2, 10_000))) if name not in choices.columns
    )
    source = sql_name(choices.source)
    first = [
        (_id(choices, row), "id", "" if choices.key else "what the row holds, and its number among its likes"),
        (at, "as_of", "the moment of the prediction" if time else "the file has no time: one moment for all"),
    ]
    last = [
        (target.sql, "label", target.remark),
        (f"{at} + interval {delay}", "label_known_at", "change it: from when on does one know what came true?"),
    ]
    width = max(len(sql) for sql, _, _ in (*first[not choices.key :], *last))
    inputs = ", ".join(
        sql_name(one.column) + (f" as {sql_name(one.name)}" if one.name != one.column else "") for one in choices.inputs
    )
    wrapped = textwrap.wrap(
        f"{inputs},", WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    lines = [
        *(_selected(*one, width) for one in first),
        *wrapped,
        _selected(*last[0], width),
        _selected(*last[1], width, end=""),
    ]
    return "\n".join([HEAD, "select", *lines, f"from {source}" if choices.key else f"from {source} {row}", ""])


def _selected(sql: str, name: str, remark: str, width: int, end: str = ",") -> str:
    text = f"  {sql:<{width}} as {name}{end}"
    return f"{text:<{width + 22}} -- {remark}" if remark else text


def _id(choices: Choices, row: str) -> str:
    key = choices.key
    if not key:
        return f"concat_ws('-', md5(to_json({row})::varchar), row_number() over (partition by to_json({row})))"
    if len(key) > 1:
        return f"concat_ws('-', {', '.join(sql_name(name) for name in key)})"
    return sql_name(key[0]) + ("" if choices.columns[key[0]].type in ("string", "int64") else "::varchar")
