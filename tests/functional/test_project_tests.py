"""The fixture of `lakeloop test`: the answers that a lake gives to the same rows, and plain words for a wrong test."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakeloop.functions.build_features import build_features
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.project_tests import GivenProject
from lakeloop.lakehouse.applied import bound
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.features.training_set import training_table
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import parse_project

FILES = {
    "lakeloop.toml": 'name = "shop"\nowner = "crm"\n',
    "sources/visits.toml": """
owner = "crm"
read = { kind = "landing", format = "csv" }
event_time = "moment"
[columns]
shop = "string"
moment = "timestamp"
seconds = { type = "int16", range = [0, 3600] }
tags = "list<string>?"
""",
    "sources/orders.toml": """
owner = "crm"
read = { kind = "landing", format = "csv" }
key = ["no"]
rows = "latest"
event_time = "moment"
[columns]
no = "int64"
shop = "string"
moment = "timestamp"
amount = "decimal(8,2)"
paid = "bool?"
due = "date?"
""",
    "sources/rates.toml": """
owner = "crm"
read = { kind = "landing", format = "csv" }
rows = "replace"
timeless = true
[columns]
shop = "string"
rate = "float64"
""",
    "features/visited.sql": """-- /// feature-view
-- owner = "crm"
-- entity = ["shop"]
-- event_time = "moment"
-- lag = "5m"
-- refresh = "10m"
-- online = true
-- [windows]
-- over = ["1h"]
-- visits = "count(*)"
-- longest = "max(seconds)"
-- ///
select shop, moment, seconds from visits
""",
    "features/last_order.sql": """-- /// feature-view
-- owner = "crm"
-- entity = ["shop"]
-- event_time = "moment"
-- refresh = "1m"
-- online = true
-- ttl = "1d"
-- ///
select o.shop, moment, sum(amount) over (partition by o.shop order by moment) as total, amount * rate as worth
from orders o left join rates using (shop)
""",
    "features/busiest.sql": """-- /// feature-view
-- owner = "crm"
-- entity = []
-- event_time = "moment"
-- refresh = "1m"
-- ///
select moment, shop as busiest from visits
""",
    "models/unpaid.toml": """
problem = "binary"
learner = "sklearn"
[inputs]
features = ["visited.*", "last_order.total"]
[inputs.request]
shop = "category"
amount = "float32"
[split]
test = "7d"
""",
    "models/unpaid.sql": """
select no as id, moment as as_of, shop, amount, not paid as label, moment + interval 2 hours as label_known_at
from orders
""",
}
VISITS = [
    {"shop": "north", "moment": "2024-03-01T10:00Z", "seconds": 60},
    {"shop": "north", "moment": "2024-03-01T10:20Z", "seconds": 300},
    {"shop": "south", "moment": "2024-03-01T10:20Z", "seconds": 7},
]
ORDERS = [
    {"no": 1, "shop": "north", "moment": "2024-03-01T10:30Z", "amount": "10.50", "paid": True, "due": "2024-03-09"},
    {"no": 2, "shop": "north", "moment": "2024-03-01T11:00Z", "amount": 4.25, "paid": False},
    {"no": 3, "shop": "south", "moment": "2024-03-01T11:00Z", "amount": 99, "paid": None},
]
NOON = "2024-03-01T12:00Z"


@pytest.fixture
def project() -> GivenProject:
    return GivenProject(bound(parse_project(FILES)))


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join("" if row.get(n) is None else str(row[n]).replace("Z", ":00Z") for n in names) for row in rows]
    return "\n".join([",".join(names), *lines, ""]).encode()


def test_the_rows_are_those_that_training_would_get_from_a_lake(project: GivenProject, folder_lake: Lake) -> None:
    project.given("visits", VISITS)
    project.given("orders", ORDERS)
    project.given("orders", [ORDERS[1] | {"amount": 5}])
    definition = parse_project(FILES)
    for name, file, rows in (("visits", "a", VISITS), ("orders", "a", ORDERS)):
        land(folder_lake, definition, name, f"{file}.csv", as_csv(rows))
    ingest_data(folder_lake, definition)
    land(folder_lake, definition, "orders", "b.csv", as_csv([ORDERS[1] | {"amount": 5}]))
    ingest_data(folder_lake, definition)
    as_of = datetime(2024, 3, 2, tzinfo=UTC)
    build_features(folder_lake, definition, as_of=as_of)
    expected, _ = training_table(folder_lake, definition, "unpaid", as_of)
    got = project.examples("unpaid", as_of=as_of)
    assert got.to_pylist() == expected.to_pylist()
    assert got.schema == expected.schema
    assert got.column("label").to_pylist() == [False, True]


def test_features_are_in_the_types_that_a_build_stores(project: GivenProject) -> None:
    project.given("orders", ORDERS[:1])
    project.given("rates", [{"shop": "north", "rate": 2}])
    answer = project.features("last_order", shop="north", as_of=NOON)
    assert answer == {"total": 10.5, "worth": 21.0}
    assert all(type(value) is float for value in answer.values())


def test_a_row_is_known_after_its_lag_and_seen_from_the_next_refresh_on(project: GivenProject) -> None:
    project.given("visits", VISITS[:1])
    assert project.features("visited", shop="north", as_of="2024-03-01T10:09:59Z")["visits_1h"] == 0
    assert project.features("visited", shop="north", as_of="2024-03-01T10:10Z") == {"visits_1h": 1, "longest_1h": 60}


def test_nothing_given_is_nothing_known(project: GivenProject) -> None:
    assert project.features("visited", shop="north", as_of=NOON) == {"visits_1h": 0, "longest_1h": None}
    assert project.features("last_order", shop="north", as_of=NOON) == {"total": None, "worth": None}
    assert project.examples("unpaid").num_rows == 0


def test_a_view_with_one_row_for_all_is_asked_by_the_moment_alone(project: GivenProject) -> None:
    project.given("visits", VISITS[:2])
    assert project.features("busiest", as_of=NOON) == {"busiest": "north"}


def test_a_key_that_comes_again_replaces_in_the_same_call_and_in_a_later_one(project: GivenProject) -> None:
    project.given("orders", [ORDERS[0], ORDERS[0] | {"amount": 11}])
    assert project.examples("unpaid").column("amount").to_pylist() == [11.0]
    project.given("orders", [ORDERS[0] | {"amount": 12}])
    assert project.examples("unpaid").column("amount").to_pylist() == [12.0]


def test_rows_without_a_key_are_added(project: GivenProject) -> None:
    project.given("visits", VISITS[:1])
    project.given("visits", VISITS[:1])
    assert project.features("visited", shop="north", as_of="2024-03-01T10:30Z")["visits_1h"] == 2


def test_a_table_that_is_replaced_holds_what_was_given_last(project: GivenProject) -> None:
    project.given("orders", ORDERS[:1])
    project.given("rates", [{"shop": "north", "rate": 2}])
    project.given("rates", [{"shop": "south", "rate": 3}])
    assert project.features("last_order", shop="north", as_of=NOON)["worth"] is None


def test_columns_that_are_not_given_are_null_even_where_the_source_needs_them(project: GivenProject) -> None:
    project.given("orders", [{"no": 1, "moment": "2024-03-01"}, {"no": 2, "moment": "2024-03-01", "shop": "north"}])
    assert project.examples("unpaid").column("shop").to_pylist() == [None, "north"]


def test_rows_may_be_empty_or_without_any_column(project: GivenProject) -> None:
    project.given("visits", [])
    project.given("visits", [{}])
    assert project.features("busiest", as_of=NOON) == {"busiest": None}


@pytest.mark.parametrize(
    "at",
    [
        "2024-03-01T11:00Z",
        "2024-03-01 12:00+01:00",
        datetime(2024, 3, 1, 11),
        datetime(2024, 3, 1, 11, tzinfo=UTC),
    ],
)
def test_a_moment_is_a_text_or_a_datetime_in_any_zone(project: GivenProject, at: Any) -> None:
    project.given("orders", [ORDERS[0] | {"moment": at}])
    (example,) = project.examples("unpaid", as_of=date(2024, 3, 2)).to_pylist()
    assert example["as_of"] == datetime(2024, 3, 1, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.given("visit", []), ("no source 'visit'", 'did you mean "visits"?')),
        (lambda p: p.given("visits", [{"sop": "n"}]), ("no column 'sop'", 'did you mean "shop"?', "visits.toml")),
        (lambda p: p.given("visits", {"shop": "n"}), ("str is not a row", 'given("visits")')),
        (lambda p: p.given("visits", [{"seconds": 4000}]), ("row 1: seconds: 4000 is outside 0 to 3600",)),
        (lambda p: p.given("visits", [{}, {"moment": "noon"}]), ("row 2: moment: noon is not a timestamp",)),
        (lambda p: p.given("orders", [{"no": None}]), ("row 1: no: missing",)),
        (lambda p: p.features("visit", as_of=NOON), ("no feature view 'visit'", 'did you mean "visited"?')),
        (lambda p: p.features("visited", as_of=NOON), ("the key shop is not given", "shop=…")),
        (lambda p: p.features("visited", shop="n", at=NOON, as_of=NOON), ("'at' is not a key of visited",)),
        (lambda p: p.features("busiest", shop="n", as_of=NOON), ("'shop' is not a key", "one row for all")),
        (lambda p: p.features("visited", shop="n", as_of="noon"), ("'noon' is not a time", "2013-07-01T12:30Z")),
        (lambda p: p.examples("paid"), ("no model 'paid'", 'did you mean "unpaid"?')),
    ],
)
def test_a_wrong_test_is_told_what_is_wrong_and_the_nearest_name(project: GivenProject, call: Any, words: Any) -> None:
    with pytest.raises(Invalid) as caught:
        call(project)
    for word in words:
        assert word in str(caught.value)


def test_examples_with_the_same_id_are_refused_as_in_training(project: GivenProject) -> None:
    double = FILES | {"models/unpaid.sql": FILES["models/unpaid.sql"].replace("no as id", "shop as id")}
    doubled = GivenProject(bound(parse_project(double)))
    doubled.given("orders", ORDERS[:2])
    with pytest.raises(Invalid, match="2 examples have the id 'north'"):
        doubled.examples("unpaid")


def test_the_answer_is_arrow(project: GivenProject) -> None:
    assert isinstance(project.examples("unpaid"), pa.Table)


# -- the plugin in a pytest of its own ---------------------------------------------------------------------------------

DERIVE = "def derive(row):\n    return {'big': row['amount'] > 50}\n"


def run_tests(folder: Path, test: str, *, files: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`lakeloop test`, as the command starts it, in a folder."""
    for path, text in {**(FILES if files is None else files), "tests/test_own.py": test}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    options = ["-q", "-p", "lakeloop.functions.project_tests", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    command = [sys.executable, "-m", "pytest", str(folder / "tests"), *options, "--import-mode=importlib"]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)


def test_a_project_s_tests_import_its_models_from_wherever_they_are_run(tmp_path: Path) -> None:
    test = """
from models.unpaid import derive

def test_derive():
    assert derive({"amount": 60}) == {"big": True}

def test_given_rows_do_not_outlive_their_test(project):
    project.given("visits", [{"shop": "north", "moment": "2024-03-01"}])
    assert project.features("busiest", as_of="2024-03-02")["busiest"] == "north"

def test_it_starts_empty(project):
    assert project.features("busiest", as_of="2024-03-02")["busiest"] is None
"""
    ran = run_tests(tmp_path / "shop", test, files=FILES | {"models/unpaid.py": DERIVE})
    assert ran.returncode == 0, ran.stdout
    assert "3 passed" not in ran.stderr


def test_a_failing_test_shows_its_own_line_and_not_ours(tmp_path: Path) -> None:
    ran = run_tests(tmp_path / "shop", "def test_it(project):\n    project.given('visit', [])\n")
    assert ran.returncode == 1
    assert "project.given('visit', [])" in ran.stdout
    assert 'did you mean "visits"?' in ran.stdout
    assert "_no_such" not in ran.stdout


def test_a_project_that_does_not_bind_is_told_as_the_check_tells_it(tmp_path: Path) -> None:
    broken = FILES | {"models/unpaid.sql": "select shop from nowhere"}
    ran = run_tests(tmp_path / "shop", "def test_it(project):\n    pass\n", files=broken)
    assert ran.returncode == 1
    assert "models/unpaid.sql:1: there is no source or view" in ran.stdout
    assert "Traceback" not in ran.stdout


def test_without_a_project_the_fixture_says_so(tmp_path: Path) -> None:
    ran = run_tests(tmp_path / "shop", "def test_it(project):\n    pass\n", files={})
    assert ran.returncode == 1
    assert "there is no lakeloop.toml here or in any folder above" in ran.stdout
    assert "Traceback" not in ran.stdout


def test_the_example_s_own_tests_hold() -> None:
    folder = Path(__file__).parents[2] / "examples" / "flights"
    options = ["-q", "-p", "lakeloop.functions.project_tests", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    command = [sys.executable, "-m", "pytest", str(folder / "tests"), *options, "--import-mode=importlib"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
