"""What may be asked of the lake, and what may not, however it is spelled."""

from __future__ import annotations

import pytest

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.query.statements import check_statement, describe, referenced_tables

FLIGHTS = {"flights": {"carrier": "VARCHAR", "delay": "BIGINT", "seen": "TIMESTAMP WITH TIME ZONE"}}


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("select 1", set()),
        ("from a", {"a"}),
        ("select * from a join b using (x)", {"a", "b"}),
        ("select * from a, lateral (select a.x + c.y from c)", {"a", "c"}),
        ("select (select max(x) from b) from a where y in (select y from c)", {"a", "b", "c"}),
        ("select * from a union all (select * from b except select * from c)", {"a", "b", "c"}),
        ("with a as (select * from b) select * from a", {"b"}),
        ("with a as (select * from a) select * from a", {"a"}),
        ("with a as (select 1), b as (select * from a) select * from b", set()),
        ("with recursive r as (select 1 as n union all select n + 1 from r where n < 9) select * from r", set()),
        ("select * from (with q as (select 1) select * from q), q", {"q"}),
        ("with A as (select * from b) select * from a", {"b"}),
        ("select * from s.a", {"s.a"}),
        ("with a as (select 1) select * from s.a", {"s.a"}),
        ('select * from "a@3"', {"a@3"}),
        ("select * from a pivot (sum(x) for y in (1, 2))", {"a"}),
        ("select * from range(3) t(i), unnest([1, 2])", set()),
        ("select x from a qualify row_number() over (order by (select max(z) from b)) = 1", {"a", "b"}),
        (
            "select list_transform(l, x -> x + 1) from a order by (select 1 from b) limit (select 3 from c)",
            {"a", "b", "c"},
        ),
        ("select 1 -- from a\n/* from b */", set()),
        ("select 'from a' from b", {"b"}),
    ],
)
def test_a_statement_reads_the_tables_that_it_names(sql: str, tables: set[str]) -> None:
    assert referenced_tables(sql) == tables
    assert check_statement(sql) == tables


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        "select 1; select 2",
        "selec 1",
        "copy flights to 'x.csv'",
        "copy (select 1) to 'x.csv'",
        "insert into flights values (1)",
        "delete from flights",
        "drop table flights",
        "create table x as select 1",
        "attach 'x.db'",
        "install httpfs",
        "load httpfs",
        "set threads = 1",
        "pragma version",
        "call pragma_version()",
        "explain select 1",
        "pivot flights on carrier",
        "checkpoint",
        "use x",
        "export database 'x'",
        "select 1; drop table flights",
        "select * from read_csv('x.csv')",
        "select * from read_parquet(['x'])",
        "select * from parquet_scan('x')",
        "select * from glob('*')",
        "select * from read_text('/etc/passwd')",
        "select * from 'x.csv'",
        'select * from "/etc/passwd"',
        "select * from 's3://bucket/x.parquet'",
        "select * from delta_scan('x')",
        "select * from query('select 1')",
        "select * from query_table('flights')",
        "select * from duckdb_secrets()",
        "select * from duckdb_settings()",
        "select * from sniff_csv('x.csv')",
        "select * from flights where delay > (select count(*) from read_csv('x.csv'))",
        "with q as (select * from read_csv('x.csv')) select 1",
        "describe select * from delta_scan('x')",
        "select getenv('HOME')",
        "select current_setting('home_directory')",
        "select * from json_execute_serialized_sql('{}')",
    ],
)
def test_a_statement_that_could_do_more_than_read_is_refused(sql: str) -> None:
    with pytest.raises(Invalid):
        check_statement(sql)


@pytest.mark.parametrize(
    "expression",
    [
        *("now()", "NOW()", "today()", "transaction_timestamp()", "get_current_timestamp()", "current_localtime()"),
        *("current_date", "Current_Timestamp", "current_time", "localtimestamp", "age(seen)", "ago(interval 1 day)"),
        *("random()", "uuid()", "gen_random_uuid()", "uuidv7()", "list_transform([1], x -> random())"),
        "(select max(now()))",
    ],
)
def test_the_clock_and_chance_are_refused_where_answers_must_repeat(expression: str) -> None:
    sql = f"select carrier,\n {expression} from flights"
    assert check_statement(sql, ["flights"]) == {"flights"}
    with pytest.raises(Invalid, match="gives another answer each time") as error:
        check_statement(sql, ["flights"], forbid_nondeterminism=True, where="x.sql")
    assert error.value.where == "x.sql:2"


@pytest.mark.parametrize(
    "expression", ["age(seen, seen)", "seen + interval 1 day", "date_trunc('day', seen)", "hash(carrier)"]
)
def test_the_datas_own_times_are_allowed(expression: str) -> None:
    check_statement(f"select {expression} from flights", ["flights"], forbid_nondeterminism=True)


def test_a_sample_is_refused_where_answers_must_repeat() -> None:
    for sql in ("select * from flights using sample 10%", "select * from flights tablesample 3 rows"):
        with pytest.raises(Invalid, match="a sample gives other rows each time"):
            check_statement(sql, ["flights"], forbid_nondeterminism=True)


def test_a_table_that_is_not_allowed_is_named_with_the_nearest_that_is() -> None:
    with pytest.raises(Invalid) as error:
        check_statement("select 1\nfrom flihgts", ["flights", "weather"], where="features/x.sql")
    assert str(error.value) == 'features/x.sql:2: there is no source or view "flihgts"\n  → did you mean "flights"?'


def test_another_schema_is_not_the_table_of_that_name() -> None:
    with pytest.raises(Invalid, match=r'no source or view "other\.flights"'):
        check_statement("select * from other.flights", ["flights"])


def test_lines_are_counted_in_text_that_is_not_ascii() -> None:
    with pytest.raises(Invalid) as error:
        check_statement("select 'żółć →→→→→→→→'\n, 1\nfrom nowhere", ["flights"])
    assert error.value.where == "line 3"


def test_a_query_is_described_over_tables_that_hold_nothing() -> None:
    described = describe(
        FLIGHTS, "select carrier, sum(delay) as s, seen + interval 1 hour as later from flights group by all -- end"
    )
    assert described == {"carrier": "VARCHAR", "s": "HUGEINT", "later": "TIMESTAMP WITH TIME ZONE"}


def test_times_with_a_zone_are_described_without_a_download() -> None:
    sql = "select make_timestamptz(2013, 7, 1, 8, 30, 0.0, 'America/New_York') as t, seen as d from flights"
    assert set(describe(FLIGHTS, sql).values()) == {"TIMESTAMP WITH TIME ZONE"}


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("select delai from flights", 'line 1: referenced column "delai" not found\n  → there are: "delay", "carrier"'),
        (
            "select carrier\nfrom flights\nwhere abss(delay) > 1",
            'line 3: scalar Function with name abss does not exist\n  → did you mean "abs"?',
        ),
        (
            "select sum(carrier) from flights",
            "line 1: no function matches the given name and argument types 'sum(VARCHAR)'",
        ),
    ],
)
def test_a_query_that_does_not_bind_is_told_in_one_line_and_a_hint(sql: str, told: str) -> None:
    with pytest.raises(Invalid) as error:
        describe(FLIGHTS, sql)
    assert str(error.value) == told


def test_a_nul_character_is_refused_wherever_it_stands() -> None:
    for text in ("select 'a\0b'", "select 1\0", "\0"):
        with pytest.raises(Invalid, match="NUL"):
            check_statement(text)
