"""Ingest: what becomes of each kind of row and file. Every line of a file is in the table or in quarantine, with its
reason."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zipfile
from array import array
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakeloop.functions import decoding, judging, spooling
from lakeloop.functions.ingest_data import Ingested, ingest_data, land
from lakeloop.lakehouse.errors import Invalid, Refused
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.project.definitions import OnError, Read
from lakeloop.lakehouse.tables import Table

pytestmark = pytest.mark.slow_on_s3
HEAD = 'owner = "crm"\ntimeless = true\nkey = ["id"]\n'


def shop(
    columns: str, top: str = "", *, format: str = "csv", checks: str = "", more: dict[str, str] | None = None
) -> Project:
    """A project with one source, `things`, whose columns begin with `id`."""
    read = f'read = {{ kind = "landing", format = "{format}", null = ["", "NA"] }}\n'
    source = f'{HEAD}{read}{top}\n[columns]\nid = "int64"\n{columns}\n{checks}'
    return parse_project(
        {
            "lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n',
            "sources/things.toml": source,
            **(more or {}),
        }
    )


def run(lake: Lake, project: Project, data: bytes | str, file: str = "a.csv") -> Ingested:
    land(lake, project, "things", file, data.encode() if isinstance(data, str) else data)
    (result,) = ingest_data(lake, project)
    assert [*lake.store.list("landing/")] == []
    return result


def rows(lake: Lake, project: Project, sql: str = "select * from things order by id") -> list[dict[str, Any]]:
    return lake.sql(sql, project=project).to_pylist()  # type: ignore[arg-type]


def ids(lake: Lake, project: Project) -> list[int]:
    return [row["id"] for row in rows(lake, project)]


def reasons(lake: Lake) -> dict[int | None, str]:
    found = lake.sql("select line, reason from lakeloop.quarantine").to_pylist()
    return {row["line"]: row["reason"] for row in found}


# -- rules of a column ---

RULES: dict[
    str, tuple[str, list[str], list[str]]
] = {  # column: (declaration, values that are right, values that are wrong)
    "int8": (
        '"int8"',
        ["-128", "127", "+5", "7.0", "007"],
        ["128", "-129", "1.5", "x", "1e2", "99999999999999999999", "0x1", " 1", "NA", ""],
    ),
    "int16": ('"int16"', ["-32768", "32767"], ["32768", "-32769"]),
    "int32": ('"int32"', ["-2147483648", "2147483647"], ["2147483648", "-2147483649"]),
    "int64": (
        '"int64"',
        ["-9223372036854775808", "9223372036854775807"],
        ["9223372036854775808", "-9223372036854775809"],
    ),
    "uint8": ('"uint8"', ["0", "255"], ["-1", "256"]),
    "uint64": ('"uint64"', ["0", "9223372036854775807"], ["-1"]),
    "float": ('"float64"', ["1.5", "-1e300", "7"], ["dear", '"1,5"', "NA"]),
    "bool": ('"bool"', ["true", "FALSE"], ["maybe", "2013"]),
    "date": (
        '"date"',
        ["2024-02-29", "1969-12-31", "0001-01-01", "9999-12-31"],
        [
            "2023-02-29",
            "today?",
            "29.02.2024",
            "20244-01-01",
            "infinity",
            "epoch",
            "0044-03-15 (BC)",
            "0000-01-01",
        ],
    ),
    "timestamp": (
        '"timestamp"',
        ["2024-01-01T05:00:00Z", "2024-01-01 05:00:00+02:00", "2024-01-01"],
        [
            "2024-01-01 25:00:00",
            "soon",
            "20244-01-01T00:00:00Z",
            "-infinity",
            "epoch",
            "0044-03-15 (BC)",
            "9999-12-31T23:59:59-05:00",
            "0001-01-01T00:00:00+05:00",
        ],
    ),
    "json": ('"json"', ['"{""a"": 1}"', "[]", "null"], ["{", "hello"]),
    "list": ('"list<int64>"', ['"[1, 2]"', "[]", '"[1, null]"'], ["[x]", "1", '"[1, 2.5]"', "["]),
    "nullable": ('"int8?"', ["", "NA", "1"], ["x", "300"]),
    "range": ('{ type = "float64", range = [-1, 2.5] }', ["-1", "2.5"], ["-1.01", "2.51", "nan", "inf"]),
    "int range": ('{ type = "int32", range = [1, 10] }', ["1", "10"], ["0", "11", "2147483648"]),
    "nullable range": ('{ type = "int32?", range = [1, 10] }', ["", "5"], ["0"]),
    "values": ('{ type = "string", values = ["EWR", "it\'s"] }', ["EWR", "it's"], ["ewr", "EWR ", "JFK", ""]),
    "float values": ('{ type = "float64", values = [1, 2.5] }', ["1", "1.0", "2.5"], ["2", "nan"]),
    "bool values": ('{ type = "bool", values = [true] }', ["true", "TRUE"], ["false"]),
    "time values": (
        '{ type = "timestamp", values = ["2024-01-01T05:00:00Z"] }',
        ["2024-01-01 05:00:00"],
        ["2024-01-01"],
    ),
    "int values": ('{ type = "int8", values = [1, 2] }', ["1", "2"], ["3"]),
    "matches": ('{ type = "string", matches = "[A-Z]{2}\\\\d+" }', ["UA1", "AA22"], ["ua1", "UA", "xUA1", "UA1x"]),
    "string": ('"string"', ["x", '"a,b"', '"two\nlines"', "日本", '"say ""hi"""'], ["", "NA"]),
}


@pytest.mark.parametrize("case", RULES)
def test_each_value_is_kept_or_quarantined_by_its_columns_rule(folder_lake: Lake, case: str) -> None:
    declared, right, wrong = RULES[case]
    project = shop(f"x = {declared}")
    lines = [f"{number},{value}" for number, value in enumerate([*right, *wrong], start=1)]
    result = run(folder_lake, project, "id,x\n" + "\n".join(lines) + "\n")
    assert ids(folder_lake, project) == list(range(1, len(right) + 1)), reasons(folder_lake)
    assert sorted(line or 0 for line in reasons(folder_lake)) == list(
        range(len(right) + 1, len(right) + len(wrong) + 1)
    )
    assert all(reason.startswith("x: ") for reason in reasons(folder_lake).values())
    assert (result.rows, result.quarantined) == (len(right), len(wrong))


def test_a_value_that_must_be_unique_is_wrong_each_time_it_stands_there(folder_lake: Lake) -> None:
    project = shop('x = { type = "string?", unique = true }')
    run(folder_lake, project, "id,x\n1,a\n2,b\n3,a\n4,\n5,\n")
    assert ids(folder_lake, project) == [2, 4, 5]
    assert set(reasons(folder_lake)) == {1, 3}


def test_a_row_has_every_reason_and_is_kept_as_it_came(folder_lake: Lake) -> None:
    project = shop('a = "int8"\nb = "date"')
    run(folder_lake, project, "id,b,a\n1,never,300\n,2024-01-01,1\n")
    assert reasons(folder_lake) == {1: "a: 300 does not fit int8; b: never is not a date", 2: "id: missing"}
    kept = folder_lake.sql("select row from lakeloop.quarantine where line = 1").to_pylist()
    assert json.loads(kept[0]["row"]) == {"id": "1", "b": "never", "a": "300"}


def test_types_are_stored_as_declared(lake: Lake) -> None:
    project = shop(
        'd = "date"\nt = "timestamp"\nf = "float32?"\nb = "bool"\nw = "string"\n'
        'i = "uint8?"\nl = "list<string>"\nm = "decimal(9,2)"'
    )
    run(lake, project, 'id,d,t,f,b,w,i,l,m\n1,2024-02-29,2024-01-01T05:00:00+02:00,,true,"é",7,"[""x"", ""y""]",1.25\n')
    assert rows(lake, project) == [
        {
            "id": 1,
            "d": date(2024, 2, 29),
            "t": datetime(2024, 1, 1, 3, tzinfo=UTC),
            "f": None,
            "b": True,
            "w": "é",
            "i": 7,
            "l": ["x", "y"],
            "m": 1.25,
        }
    ]


def test_columns_whose_names_look_like_ours_or_like_each_others_raw_form_are_columns(folder_lake: Lake) -> None:
    project = shop('x = "int8"\nr_x = "string"\nraw = "string"\njudged = "int8"')
    run(folder_lake, project, "id,x,r_x,raw,judged\n1,2,a,b,3\n2,y,a,b,4\n")
    assert rows(folder_lake, project) == [{"id": 1, "x": 2, "r_x": "a", "raw": "b", "judged": 3}]


# -- CSV files ---


def test_broken_lines_are_quarantined_with_their_numbers_and_the_others_kept(folder_lake: Lake) -> None:
    project = shop('x = "string"')
    result = run(folder_lake, project, "id,x\n1,a\n2\n3,c,d\n4,e\n5,NA\n")
    assert ids(folder_lake, project) == [1, 4]
    assert {line: reason.split(":")[0] for line, reason in reasons(folder_lake).items()} == {
        2: "broken line",
        3: "broken line",
        5: "x",
    }
    assert (result.rows, result.quarantined) == (2, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfid,x\n1,a\n2,b\n",
        b"id,x\r\n1,a\r\n2,b\r\n",
        b"id,x\n1,a\n2,b",
        b"x,id\na,1\nb,2\n",
        b'"id","x"\n"1","a"\n"2","b"\n',
        b"id,x,extra\n1,a,!\n2,b,!\n",
        b"id,x,_line,_file\n1,a,9,9\n2,b,9,9\n",
        b"\n\nid,x\n1,a\n\n2,b\n\n",
    ],
    ids=["bom", "crlf", "no end of line", "other order", "quoted", "more columns", "our names", "empty lines"],
)
def test_csv_comes_in_many_forms(folder_lake: Lake, data: bytes) -> None:
    project = shop('x = "string"')
    run(folder_lake, project, data)
    assert rows(folder_lake, project) == [{"id": 1, "x": "a"}, {"id": 2, "x": "b"}]
    assert reasons(folder_lake) == {}


def test_gzip_is_known_by_the_names_ending(folder_lake: Lake) -> None:
    project = shop('x = "string"')
    run(folder_lake, project, gzip.compress(b"id,x\n1,a\n"), "a.csv.gz")
    assert ids(folder_lake, project) == [1]


def zipped(**files: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return sink.getvalue()


def test_a_zip_holds_one_file_of_any_format(lake: Lake) -> None:
    project = shop('x = "string"')
    run(lake, project, zipped(**{"a.csv": b"id,x\n1,a\n", "__MACOSX/a.csv": b"junk"}), "a.csv.zip")
    assert ids(lake, project) == [1]
    project = shop('x = "string"', format="parquet")
    run(lake, project, zipped(a=parquet(pa.table({"id": [2], "x": ["b"]}))), "b.zip")
    assert ids(lake, project) == [1, 2]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (zipped(a=b"id,x\n", b=b"id,x\n"), "holds 2 files"),
        (zipped(), "holds 0 files"),
        (b"PK\x03\x04 and then nothing", "not a whole zip"),
        (zipped(a=b"id,x\n" + b"1,a\n" * 99)[:-30], "not a whole zip"),
    ],
)
def test_a_zip_that_is_not_one_whole_file_is_set_aside(folder_lake: Lake, data: bytes, problem: str) -> None:
    assert problem in run(folder_lake, shop('x = "string"'), data, "a.zip").problem


def test_a_file_that_unpacks_without_end_is_set_aside(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "MOST", (1 << 20, 100))
    result = run(folder_lake, shop('x = "string"'), gzip.compress(b"id,x\n" + b"0" * 50_000_000), "a.csv.gz")
    assert "unpacks to more than" in result.problem


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_file_of_many_parts_and_many_wrong_rows_is_taken_in_once(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.setattr(spooling, "PART", 50_000)
    monkeypatch.setattr(judging, "CHUNK", 4_000)
    project = shop('x = "int8"', format=format)
    values = [number % 200 for number in range(30_000)]
    table = pa.table({"id": list(range(30_000)), "x": values})
    data = {
        "csv": "id,x\n" + "".join(f"{n},{x}\n" for n, x in enumerate(values)),
        "jsonl": "".join(json.dumps(row) + "\n" for row in table.to_pylist()),
        "parquet": parquet(table),
    }[format]
    for _ in range(2):
        result = run(lake, project, data, f"a.{format}")
    assert result.already
    wrong = [number for number in range(30_000) if number % 200 > 127]
    assert lake.sql("select count(*) as n, count(distinct line) as d from lakeloop.quarantine").to_pylist() == [
        {"n": len(wrong), "d": len(wrong)}
    ]
    found = lake.sql("select line, reason, row from lakeloop.quarantine order by line", project=project).to_pylist()  # type: ignore[arg-type]
    assert [row["line"] - 1 for row in found] == wrong
    assert found[0]["reason"] == "x: 128 does not fit int8"
    assert json.loads(found[0]["row"]) == {"id": "128", "x": "128"}
    assert rows(lake, project, "select count(*) as n, sum(_line - id) as s from things_history") == [
        {"n": 30_000 - len(wrong), "s": 30_000 - len(wrong)}
    ]


def test_a_long_file_with_long_values_is_read_to_its_end(folder_lake: Lake) -> None:
    project = shop('x = "string"')
    lines = [f"{number},{'y' * 100}" for number in range(25_000)]
    lines[100], lines[20_000] = f"100,{'z' * 1_500_000}", "20000"
    result = run(folder_lake, project, "id,x\n" + "\n".join(lines) + "\n")
    assert (result.rows, result.quarantined) == (24_999, 1)
    assert list(reasons(folder_lake)) == [20_001]


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


WHOLE = parquet(pa.table({"id": list(range(1000)), "x": ["a"] * 1000}))
UNREADABLE: dict[str, tuple[str, str, bytes]] = {
    "empty": ("csv", "a.csv", b""),
    "blank": ("csv", "a.csv", b"\n \n"),
    "unclosed quote": ("csv", "a.csv", b'id,x\n1,"a\n2,b\n3,c\n'),
    "unclosed quote of a long file": ("csv", "a.csv", b'id,x\n1,"a\n' + b"2,b\n" * 500_000),
    "not UTF-8": ("csv", "a.csv", b"id,x\n1,\xff\xfe\n"),
    "missing column": ("csv", "a.csv", b"id,y\n1,a\n"),
    "missing key": ("csv", "a.csv", b"x\na\n"),
    "a row of 9 MB": ("csv", "a.csv", b"id,x\n1," + b"a" * 9_000_000 + b"\n2,b\n"),
    "column twice": ("csv", "a.csv", b"id,x,x\n1,a,b\n"),
    "truncated gzip": ("csv", "a.csv.gz", gzip.compress(b"id,x\n" + b"1,a\n" * 5000)[:-9]),
    "no gzip": ("csv", "a.csv.gz", b"id,x\n1,a\n"),
    "damaged gzip": ("csv", "a.csv.gz", gzip.compress(b"id,x\n1,a\n")[:-8] + b"\0" * 8),
    "no lines": ("jsonl", "a.jsonl", b"\n"),
    "truncated Parquet": ("parquet", "a.parquet", WHOLE[:-30]),
    "Parquet cut at the front": ("parquet", "a.parquet", WHOLE[50:]),
    "damaged Parquet": ("parquet", "a.parquet", WHOLE[:40] + b"\0" * 60 + WHOLE[100:]),
    "no Parquet": ("parquet", "a.parquet", b"id,x\n1,a\n"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_is_set_aside_whole_and_stops_no_other(folder_lake: Lake, case: str) -> None:
    format, file, data = UNREADABLE[case]
    project = shop('x = "string"', format=format)
    good = {
        "csv": b"id,x\n7,a\n",
        "jsonl": b'{"id": 7, "x": "a"}\n',
        "parquet": parquet(pa.table({"id": [7], "x": ["a"]})),
    }[format]
    land(folder_lake, project, "things", file, data)
    land(folder_lake, project, "things", f"z.{format}", good)
    broken, fine = ingest_data(folder_lake, project)
    assert broken.problem
    assert "Traceback" not in broken.problem
    assert len(broken.problem.splitlines()) <= 2
    assert (fine.rows, ids(folder_lake, project)) == (1, [7])
    (aside,) = folder_lake.store.list("quarantine/shop/")
    assert folder_lake.store.get(aside.key) == data
    assert list(reasons(folder_lake).values()) == [f"file: {broken.problem}"]
    assert [*folder_lake.store.list("landing/")] == []


def test_a_file_without_any_declared_column_is_set_aside(folder_lake: Lake) -> None:
    source = 'owner = "crm"\ntimeless = true\nread = { kind = "landing", format = "csv" }\n[columns]\na = "string?"\n'
    project = parse_project(
        {"lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n', "sources/things.toml": source}
    )
    assert "none of the declared columns" in run(folder_lake, project, "z\n1\n").problem


def test_a_column_that_may_be_null_may_be_missing(folder_lake: Lake) -> None:
    project = shop('x = "string?"\ny = "int8?"')
    run(folder_lake, project, "id,x\n1,a\n")
    assert rows(folder_lake, project) == [{"id": 1, "x": "a", "y": None}]


def test_unlisted_columns_are_dropped_or_stop_the_file(folder_lake: Lake) -> None:
    run(folder_lake, shop('x = "string"', 'unlisted = "drop"'), "id,x,z\n1,a,b\n")
    assert rows(folder_lake, shop('x = "string"')) == [{"id": 1, "x": "a"}]
    result = run(folder_lake, shop('x = "string"', 'unlisted = "stop"'), "id,x,z\n2,a,b\n", "b.csv")
    assert "not declared: z" in result.problem
    assert ids(folder_lake, shop('x = "string"')) == [1]


def test_to_keep_unlisted_columns_is_not_built_and_says_so() -> None:
    with pytest.raises(Invalid, match="not built yet"):
        shop('x = "string"', 'unlisted = "keep"')


# -- JSON Lines, Parquet ---


def test_json_lines_that_are_broken_are_told_apart(folder_lake: Lake) -> None:
    project = shop('x = "string?"\nn = "float64?"\nb = "bool?"\nl = "list<int64>?"', format="jsonl")
    lines = [
        b'{"id": 1, "x": "a", "n": 1.5, "b": true, "l": [1, 2], "more": {"y": 1}}',
        b'{"id": 2, "x": null}',
        b'{"id": 3',
        b"",
        b"[1]",
        b'"text"',
        b'{"id": 7, "x": "\\ud800"}',
        b'{"id": 8, "x": "\xff"}',
        b'{"id":' + b"[" * 100_000,
        b'{"x": "no id"}',
        b'{"id": "11"}',
        b'{"id": 12.5}',
        b"null",
    ]
    run(folder_lake, project, b"\xef\xbb\xbf" + b"\r\n".join(lines), "a.jsonl")
    assert rows(folder_lake, project) == [
        {"id": 1, "x": "a", "n": 1.5, "b": True, "l": [1, 2]},
        {"id": 2, "x": None, "n": None, "b": None, "l": None},
        {"id": 11, "x": None, "n": None, "b": None, "l": None},
    ]
    assert sorted(line or 0 for line in reasons(folder_lake)) == [3, 5, 6, 7, 8, 9, 10, 12, 13]


def test_parquet_keeps_its_values(folder_lake: Lake) -> None:
    project = shop('x = "string"\nt = "timestamp"\nn = "int32?"\nd = "date"\nf = "float64"', format="parquet")
    moment = datetime(2024, 1, 1, 5, 0, 0, 123456, tzinfo=UTC)
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.uint32()),
            "x": pa.array(["a", "b"]).dictionary_encode(),
            "t": pa.array([moment, moment], pa.timestamp("ns", "UTC")),
            "n": pa.array([3.0, None], pa.float64()),
            "d": pa.array([date(2024, 1, 1)] * 2),
            "f": pa.array([0.1, 1e-300]),
            "_line": [9, 9],
            "extra": [b"x", b"y"],
        }
    )
    run(folder_lake, project, parquet(table), "a.parquet")
    first, second = rows(folder_lake, project)
    assert first == {"id": 1, "x": "a", "t": moment, "n": 3, "d": date(2024, 1, 1), "f": 0.1}
    assert (second["n"], second["f"]) == (None, 1e-300)


def test_a_time_that_not_every_reader_can_say_is_wrong_in_a_typed_file_too(folder_lake: Lake) -> None:
    project = shop('d = "date"\nt = "timestamp"', format="parquet")
    days, seconds = pa.array([1, 2932897], pa.date32()), pa.array([0, 253402300800], pa.timestamp("s", "UTC"))
    run(folder_lake, project, parquet(pa.table({"id": [1, 2], "d": days, "t": seconds})), "a.parquet")
    assert ids(folder_lake, project) == [1]
    assert reasons(folder_lake) == {2: "d: 10000-01-01 is not a date; t: 10000-01-01 00:00:00+00 is not a timestamp"}


ALIKE = {"id": [1, 2], "Amount": [111.0, 222.0], "amount": [1.0, 2.0]}


def test_parquet_columns_that_differ_only_in_case_set_the_file_aside(folder_lake: Lake) -> None:
    project = shop('amount = "float64?"', format="parquet")
    assert "several columns of one name: Amount, amount" in run(folder_lake, project, parquet(pa.table(ALIKE))).problem
    twice = pa.table([pa.array([1]), pa.array([2.0]), pa.array([3.0])], names=["id", "amount", "amount"])
    assert "several columns of one name" in run(folder_lake, project, parquet(twice), "b").problem
    other = pa.table({"id": [1], "amount": [1.0], "X": [1], "x": [2]})
    assert run(folder_lake, project, parquet(other), "c").rows == 1


@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("csv", "id,Amount,amount\n1,111,1\n2,222,2\n"),
        ("jsonl", '{"id":1,"Amount":111,"amount":1}\n{"id":2,"amount":2}\n'),
    ],
)
def test_of_columns_of_texts_the_one_spelled_as_declared_is_read(folder_lake: Lake, format: str, data: str) -> None:
    project = shop('amount = "float64"', format=format)
    run(folder_lake, project, data)
    assert rows(folder_lake, project) == [{"id": 1, "amount": 1.0}, {"id": 2, "amount": 2.0}]


@pytest.mark.parametrize("name", ["file_row_number", "File_Row_Number"])
@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_parquet_columns_may_be_called_as_duckdbs_own_and_be_of_any_precision(
    folder_lake: Lake, name: str, kind: pa.DataType
) -> None:
    project = shop('x = "float64"', format="parquet")
    table = pa.table({"id": [1, 2], name: [7, 7], "x": pa.array([1.5, 2.5], kind)})
    run(folder_lake, project, parquet(table))
    run(folder_lake, project, parquet(table.drop_columns([name]).set_column(0, "id", pa.array([3, 4]))), "b")
    assert [row["x"] for row in rows(folder_lake, project)] == [1.5, 2.5, 1.5, 2.5]


def test_a_type_that_cannot_be_read_sets_the_file_aside_and_stops_no_other(folder_lake: Lake) -> None:
    project = shop('x = "string?"', format="parquet")
    wide = pa.table({"id": [1], "x": pa.array([None], pa.decimal256(50, 2))})
    land(folder_lake, project, "things", "a", parquet(wide))
    land(folder_lake, project, "things", "b", parquet(pa.table({"id": [2], "x": ["x"]})))
    first, second = ingest_data(folder_lake, project)
    assert "Unsupported" in first.problem
    assert (second.problem, ids(folder_lake, project)) == ("", [2])


def test_a_parquet_file_is_read_once_more_for_what_must_be_unique_and_for_checks(folder_lake: Lake) -> None:
    check = '[[check]]\nname = "odd"\nsql = "select * from things where id = 3"\n'
    project = shop('x = { type = "float64", unique = true, range = [0, 9] }', format="parquet", checks=check)
    run(folder_lake, project, parquet(pa.table({"id": [1, 2, 3, 4, 5], "x": [1.0, 1.0, 2.0, 3.0, float("nan")]})))
    assert ids(folder_lake, project) == [4]
    assert reasons(folder_lake)[5] == "x: nan is outside 0 to 9"  # which the file's least and greatest value hide


def test_lists_in_json_lines_keep_their_texts(folder_lake: Lake) -> None:
    project = shop('x = "list<string>"\ny = "json"\nz = "list<list<string>>"', format="jsonl")
    texts = ["é", 'say "hi"', "a\nb", "a, b", "NULL", "C:\\dir", "", " x ", "it's", "日本", None]
    line = json.dumps({"id": 1, "x": texts, "y": {"k": "é"}, "z": [texts, []]})
    run(folder_lake, project, line + "\n", "a.jsonl")
    (row,) = rows(folder_lake, project)
    assert (row["x"], row["z"], json.loads(row["y"])) == (texts, [texts, []], {"k": "é"})


@pytest.mark.parametrize(
    ("null", "kind", "value", "declared"),
    [
        ("-999", pa.float64(), -999.0, "float64?"),
        ("-0.1", pa.float32(), -0.1, "float32?"),
        ("-999", pa.float64(), -999.0, "int64?"),
        ("-999.0", pa.int16(), -999, "float64?"),
        ("-999", pa.int64(), -999, "int32?"),
        ("NaN", pa.float64(), float("nan"), "float64?"),
        ("-inf", pa.float64(), float("-inf"), "float64?"),
    ],
)
def test_what_means_null_is_the_same_number_in_a_typed_file(
    folder_lake: Lake, null: str, kind: pa.DataType, value: float, declared: str
) -> None:
    project = shop(f'x = "{declared}"', format="parquet")
    things = project.sources["things"]
    source = replace(things, read=replace(things.read, null=("NA", null)))
    project = replace(project, sources={"things": source})
    run(folder_lake, project, parquet(pa.table({"id": [1, 2], "x": pa.array([value, 7], kind)})))
    assert [row["x"] for row in rows(folder_lake, project)] == [None, 7]


def test_whole_reals_are_whole_numbers_as_far_as_those_reach(folder_lake: Lake) -> None:
    project = shop('x = "int64"', format="parquet")
    right = [3.0, 1e15, 1e16, 123456789012345680.0, -(2.0**63), 2.0**63 - 1024]
    wrong = [1.5, 2.0**63, 1e300, float("nan"), float("inf")]
    table = pa.table({"id": list(range(len(right + wrong))), "x": [*right, *wrong]})
    run(folder_lake, project, parquet(table))
    assert [row["x"] for row in rows(folder_lake, project)] == [int(value) for value in right]
    assert len(reasons(folder_lake)) == len(wrong)


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_lines_that_cannot_be_read_take_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Literal["csv", "jsonl"]
) -> None:
    monkeypatch.setattr(decoding, "LINES", 1000)
    count, wrong = 50_000, f"7,{'z' * 200},8,9"
    path = tmp_path / f"a.{format}"
    good = "7,x" if format == "csv" else '{"id": 7, "x": "x"}'
    lines = [good if number % 9999 == 0 else wrong for number in range(1, count + 1)]
    path.write_text("\n".join([*(["id,x"] if format == "csv" else []), *lines]) + "\n")
    del lines
    file = decoding.open_file(Read(format=format), path.name, path)
    tracemalloc.start()
    try:
        told = [line for batch in file.reader(["id"]) for line in batch.column("_line").to_pylist()]
        numbers = array("q", (one["line"] for piece in file.broken.pieces() for one in piece))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        file.broken.close()
    assert told == list(range(9999, count + 1, 9999))
    assert sorted([*told, *numbers]) == list(range(1, count + 1))
    assert peak < 6 << 20


def test_a_source_may_be_called_raw(folder_lake: Lake) -> None:
    source = f'{HEAD}read = {{ kind = "landing" }}\n[columns]\nid = "int64"\nx = "int64"\n'
    check = '[[check]]\nname = "much"\nsql = "select * from raw where x > 5"\n'
    head = 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n'
    project = parse_project({"lakeloop.toml": head, "sources/raw.toml": source + check})
    land(folder_lake, project, "raw", "a.csv", b"id,x\n1,1\n2,7\n")
    assert ingest_data(folder_lake, project)[0].problem == ""
    assert rows(folder_lake, project, "select id from raw") == [{"id": 1}]
    assert reasons(folder_lake) == {2: "check: much"}


# -- on_error and checks
# ---------------------------------------------------------------------------------------------------

BAD = "id,x\n1,1\n2,many\n3,3\n4\n"


def test_stop_leaves_the_file_where_it_is_and_nothing_of_it_in_the_table(lake: Lake) -> None:
    project = shop('x = "int8?"', 'on_error = "stop"')
    key = land(lake, project, "things", "a.csv", BAD.encode())
    for _ in range(2):
        with pytest.raises(Refused, match="2 wrong rows") as stopped:
            ingest_data(lake, project)
        assert "line 2" in str(stopped.value) or "line 4" in str(stopped.value)
    assert (lake.store.get(key), lake.table("shop/things"), reasons(lake)) == (BAD.encode(), None, {})
    lake.store.put(key, b"id,x\n1,1\n")
    assert [one.rows for one in ingest_data(lake, project)] == [1]


def test_warn_keeps_what_can_be_kept_and_says_why(folder_lake: Lake) -> None:
    project = shop('x = "int8?"', 'on_error = "warn"')
    result = run(folder_lake, project, BAD)
    assert rows(folder_lake, project) == [{"id": 1, "x": 1}, {"id": 2, "x": None}, {"id": 3, "x": 3}]
    assert set(reasons(folder_lake)) == {2, 4}
    assert (result.rows, result.quarantined) == (3, 1)
    assert rows(folder_lake, project, "select quarantined, warned from lakeloop.ingestions") == [
        {"quarantined": 1, "warned": 1}
    ]


def check(sql: str, on_error: str = "") -> str:
    return f'[[check]]\nname = "sane"\nsql = "{sql}"\n' + (f'on_error = "{on_error}"\n' if on_error else "")


def test_a_checks_rows_are_quarantined(folder_lake: Lake) -> None:
    project = shop('x = "int8"', checks=check("select * from things where x > 1"))
    run(folder_lake, project, "id,x\n1,1\n2,2\n3,x\n")
    assert ids(folder_lake, project) == [1]
    assert reasons(folder_lake) == {2: "check: sane", 3: "x: x is not an int8"}


def test_a_source_that_stops_stops_no_other(folder_lake: Lake) -> None:
    other = f'{HEAD}read = {{ kind = "landing" }}\n[columns]\nid = "int64"\n'
    project = shop('x = "int8"', 'on_error = "stop"', more={"sources/zebras.toml": other})
    for file in ("a.csv", "b.csv"):
        land(folder_lake, project, "things", file, b"id,x\n1,300\n")
    land(folder_lake, project, "zebras", "a.csv", b"id\n7\n")
    with pytest.raises(Refused, match="1 wrong rows"):
        ingest_data(folder_lake, project)
    assert rows(folder_lake, project, "select id from zebras") == [{"id": 7}]
    assert [entry.key for entry in folder_lake.store.list("landing/")] == [
        "landing/shop/things/a.csv",
        "landing/shop/things/b.csv",
    ]


def test_the_same_bytes_under_another_name_are_another_file(folder_lake: Lake) -> None:
    project = shop('x = "int8"')
    for file in ("a.csv", "b.csv"):
        run(folder_lake, project, "id,x\n1,1\n2,300\n", file)
    told = folder_lake.sql("select file, rows, quarantined from lakeloop.ingestions order by file").to_pylist()
    assert [(one["file"][:5], one["rows"], one["quarantined"]) for one in told] == [("a.csv", 1, 1), ("b.csv", 1, 1)]
    assert folder_lake.sql("select count(*) as n from lakeloop.quarantine").to_pylist() == [{"n": 2}]


def test_a_check_may_only_warn_or_stop_the_file(folder_lake: Lake) -> None:
    project = shop('x = "int8"', checks=check("select * from things where x > 1", "warn"))
    assert run(folder_lake, project, "id,x\n1,1\n2,2\n").rows == 2
    assert reasons(folder_lake) == {2: "check: sane"}
    project = shop('x = "int8"', checks=check("select * from things where x > 1", "stop"))
    land(folder_lake, project, "things", "b.csv", b"id,x\n3,3\n")
    with pytest.raises(Refused, match="check: sane"):
        ingest_data(folder_lake, project)
    assert ids(folder_lake, project) == [1, 2]


def test_a_check_that_names_no_rows_stops_the_file_and_says_how_to_mend_it(folder_lake: Lake) -> None:
    project = shop('x = "int8"', checks=check("select count(*) as n from things having count(*) < 3"))
    land(folder_lake, project, "things", "a.csv", b"id,x\n1,1\n")
    with pytest.raises(Refused, match="sane") as stopped:
        ingest_data(folder_lake, project)
    assert "select *" in stopped.value.todo


def test_a_check_may_look_into_other_sources(lake: Lake) -> None:
    other = 'owner = "crm"\ntimeless = true\nread = { kind = "landing", format = "csv" }\n[columns]\nname = "string"\n'
    project = shop(
        'x = "string"',
        checks=check("select * from things where x not in (select name from names)"),
        more={"sources/names.toml": other},
    )
    land(lake, project, "names", "n.csv", b"name\na\n")
    ingest_data(lake, project, ["names"])
    land(lake, project, "things", "t.csv", b"id,x\n1,a\n2,b\n")
    ingest_data(lake, project, ["things"])
    assert ids(lake, project) == [1]


# -- files that come again ---


def test_the_same_file_again_adds_nothing(lake: Lake) -> None:
    project = shop('x = "string"')
    first = run(lake, project, "id,x\n1,a\n")
    again = run(lake, project, "id,x\n1,a\n")
    assert (first.rows, first.already, again.rows, again.already) == (1, False, 0, True)
    assert rows(lake, project, "select id from things_history") == [{"id": 1}]
    assert rows(lake, project, "select rows from lakeloop.ingestions") == [{"rows": 1}]


def test_another_content_under_the_same_name_is_another_file_and_both_are_kept(folder_lake: Lake) -> None:
    project = shop('x = "string"')
    run(folder_lake, project, "id,x\n1,a\n")
    run(folder_lake, project, "id,x\n2,b\n")
    assert ids(folder_lake, project) == [1, 2]
    assert sorted(folder_lake.store.get(entry.key) for entry in folder_lake.store.list("raw/")) == [
        b"id,x\n1,a\n",
        b"id,x\n2,b\n",
    ]


def test_the_same_content_under_another_name_is_another_file(folder_lake: Lake) -> None:
    project = shop('x = "string"')
    run(folder_lake, project, "id,x\n1,a\n", "a.csv")
    run(folder_lake, project, "id,x\n1,a\n", "sub/b.csv")
    assert ids(folder_lake, project) == [1, 1]


class LandsAgain:
    """A progress callback's place is too late, so this is a store: another file lands under the name while the first is
    being ingested."""

    def __init__(self, lake: Lake, key: str, data: bytes) -> None:
        self._store, self._key, self._data, self._done = lake.store, key, data, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        data = self._store.get(key, start, stop)
        if key == self._key and not self._done:
            self._done = True
            self._store.put(key, self._data)
        return data


def test_parts_of_two_files_are_never_one(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "PART", 10)
    project = shop('x = "string"')
    key = land(folder_lake, project, "things", "a.csv", b"id,x\n1,aaaaaaaaaaaaaaaa\n2,aaaaaaaaaaaaaaaaa\n")
    other = b"id,x\n3,bbbbbbbbbbbbbbbb\n4,bbbbbbbbbbbbbbbbb\n"
    ingest_data(Lake(LandsAgain(folder_lake, key, other), "tester"), project)  # type: ignore[arg-type]
    assert {row["x"][0] for row in rows(folder_lake, project)} == {"b"}
    assert ids(folder_lake, project) == [3, 4]


def test_what_lands_under_the_same_name_meanwhile_is_the_next_ingests(folder_lake: Lake) -> None:
    project = shop('x = "string"')
    key = land(folder_lake, project, "things", "a.csv", b"id,x\n1,a\n")
    ingest_data(Lake(LandsAgain(folder_lake, key, b"id,x\n2,b\n"), "tester"), project)  # type: ignore[arg-type]
    assert ids(folder_lake, project) == [1]
    ingest_data(folder_lake, project)
    assert ids(folder_lake, project) == [1, 2]


def test_a_file_that_another_ingest_took_is_passed_over(folder_lake: Lake) -> None:
    from lakeloop.lakehouse.errors import NotFound
    from lakeloop.lakehouse.testing import FaultyStore

    project = shop('x = "string"')
    land(folder_lake, project, "things", "a.csv", b"id,x\n1,a\n")
    taken = FaultyStore(folder_lake.store, 2, "before", NotFound("no object"))
    assert ingest_data(Lake(taken, "tester"), project) == []  # type: ignore[arg-type]
    assert taken.calls[1].startswith("get landing/")


def test_of_ingests_that_race_each_row_is_there_once(lake: Lake) -> None:
    from concurrent.futures import ThreadPoolExecutor

    project = shop('x = "string"')
    for number in range(4):
        land(lake, project, "things", f"{number}.csv", f"id,x\n{number},a\n".encode())
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: ingest_data(lake, project), range(3)))
    assert ids(lake, project) == [0, 1, 2, 3]
    assert [*lake.store.list("landing/")] == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("append", [(1, "a"), (1, "c"), (2, "b")]), ("latest", [(1, "c"), (2, "b")]), ("replace", [(1, "c")])],
)
def test_what_a_source_says_now_follows_its_rows(lake: Lake, kind: str, expected: list[tuple[int, str]]) -> None:
    project = shop('x = "string"', f'rows = "{kind}"')
    run(lake, project, "id,x\n1,a\n2,b\n", "z-first.csv")
    run(lake, project, "id,x\n1,c\n", "a-second.csv")
    assert [(row["id"], row["x"]) for row in rows(lake, project, "select id, x from things order by all")] == expected
    assert [row["x"] for row in rows(lake, project, "select x from things_history order by x")] == ["a", "b", "c"]


def test_the_last_line_of_a_key_wins_within_a_file(folder_lake: Lake) -> None:
    project = shop('x = "string"', 'rows = "latest"')
    run(folder_lake, project, "id,x\n1,a\n1,b\n1,c\n")
    assert rows(folder_lake, project) == [{"id": 1, "x": "c"}]


def test_a_column_declared_later_is_null_before(folder_lake: Lake) -> None:
    run(folder_lake, shop('x = "string"'), "id,x,y\n1,a,1\n")
    later = shop('x = "string"\ny = "int8?"')
    assert rows(folder_lake, later) == [{"id": 1, "x": "a", "y": None}]
    run(folder_lake, later, "id,x,y\n2,b,2\n")
    assert rows(folder_lake, later) == [{"id": 1, "x": "a", "y": None}, {"id": 2, "x": "b", "y": 2}]


def test_a_column_declared_anew_as_real_loses_no_fraction(folder_lake: Lake) -> None:
    run(folder_lake, shop('x = "int32"'), "id,x\n1,1\n")
    later = shop('x = "float64"')
    run(folder_lake, later, "id,x\n2,1.5\n")
    assert [row["x"] for row in rows(folder_lake, later)] == [1.0, 1.5]


def test_a_column_declared_anew_as_text_keeps_what_was_there(lake: Lake) -> None:
    run(lake, shop('x = "int32"'), "id,x\n1,1\n")
    later = shop('x = "string"')
    run(lake, later, "id,x\n2,B7\n")
    assert [row["x"] for row in rows(lake, later)] == ["1", "B7"]


def test_a_column_whose_values_do_not_fit_its_new_type_sets_the_file_aside(folder_lake: Lake) -> None:
    run(folder_lake, shop('x = "string"'), "id,x\n1,one\n")
    result = run(folder_lake, shop('x = "int32"'), "id,x\n2,2\n")
    assert "x cannot become int64" in result.problem
    assert [row["x"] for row in rows(folder_lake, shop('x = "string"'))] == ["one"]


def test_the_order_of_commits_decides_what_is_last_not_a_writers_clock(lake: Lake) -> None:
    project = shop('x = "string"', 'rows = "latest"')
    slow = Lake(lake.store, "slow", lambda: datetime(2020, 1, 1, tzinfo=UTC))
    run(lake, project, "id,x\n1,first\n", "a.csv")
    run(slow, project, "id,x\n1,second\n", "b.csv")
    assert rows(lake, project) == [{"id": 1, "x": "second"}]
    times = rows(lake, project, "select _ingested_at as t from things_history order by t")
    assert timedelta(0) < times[1]["t"] - times[0]["t"] <= timedelta(milliseconds=1)


def test_each_rule_may_stop_quarantine_or_warn(folder_lake: Lake) -> None:
    columns = 'x = "int8?"\ny = { type = "int8?", range = [0, 9] }\nz = "int8?"'
    plain = shop(columns)
    source = plain.sources["things"]
    severe: dict[str, OnError] = {"x": "warn", "y": "stop"}
    ruled = {name: replace(column, on_error=severe.get(name)) for name, column in source.columns.items()}
    project = replace(plain, sources={"things": replace(source, columns=ruled)})
    result = run(folder_lake, project, "id,x,y,z\n1,1,1,1\n2,bad,2,2\n3,3,3,bad\n4,bad,4,bad\n")
    assert rows(folder_lake, project, "select id, x from things order by id") == [
        {"id": 1, "x": 1},
        {"id": 2, "x": None},
    ]
    assert (result.rows, result.quarantined, set(reasons(folder_lake))) == (2, 2, {2, 3, 4})
    land(folder_lake, project, "things", "b.csv", b"id,x,y,z\n5,5,10,5\n6,6,6,6\n")
    with pytest.raises(Refused, match=r"1 wrong rows.*10 is outside"):
        ingest_data(folder_lake, project)
    assert ids(folder_lake, project) == [1, 2]


def test_a_row_that_is_wrong_only_by_newer_rules_is_not_lost_after_a_crash(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    def dies(*_: Any, **__: Any) -> int:
        raise Crash

    def ranged(most: int) -> Project:
        return shop(f'x = {{ type = "int8", range = [0, {most}] }}')

    land(folder_lake, ranged(10), "things", "a.csv", b"id,x\n1,7\n2,3\n3,20\n")
    with monkeypatch.context() as patched:
        patched.setattr(Table, "append", dies)
        with pytest.raises(Crash):
            ingest_data(folder_lake, ranged(10))
    (result,) = ingest_data(folder_lake, ranged(5))
    assert (result.rows, result.quarantined, ids(folder_lake, ranged(5))) == (1, 2, [2])
    assert set(reasons(folder_lake)) == {1, 3}
    states = folder_lake.sql("select line, state from lakeloop.quarantine_state order by line").to_pylist()
    assert states == [{"line": 1, "state": "open"}, {"line": 3, "state": "open"}]


def test_a_file_whose_rows_are_there_leaves_landing_also_when_it_would_stop_now(folder_lake: Lake) -> None:
    run(folder_lake, shop('x = "int8?"'), BAD)
    strict = shop('x = "int8?"', 'on_error = "stop"')
    assert run(folder_lake, strict, BAD).already
    assert ids(folder_lake, strict) == [1, 3]


def test_a_source_that_is_none_is_refused_with_those_there_are(folder_lake: Lake) -> None:
    with pytest.raises(Invalid, match="no source 'nothing'") as error:
        land(folder_lake, shop('x = "string"'), "nothing", "a.csv", b"")
    assert "things" in error.value.todo
    for file in ("../a.csv", "", "/a"):
        with pytest.raises(Invalid):
            land(folder_lake, shop('x = "string"'), "things", file, b"")
