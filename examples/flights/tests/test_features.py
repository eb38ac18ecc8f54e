"""What the features promise, on a handful of rows. Run by `lakeloop test`; `project` is the plugin's fixture."""

from datetime import datetime

from models.late_arrival import derive

# Newark to Chicago, 08:30 to 10:00 local time: left at 12:30 UTC, was due at 15:00 UTC, came forty minutes late.
LANDED = {
    "time_hour": "2013-07-01T12:00Z",
    "minute": 30,
    "year": 2013,
    "month": 7,
    "day": 1,
    "carrier": "UA",
    "flight": 1,
    "origin": "EWR",
    "dest": "ORD",
    "distance": 719,
    "sched_dep_time": 830,
    "dep_time": 832,
    "dep_delay": 2,
    "sched_arr_time": 1000,
    "arr_delay": 40,
}
NOT_YET = LANDED | {"dep_time": None, "dep_delay": None, "arr_delay": None}
CHICAGO = {"faa": "ORD", "tzone": "America/Chicago"}


def delays(project, as_of):
    return project.features("carrier_delays", carrier="UA", as_of=as_of)


def test_a_landing_counts_only_once_it_was_reported_and_the_hour_is_full(project):
    project.given("flights", [LANDED])
    project.given("airports", [CHICAGO])
    # on the ground at 15:40, reported by 15:50, seen at the next renewal of the view
    assert delays(project, "2013-07-01T15:59Z")["landed_3h"] == 0
    seen = delays(project, "2013-07-01T16:00Z")
    assert (seen["landed_3h"], seen["late_share_3h"], seen["mean_delay_3h"]) == (1, 1.0, 40.0)


def test_a_landing_leaves_the_short_window_before_the_long_one(project):
    project.given("flights", [LANDED])
    project.given("airports", [CHICAGO])
    evening = delays(project, "2013-07-01T20:00Z")
    assert (evening["landed_3h"], evening["landed_24h"]) == (0, 1)
    assert evening["mean_delay_3h"] is None


def test_another_carrier_s_delay_says_nothing(project):
    project.given("flights", [LANDED | {"carrier": "DL"}])
    project.given("airports", [CHICAGO])
    assert delays(project, "2013-07-01T18:00Z")["landed_24h"] == 0


def test_an_observation_is_unknown_until_it_is_published(project):
    project.given("weather", [{"origin": "JFK", "time_hour": "2013-07-01T12:00Z", "temp": 80}])
    assert project.features("origin_weather", origin="JFK", as_of="2013-07-01T12:59Z")["temp"] is None
    assert project.features("origin_weather", origin="JFK", as_of="2013-07-01T13:00Z")["temp"] == 80.0


def test_old_weather_is_missing_rather_than_stale(project):
    project.given("weather", [{"origin": "JFK", "time_hour": "2013-07-01T12:00Z", "temp": 80}])
    assert project.features("origin_weather", origin="JFK", as_of="2013-07-01T15:00Z")["temp"] == 80.0
    assert project.features("origin_weather", origin="JFK", as_of="2013-07-01T15:01Z")["temp"] is None


def test_the_hour_of_departure_is_new_york_s_in_summer_and_in_winter():
    def hour(text):
        return derive({"sched_dep": datetime.fromisoformat(text)})["dep_hour"]

    assert hour("2013-07-01T12:30+00:00") == 8
    assert hour("2013-01-01T12:30+00:00") == 7


def test_the_day_of_departure_is_new_york_s_too():
    assert derive({"sched_dep": datetime.fromisoformat("2013-07-01T02:00+00:00")}) == {"dep_hour": 22, "dep_weekday": 7}


def test_a_flight_is_an_example_from_the_report_of_its_landing_on(project):
    project.given("flights", [LANDED])
    project.given("airports", [CHICAGO])
    assert project.examples("late_arrival", as_of="2013-07-01T15:49Z").num_rows == 0
    (example,) = project.examples("late_arrival", as_of="2013-07-01T15:50Z").to_pylist()
    assert example["id"] == "UA-1-EWR-20130701T12"
    assert example["as_of"] == datetime.fromisoformat("2013-07-01T10:30+00:00")
    assert example["label"] is True
    assert example["landed_3h"] == 0, "two hours before departure its own landing is not known"


def test_a_flight_that_never_landed_is_no_example(project):
    project.given("flights", [NOT_YET])
    assert project.examples("late_arrival", as_of="2013-07-10").num_rows == 0
    assert project.examples("late_arrival").num_rows == 1, "it was asked about all the same"


def test_a_flight_that_comes_again_replaces_its_row(project):
    project.given("airports", [CHICAGO])
    project.given("flights", [NOT_YET])
    project.given("flights", [LANDED])
    assert project.examples("late_arrival", as_of="2013-07-10").column("label").to_pylist() == [True]
    project.given("flights", [LANDED | {"arr_delay": 10}])
    assert project.examples("late_arrival", as_of="2013-07-10").column("label").to_pylist() == [False]


def test_an_arrival_after_local_midnight_is_on_the_next_day(project):
    red_eye = LANDED | {
        "time_hour": "2013-07-02T02:00Z",
        "sched_dep_time": 2230,
        "dep_time": 2230,
        "sched_arr_time": 5,
        "arr_delay": 0,
    }
    project.given("flights", [red_eye])
    project.given("airports", [CHICAGO])
    (example,) = project.examples("late_arrival", as_of="2013-07-03").to_pylist()
    assert example["label_known_at"] == datetime.fromisoformat("2013-07-02T05:15+00:00")


def test_a_flight_that_had_not_left_after_twelve_hours_was_cancelled(project):
    project.given("flights", [NOT_YET])
    assert project.examples("cancellation", as_of="2013-07-02T00:29Z").num_rows == 0
    assert project.examples("cancellation", as_of="2013-07-02T00:30Z").column("label").to_pylist() == [True]
