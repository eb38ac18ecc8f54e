"""Tables elsewhere are read in place: as they are declared, at the version that was read, and nothing beside them."""

from __future__ import annotations

import io
import json
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from lakeloop.functions.build_features import build_features
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied, foreign, runs
from lakeloop.lakehouse.errors import Corrupt, Invalid, LakeloopError, NotFound
from lakeloop.lakehouse.features.training_set import pinned, training_table
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.store import Store
from lakeloop.lakehouse.store.opening import open_store

pytestmark = pytest.mark.slow_on_s3
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
COLUMNS = 'id = "int64"\nday = "date"\nprice = "float64"\nnote = "string?"\n'


def project(
    kind: str, uri: str, *, columns: str = COLUMNS, top: str = "", more: dict[str, str] | None = None
) -> Project:
    """A project with one source, `prices`, that is read in place."""
    source = (
        f'owner = "crm"\nread = {{ kind = "{kind}", uri = "{uri}" }}\nkey = ["id", "day"]\n'
        f'event_time = "day"\nlag = "0s"\n{top}[columns]\n{columns}'
    )
    return parse_project(
        {
            "lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n',
            "sources/prices.toml": source,
            **(more or {}),
        }
    )


def put_in_force(lake: Lake, definition: Project) -> Project:
    applied.publish(lake, definition, code_version="1")
    return definition


def prices(*ids: int, day: date = date(2026, 1, 1), **more: Any) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(ids, pa.int32()),
            "day": pa.array([day] * len(ids), pa.date32()),
            "price": pa.array([n * 1.5 for n in ids], pa.float32()),
            **{name: pa.array([value] * len(ids)) for name, value in more.items()},
        }
    )


def ids(lake: Lake, definition: Project, sql: str = "select id from prices order by id") -> list[int]:
    return lake.sql(sql, project=definition).column("id").to_pylist()  # type: ignore[arg-type]


class Elsewhere:
    """A place beside the lake, of the same kind: a folder, or a prefix of another bucket."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.store: Store = open_store(uri)

    def parquet(self, key: str, rows: pa.Table) -> None:
        sink = io.BytesIO()
        pq.write_table(rows, sink)
        self.store.put(key, sink.getvalue())

    def delta(self, name: str, rows: pa.Table, **options: Any) -> str:
        uri = f"{self.uri}/{name}"
        write_deltalake(uri, rows, storage_options=dict(self.store.location().options) or None, **options)
        return uri


@pytest.fixture
def elsewhere(lake: Lake, tmp_path: Path) -> Elsewhere:
    if not lake.url.startswith("s3://"):
        (tmp_path / "else where").mkdir()
        return Elsewhere(str(tmp_path / "else where"))
    import boto3

    bucket = f"other-{uuid.uuid4().hex[:20]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return Elsewhere(f"s3://{bucket}/their/data")


# -- Delta ---


def test_a_delta_table_elsewhere_is_read_as_declared_also_after_a_column_was_added(
    lake: Lake, elsewhere: Elsewhere
) -> None:
    uri = elsewhere.delta("prices", prices(1, 2))
    definition = put_in_force(lake, project("delta", uri))
    found = lake.sql("select * from prices order by id", project="shop")
    assert found.schema.names == ["id", "day", "price", "note"]
    assert found.schema.types == [pa.int64(), pa.date32(), pa.float64(), pa.string()]
    assert found.column("note").to_pylist() == [None, None]
    elsewhere.delta("prices", prices(3, note="new"), mode="append", schema_mode="merge")
    found = lake.sql("select id, note from prices_history order by id", project="shop")
    assert found.to_pylist() == [{"id": 1, "note": None}, {"id": 2, "note": None}, {"id": 3, "note": "new"}]
    assert not list(lake.store.list("tables/")), "nothing is copied"
    assert foreign.observe(lake, definition, definition.sources["prices"]) == 1


def test_a_version_that_was_read_is_read_again_until_its_owner_drops_the_table(
    lake: Lake, elsewhere: Elsewhere
) -> None:
    definition = put_in_force(lake, project("delta", elsewhere.delta("prices", prices(1, 2))))
    source = definition.sources["prices"]
    first = foreign.observe(lake, definition, source)
    assert foreign.observe(lake, definition, source) == first
    elsewhere.delta("prices", prices(9), mode="overwrite")
    second = foreign.observe(lake, definition, source)
    assert (first, second) == (1, 2)
    assert ids(lake, definition) == [9]
    assert ids(lake, definition, 'select id from "prices@1" order by id') == [1, 2]
    assert foreign.described(lake, {"shop/prices": 1})["shop/prices"].startswith(
        f"delta, version 0 of {elsewhere.uri}/prices, seen "
    )
    with pytest.raises(NotFound, match="never read as version 7"):
        ids(lake, definition, 'select id from "prices@7"')
    elsewhere.store.delete([entry.key for entry in elsewhere.store.list("prices/")])
    with pytest.raises(NotFound, match="there is no Delta table at"):
        ids(lake, definition)
    for version in range(2):
        elsewhere.delta("prices", prices(7 + version), mode="append")
    with pytest.raises(Corrupt, match="dropped and made anew"):
        ids(lake, definition, 'select id from "prices@2"')
    assert foreign.observe(lake, definition, source) == 3, "numbers grow, though Delta begins again"


def test_columns_that_differ_are_told_all_at_once(lake: Lake, elsewhere: Elsewhere) -> None:
    uri = elsewhere.delta("prices", prices(1, note=7))
    definition = put_in_force(lake, project("delta", uri, columns=COLUMNS + 'shop = "string"\n'))
    with pytest.raises(Invalid) as raised:
        ids(lake, definition)
    assert raised.value.problems == [
        "note: is BIGINT there, and string is declared",
        "shop: is not there (there are: day, id, note, price)",
    ]
    assert "sources/prices.toml" in str(raised.value)


def logged(folder: Path, actions: list[dict[str, Any]]) -> None:
    (folder / "_delta_log").mkdir(parents=True)
    (folder / "_delta_log" / f"{0:020d}.json").write_text("\n".join(map(json.dumps, actions)))


def metadata(fields: list[dict[str, Any]], **configuration: str) -> dict[str, Any]:
    schema = {"type": "struct", "fields": fields}
    return {
        "metaData": {
            "id": str(uuid.uuid4()),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps(schema),
            "partitionColumns": [],
            "configuration": {f"delta.{name}": value for name, value in configuration.items()},
            "createdTime": 0,
        }
    }


def added(folder: Path, rows: pa.Table, **more: Any) -> dict[str, Any]:
    pq.write_table(rows, folder / "part-0.parquet")
    size = (folder / "part-0.parquet").stat().st_size
    stats = json.dumps({"numRecords": rows.num_rows})
    file = {"path": "part-0.parquet", "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": True}
    return {"add": file | {"stats": stats} | more}


FIELDS = [
    {"name": "id", "type": "long", "nullable": True, "metadata": {}},
    {"name": "day", "type": "date", "nullable": True, "metadata": {}},
    {"name": "price", "type": "double", "nullable": True, "metadata": {}},
]


def test_a_delta_table_whose_columns_were_renamed_is_read_by_their_names(folder_lake: Lake, tmp_path: Path) -> None:
    """`delta.columnMapping.mode = name`, as Databricks writes it: files keep their own names of columns."""
    folder = tmp_path / "mapped"
    folder.mkdir()
    fields = [
        {**f, "metadata": {"delta.columnMapping.physicalName": f"col-{f['name']}", "delta.columnMapping.id": at}}
        for at, f in enumerate(FIELDS, start=1)
    ]
    rows = prices(1, 2).rename_columns([f"col-{name}" for name in ("id", "day", "price")])
    rows = rows.cast(pa.schema([("col-id", pa.int64()), ("col-day", pa.date32()), ("col-price", pa.float64())]))
    protocol = {
        "protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": ["columnMapping"],
            "writerFeatures": ["columnMapping"],
        }
    }
    configuration = {"columnMapping.mode": "name", "columnMapping.maxColumnId": "3"}
    logged(folder, [protocol, metadata(fields, **configuration), added(folder, rows)])
    definition = put_in_force(folder_lake, project("delta", str(folder)))
    found = folder_lake.sql("select id, price from prices order by id", project=definition)  # type: ignore[arg-type]
    assert found.to_pylist() == [{"id": 1, "price": 1.5}, {"id": 2, "price": 3.0}]


def deletion_vector(*rows: int) -> dict[str, Any]:
    """An inline deletion vector: a 64-bit RoaringBitmapArray of one 32-bit bitmap with one array container, in Z85."""
    container = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    data = struct.pack("<IQI", 1681511377, 1, 0) + container
    padded = data + b"\0" * (-len(data) % 4)
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    text = ""
    for (word,) in struct.iter_unpack(">I", padded):
        text += "".join(alphabet[word // 85**power % 85] for power in range(4, -1, -1))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}


def test_rows_that_a_deletion_vector_deletes_are_not_read(folder_lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    folder.mkdir()
    rows = prices(1, 2, 3, 4).cast(pa.schema([("id", pa.int64()), ("day", pa.date32()), ("price", pa.float64())]))
    features = ["deletionVectors"]
    protocol = {
        "protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": features,
            "writerFeatures": features,
        }
    }
    vector = deletion_vector(0, 2)
    actions = [
        protocol,
        metadata(FIELDS, enableDeletionVectors="true"),
        added(folder, rows, deletionVector=vector),
    ]
    logged(folder, actions)
    definition = put_in_force(folder_lake, project("delta", str(folder)))
    assert ids(folder_lake, definition) == [2, 4]


# -- Parquet ---


def test_parquet_files_in_folders_are_one_table_and_partitions_are_columns(lake: Lake, elsewhere: Elsewhere) -> None:
    rows = prices(1, 2).drop_columns("day")
    elsewhere.parquet("t/day=2026-01-01/a.parquet", rows)
    elsewhere.parquet("t/day=2026-01-02/deep/b.parquet", rows.append_column("note", pa.array(["x", None])))
    elsewhere.parquet("t/_temporary/0/c.parquet", rows)
    elsewhere.parquet("t/day=2026-01-02/.hidden.parquet", rows)
    elsewhere.store.put("t/_SUCCESS", b"")
    elsewhere.store.put("t/README.md", b"no Parquet")
    put_in_force(lake, project("parquet", f"{elsewhere.uri}/t"))
    found = lake.sql("select * from prices order by day, id", project="shop").to_pylist()
    one, two = date(2026, 1, 1), date(2026, 1, 2)
    assert [(row["id"], row["day"], row["note"]) for row in found] == [
        (1, one, None),
        (2, one, None),
        (1, two, "x"),
        (2, two, None),
    ]


def test_a_partition_keeps_its_text_and_one_file_is_a_table_too(lake: Lake, elsewhere: Elsewhere) -> None:
    elsewhere.parquet("t/store=007/a.parquet", prices(1))
    columns = COLUMNS + 'store = "string?"\n'
    put_in_force(lake, project("parquet", f"{elsewhere.uri}/t", columns=columns))
    assert lake.sql("select store from prices", project="shop").to_pylist() == [{"store": "007"}]
    elsewhere.parquet("one.parquet", prices(5))
    elsewhere.parquet("one.parquet.old/x.parquet", prices(6))
    definition = put_in_force(lake, project("parquet", f"{elsewhere.uri}/one.parquet"))
    assert ids(lake, definition) == [5]


def test_files_that_came_since_do_not_change_a_version_and_files_that_changed_are_told(
    lake: Lake, elsewhere: Elsewhere
) -> None:
    elsewhere.parquet("t/a.parquet", prices(1, 2))
    definition = put_in_force(lake, project("parquet", f"{elsewhere.uri}/t"))
    source = definition.sources["prices"]
    assert foreign.observe(lake, definition, source) == 1
    elsewhere.parquet("t/b.parquet", prices(3))
    assert foreign.observe(lake, definition, source) == 2
    assert (ids(lake, definition), ids(lake, definition, 'select id from "prices@1"')) == ([1, 2, 3], [1, 2])
    elsewhere.parquet("t/b.parquet", prices(4))
    assert ids(lake, definition, 'select id from "prices@1"') == [1, 2]
    with pytest.raises(Corrupt, match=r"the table has changed since: .*b\.parquet was written anew"):
        ids(lake, definition, 'select id from "prices@2"')
    elsewhere.store.delete(["t/a.parquet"])
    with pytest.raises(Corrupt, match=r"a.parquet is gone"):
        ids(lake, definition, 'select id from "prices@1"')


def test_what_is_no_table_is_told(lake: Lake, elsewhere: Elsewhere) -> None:
    elsewhere.delta("delta", prices(1))
    elsewhere.parquet("globs/a*.parquet", prices(1))
    elsewhere.store.put("broken/a.parquet", b"PAR1 this is no Parquet PAR1")
    elsewhere.store.put("log/_delta_log/00000000000000000000.json", b"{")
    cases: list[tuple[str, str, type[LakeloopError], str]] = [
        ("parquet", "nowhere", NotFound, "no Parquet files"),
        ("delta", "nowhere", NotFound, "no Delta table"),
        ("parquet", "delta", Invalid, 'write kind = "delta"'),
        ("parquet", "globs", Invalid, "read as a pattern"),
        ("parquet", "broken", Invalid, "prices"),
        ("delta", "log", Corrupt, "cannot be opened"),
    ]
    for kind, name, error, words in cases:
        definition = put_in_force(lake, project(kind, f"{elsewhere.uri}/{name}"))
        with pytest.raises(error) as raised:
            ids(lake, definition)
        assert words in str(raised.value), name


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_a_lake_in_a_folder_reads_a_table_in_a_bucket_and_the_reverse(
    folder_lake: Lake, bucket: str, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "here").mkdir()
    for lake, place in (
        (folder_lake, Elsewhere(f"s3://{bucket}/there")),
        (open_lake(f"s3://{bucket}/lake", who="tester"), Elsewhere(str(tmp_path / "here"))),
    ):
        if kind == "delta":
            place.delta("prices", prices(1, 2))
        else:
            place.parquet("prices/a.parquet", prices(1, 2))
        definition = put_in_force(lake, project(kind, f"{place.uri}/prices"))
        assert ids(lake, definition) == [1, 2]
        assert foreign.observe(lake, definition, definition.sources["prices"]) == 1


# -- what it may reach ---


SHUT = r"Permission Error|disabled by configuration"


def test_a_query_reads_the_declared_place_and_no_neighbour_of_it(lake: Lake, elsewhere: Elsewhere) -> None:
    for name in ("mine", "mine-too", "other"):
        elsewhere.parquet(f"{name}/a.parquet", prices(1))
    uri = elsewhere.uri
    definition = put_in_force(lake, project("parquet", f"{uri}/mine"))
    with Session(lake.store.location(), LakeCatalog(lake, definition)) as session:
        raw = session._connection
        assert raw.execute(f"select count(*) from '{uri}/mine/a.parquet'").fetchall() == [(1,)]
        # On S3, DuckDB's lock lets `..` pass, and its HTTP client resolves it: no statement may name a path (below).
        up = () if uri.startswith("s3://") else ("mine/../other/a.parquet",)
        for path in ("mine-too/a.parquet", "other/a.parquet", *up):
            with pytest.raises(duckdb.Error, match=SHUT):
                raw.execute(f"select * from '{uri}/{path}'").fetchall()
    for path in ("mine/a.parquet", "mine/../other/a.parquet", "mine/*"):
        for sql in (f"select * from '{uri}/{path}'", f"select * from read_parquet('{uri}/{path}')"):
            with pytest.raises(Invalid):
                lake.sql(sql, project="shop")
    with Session(lake.store.location(), LakeCatalog(lake)) as session, pytest.raises(duckdb.Error, match=SHUT):
        session._connection.execute(f"select * from '{uri}/mine/a.parquet'").fetchall()


def test_only_an_applied_definition_opens_a_place(folder_lake: Lake, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        pq.write_table(prices(1), tmp_path / name / "a.parquet")
    draft = project("parquet", str(tmp_path / "first"))
    with pytest.raises(Invalid, match="is not applied"):
        ids(folder_lake, draft)
    put_in_force(folder_lake, draft)
    assert ids(folder_lake, draft) == [1]
    moved = project("parquet", str(tmp_path / "second"))
    with pytest.raises(Invalid, match="is not applied"):
        ids(folder_lake, moved)
    put_in_force(folder_lake, moved)
    assert ids(folder_lake, moved) == ids(folder_lake, draft) == [1], "what was applied once may be read as it was"
    another = parse_project({"lakeloop.toml": 'name = "crm"\ngoal = "x"\nowner = "x"\n'})
    put_in_force(folder_lake, another)
    with pytest.raises(Invalid, match="ask from the project shop"):
        ids(folder_lake, another, "select id from shop.prices")


def test_a_place_in_the_lake_or_around_it_is_none(folder_lake: Lake) -> None:
    for uri in (folder_lake.url, f"{folder_lake.url}/raw", str(Path(folder_lake.url).parent)):
        definition = put_in_force(folder_lake, project("parquet", uri))
        with pytest.raises(Invalid, match="lies in the lake"):
            ids(folder_lake, definition)


def test_nothing_lands_in_a_table_that_is_read_in_place(lake: Lake, elsewhere: Elsewhere) -> None:
    elsewhere.parquet("t/a.parquet", prices(1))
    definition = put_in_force(lake, project("parquet", f"{elsewhere.uri}/t"))
    with pytest.raises(Invalid, match="in place; nothing lands"):
        land(lake, definition, "prices", "a.csv", b"id\n1\n")
    lake.store.put("landing/shop/prices/a.csv", b"id,day,price\n1,2026-01-01,1\n")
    assert ingest_data(lake, definition) == []


# -- rows, times and lineage ---


def test_of_a_key_that_comes_again_the_row_that_was_known_last_counts(lake: Lake, elsewhere: Elsewhere) -> None:
    at = [datetime(2026, 1, n, tzinfo=UTC) for n in (1, 3, 2)]
    rows = pa.table({"id": [1, 1, 1], "seen": pa.array(at, pa.timestamp("us", "UTC")), "price": [1.0, 3.0, 2.0]})
    uri = elsewhere.delta("prices", rows)
    source = (
        f'owner = "crm"\nread = {{ kind = "delta", uri = "{uri}" }}\nkey = ["id"]\nrows = "latest"\ntimeless = true\n'
        'known_at = "seen"\n[columns]\nid = "int64"\nseen = "timestamp"\nprice = "float64"\n'
    )
    head = 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n'
    definition = put_in_force(lake, parse_project({"lakeloop.toml": head, "sources/prices.toml": source}))
    assert lake.sql("select price from prices", project="shop").to_pylist() == [{"price": 3.0}]
    assert lake.sql("select count(*) as n from prices_history", project="shop").to_pylist() == [{"n": 3}]
    unknown = pa.table({"id": [2], "seen": pa.array([None], pa.timestamp("us", "UTC")), "price": [9.0]})
    elsewhere.delta("prices", unknown, mode="append")
    with pytest.raises(Invalid, match="seen is null, so nobody knows when this row was known"):
        lake.sql("select * from prices", project=definition)  # type: ignore[arg-type]


VIEW = """-- /// feature-view
-- owner = "crm"
-- entity = ["id"]
-- event_time = "day"
-- online = true
-- ///
select id, day, price from prices
"""
MODEL = """problem = "regression"
learner = "sklearn"
[inputs]
features = [{ view = "seen", key = { id = "shop" } }]
[inputs.request]
shop = "int64"
[split]
by = "time"
test = "2d"
"""
EXAMPLES = """select concat_ws('-', id, day) as id, day + interval 1 day as as_of, id as shop, price * 2 as label,
  day + interval 2 days as label_known_at from prices
"""
MODELLED = {"features/seen.sql": VIEW, "models/next.toml": MODEL, "models/next.sql": EXAMPLES}


@pytest.fixture(params=["delta", "parquet"])
def growing(request: pytest.FixtureRequest, lake: Lake, elsewhere: Elsewhere) -> tuple[Project, Callable[[int], None]]:
    """An applied project with a view and a model over a table elsewhere, and what adds a day to the table."""

    def add(day: int) -> None:
        rows = prices(1, 2, day=date(2026, 1, day))
        if request.param == "delta":
            elsewhere.delta("prices", rows, mode="append")
        else:
            elsewhere.parquet(f"prices/{day}.parquet", rows)

    add(1)
    add(2)
    return put_in_force(lake, project(request.param, f"{elsewhere.uri}/prices", more=MODELLED)), add


def test_a_build_notices_a_new_version_and_leaves_an_old_one_alone(
    lake: Lake, growing: tuple[Project, Callable[[int], None]]
) -> None:
    definition, add = growing
    (built,) = build_features(lake, definition, as_of=NOON)
    assert built.rows == 4
    assert build_features(lake, definition, as_of=NOON) == []
    before = runs.data_version(lake, definition)
    add(3)
    (again,) = build_features(lake, definition, as_of=NOON)
    assert again.rows == 6
    (after,) = runs.data_version(lake, definition).values()
    assert after == before["shop/prices"] + 1
    inputs = lake.sql("select inputs from lakeloop.builds order by logged_at").column("inputs").to_pylist()
    assert [json.loads(one)["inputs"] for one in inputs] == [before, {"shop/prices": after}]


def test_a_training_set_is_the_same_again_from_the_versions_it_was_made_of(
    lake: Lake, growing: tuple[Project, Callable[[int], None]]
) -> None:
    definition, add = growing
    build_features(lake, definition, as_of=NOON)
    table, versions = training_table(lake, definition, "next", NOON)
    assert (table.num_rows, versions["shop/prices"].version) == (4, 1)
    assert table.column("price").to_pylist() == [1.5, 3.0, 1.5, 3.0]
    add(3)
    build_features(lake, definition, as_of=NOON)
    assert training_table(lake, definition, "next", NOON)[0].num_rows == 6
    numbers = {name: one.version for name, one in versions.items()}
    again, same = training_table(lake, definition, "next", NOON, pinned(lake, definition, numbers))
    assert (again, same) == (table, versions)
    assert list(foreign.described(lake, numbers)) == ["shop/prices"]


def test_a_table_that_is_away_stops_no_view_but_those_that_read_it(folder_lake: Lake, tmp_path: Path) -> None:
    own = 'owner = "crm"\nread = { kind = "landing", format = "csv" }\nevent_time = "day"\n[columns]\nday = "date"\n'
    header = VIEW.replace('"id"', "").replace("online = true", "online = false").rpartition("select")[0]
    views = {
        "features/above.sql": f"{header}select day, count(*) as n from broken group by 1\n",
        "features/broken.sql": f"{header}select day, price from prices\n",
        "features/sound.sql": f"{header}select day, 1 as one from own\n",
    }
    (tmp_path / "prices").mkdir()
    definition = project("parquet", str(tmp_path / "prices"), more={**views, "sources/own.toml": own})
    put_in_force(folder_lake, definition)
    with pytest.raises(NotFound, match="no Parquet files"):
        build_features(folder_lake, definition, as_of=NOON)
    assert [name for name in definition.views if folder_lake.table(f"shop/{name}")] == ["sound"]
    pq.write_table(prices(1), tmp_path / "prices" / "a.parquet")
    assert [built.view for built in build_features(folder_lake, definition, as_of=NOON)] == ["broken", "above"]


TIMES = {"s": "timestamp", "ms": "timestamp", "ns": "timestamp", "naive": "timestamp", "day": "timestamp"}


def test_times_of_every_unit_are_the_same_moment_and_a_time_without_a_zone_is_utc(
    folder_lake: Lake, tmp_path: Path
) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    columns = {
        "s": pa.array([at], pa.timestamp("s", "UTC")),
        "ms": pa.array([at], pa.timestamp("ms", "Asia/Tokyo")),
        "ns": pa.array([at], pa.timestamp("ns")),
        "naive": pa.array([at], pa.timestamp("us")),
        "day": pa.array([at.date()], pa.date32()),
    }
    (tmp_path / "prices").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "prices" / "a.parquet")
    declared = "".join(f'{name} = "{kind}"\n' for name, kind in TIMES.items())
    definition = put_in_force(
        folder_lake, project("parquet", str(tmp_path / "prices"), columns=f'id = "int64?"\n{declared}'.replace("?", ""))
    )
    with pytest.raises(Invalid, match=r"not as sources/prices\.toml declares it"):
        ids(folder_lake, definition)
    source = (
        f'owner = "x"\nread = {{ kind = "parquet", uri = "{tmp_path}/prices" }}\ntimeless = true\n[columns]\n{declared}'
    )
    head = 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n'
    put_in_force(folder_lake, parse_project({"lakeloop.toml": head, "sources/prices.toml": source}))
    assert folder_lake.sql("select * from prices", project="shop").to_pylist() == [dict.fromkeys(TIMES, at)]


def test_a_delta_version_that_its_owner_cleaned_up_is_told(folder_lake: Lake, tmp_path: Path) -> None:
    uri = str(tmp_path / "prices")
    write_deltalake(uri, prices(1))
    definition = put_in_force(folder_lake, project("delta", uri))
    assert foreign.observe(folder_lake, definition, definition.sources["prices"]) == 1
    write_deltalake(uri, prices(2), mode="overwrite")
    DeltaTable(uri).create_checkpoint()
    for version in range(2):
        (tmp_path / "prices" / "_delta_log" / f"{version:020d}.json").unlink()
    with pytest.raises(NotFound, match="version 0 of the table is gone"):
        ids(folder_lake, definition, 'select id from "prices@1"')
    assert ids(folder_lake, definition) == [2]
