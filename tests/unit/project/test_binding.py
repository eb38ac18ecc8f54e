"""Binding finds columns, types, order and versions; every one is checked against what was written by hand here."""

from __future__ import annotations

import pytest

from lakeloop.lakehouse.errors import Invalid, NotFound
from lakeloop.lakehouse.project.binding import bind
from lakeloop.lakehouse.project.bound import Bound, Feature
from lakeloop.lakehouse.project.parsing import parse_project
from lakeloop.tests.unit.project.projects import SMALLEST, Change, changed, flights, smallest

TIME = "TIMESTAMP WITH TIME ZONE"


def bound(change: Change | None = None) -> Bound:
    return bind(parse_project(changed(flights().files, change or {})))


def versions(found: Bound) -> dict[str, str]:
    return {name: thing.version for name, thing in {**found.views, **found.models}.items()}


def changed_versions(change: Change) -> set[str]:
    """Which views and models have another version after a change."""
    before, after = versions(bound()), versions(bound(change))
    return {name for name in before if before[name] != after[name]}


def test_views_stand_after_the_views_they_read() -> None:
    found = bound()
    assert list(found.views) == ["landings", "carrier_delays", "origin_weather"]
    assert found.views["landings"].reads == ("airports", "flights")
    assert found.views["carrier_delays"].reads == ("landings",)


def test_a_view_has_columns_in_stored_types_and_features_without_key_and_time() -> None:
    view = bound().views["origin_weather"]
    numbers = dict.fromkeys(["temp", "humid", "wind_speed", "precip", "pressure", "visib"], "DOUBLE")
    assert view.columns == {"origin": "VARCHAR", "time_hour": TIME} | numbers
    assert view.features == numbers


def test_windows_give_a_feature_for_each_aggregate_and_window() -> None:
    features = bound().views["carrier_delays"].features
    assert features == {
        **dict.fromkeys(["landed_3h", "landed_24h", "landed_7d"], "BIGINT"),
        **dict.fromkeys(["late_share_3h", "late_share_24h", "late_share_7d"], "DOUBLE"),
        **dict.fromkeys(["mean_delay_3h", "mean_delay_24h", "mean_delay_7d"], "DOUBLE"),
    }


def test_a_model_has_request_then_features_then_derived() -> None:
    late = bound().models["late_arrival"]
    names = list(late.inputs)
    assert names[:5] == ["carrier", "origin", "dest", "distance", "sched_dep"]
    assert names[5:7] == ["temp", "humid"]
    assert names[-2:] == ["dep_hour", "dep_weekday"]
    assert late.inputs["distance"] == "DOUBLE"
    assert late.features[0] == Feature("origin_weather", "temp", "temp", ("origin",), "DOUBLE")
    assert late.views == ("origin_weather", "carrier_delays")


def test_a_feature_may_be_looked_up_by_another_column_and_have_a_prefix() -> None:
    table = '{ view = "origin_weather", columns = ["temp"], key = { origin = "dest" }, prefix = "dest_" }'
    late = bound({"models/late_arrival.toml": ('"carrier_delays.*"]', f'"carrier_delays.*", {table}]')}).models
    assert late["late_arrival"].features[-1] == Feature("origin_weather", "temp", "dest_temp", ("dest",), "DOUBLE")


def test_a_feature_may_have_another_name() -> None:
    change: Change = {"models/cancellation.toml": ("late_share_24h", "late_share_24h as late")}
    assert bound(change).models["cancellation"].features[-1].name == "late"


def test_the_smallest_project_binds() -> None:
    found = bind(smallest())
    assert found.models["churn"].inputs == {"plan": "VARCHAR", "logins": "DOUBLE"}
    assert found.models["churn"].columns["as_of"] == "DATE"


def test_a_view_of_one_row_for_everyone_has_no_key() -> None:
    view = (
        '-- /// feature-view\n-- owner = "x"\n-- entity = []\n-- event_time = "month_end"\n-- online = true\n-- ///\n'
    )
    view += "select month_end, count(*) as customers from customers group by month_end\n"
    change: Change = {
        "features/totals.sql": view,
        "models/churn.toml": ("[inputs.request]", '[inputs]\nfeatures = ["totals.*"]\n[inputs.request]'),
    }
    features = bind(smallest(change)).models["churn"].features
    assert features == (Feature("totals", "customers", "customers", (), "BIGINT"),)


def test_a_view_that_does_not_bind_is_told_once_and_not_again_by_those_above_it() -> None:
    with pytest.raises(Invalid) as error:
        bound({"features/landings.sql": ("arr_delay > 15 as late", "arr_delai > 15 as late")})
    assert [line.split(":")[0] for line in error.value.problems] == ["features/landings.sql"]


def test_a_changed_view_changes_what_rests_on_it_and_nothing_else() -> None:
    change: Change = {"features/landings.sql": ("arr_delay > 15", "arr_delay > 20")}
    assert changed_versions(change) == {"landings", "carrier_delays", "late_arrival", "cancellation"}
    change = {"features/origin_weather.sql": ('ttl         = "3h"', 'ttl         = "4h"')}
    assert changed_versions(change) == {"origin_weather", "late_arrival", "cancellation"}


def test_a_changed_source_changes_its_readers_only_when_they_can_notice() -> None:
    source = "sources/weather.toml"
    assert changed_versions({source: ('"float64?"', '"float32?"')}) == {
        "origin_weather",
        "late_arrival",
        "cancellation",
    }
    assert changed_versions({source: ("Hourly observations", "Observations")}) == set()
    assert changed_versions({source: ("range = [0, 150]", "range = [0, 160]")}) == set()


def test_a_changed_model_changes_itself() -> None:
    assert changed_versions({"models/late_arrival.py": ("local.hour", "local.hour + 0")}) == {"late_arrival"}


def test_a_models_version_needs_no_binding() -> None:
    project = flights()
    assert {name: project.model_version(name) for name in project.models} == {
        name: model.version for name, model in bind(project).models.items()
    }
    with pytest.raises(NotFound, match="late_arrival"):
        project.model_version("late")


def test_names_are_found_whatever_their_capitals() -> None:
    assert bind(smallest({"models/churn.sql": ("from customers", "from Customers")})).models["churn"].reads == (
        "customers",
    )


def test_a_trailing_comment_does_not_swallow_what_is_put_around_a_query() -> None:
    assert bind(smallest({"models/churn.sql": SMALLEST["models/churn.sql"] + "-- the end"})).models["churn"].columns
