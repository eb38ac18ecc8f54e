"""`lakeloop query` as a person and as a program meet it: Ctrl-C, large answers, JSON lines, CSV, odd columns."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lakeloop.infra.cli.asking import distinct
from lakeloop.lakehouse.lake import Lake

LONG = {
    "nothing comes": "select count(*) from range(10000000) a, range(1000000) b where a.range * b.range % 7 = 3",
    "a little comes, then nothing": "select range as n from range(1000000000000) "
    "where range < 300000 or (range * range) % 1000000007 = 3",
    "very much comes": "select range as n from range(1000000000000)",
    "a sort": "select range as n from range(3000000000) order by hash(range)",
}


def command(lake: Lake, *arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / "lakeloop"), "query", "--lake", lake.url, *arguments]


def run(lake: Lake, *arguments: str) -> str:
    done = subprocess.run(command(lake, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


HOWS = ("--csv", "--json", "--limit=5")
CASES = [  # what very much comes of is counted with a limit, which ends as the others do
    pytest.param(long, how, marks=() if number % len(HOWS) == place else pytest.mark.slow)
    for number, long in enumerate(LONG)
    for place, how in enumerate(HOWS)
    if (long, how) != ("very much comes", "--limit=5")
]


@pytest.mark.parametrize(("long", "how"), CASES)
def test_ctrl_c_ends_a_query_that_would_run_for_minutes(folder_lake: Lake, tmp_path: Path, long: str, how: str) -> None:
    """Exit code 130, nothing on stderr but perhaps a word; it ends by itself, not by being killed."""
    out = tmp_path / "out"
    with (
        open(out, "wb") as file,
        subprocess.Popen(command(folder_lake, LONG[long], how), stdout=file, stderr=subprocess.PIPE) as process,
    ):
        _until_it_computes(process)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert b"Traceback" not in told
    assert len(told.splitlines()) <= 2


def _until_it_computes(process: subprocess.Popen[bytes]) -> None:
    """Until it has used two seconds of processor, which starting does not."""
    while _seconds_of(process.pid) < 2.0:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)


def _seconds_of(pid: int) -> float:
    if not Path("/proc").is_dir():
        time.sleep(5)
        return 5.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_ends_a_query_in_a_program_and_the_lake_works_on(folder_lake: Lake) -> None:
    script = f"""
import os, signal, sys, threading
from lakeloop.lakehouse.lake import open_lake
lake = open_lake({folder_lake.url!r})
for sql in {list(LONG.values())[:2]!r}:
    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        lake.sql(sql)
        sys.exit("not interrupted")
    except KeyboardInterrupt:
        print(lake.sql("select 1 as one").to_pylist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[{'one': 1}]\n" * 2, 0), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--csv", "--json"])
def test_an_answer_larger_than_memory_streams(folder_lake: Lake, how: str) -> None:
    """Ten million rows, 250 MB as text, within 100 MB above what starting takes."""
    sql = "select range as n, hash(range)::varchar as h from range({n})"
    base, _ = _peak(folder_lake, sql.format(n=10), how)
    peak, size = _peak(folder_lake, sql.format(n=10_000_000 if how == "--csv" else 2_000_000), how)
    assert size > 80e6
    assert peak - base < 130_000  # KB


def _peak(lake: Lake, sql: str, how: str) -> tuple[int, int]:
    """The most memory, in KB, that the command took, and the bytes that it wrote."""
    script = """
import resource, subprocess, sys
with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE) as process:
    size = sum(len(part) for part in iter(lambda: process.stdout.read(1 << 20), b""))
assert process.returncode == 0
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, size)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *command(lake, sql, how)], capture_output=True, text=True, check=True
    )
    peak, size = map(int, done.stdout.split())
    return (peak // 1024 if sys.platform == "darwin" else peak), size


ODD = """
select 1 as a, 2 as a, 3 as a_1, sum(range) as huge, 'x"y, z' as text, null as nothing, [1, null]::double[] as list,
       {'k': date '2026-01-01', 'n': 'nan'::double} as struct, 'nan'::double as nan,
       timestamptz '2026-01-01 10:00:00Z' as at,
       'a'::enum('a', 'b') as kind, true as flag, 1.5::decimal(4, 2) as price
from range(3)
"""


def test_json_is_json_whatever_the_columns_are(folder_lake: Lake) -> None:
    def refuse(word: str) -> object:
        raise AssertionError(f"{word} is not JSON")

    row = json.loads(run(folder_lake, ODD, "--json"), parse_constant=refuse)
    assert row == {
        "a": 1,
        "a_2": 2,
        "a_1": 3,
        "huge": 3,
        "text": 'x"y, z',
        "nothing": None,
        "list": [1.0, None],
        "struct": {"k": "2026-01-01", "n": None},
        "nan": None,
        "at": "2026-01-01T10:00:00+00:00",
        "kind": "a",
        "flag": True,
        "price": 1.5,
    }


def test_csv_is_csv_whatever_the_columns_are(folder_lake: Lake) -> None:
    (row,) = csv.DictReader(io.StringIO(run(folder_lake, ODD, "--csv")))
    assert row["a"] == "1"
    assert row["text"] == 'x"y, z'
    assert json.loads(row["list"]) == [1.0, None]
    assert json.loads(row["struct"]) == {"k": "2026-01-01", "n": None}
    assert row["kind"] == "a"
    assert row["nothing"] == ""


def test_an_answer_without_rows_has_a_header_in_csv_and_nothing_in_json(folder_lake: Lake) -> None:
    assert run(folder_lake, "select 1 as a, 'b' as b where false", "--csv") == '"a","b"\n'
    assert run(folder_lake, "select 1 as a where false", "--json") == ""
    assert run(folder_lake, "select 1 as a where false") == "no rows\n"


def test_a_person_sees_the_first_rows_and_how_many_there_are(folder_lake: Lake) -> None:
    done = subprocess.run(
        command(folder_lake, "select range as n from range(1000000)", "--limit", "3"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.strip() for line in done.stdout.splitlines()] == ["n", "0", "1", "2"]
    assert "3 of 1,000,000 rows" in done.stderr


def test_a_reader_that_goes_away_ends_the_query(folder_lake: Lake) -> None:
    with subprocess.Popen(
        command(folder_lake, LONG["very much comes"], "--csv"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'"n"\n'
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) != 0


def test_a_question_from_standard_input(folder_lake: Lake) -> None:
    done = subprocess.run(
        command(folder_lake, "-", "--json"), input="select 1 as a", capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"a": 1}


def test_no_two_columns_have_one_name() -> None:
    assert distinct(["a", "a", "a"]) == ["a", "a_1", "a_2"]
    assert distinct(["a", "a", "a_1"]) == ["a", "a_2", "a_1"]
    assert distinct([]) == []
