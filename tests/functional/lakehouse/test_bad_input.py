"""Bad input: files, names, clocks and logs that are wrong. Each ends in rows, in quarantine with its reason, or in an
error that names what is wrong; never in rows that are lost or doubled without a word."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakeloop.functions.ingest_data import Ingested, ingest_data, land
from lakeloop.lakehouse.compaction import compact
from lakeloop.lakehouse.errors import Conflict, Corrupt, Invalid, LakeloopError, NotFound, Unknown
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import Project, parse_project
from lakeloop.lakehouse.query.session import Session, Stored

pytestmark = pytest.mark.slow_on_s3
GOOD = {"csv": b"id,x\n7,good\n", "jsonl": b'{"id": 7, "x": "good"}\n'}


def shop(format: str = "csv", *, x: str = "string?", top: str = "") -> Project:
    """A project with one source, `things`."""
    read = f'read = {{ kind = "landing", format = "{format}", null = [""] }}\n'
    columns = f'[columns]\nid = "int64"\nx = "{x}"\n'
    return parse_project(
        {
            "lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n',
            "sources/things.toml": f'owner = "crm"\ntimeless = true\nkey = ["id"]\n{read}{top}\n{columns}',
        }
    )


def run(lake: Lake, project: Project, data: bytes, file: str = "a") -> Ingested:
    land(lake, project, "things", file, data)
    (result,) = ingest_data(lake, project)
    assert [*lake.store.list("landing/")] == []
    return result


def held(lake: Lake, project: Project) -> list[tuple[Any, ...]]:
    found = lake.sql("select id, x from things order by id, x", project=project)  # type: ignore[arg-type]
    return [tuple(row.values()) for row in found.to_pylist()]


def reasons(lake: Lake) -> dict[int | None, str]:
    return {r["line"]: r["reason"] for r in lake.sql("select line, reason from lakeloop.quarantine").to_pylist()}


# -- files ---

WHOLE_FILES: dict[str, tuple[str, bytes, str]] = {  # what: (name, bytes, what is said)
    "UTF-16": ("a.csv", "id,x\n1,a\n".encode("utf-16"), "utf-8"),
    "Latin-1": ("a.csv", "id,x\n1,café\n".encode("latin-1"), "utf-8"),
    "Latin-1 in the header": ("a.csv", "id,caf\xe9\n1,a\n".encode("latin-1"), "utf-8"),
    "a BOM and nothing": ("a.csv", b"\xef\xbb\xbf", "empty"),
    "gzip of nothing": ("a.csv.gz", gzip.compress(b""), "empty"),
    "a gzip that is empty": ("a.csv.gz", b"", "empty"),
    "rubbish after a gzip": ("a.csv.gz", gzip.compress(b"id,x\n1,a\n") + b"rubbish", "gzip"),
    "gzip that ends early": ("a.csv.gz", gzip.compress(b"id,x\n" + b"1,a\n" * 9000)[:-20], "gzip"),
    "a column's name with a NUL": ("a.csv", b"id\0,x\n1,a\n", "no column id"),
}


@pytest.mark.parametrize("case", WHOLE_FILES)
def test_a_file_that_is_wrong_as_a_whole_is_set_aside_and_the_next_is_read(folder_lake: Lake, case: str) -> None:
    name, data, said = WHOLE_FILES[case]
    project = shop()
    land(folder_lake, project, "things", name, data)
    land(folder_lake, project, "things", "b.csv", GOOD["csv"])
    wrong, right = ingest_data(folder_lake, project)
    assert said in wrong.problem
    assert right.rows == 1
    assert held(folder_lake, project) == [(7, "good")]
    (aside,) = folder_lake.store.list("quarantine/shop/")
    assert folder_lake.store.get(aside.key) == data
    assert reasons(folder_lake) == {None: f"file: {wrong.problem}"}


LINES: dict[str, tuple[str, bytes, list[tuple[Any, ...]], dict[int, str]]] = {
    # what: (format, bytes, rows that are kept, and the lines that are not with their reason)
    "NUL in a text": ("csv", b"id,x\n1,a\0b\n", [(1, "a\0b")], {}),
    "NUL in a number": ("csv", b"id,x\n1\0,a\n2,b\n", [(2, "b")], {1: "id: 1\0 is not an int64"}),
    "ends of lines of all kinds": ("csv", b"id,x\r\n1,a\n2,b\r\n3,c", [(1, "a"), (2, "b"), (3, "c")], {}),
    "only carriage returns": ("csv", b"id,x\r1,a\r2,b\r", [(1, "a"), (2, "b")], {}),
    "a header and no row": ("csv", b"id,x\n", [], {}),
    "two gzips in one": ("gz", gzip.compress(b"id,x\n1,a\n") + gzip.compress(b"2,b\n"), [(1, "a"), (2, "b")], {}),
    "half a line": ("jsonl", b'{"id": 1, "x": "a"}\n{"id": 2, "x"', [(1, "a")], {2: "broken line: not JSON"}),
    "a BOM": ("jsonl", b'\xef\xbb\xbf{"id": 1, "x": "a"}\n', [(1, "a")], {}),
    "no object": ("jsonl", b'[1]\n{"id": 2}\nnull\n', [(2, None)], {1: "not a JSON object", 3: "not a JSON object"}),
    "nested without end": (
        "jsonl",
        b'{"id": 1, "x": ' + b"[" * 200_000 + b"]" * 200_000 + b'}\n{"id": 2, "x": "b"}\n',
        [(2, "b")],
        {1: "broken line: not JSON"},
    ),
    "nested deeply": (
        "jsonl",
        b'{"id": 1, "x": ' + b"[" * 300 + b"]" * 300 + b"}\n",
        [(1, "[" * 300 + "]" * 300)],
        {},
    ),
    "a whole number beyond 64 bits": (
        "jsonl",
        b'{"id": 123456789012345678901234567890, "x": "a"}\n{"id": 2, "x": 99999999999999999999999}\n',
        [(2, "99999999999999999999999")],
        {1: "is not an int64"},
    ),
    "a number of 5,000 digits": (
        "jsonl",
        b'{"id": 1, "x": ' + b"9" * 5000 + b'}\n{"id": 2, "x": "b"}\n',
        [(2, "b")],
        {1: "broken line: not JSON"},
    ),
    "Latin-1 in one line": (
        "jsonl",
        '{"id": 1, "x": "café"}\n'.encode("latin-1") + b'{"id": 2, "x": "b"}\n',
        [(2, "b")],
        {1: "broken line: not JSON"},
    ),
    "half of a surrogate pair": (
        "jsonl",
        b'{"id": 1, "x": "\\ud800"}\n{"id": 2, "x": "b"}\n',
        [(2, "b")],
        {1: "broken line: not JSON"},
    ),
    "ends of lines within texts": (
        "jsonl",
        '{"id": 1, "x": "a\u2028b\u0085c"}\n'.encode(),
        [(1, "a\u2028b\u0085c")],
        {},
    ),
    "truth for a number": ("jsonl", b'{"id": true, "x": "a"}\n', [], {1: "id: true is not an int64"}),
}


@pytest.mark.parametrize("case", LINES)
def test_each_line_is_a_row_or_in_quarantine(folder_lake: Lake, case: str) -> None:
    format, data, kept, wrong = LINES[case]
    project = shop("csv" if format == "gz" else format)
    result = run(folder_lake, project, data, f"a.csv.{format}" if format == "gz" else f"a.{format}")
    assert result.problem == ""
    assert held(folder_lake, project) == kept
    found = reasons(folder_lake)
    assert found.keys() == wrong.keys()
    for line, said in wrong.items():
        assert said in found[line]
    assert (result.rows, result.quarantined) == (len(kept), len(wrong))


def test_not_a_number_is_a_real_and_no_whole_number(folder_lake: Lake) -> None:
    project = shop("jsonl", x="float64?")
    lines = b'{"id": 1, "x": NaN}\n{"id": 2, "x": -Infinity}\n{"id": NaN, "x": 1}\n{"id": 4, "x": 1e999}\n'
    run(folder_lake, project, lines, "a.jsonl")
    values = dict(held(folder_lake, project))
    assert math.isnan(values[1])
    assert values[2] == -math.inf
    assert 3 in reasons(folder_lake)
    assert "not an int64" in reasons(folder_lake)[3]


# -- names ---

NAMES = [
    "日本 ü ñ.csv",
    "a b+c%2Fd#e?f&g=h.csv",
    "e\u0301.csv",
    "\U0001f680.csv",
    "a'b\".csv",
    ".hidden.csv",
    "a/b/c.csv",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_ingested_once_and_kept_under_it(lake: Lake, name: str) -> None:
    project = shop()
    for again in (False, True):
        land(lake, project, "things", name, GOOD["csv"])
        (result,) = ingest_data(lake, project)
        assert (result.file, result.already) == (name, again)
    assert held(lake, project) == [(7, "good")]
    found = lake.sql("select distinct _file from things_history", project=project)  # type: ignore[arg-type]
    assert found.column(0)[0].as_py().startswith(f"{name}#")
    assert {entry.key.rpartition(f"/{name}")[2] for entry in lake.store.list("raw/")} == {""}


@pytest.mark.parametrize(
    "name", ["..", "../x.csv", "a/../../x.csv", "a/./b.csv", "/etc/x.csv", "a//b.csv", "", "a\nb", "a\\b"]
)
def test_a_name_that_is_a_path_out_of_its_place_is_refused(lake: Lake, name: str) -> None:
    with pytest.raises(Invalid, match="cannot be a key"):
        land(lake, shop(), "things", name, GOOD["csv"])
    assert [*lake.store.list()] == []


def test_a_name_longer_than_any_store_takes_is_refused(lake: Lake) -> None:
    with pytest.raises(Invalid, match="longer than 1,024 bytes"):
        land(lake, shop(), "things", "é" * 600 + ".csv", GOOD["csv"])


def test_a_name_below_another_files_is_refused_by_a_folder_which_cannot_hold_both(folder_lake: Lake) -> None:
    land(folder_lake, shop(), "things", "a", GOOD["csv"])
    with pytest.raises(Invalid):
        land(folder_lake, shop(), "things", "a/b.csv", GOOD["csv"])


# -- clocks ---


def test_a_writer_whose_clock_runs_behind_adds_the_newest_rows_all_the_same(lake: Lake) -> None:
    project = shop(top='rows = "latest"')
    now = datetime.now(UTC)
    behind = {skew: Lake(lake.store, "slow", lambda s=skew: now - timedelta(hours=s)) for skew in (0, 1, 48, 2)}
    for number, (skew, writer) in enumerate(behind.items()):
        run(writer, project, f"id,x\n1,{number}: {skew} hours\n".encode(), f"{number}.csv")
        assert held(lake, project) == [(1, f"{number}: {skew} hours")]
    found = lake.sql("select _ingested_at as at from things_history order by x", project=project)  # type: ignore[arg-type]
    times = found.column("at").to_pylist()
    assert times == sorted(set(times))


# -- the log of a table: whoever writes or looks for rows; test_damaged_tables has SQL and whole reads ---

NAME = "team/numbers"


@pytest.fixture
def log(folder_lake: Lake) -> Path:
    """The log of a table with versions 0 to 4; version n added the row n."""
    table = folder_lake.tables.open_or_create(NAME, pa.schema({"n": pa.string()}))
    for number in range(1, 5):
        table.append(pa.table({"n": [str(number)]}))
    return Path(folder_lake.url, "tables", NAME, "_delta_log")


def commit(log: Path, version: int) -> Path:
    return log / f"{version:020d}.json"


def cut(path: Path, size: int = 60) -> None:
    path.write_bytes(path.read_bytes()[:size])


def rubbish(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n\x00\xff no JSON\n")


def asked(lake: Lake) -> list[str]:
    """By SQL."""
    with Session(lake.store.location(), lambda _name: Stored(lake.tables.uri(NAME), 4)) as session:
        return sorted(session.run("select n from numbers").column("n").to_pylist())


def read(lake: Lake) -> list[str]:
    table = lake.table(NAME)
    assert table is not None
    return sorted(table.rows().column("n").to_pylist())


def looked(lake: Lake) -> set[str]:
    table = lake.table(NAME)
    assert table is not None
    return table.column("n", ["1", "2", "3", "4", "5"])


def streamed(lake: Lake) -> list[str]:
    table = lake.table(NAME)
    assert table is not None
    return sorted(pa.Table.from_batches(table.batches()).column("n").to_pylist())


def appended(lake: Lake) -> int:
    table = lake.table(NAME)
    assert table is not None
    return table.append(pa.table({"n": ["5"]}))


LOGS: dict[str, Callable[[Path], None]] = {
    "a commit that was cut off": lambda log: cut(commit(log, 4)),
    "an older commit that was cut off": lambda log: cut(commit(log, 2)),
    "rubbish in a commit": lambda log: rubbish(commit(log, 3)),
    "a version that is missing": lambda log: commit(log, 2).unlink(),
    "the first version missing": lambda log: commit(log, 0).unlink(),
    "a commit of a protocol to come": lambda log: commit(log, 5).write_text(
        json.dumps({"protocol": {"minReaderVersion": 99, "minWriterVersion": 99}})
    ),
}


@pytest.mark.parametrize("damage", LOGS)
def test_a_damaged_log_is_corrupt_to_who_looks_streams_or_appends_and_is_left_as_it_is(
    folder_lake: Lake, log: Path, damage: str
) -> None:
    LOGS[damage](log)
    before = sorted((path.name, path.read_bytes()) for path in log.iterdir())
    for call in (looked, streamed, appended):
        with pytest.raises(Corrupt, match=NAME) as error:
            call(folder_lake)
        assert error.value.todo
        assert len(str(error.value).splitlines()) <= 2
    assert sorted((path.name, path.read_bytes()) for path in log.iterdir()) == before


def test_a_handle_from_before_a_gap_does_not_know_whether_it_wrote(folder_lake: Lake, log: Path) -> None:
    handle = folder_lake.table(NAME)
    assert handle is not None
    commit(log, 2).unlink()
    with pytest.raises((Unknown, Conflict, Corrupt), match=NAME):
        handle.append(pa.table({"n": ["5"]}))


def test_a_gap_below_a_checkpoint_is_none(folder_lake: Lake, log: Path) -> None:
    table = folder_lake.table(NAME)
    assert table is not None
    table.checkpoint()
    commit(log, 2).unlink()
    assert appended(folder_lake) == 5
    assert read(folder_lake) == ["1", "2", "3", "4", "5"]
    assert asked(folder_lake) == ["1", "2", "3", "4"]


def test_a_hint_to_the_last_checkpoint_that_cannot_be_read_is_done_without(folder_lake: Lake, log: Path) -> None:
    from lakeloop.functions.maintain_lake import maintain_table

    table = folder_lake.table(NAME)
    assert table is not None
    table.checkpoint()
    for text in ("{oops", "", '{"size": 1}', "[]"):
        (log / "_last_checkpoint").write_text(text)
        assert read(folder_lake) == asked(folder_lake) == ["1", "2", "3", "4"]
    maintain_table(folder_lake, NAME, now=True)
    assert json.loads((log / "_last_checkpoint").read_text())["version"] >= 4


DATA: dict[str, Callable[[Path], None]] = {"gone": Path.unlink, "cut off": cut}


@pytest.mark.parametrize("damage", DATA)
def test_a_data_file_that_is_gone_or_cut_off_is_corrupt_to_readers_and_no_matter_to_appends(
    folder_lake: Lake, log: Path, damage: str
) -> None:
    table = folder_lake.table(NAME)
    assert table is not None
    DATA[damage](Path(table.files[0].removeprefix("file://")))
    for call in (looked, streamed):
        with pytest.raises(Corrupt, match="numbers") as error:
            call(folder_lake)
        assert "\x1b" not in str(error.value)
        assert len(str(error.value).splitlines()) <= 2
    assert appended(folder_lake) == 5
    with pytest.raises(LakeloopError, match=NAME):
        compact(folder_lake.store, table)


def test_a_version_that_never_was_is_not_found(folder_lake: Lake, log: Path) -> None:
    for version in (5, 99):
        with pytest.raises(NotFound):
            folder_lake.tables.open(NAME, version=version)


# -- more files ---


def two_sources() -> Project:
    head = 'owner = "crm"\ntimeless = true\nkey = ["id"]\nread = { kind = "landing" }\n'
    source = f'{head}[columns]\nid = "int64"\nx = "string?"\n'
    files = {f"sources/{name}.toml": source for name in ("others", "things")}
    return parse_project({"lakeloop.toml": 'name = "shop"\ngoal = "Sell"\nowner = "crm"\n', **files})


def test_a_header_without_an_end_of_line_is_a_file_without_rows(folder_lake: Lake) -> None:
    land(folder_lake, shop(), "things", "a.csv", b"id,x")
    (result,) = ingest_data(folder_lake, shop())
    assert (result.rows, result.problem) == (0, "")


def test_a_name_that_stands_twice_in_a_json_object_is_a_broken_line(folder_lake: Lake) -> None:
    project = shop("jsonl")
    land(folder_lake, project, "things", "a.jsonl", b'{"id": 1, "id": 2, "x": "a"}\n{"id": 3, "x": "b"}\n')
    (result,) = ingest_data(folder_lake, project)
    assert (result.rows, result.quarantined) == (1, 1)
    assert held(folder_lake, project) == [(3, "b")]


@pytest.mark.parametrize("data", [b"id,x\n1,a\n", b""], ids=["right", "unreadable"])
def test_a_name_that_fits_landing_but_not_raw_or_quarantine_blocks_nothing(lake: Lake, data: bytes) -> None:
    project = shop()
    prefix = "landing/shop/things/"
    key = prefix + "z/" * 497 + "a.csv"
    assert 1005 < len(key) <= 1024
    lake.store.put(key, data)
    land(lake, project, "things", "zz.csv", b"id,x\n2,b\n")
    for _ in range(2):
        ingest_data(lake, project)
    assert (2, "b") in held(lake, project)
    assert [*lake.store.list("landing/")] == []


def test_a_damaged_table_stops_only_its_own_source(folder_lake: Lake) -> None:
    project = two_sources()
    for source in ("others", "things"):
        land(folder_lake, project, source, "a.csv", b"id,x\n1,a\n")
    ingest_data(folder_lake, project)
    log = Path(folder_lake.url, "tables/shop/others/_delta_log")
    (log / f"{1:020d}.json").write_text("{oops")
    for source in ("others", "things"):
        land(folder_lake, project, source, "b.csv", b"id,x\n2,b\n")
    with pytest.raises(Corrupt, match="shop/others"):
        ingest_data(folder_lake, project)
    assert held(folder_lake, project) == [(1, "a"), (2, "b")]


def test_a_commit_that_is_an_empty_file_is_not_a_commit_of_nothing(folder_lake: Lake) -> None:
    table = folder_lake.tables.open_or_create("t/n", pa.schema({"n": pa.int64()}))
    for number in range(3):
        table.append(pa.table({"n": [number]}))
    Path(folder_lake.url, "tables/t/n/_delta_log", f"{3:020d}.json").write_bytes(b"")
    with pytest.raises(Corrupt, match="the newest commit of t/n is an empty file"):
        folder_lake.table("t/n")
