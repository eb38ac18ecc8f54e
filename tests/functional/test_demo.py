"""The demo: its data are handed out as they became known, and it may be killed at any moment."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lakeloop.infra.demo.command import run_demo
from lakeloop.infra.demo.flights import World, day
from lakeloop.infra.demo.loop import PROJECT
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.errors import Refused
from lakeloop.lakehouse.lake import open_lake
from lakeloop.lakehouse.project import parse_project

KEY = ("time_hour", "carrier", "flight", "origin")
JULY_FLIGHTS = 29_424


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as found:
        yield found


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_a_dump_hides_the_arrival_of_flights_in_the_air(world: World) -> None:
    first = rows(world.flights(day(1), day(1, 2)))
    flying = [row for row in first if row["dep_delay"] and not row["arr_delay"]]
    later = {tuple(row[name] for name in KEY): row for row in rows(world.flights(day(1, 2), day(1, 3)))}
    assert len(flying) > 10
    landed = [row for row in flying if later.get(tuple(row[name] for name in KEY), {}).get("arr_delay")]
    assert len(landed) > 0.9 * len(flying)


def test_dumps_day_by_day_end_with_what_one_dump_says(world: World) -> None:
    newest: dict[tuple[str, ...], dict[str, str]] = {}
    for number in range(1, 8):
        for row in rows(world.flights(day(1, number), day(1, number) + timedelta(days=1))):
            newest[tuple(row[name] for name in KEY)] = row
    whole = {tuple(row[name] for name in KEY): row for row in rows(world.flights(day(1), day(1, 8)))}
    assert newest == whole


def test_weather_comes_a_quarter_of_an_hour_after_its_hour(world: World) -> None:
    published = rows(world.weather(day(2), day(2) + timedelta(hours=1)))
    assert {row["time_hour"] for row in published} == {"2013-02-01T00:00:00Z"}


def test_a_fresh_demo_does_not_remove_what_is_not_its_own(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "lake"))
    other = {"lakeloop.toml": 'name = "mine"\nowner = "me"\n'}
    applied.publish(lake, parse_project(other), code_version="test")
    with pytest.raises(Refused, match="mine"):
        run_demo(lake.url, fresh=True, quiet=True)
    assert applied.names(lake) == ["mine"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_demo_that_is_killed_again_and_again_still_ends_whole(tmp_path: Path) -> None:
    """Killed with SIGKILL while it trains, starts to serve and replays.

    Then every flight of July was answered and logged once.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LAKELOOP_"))} | {
        "LAKELOOP_STATE_DIR": str(tmp_path / "state")
    }
    command = [str(Path(sys.executable).with_name("lakeloop")), "demo", "--quiet"]
    for seconds in (15, 40, 60, 45):
        demo = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(seconds)
        demo.send_signal(signal.SIGKILL)
        demo.wait()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lake = open_lake(str(tmp_path / ".lake"))
    logged = lake.sql(
        "select count(*) as rows, count(distinct id) as flights from predictions where model = 'late_arrival'",
        project=PROJECT,
    ).to_pylist()[0]
    assert logged["flights"] == JULY_FLIGHTS
    assert logged["rows"] == JULY_FLIGHTS
    twice = lake.sql(
        "select count(*) as n from (select file from lakeloop.ingestions group by file having count(*) > 1)"
    )
    assert twice.column("n")[0].as_py() == 0
    assert lake.sql("select count(*) as n from lakeloop.runs where status = 'started'").column("n")[0].as_py() == 0
