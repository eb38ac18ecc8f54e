"""What may be asked: one SELECT-like statement over known tables, walked before it is run, described without data.

Everything here works on a private in-memory connection that has no access to files or network. The walk is over
DuckDB's own parse tree (`json_serialize_sql`), which refuses whatever is not a SELECT; no spelling fools it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Any, Final

import duckdb

from lakeloop.lakehouse.errors import Invalid

TABLE_FUNCTIONS: Final = frozenset(
    {"range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree"}
)
# Spelled without parentheses, these are column references in the parse tree.
_CLOCK_WORDS: Final = frozenset({"current_date", "current_timestamp", "current_time", "localtime", "localtimestamp"})
# Macros over the clock, and two functions that DuckDB 1.5.5 lists as consistent.
_CLOCK_TOO: Final = frozenset(
    {"ago", "pg_conf_load_time", "pg_postmaster_start_time", "current_localtime", "current_localtimestamp"}
)
# What reads or changes the process instead of the data, and what an extension brings for its own tests: `write_blob`
# of the Delta extension writes any file of the machine, whatever DuckDB's lock-down says.
FORBIDDEN_FUNCTIONS: Final = frozenset(
    {"getenv", "getvariable", "current_setting", "write_log", "sleep_ms", "pg_sleep", "setseed", "which_secret"}
    | {"nextval", "currval", "current_query", "current_query_id", "txid_current", "parse_duckdb_log_message"}
    | {"write_blob", "get_delta_test_expression", "parse_delta_filter_logline"}
    | {"pg_get_viewdef", "pg_get_constraintdef", "format_type", "get_block_size"}
)
_PATH: Final = re.compile(
    r"[/\\*?:]|\.(?:csv|tsv|json|jsonl|ndjson|parquet|gz|zst|db|duckdb|txt|arrow)$", re.IGNORECASE
)
_MOMENT: Final = re.compile(r"@\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?$")
_LINE: Final = re.compile(r"\n\s*LINE (\d+): .*", re.DOTALL)

Tree = Mapping[str, Any]
Row = Mapping[str, str]


def connect() -> duckdb.DuckDBPyConnection:
    """A new in-memory connection in UTC that can reach nothing and whose settings are locked."""
    connection = duckdb.connect(
        config={"enable_external_access": "false", "python_enable_replacements": "false", "threads": "1"}
    )
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set autoinstall_known_extensions = false")
    connection.execute("set autoload_known_extensions = false")
    connection.execute("set lock_configuration = true")
    return connection


def parse(sql: str, where: str = "") -> Tree:
    """The parse tree of the one SELECT-like statement in `sql`; Invalid for several, none, and anything else."""
    if "\0" in sql:
        raise Invalid("there is a NUL character in it", where=where, todo="remove it")
    answer = json.loads(_serialized(sql))
    if answer.get("error"):
        raise _refusal(sql, answer, where)
    statements = answer["statements"]
    if len(statements) != 1:
        what = "there is no statement in it" if not statements else f"there are {len(statements)} statements, not one"
        raise Invalid(what, where=where, todo="write one SELECT")
    tree: Tree = statements[0]["node"]
    return tree


@lru_cache(maxsize=1024)
def _serialized(sql: str) -> str:
    with closing(_parser().cursor()) as connection:
        # As a literal: at the first value that is bound, DuckDB imports pandas where it is installed (0.3 s).
        found = connection.execute(f"select json_serialize_sql({_literal(sql)})").fetchone()
    return str(found[0]) if found else "{}"


@lru_cache(maxsize=1)
def _parser() -> duckdb.DuckDBPyConnection:
    """The one connection that only parses: it has no tables and no state, and making it costs more than a parse."""
    return connect()


def _refusal(sql: str, answer: Mapping[str, str], where: str) -> Invalid:
    message = answer["error_message"]
    if answer["error_type"] == "not implemented":
        todo = "write one SELECT; a PIVOT needs its values: from t pivot (sum(x) for y in (1, 2))"
        return Invalid("only a SELECT can stand here", where=where, todo=todo)
    position = int(answer.get("position") or len(sql.encode()))
    return Invalid(message[0].lower() + message[1:], where=_at(where, _line(sql.rstrip(), position)))


def _line(sql: str, position: int) -> int:
    """The line of a byte; the last for a place that is none."""
    return sql.encode()[:position].count(b"\n") + 1


def _at(where: str, line: int) -> str:
    return f"{where}:{line}" if where else f"line {line}"


@dataclass(slots=True)
class References:
    """What a statement names, and at which byte; tables are `schema.table` where it says so."""

    tables: dict[str, int] = field(default_factory=dict)
    table_functions: dict[str, int] = field(default_factory=dict)
    functions: dict[str, int] = field(default_factory=dict)
    clock: dict[str, int] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    shows: dict[str, int] = field(default_factory=dict)
    lists: dict[str, int] = field(default_factory=dict)


def references(tree: Tree) -> References:
    """Walk a parse tree. Names of common table expressions are left out where they are in scope."""
    found = References()
    _walk(tree, frozenset(), found)
    return found


def _walk(node: Any, scope: frozenset[str], found: References) -> None:
    if isinstance(node, list):
        for element in node:
            _walk(element, scope, found)
    elif isinstance(node, Mapping):
        _note(node, scope, found)
        scope = _walk_common_tables(node, scope, found)
        for key, element in node.items():
            if key != "cte_map":
                _walk(element, scope, found)


def _walk_common_tables(node: Tree, scope: frozenset[str], found: References) -> frozenset[str]:
    """Each expression sees those before it, and itself only when it is recursive."""
    for entry in (node.get("cte_map") or {}).get("map", []):
        query = entry["value"]["query"]
        inside = scope | {entry["key"].lower()} if query["node"]["type"] == "RECURSIVE_CTE_NODE" else scope
        _walk(query, inside, found)
        _walk(entry["value"].get("key_targets"), scope, found)
        scope = scope | {entry["key"].lower()}
    return scope


def _note(node: Tree, scope: frozenset[str], found: References) -> None:
    kind, at = node.get("type"), node.get("query_location", 0)
    if kind == "BASE_TABLE":
        parts = [node.get("catalog_name"), node.get("schema_name"), node["table_name"]]
        name = ".".join(part for part in parts if part)
        if name.lower() not in scope:
            found.tables.setdefault(name, at)
    elif kind == "TABLE_FUNCTION":
        found.table_functions.setdefault(str(node["function"].get("function_name", "?")).lower(), at)
    elif kind == "SHOW_REF":
        (found.lists if node.get("show_type") == "SHOW_UNQUALIFIED" else found.shows).setdefault("", at)
    elif kind == "COLUMN_REF" and len(node["column_names"]) == 1 and node["column_names"][0].lower() in _CLOCK_WORDS:
        found.clock.setdefault(node["column_names"][0].lower(), at)
    elif "function_name" in node:
        _note_function(node, at, found)
    if node.get("sample"):
        found.samples.setdefault("", at)


def _note_function(node: Tree, at: int, found: References) -> None:
    name = str(node["function_name"]).lower()
    found.functions.setdefault(name, at)
    if name == "age" and len(node.get("children", [])) == 1:  # age(x) is up to today
        found.clock.setdefault("age()", at)


def referenced_tables(sql: str) -> set[str]:
    """The tables a statement reads, as it spells them; `schema.table` where it names a schema."""
    return set(references(parse(sql)).tables)


def check_statement(
    sql: str,
    allowed_tables: Collection[str] | None = None,
    allowed_table_functions: Collection[str] = TABLE_FUNCTIONS,
    *,
    forbid_nondeterminism: bool = False,
    where: str = "",
) -> set[str]:
    """The tables the statement reads, when it is one that may be run; Invalid, saying what to do, when it is not.

    `allowed_tables` None: any table that is not a path or a URL. `forbid_nondeterminism` also refuses the clock and
    chance, for queries whose answer must be the same whenever they run.
    """
    found = references(parse(sql, where))
    for at, what, todo in _problems(found, allowed_tables, allowed_table_functions, forbid_nondeterminism):
        raise Invalid(what, where=_at(where, _line(sql, at)), todo=todo)
    return set(found.tables)


def _problems(
    found: References, tables: Collection[str] | None, table_functions: Collection[str], repeatable: bool
) -> Iterator[tuple[int, str, str]]:
    for name, at in found.table_functions.items():
        if name not in table_functions:
            yield at, f"{name}() may not be used as a table", "read sources and views by their names"
    for name, at in found.tables.items():
        if tables is None and _PATH.search(_MOMENT.sub("", name)):
            yield at, f'"{name}" is a path, not a table', "read sources and views by their names"
        if tables is not None and name.lower() not in {table.lower() for table in tables}:
            yield at, f'there is no source or view "{name}"', _nearest(name, tables)
    for name, at in found.functions.items():
        if name in FORBIDDEN_FUNCTIONS:
            yield at, f"{name}() may not be used", "a query reads data, not the process that runs it"
    for at in found.lists.values():
        yield at, "SHOW and DESCRIBE need the name of a table", "write: describe runs"
    if tables is not None:
        for at in found.shows.values():
            yield at, "DESCRIBE, SHOW and SUMMARIZE have no rows of data", "write a SELECT"
    if repeatable:
        called = {f"{name}()": at for name, at in found.functions.items() if name in _clock()}
        for name, at in (found.clock | called).items():
            yield at, f"{name} gives another answer each time", "use the data's own times: training must be repeatable"
        for at in found.samples.values():
            yield at, "a sample gives other rows each time", "choose rows by their values: hash(id) % 10 = 0"


def _nearest(name: str, tables: Collection[str]) -> str:
    if near := get_close_matches(name, list(tables), n=1, cutoff=0.6):
        return f'did you mean "{near[0]}"?'
    return "there are: " + ", ".join(sorted(tables)[:12]) if tables else "there is none yet"


@cache
def _clock() -> frozenset[str]:
    """DuckDB's own list of functions whose answer depends on more than their arguments."""
    with closing(connect()) as connection:
        rows = connection.execute(
            "select distinct function_name from duckdb_functions() where stability not in ('CONSISTENT')"
        ).fetchall()
    return frozenset({str(name).lower() for (name,) in rows} - {"error", "stats"}) | _CLOCK_WORDS | _CLOCK_TOO


@cache
def reserved_words() -> frozenset[str]:
    """Names that SQL takes for something else unless they are quoted."""
    with closing(connect()) as connection:
        sql = "select keyword_name from duckdb_keywords() where keyword_category <> 'unreserved'"
        return frozenset(str(name) for (name,) in connection.execute(sql).fetchall())


def describe(tables: Mapping[str, Row], sql: str, *, where: str = "") -> dict[str, str]:
    """The columns a statement gives and their DuckDB types, over empty `tables` (name → column → type).

    Invalid carries DuckDB's complaint in one line, with its hint. Call `check_statement` first.
    """
    with closing(connect()) as connection:
        for name, columns in tables.items():
            spelled = ", ".join(f"{quote(column)} {kind}" for column, kind in columns.items())
            connection.execute(f"create table {quote(name)} ({spelled})")
        return _described(lambda: connection.execute(f"describe select * from (\n{sql}\n)").fetchall(), where)


def _described(run: Callable[[], list[Any]], where: str) -> dict[str, str]:
    try:
        rows = run()
    except duckdb.Error as error:
        raise readable(error, where, line_offset=1) from None
    return {str(row[0]): str(row[1]) for row in rows}


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def quote(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def readable(error: duckdb.Error, where: str = "", line_offset: int = 0) -> Invalid:
    """DuckDB's message as one line and one hint, with the line of the user's text it points at.

    `line_offset` is how many lines of ours come before the user's first.
    """
    text = str(error)
    line = _LINE.search(text)
    body = _LINE.sub("", text).strip()
    first, *rest = [part.strip() for part in body.split("\n") if part.strip()]
    kind, _, what = first.partition(": ")
    what = (
        (what or kind)
        .rstrip("!.")
        .replace(" in FROM clause", "")
        .replace("You might need to add explicit type casts", "")
    )
    hints = [part for part in rest if part.startswith(("Did you mean", "Candidate bindings", "Either add", "Try "))]
    where = _at(where, max(int(line.group(1)) - line_offset, 1)) if line else where
    return Invalid(what[0].lower() + what[1:].rstrip(". "), where=where, todo=_hint(hints))


def _hint(hints: list[str]) -> str:
    if not hints:
        return ""
    hint = hints[0].replace("Candidate bindings:", "there are:")
    return hint[0].lower() + hint[1:]
