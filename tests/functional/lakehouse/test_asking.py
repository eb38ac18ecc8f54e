"""Questions from outside reach the lake's tables and nothing else; a project's SQL reaches nothing outside the lake."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import Invalid, LakeloopError, NotFound
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Session

pytestmark = pytest.mark.slow_on_s3
PROJECT = {
    "lakeloop.toml": 'name = "flights"\ngoal = "Tell"\nowner = "ops"\n',
    "sources/weather.toml": """\
owner = "ops"
read = { kind = "landing", format = "csv" }
key = ["origin"]
event_time = "day"
[columns]
origin = "string"
day = "date"
temp = "float64?"
""",
}
SECRET = "the-content-of-a-file-outside"


def flights() -> Project:
    return parse_project(PROJECT)


@pytest.fixture
def weather(lake: Lake) -> Lake:
    """A lake with one applied project and two versions of its one table."""
    applied.publish(lake, flights(), code_version="1")
    for day in (1, 2):
        land(lake, flights(), "weather", f"{day}.csv", f"origin,day,temp\nEWR,2026-01-0{day},{day}.5\n".encode())
        ingest_data(lake, flights())
    return lake


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the lake with files that no query may read."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "x.csv").write_text(f"secret\n{SECRET}\n")
    (folder / "x.json").write_text(f'{{"secret": "{SECRET}"}}')
    pq.write_table(pa.table({"secret": [SECRET]}), folder / "x.parquet")
    from deltalake import write_deltalake

    write_deltalake(str(folder / "delta"), pa.table({"secret": [SECRET]}))
    return folder


REFUSED = {
    "read_csv": "select * from read_csv('{f}/x.csv')",
    "read_csv of a list": "select * from read_csv(['{f}/x.csv'])",
    "read_parquet": "select * from read_parquet('{f}/x.parquet')",
    "parquet_scan": "select * from parquet_scan('{f}/x.parquet')",
    "read_json": "select * from read_json_auto('{f}/x.json')",
    "read_text": "select * from read_text('{f}/x.csv')",
    "read_blob": "select * from read_blob('{f}/x.csv')",
    "glob": "select * from glob('{f}/*')",
    "path": "select * from '{f}/x.csv'",
    "quoted path": 'select * from "{f}/x.parquet"',
    "path below": "select (select secret from '{f}/x.csv')",
    "path in a cte": "with t as (from '{f}/x.csv') select * from t",
    "path in a union": "select 'a' union all select * from '{f}/x.csv'",
    "path in a lateral join": "select * from (values (1)) t(a), lateral (select * from '{f}/x.csv')",
    "path under exists": "select exists (from '{f}/x.csv')",
    "described path": "describe '{f}/x.parquet'",
    "summarized path": "summarize '{f}/x.parquet'",
    "delta_scan": "select * from delta_scan('{f}/delta')",
    "described delta_scan": "describe select * from delta_scan('{f}/delta')",
    "copy to": "copy (select 1) to '{f}/written.csv'",
    "copy from": "copy weather from '{f}/x.csv'",
    "export": "export database '{f}/export'",
    "attach": "attach '{f}/db.duckdb' as db",
    "install": "install httpfs",
    "load": "load httpfs",
    "set": "set threads = 1",
    "reset": "reset threads",
    "set back": "set enable_external_access = true",
    "pragma": "pragma database_list",
    "pragma function": "select * from pragma_database_list()",
    "create": "create table t as select 1",
    "create macro": "create macro m() as table select 1",
    "insert": "insert into weather values ('JFK', '2026-01-01', 1)",
    "update": "update weather set temp = 0",
    "delete": "delete from weather",
    "drop": "drop view weather",
    "secrets": "select * from duckdb_secrets()",
    "drop secret": "drop secret lake",
    "which_secret": "select * from which_secret('s3://x/y', 's3')",
    "settings": "select * from duckdb_settings()",
    "settings as a view": "select * from pg_settings",
    "settings with a schema": "select * from pg_catalog.pg_settings",
    "one setting": "select current_setting('s3_secret_access_key')",
    "names of everything": "select * from information_schema.tables",
    "views": "select * from duckdb_views",
    "getenv": "select getenv('AWS_SECRET_ACCESS_KEY')",
    "variable": "select getvariable('x')",
    "query": "select * from query('select 1')",
    "query_table": "select * from query_table('weather')",
    "python variable": "select * from SECRET_ROWS",
    "two statements": "select 1; select 2",
    "hidden second": "select 1; copy (select 1) to '{f}/written.csv'",
    "none": "-- nothing",
    "nothing": "",
    "serialized sql": "select * from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "pragma serialized": "pragma json_execute_serialized_sql('x')",
    "parquet_metadata": "select * from parquet_metadata('{f}/x.parquet')",
    "parquet_schema": "select * from parquet_schema('{f}/x.parquet')",
    "sniff_csv": "select * from sniff_csv('{f}/x.csv')",
    "extensions": "select * from duckdb_extensions()",
    "call": "call pragma_version()",
    "prepare": "prepare p as select 1",
    "execute": "execute p",
    "checkpoint": "checkpoint",
    "vacuum": "vacuum",
    "use": "use memory",
    "transaction": "begin",
    "explain": "explain analyze select * from '{f}/x.csv'",
}

SECRET_ROWS = pa.table({"secret": [SECRET]})


def files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_what_is_no_question_about_the_lake_is_refused_and_reads_nothing(weather: Lake, outside: Path) -> None:
    before = files(outside)
    for name, text in REFUSED.items():
        sql = text.replace("{f}", str(outside))
        for project in ("", "flights"):
            with pytest.raises(Invalid) as refused:
                print(weather.sql(sql, project=project).to_pylist())  # noqa: T201  what was answered, when the test fails
            assert SECRET not in str(refused.value), name
    assert files(outside) == before


def test_the_same_question_in_other_spellings_is_refused(folder_lake: Lake, outside: Path) -> None:
    path = outside / "x.csv"
    for sql in (
        f"SELECT * FROM READ_CSV('{path}')",
        f"select * from system.main.read_csv('{path}')",
        f"select * from \"read_csv\"('{path}')",
        f"from read_csv('{path}')",
        f"select * from /* x */ read_csv /* y */ ('{path}')",
        f"select * from (pivot (from read_csv('{path}')) on secret)",
        f"values ((select count(*) from '{path}'))",
        f"select * from range((select count(*) from '{path}'))",
        f"select list_transform([1], lambda x: (select count(*) from '{path}'))",
        f"with recursive t(a) as (select 1 union all select count(*) from '{path}') select * from t",
    ):
        with pytest.raises(Invalid):
            folder_lake.sql(sql)


def test_names_mean_the_projects_own_things_and_versions_of_them(weather: Lake) -> None:
    def temperatures(sql: str, project: str = "") -> list[float]:
        return [row["temp"] for row in weather.sql(f"{sql} order by temp", project=project).to_pylist()]

    assert temperatures("select temp from weather") == [1.5, 2.5]
    assert temperatures("select temp from weather", "flights") == [1.5, 2.5]
    assert temperatures("select temp from flights.weather") == [1.5, 2.5]
    assert temperatures('select temp from "weather@1"') == [1.5]
    assert temperatures('select temp from "weather@2"') == [1.5, 2.5]
    assert temperatures('select temp from "flights.weather@1"') == [1.5]
    assert temperatures('select temp from flights."weather@1"') == [1.5]
    assert temperatures('select b.temp from "weather@1" a join weather b using (day)') == [1.5]
    assert temperatures("with weather as (select 9.5 as temp) select temp from weather") == [9.5]
    history = weather.sql("select temp, _file, _line from weather_history order by temp").to_pylist()
    assert [(row["temp"], row["_file"].split("#")[0], row["_line"]) for row in history] == [
        (1.5, "1.csv", 1),
        (2.5, "2.csv", 1),
    ]


def test_values_are_bound_and_never_text(weather: Lake) -> None:
    evil = "x' or 1 = 1; drop view weather --"
    assert weather.sql("select * from weather where origin = ?", [evil]).num_rows == 0
    assert weather.sql("select ? as a, ? as b", [evil, 2]).to_pylist() == [{"a": evil, "b": 2}]
    assert weather.sql("select * from weather where origin = ?", ["EWR"]).num_rows == 2
    for wrong in ([], ["a", "b"]):
        with pytest.raises(Invalid):
            weather.sql("select * from weather where origin = ?", wrong)


def test_names_with_quotes_in_them_are_names(folder_lake: Lake) -> None:
    for sql in (
        'select * from "x"" or ""y"',
        'select * from "x\' union select 1 --"',
        'select * from "a""b@1"',
        'select * from "a"";b"."c"',
        'select * from "@1"',
    ):
        with pytest.raises(Invalid, match="there is no table"):
            folder_lake.sql(sql)
    assert folder_lake.sql('select 1 as "a""b"').column_names == ['a"b']


def test_an_unknown_table_is_answered_with_names_that_are_near(weather: Lake) -> None:
    for sql, near in (
        ("from wether", "did you mean weather"),
        ("from flights.wether", "flights.wether"),
        ("from lakeloop.evnts", "lakeloop.events"),
        ("from quarantin", "lakeloop.quarantine"),
        ("from xyz", "there are: weather"),
        ("select * from flights.xyz", "there are: weather"),
        ("from nosuch.weather", "nosuch.weather"),
    ):
        with pytest.raises(Invalid) as error:
            weather.sql(sql)
        assert near in str(error.value), sql
        assert len(str(error.value).splitlines()) <= 2


def test_an_error_in_a_question_is_two_lines_and_names_the_column(weather: Lake) -> None:
    with pytest.raises(Invalid, match="tmp") as error:
        weather.sql("select tmp from weather")
    assert len(str(error.value).splitlines()) <= 2
    with pytest.raises(Invalid):
        weather.sql("selec 1")
    with pytest.raises(Invalid):
        weather.sql("select 'x'::int")


def test_a_version_that_is_not_there_is_an_error_of_ours(weather: Lake) -> None:
    for name in ('"weather@99"', '"nothing@1"', '"weather@x"', '"weather@"'):
        with pytest.raises(LakeloopError):
            weather.sql(f"select * from {name}")


def test_an_unknown_project_is_not_found(folder_lake: Lake) -> None:
    with pytest.raises(NotFound, match="no project"):
        folder_lake.sql("select 1", project="nothing")


def test_journals_and_documents_are_tables(weather: Lake) -> None:
    assert (
        weather.sql("select source, rows from lakeloop.ingestions order by file").to_pylist()
        == [{"source": "weather", "rows": 1}] * 2
    )
    assert weather.sql("select kind, id, revision from lakeloop.documents").to_pylist() == [
        {"kind": "projects", "id": "flights", "revision": 1}
    ]
    assert weather.sql("select count(*) as n from lakeloop.runs").to_pylist() == [{"n": 0}]


def test_no_request_is_made_for_a_table_that_no_query_names(weather: Lake) -> None:
    from lakeloop.lakehouse.testing import FaultyStore

    counted = FaultyStore(weather.store)
    Lake(counted, "tester").sql("select 1 as one", project=flights())  # type: ignore[arg-type]
    assert counted.calls == []


def test_a_projects_sql_reads_nothing_outside_the_lake(weather: Lake, outside: Path) -> None:
    """The second wall: also what was not refused when the project was applied."""
    before = files(outside)
    with Session(weather.store.location(), LakeCatalog(weather, flights())) as session:
        for name, text in REFUSED.items():
            sql = text.replace("{f}", str(outside))
            if str(outside) in sql:
                with pytest.raises(LakeloopError) as refused:
                    print(session.run(sql).to_pylist())  # noqa: T201
                assert SECRET not in str(refused.value), name
                with pytest.raises(LakeloopError):
                    session.keep("kept", sql)
        assert session.run("select count(*) as n from weather").to_pylist() == [{"n": 2}]
    assert files(outside) == before


def test_duckdbs_own_lock_keeps_rows_of_files_even_from_what_nobody_checked(weather: Lake, outside: Path) -> None:
    """The third wall. A described delta_scan tells columns (FACTS), so that the session refuses it before."""
    import duckdb

    before = files(outside)
    with Session(weather.store.location(), LakeCatalog(weather, flights())) as session:
        for name, text in REFUSED.items():
            if "{f}" in text and name != "described delta_scan":
                with pytest.raises(duckdb.Error):
                    print(session._connection.execute(text.replace("{f}", str(outside))).fetchall())  # noqa: T201
        with pytest.raises(duckdb.Error):
            session._connection.execute("select * from SECRET_ROWS")
    assert files(outside) == before


def test_a_session_without_a_lake_reads_no_file_at_all(outside: Path) -> None:
    with Session(None, lambda _name: None) as session:
        session.register("inputs", pa.table({"a": [1]}))
        for sql in (
            f"from '{outside}/x.csv'",
            f"from read_text('{outside}/x.csv')",
            f"from glob('{outside}/*')",
            "from SECRET_ROWS",
        ):
            with pytest.raises(LakeloopError):
                session.run(sql)
        assert session.run("select a + 1 as b from inputs").to_pylist() == [{"b": 2}]


def test_a_circle_of_names_is_told() -> None:
    from lakeloop.lakehouse.query.session import Query

    with (
        Session(None, {"a": Query("select * from b"), "b": Query("select * from a")}.get) as session,
        pytest.raises(Invalid, match="is a circle"),
    ):
        session.run("select * from a")
