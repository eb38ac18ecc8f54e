"""Reading sound projects: defaults, hashes, and where the project is looked for."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from lakeloop.lakehouse.errors import Invalid, NotFound
from lakeloop.lakehouse.project.definitions import Environment, LogUniform, Maximize, Model, Split
from lakeloop.lakehouse.project.not_yet import BUILT
from lakeloop.lakehouse.project.parsing import find_project, parse_project, read_project
from lakeloop.lakehouse.project.schema import KINDS, json_schema
from lakeloop.lakehouse.project.versions import source_version
from lakeloop.tests.unit.project.projects import FLIGHTS, SMALLEST, flights, smallest


def model(text: str) -> Model:
    """The smallest project's model, with more in its file."""
    return smallest({"models/churn.toml": SMALLEST["models/churn.toml"] + text}).models["churn"]


def test_the_example_is_read_with_all_its_parts() -> None:
    project = flights()
    assert (project.name, list(project.environments)) == ("flights", ["dev", "prod"])
    assert list(project.sources) == ["airports", "flights", "weather"]
    assert list(project.views) == ["carrier_delays", "landings", "origin_weather"]
    late = project.models["late_arrival"]
    assert late.split == Split("time", timedelta(days=21), timedelta(days=14), gap=timedelta(days=2), seed=7)
    assert late.search.space["learning_rate"] == LogUniform(0.02, 0.3)
    assert late.output.threshold == Maximize("f1")
    assert late.trial.memory == 2**30
    assert [monitor.name for monitor in late.monitors] == ["inputs", "realized"]


def test_what_is_not_said_has_the_defaults_of_the_format() -> None:
    project = smallest()
    churn = project.models["churn"]
    assert project.environments == {"dev": Environment("dev", ".lake")}
    assert churn.owner == "crm"
    assert (churn.search.metric, churn.search.mode, churn.search.trials) == ("roc_auc", "max", 1)
    assert churn.split.valid == churn.split.test == timedelta(days=90)
    assert churn.retrain.unless == ("quarantine",)
    assert (churn.gate.first, churn.output.threshold, churn.serving.timeout) == ("promote", 0.5, timedelta(seconds=1))
    assert project.sources["customers"].columns["churned"].nullable


def test_a_column_may_say_itself_what_becomes_of_a_wrong_row() -> None:
    project = smallest({"sources/customers.toml": ('"int32"', '{ type = "int32", range = [0, 9], on_error = "warn" }')})
    columns = project.sources["customers"].columns
    assert (columns["logins"].on_error, columns["plan"].on_error) == ("warn", None)
    assert "columns.*.on_error" in properties(json_schema("source"))


def test_a_table_elsewhere_is_a_source_whose_place_is_part_of_its_version() -> None:
    landing = 'read = { kind = "landing", format = "csv" }'
    places = [
        smallest({"sources/customers.toml": (landing, f'lag = "1d"\nread = {{ kind = "delta", uri = "{uri}" }}')})
        for uri in ("/data/customers", "s3://crm/customers")
    ]
    sources = [project.sources["customers"] for project in places]
    assert [(one.foreign, one.read.kind, one.read.uri) for one in sources] == [
        (True, "delta", "/data/customers"),
        (True, "delta", "s3://crm/customers"),
    ]
    assert not smallest().sources["customers"].foreign
    assert len({source_version(one) for one in (*sources, smallest().sources["customers"])}) == 3


def test_the_gap_is_as_long_as_labels_are_waited_for() -> None:
    assert model('[examples]\nlabel_wait = "3d"\n').split.gap == timedelta(days=3)


def test_less_is_better_for_an_error() -> None:
    assert model('[search]\nmetric = "log_loss"\n').search.mode == "min"


def test_a_stored_project_is_the_project() -> None:
    project = flights()
    again = parse_project(project.files)
    assert again == project
    assert again.hash == project.hash


def test_one_changed_letter_changes_the_hash() -> None:
    assert smallest({"lakeloop.toml": ("leave", "Leave")}).hash != smallest().hash


def test_files_that_are_not_the_projects_do_not_change_it() -> None:
    assert (
        parse_project({**SMALLEST, "README.md": "x", "tests/test_x.py": "x", "models/deep/x.toml": "x"}) == smallest()
    )


def test_a_statement_loses_its_closing_semicolon_and_keeps_its_lines() -> None:
    sql = smallest({"models/churn.sql": ("from customers\n", "from customers ;\n")}).models["churn"].examples_sql
    assert sql.rstrip() == SMALLEST["models/churn.sql"].rstrip()


def test_the_project_is_found_from_a_folder_inside_it() -> None:
    assert find_project(FLIGHTS / "models").resolve() == FLIGHTS.resolve()


def test_a_missing_project_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as error:
        find_project(tmp_path)
    assert str(error.value).startswith(f"there is no lakeloop.toml in {tmp_path} or in any folder above it\n")
    with pytest.raises(NotFound, match=r"there is no lakeloop.toml in .*nowhere"):
        read_project(tmp_path / "nowhere")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_a_folder_or_a_file_of_the_wrong_name_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {**SMALLEST, "source/more.toml": "", "models/late.yaml": "", "features/x.toml": ""})
    with pytest.raises(Invalid) as error:
        read_project(tmp_path)
    assert error.value.problems == [
        "features/x.toml: a file in features/ ends in .py or .sql",
        "models/late.yaml: a file in models/ ends in .py or .sql or .toml",
        'source: is not a folder of the format; did you mean "sources"?',
    ]


def test_a_file_that_is_not_text_is_told_so(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST)
    (tmp_path / "lakeloop.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match=r"lakeloop\.toml: is not UTF-8 text; save it as UTF-8"):
        read_project(tmp_path)


def test_what_is_not_built_is_a_key_of_the_format() -> None:
    """A typing error in that table would let a key through."""
    patterns = {f"{kind}.{path}" for kind in KINDS for path in properties(json_schema(kind))}
    assert set(BUILT) - patterns == set()


def properties(schema: dict[str, object], path: str = "") -> set[str]:
    """The paths of a schema's keys, names that the user chose as `*`."""
    found: set[str] = set()
    for case in (schema, *schema.get("anyOf", [])):  # type: ignore[misc]
        for name, inner in case.get("properties", {}).items():
            found |= {f"{path}{name}"} | properties(inner, f"{path}{name}.")
        for key, step in (("items", ""), ("additionalProperties", "*.")):
            if isinstance(case.get(key), dict):
                found |= properties(case[key], f"{path}{step}")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_json_and_knows_every_key(kind: str) -> None:
    schema = json.loads(json.dumps(json_schema(kind)))
    assert set(schema["properties"]) == set(KINDS[kind].keys)
