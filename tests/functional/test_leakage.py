"""`lakeloop check` finds inputs that know the future: in a view, in a join, and in a column that is filled in later."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lakeloop.functions.build_features import build_features
from lakeloop.functions.check_leakage import check_leakage, spine_of
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.infra.demo.flights import World, day
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.lakehouse.project import Project, read_project

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Twelve days of January, landed in two files, so that flights in the air at midnight come twice."""
    lake, project = open_lake(str(tmp_path_factory.mktemp("lake"))), read_project(FLIGHTS)
    applied.publish(lake, project, code_version="test")
    with World() as world:
        land(lake, project, "airports", "airports.csv", world.airports)
        for number, (start, end) in enumerate([(day(1), day(1, 7)), (day(1, 7), day(1, 13))]):
            land(lake, project, "flights", f"{number}.csv", world.flights(start, end))
            land(lake, project, "weather", f"{number}.csv", world.weather(start, end))
    ingest_data(lake, project)
    build_features(lake, project, as_of=day(1, 13))
    return lake


def changed(tmp_path: Path, changes: dict[str, tuple[str, str]]) -> Project:
    """The example with some of its text replaced."""
    folder = tmp_path / "flights"
    shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns(".lake"))
    for name, (before, after) in changes.items():
        text = (folder / name).read_text()
        assert before in text, name
        (folder / name).write_text(text.replace(before, after, 1))
    return read_project(folder)


def test_the_example_does_not_leak(lake: Lake) -> None:
    for model in ("late_arrival", "cancellation"):
        checked = check_leakage(lake, read_project(FLIGHTS), model)
        assert checked.rows > 100
        assert checked.leaks == ()


def test_the_weather_of_the_departure_hour_is_a_leak(lake: Lake, tmp_path: Path) -> None:
    swap = {
        "features/origin_weather.sql": (
            "select origin, time_hour,",
            "select origin, time_hour - interval 3 hours as time_hour,",
        )
    }
    checked = check_leakage(lake, changed(tmp_path, swap), "late_arrival")
    assert {leak.input for leak in checked.leaks} >= {"temp", "wind_speed"}
    leak = next(leak for leak in checked.leaks if leak.input == "temp")
    assert "with only what was known at" in str(leak)


def test_a_join_to_what_happens_later_is_a_leak(lake: Lake, tmp_path: Path) -> None:
    project = changed(
        tmp_path,
        {
            "models/late_arrival.sql": ("f.distance,", "f.distance, l.arr_delay as seen_delay,"),
            "models/late_arrival.toml": ("distance  =", 'seen_delay = "float64"\ndistance  ='),
        },
    )
    assert [leak.input for leak in check_leakage(lake, project, "late_arrival").leaks] == ["seen_delay"]


def test_a_column_that_is_filled_in_later_is_a_leak(lake: Lake, tmp_path: Path) -> None:
    project = changed(
        tmp_path,
        {
            "models/late_arrival.sql": ("f.distance,", "f.distance, f.dep_delay as off_block,"),
            "models/late_arrival.toml": ("distance  =", 'off_block = "float64"\ndistance  ='),
        },
    )
    leaks = check_leakage(lake, project, "late_arrival").leaks
    assert [leak.input for leak in leaks] == ["off_block"]
    assert "when the row first came it is absent" in str(leaks[0])


def test_without_data_nothing_is_compared(tmp_path: Path) -> None:
    checked = check_leakage(open_lake(str(tmp_path)), read_project(FLIGHTS), "late_arrival")
    assert (checked.moments, checked.rows, checked.leaks) == (0, 0, ())


@pytest.mark.parametrize(
    ("sql", "spine"),
    [
        ("select * from a join b using (x)", "a"),
        ("with c as (select * from a) select * from c left join b using (x)", "a"),
        ("select * from (select * from a) s, b", "a"),
        ("select * from a union all select * from b", "a"),
    ],
)
def test_the_spine_is_the_leftmost_table(sql: str, spine: str) -> None:
    assert spine_of(sql) == spine
