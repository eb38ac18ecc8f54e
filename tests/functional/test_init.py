"""`lakeloop init`: what it writes for a file binds, and an ingest of that very file sets no row aside."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lakeloop.functions.draft_project import Draft, Wish, draft_project
from lakeloop.functions.infer_columns import infer_columns
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse.applied import bound
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.features.training_set import training_table
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.learners.splitting import split
from lakeloop.lakehouse.project import Project, parse_project, read_project
from lakeloop.lakehouse.scoring import learning
from lakeloop.lakehouse.scoring.checks import check_examples

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
TYPES = {"category": pa.string(), "float32": pa.float64(), "bool": pa.bool_()}


def as_csv(header: Sequence[str], rows: Sequence[Sequence[Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()


def bundled(name: str) -> tuple[list[str], list[list[Any]], bytes]:
    """A data set of scikit-learn with names that SQL takes, and as CSV."""
    from sklearn import datasets

    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    names = [column.removesuffix(" (cm)").replace(" ", "_") for column in frame.columns]
    rows = frame.values.tolist()
    return names, rows, as_csv(names, rows)


def trained_on(lake: Lake, draft: Draft, file: str, data: bytes, rows: int) -> pa.Table:
    """The training table of a draft, after an ingest of its file; with all of training but the fit tried on it."""
    project = parse_project(draft.files)
    land(lake, project, draft.source, file, data)
    (done,) = ingest_data(lake, project)
    assert (done.problem, done.rows, done.quarantined, done.reasons) == ("", rows, 0, ())
    model = project.models[draft.model]
    table, _ = training_table(lake, project, draft.model, NOW)
    assert set(table.column("id").to_pylist()).__len__() == table.num_rows
    declared = learning.declare(model, table)
    assert check_examples(model, declared, table) == []
    parts = split(model, table, NOW)
    train = table.filter(pa.array(parts.rows(0)))
    learnt = learning.learn(declared, model, table, train)
    assert [one.name for one in learnt.inputs] == list(model.inputs.request)
    assert min(parts.counts()[part] for part in ("train", "valid", "test")) >= table.num_rows // 20
    return table


def declared(draft: Draft) -> dict[str, str]:
    """Column → type of the source, as its file says it."""
    columns = parse_project(draft.files).sources[draft.source].columns
    return {name: f"{one.type}{'?' if one.nullable else ''}" for name, one in columns.items()}


def sql(draft: Draft) -> str:
    return draft.files[f"models/{draft.model}.sql"]


@pytest.mark.parametrize(
    ("name", "problem", "label"),
    [("iris", "multiclass", "int64"), ("breast_cancer", "binary", "int64"), ("diabetes", "regression", "double")],
)
def test_a_bundled_data_set_can_be_trained_on(folder_lake: Lake, name: str, problem: str, label: str) -> None:
    names, rows, data = bundled(name)
    draft = draft_project(Wish(name, "me", f"{name}.csv", "target"), data)
    model = parse_project(draft.files).models[name]
    assert model.problem == problem
    assert list(model.inputs.request) == names[:-1]
    table = trained_on(folder_lake, draft, f"{name}.csv", data, len(rows))
    assert table.num_rows == len(rows)
    assert str(table.schema.field("label").type) == label
    assert all(table.schema.field(one).type == pa.float64() for one in names[:-1])
    assert sorted(table.column("label").to_pylist()) == sorted(row[-1] for row in rows)
    sums = {one: sum(table.column(one).to_pylist()) for one in names[:-1]}
    assert sums == pytest.approx({one: sum(row[at] for row in rows) for at, one in enumerate(names[:-1])})


CUSTOMERS = [
    [
        f"C{c}",
        f"2023-{m:02}-28",
        ("basic", "pro")[c % 2],
        "" if (c + m) % 7 == 0 else c % 5,
        ("true", "false", "")[m % 3],
    ]
    for m in range(1, 13)
    for c in range(30)
]


def test_the_smallest_project_of_the_format_is_what_is_written(folder_lake: Lake) -> None:
    data = as_csv(["customer_id", "month_end", "plan", "logins", "churned"], CUSTOMERS)
    draft = draft_project(Wish("churn", "crm", "customers.csv", "churned", "month_end"), data)
    assert set(draft.files) == {"lakeloop.toml", "sources/customers.toml", "models/churn.toml", "models/churn.sql"}
    project = parse_project(draft.files)
    assert (project.name, project.owner) == ("churn", "crm")
    source, model = project.sources["customers"], project.models["churn"]
    assert (source.key, source.event_time, source.timeless) == (("customer_id", "month_end"), "month_end", False)
    assert declared(draft) == {
        "customer_id": "string",
        "month_end": "date",
        "plan": "string",
        "logins": "int64?",
        "churned": "bool?",
    }
    assert (model.problem, model.learner, model.split.by) == ("binary", "sklearn", "time")
    assert {name: one.type for name, one in model.inputs.request.items()} == {"plan": "category", "logins": "float32"}
    assert "concat_ws('-', customer_id, month_end) as id" in sql(draft)
    assert "month_end + interval 1 day" in sql(draft)
    table = trained_on(folder_lake, draft, "customers.csv", data, len(CUSTOMERS))
    assert table.num_rows == sum(row[-1] != "" for row in CUSTOMERS), "a row without a label is no example yet"
    assert table.column("id")[0].as_py() == "C0-2023-01-28"


COLUMNS = {  # name: (declared type, three values)
    "whole": ("int64", [1, 2, 3]),
    "whole_missing": ("int64?", [1, "", -3]),
    "whole_na": ("int64?", ["NA", 2, 3]),
    "real": ("float64", ["1.5", "2", "-1e3"]),
    "pandas_whole": ("float64?", ["1.0", "", "3.0"]),
    "blank": ("float64?", ["1.5", " ", "2.5"]),
    "truth": ("bool", ["True", "false", "TRUE"]),
    "yes_no": ("bool?", ["yes", "NO", ""]),
    "letters": ("bool", ["t", "f", "t"]),
    "one_letter": ("string", ["t", "t", "t"]),
    "on_off": ("string", ["on", "off", "on"]),
    "zip": ("string", ["01234", "51234", "61234"]),
    "digits": ("string", ["123456789012345678901", "1", "2"]),
    "day": ("date", ["2024-02-29", "2023-12-31", "2024-01-01"]),
    "no_day": ("string", ["2024-02-30", "2023-12-31", "2024-01-01"]),
    "other_day": ("string", ["31.12.2023", "01.01.2024", "02.01.2024"]),
    "moment": ("timestamp", ["2024-02-29 10:00:00", "2024-02-29T10:00:00Z", "2024-02-29T10:00:00+02:00"]),
    "day_or_moment": ("timestamp?", ["2024-02-29", "2024-02-29 10:30", ""]),
    "structure": ("json", ['{"a": 1}', "[1, 2]", "[]"]),
    "country": ("string?", ["NA", "DE", "FR"]),  # null, since whole_na needs NA to mean it: a source has one such list
    "quoted": ("string", ["a,b", 'say "hi"', "two\nlines"]),
    "umlaut": ("string", ["Grün", "Blau", "日本"]),
    "nothing": ("string?", ["", "", ""]),
    "target": ("int64?", [0, 1, 0]),
}


def test_types_and_missing_values_are_those_that_an_ingest_reads(folder_lake: Lake) -> None:
    data = as_csv(list(COLUMNS), list(zip(*(values for _, values in COLUMNS.values()), strict=True)))
    draft = draft_project(Wish("odd", "me", "odd.csv", "target"), data)
    assert declared(draft) == {name: kind for name, (kind, _) in COLUMNS.items()}
    project = parse_project(draft.files)
    assert set(project.sources["odd"].read.null) == {"", " ", "NA"}
    land(folder_lake, project, "odd", "odd.csv", data)
    (done,) = ingest_data(folder_lake, project)
    assert (done.rows, done.quarantined) == (3, 0)
    table = folder_lake.table("odd/odd")
    assert table is not None
    stored = sorted(table.rows().to_pylist(), key=lambda row: row["whole"])
    assert [row["whole_na"] for row in stored] == [None, 2, 3]
    assert [row["zip"] for row in stored] == ["01234", "51234", "61234"]
    assert [row["yes_no"] for row in stored] == [True, False, None]
    assert stored[0]["moment"] == dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC)


def test_a_text_that_only_text_columns_hold_is_no_missing_value() -> None:
    draft = draft_project(Wish("p", "me", "f.csv"), as_csv(["country", "n"], [["NA", 1], ["DE", 2]]))
    assert declared(draft) == {"country": "string", "n": "int64"}
    assert parse_project(draft.files).sources["f"].read.null == ("",)


@pytest.mark.parametrize(
    ("values", "problem", "label"),
    [
        (["yes", "no"], "binary", "y"),
        (["M", "B", "B"], "binary", "y = 'M'"),  # the rarer one
        (["Neg", "Pos", "Pos"], "binary", "y = 'Pos'"),  # the one that says so
        (["it's", "not", "not"], "binary", "y = 'it''s'"),
        ([1, 2], "binary", "y"),
        (["0.0", "1.0"], "binary", "y"),
        (["0.5", "1.5", "1.5"], "binary", "y = 0.5"),
        (["a", "b", "c"], "multiclass", "y"),
        ([3, 4, 5], "multiclass", "y"),
        (["0.25", "0.5", "0.75"], "regression", "y"),
        (list(range(40)), "regression", "y"),
    ],
)
def test_the_problem_follows_from_the_label(values: list[Any], problem: str, label: str) -> None:
    rows = [[value, at] for at, value in enumerate(values * 20)]
    draft = draft_project(Wish("p", "me", "f.csv", "y"), as_csv(["y", "x"], rows))
    model = parse_project(draft.files).models["p"]
    assert model.problem == problem
    assert any(line.split(" as label")[0].strip() == label for line in sql(draft).splitlines() if " as label," in line)
    assert list(model.inputs.request) == ["x"], "the label is never among the inputs"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["a"] * 30, "one value"),
        ([""] * 30, "no value"),
        ([f"text {at}" for at in range(90)], "90 different texts in 90 rows"),
        ([f"2024-01-{1 + at % 28:02}" for at in range(30)], "is date"),
    ],
)
def test_a_label_that_cannot_be_learnt_is_refused(values: list[str], words: str) -> None:
    data = as_csv(["y", "x"], [[value, at] for at, value in enumerate(values)])
    with pytest.raises(Invalid, match=words):
        draft_project(Wish("p", "me", "f.csv", "y"), data)


def test_what_is_no_input_is_named_with_the_reason() -> None:
    header = ["order_id", "shop_id", "remark", "placed", "empty", "amount", "kind", "y"]
    rows = [[at, at % 3, f"remark {at}", "2024-01-01", "", at / 2, (at % 2 and "a") or "b", at % 2] for at in range(60)]
    draft = draft_project(Wish("p", "me", "f.csv", "y"), as_csv(header, rows))
    model = parse_project(draft.files).models["p"]
    kinds = {name: one.type for name, one in model.inputs.request.items()}
    assert kinds == {"shop_id": "category", "amount": "float32", "kind": "category"}
    comments = [line for line in draft.files["models/p.toml"].splitlines() if line.startswith("# ")]
    assert [line.split(":")[0] for line in comments[1:]] == ["# order_id", "# remark", "# placed", "# empty"]
    assert "order_id as id".replace(" ", "") in sql(draft).replace(" ", "")


# -- keys --------------------------------------------------------------------------------------------------------------


def test_rows_without_a_key_get_ids_of_their_own_even_when_they_are_the_same(folder_lake: Lake) -> None:
    rows = [[1, "a", 0], [1, "a", 0], [1, "", 1], ["", "a", 1], [2, "b", 0]] * 10
    data = as_csv(["x", "c", "y"], rows)
    draft = draft_project(Wish("p", "me", "f.csv", "y"), data)
    table = trained_on(folder_lake, draft, "f.csv", data, len(rows))
    assert table.num_rows == len(rows)
    assert set(table.column("as_of").to_pylist()) == {dt.datetime(2000, 1, 1, tzinfo=dt.UTC)}
    assert "the file has no time" in sql(draft)


def test_a_key_that_is_given_is_used_and_must_name_a_row() -> None:
    data = as_csv(["a", "b", "x", "y"], [[at // 2, at % 2, at, at % 2] for at in range(40)])
    draft = draft_project(Wish("p", "me", "f.csv", "y", key=("a", "b")), data)
    assert parse_project(draft.files).sources["f"].key == ("a", "b")
    assert parse_project(draft.files).sources["f"].rows == "latest"
    with pytest.raises(Invalid, match="2 rows share the key: a 0"):
        draft_project(Wish("p", "me", "f.csv", "y", key=("a",)), data)


@pytest.mark.parametrize("name", ["id", "customer_id", "customerId", "OrderID", "uuid"])
def test_a_column_that_is_called_like_a_key_and_is_one_is_the_key(name: str) -> None:
    data = as_csv([name, "x", "y"], [[at, at % 5, at % 2] for at in range(40)])
    assert parse_project(draft_project(Wish("p", "me", "f.csv", "y"), data).files).sources["f"].key == (name,)


@pytest.mark.parametrize("name", ["paid", "valid", "monkey"])
def test_a_column_that_only_ends_like_one_is_not(name: str) -> None:
    data = as_csv([name, "x", "y"], [[at, at % 5, at % 2] for at in range(40)])
    assert parse_project(draft_project(Wish("p", "me", "f.csv", "y"), data).files).sources["f"].key == ()


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "by"),
    [
        ([dt.datetime(2024, 1, 1) + dt.timedelta(minutes=at) for at in range(200)], "time"),
        ([dt.datetime(2024, 1, 1) + dt.timedelta(hours=at) for at in range(200)], "time"),
        ([dt.date(2014 + at // 24, 1 + at // 2 % 12, 28) for at in range(240)], "time"),
        ([dt.date(2024, 1 + at // 50, 28) for at in range(150)], "time"),  # three months of snapshots
        ([dt.date(2024, 1 + at // 50, 28) for at in range(100)], "random"),  # two: no part is left to learn from
        ([dt.date(2024, 1, 1)] * 100, "random"),
    ],
)
def test_the_split_leaves_rows_for_every_part(folder_lake: Lake, times: list[Any], by: str) -> None:
    rows = [[time, at, at % 2] for at, time in enumerate(times)]
    data = as_csv(["t", "x", "y"], rows)
    draft = draft_project(Wish("p", "me", "f.csv", "y", "t"), data)
    assert parse_project(draft.files).models["p"].split.by == by
    assert trained_on(folder_lake, draft, "f.csv", data, len(rows)).num_rows == len(rows)


def test_a_time_that_is_none_is_refused() -> None:
    data = as_csv(["t", "x", "y"], [["31.12.2023", at, at % 2] for at in range(30)])
    with pytest.raises(Invalid, match="--time: t is string, not a date or a time"):
        draft_project(Wish("p", "me", "f.csv", "y", "t"), data)


# -- awkward names -----------------------------------------------------------------------------------------------------

AWKWARD = [
    "group",
    "at",
    "order",
    "id",
    "weight",
    "label",
    "Plan",
    "größe",
    "версия",
    "2x",
    "a-b",
    "select",
    "r_id",
    "n",
    "v",
]


def test_reserved_words_capitals_and_other_alphabets_are_quoted_and_renamed(folder_lake: Lake) -> None:
    rows = [[*(at % 4 + 10 * place for place, _ in enumerate(AWKWARD)), at, at % 2] for at in range(80)]
    data = as_csv([*AWKWARD, "this_row", "from"], rows)
    draft = draft_project(Wish("p", "me", "Order Lines.csv", "from"), data)
    assert draft.source == "order_lines"
    names = list(parse_project(draft.files).models["p"].inputs.request)
    own = [
        "group_value",
        "at",
        "order",
        "id_value",
        "weight_value",
        "label_value",
        "Plan",
        "grosse",
        "input",
        "input_2x",
    ]
    assert names[:10] == own
    assert len(names) == len({name.lower() for name in names}) == len(AWKWARD) + 1
    table = trained_on(folder_lake, draft, "order lines.csv", data, len(rows))
    for at, column in enumerate([*AWKWARD, "this_row"]):
        values = [row[at] for row in rows]
        got = table.column(names[at]).to_pylist()
        assert sorted(map(float, got)) == sorted(map(float, values)), column


def test_reserved_words_may_be_the_label_the_time_and_the_key(folder_lake: Lake) -> None:
    start = dt.date(2020, 1, 1)
    rows = [[start + dt.timedelta(days=at), f"g{at}", at % 7, at % 2] for at in range(100)]
    data = as_csv(["at", "group", "select", "label"], rows)
    draft = draft_project(Wish("p", "me", "order.csv", "label", "at", ("group", "at")), data)
    table = trained_on(folder_lake, draft, "order.csv", data, 100)
    assert table.num_rows == 100
    assert table.column("id")[0].as_py() == "g0-2020-01-01"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (["sepal length (cm)", "y"], ('unlike "sepal length (cm)"', "sepal_length_cm,y")),
        (["a b", "a(b", "y"], ('"a b", "a(b"', "a_b,a_b_2,y")),
        (["_hidden", "y"], ('unlike "_hidden"', "hidden,y")),
        (["Plan", "plan", "y"], ('the columns "Plan" and "plan" apart',)),
        (["plan", "plan", "y"], ("the header names plan more than once",)),
        (["€", "y"], ('unlike "€"', "column,y")),
    ],
)
def test_names_that_a_table_cannot_have_are_refused_with_a_better_header(
    header: list[str], words: Sequence[str]
) -> None:
    data = as_csv(header, [[at] * (len(header) - 1) + [at % 2] for at in range(30)])
    with pytest.raises(Invalid) as caught:
        draft_project(Wish("p", "me", "f.csv", "y"), data)
    for word in words:
        assert word in str(caught.value)


def test_a_column_without_a_name_such_as_a_written_index_is_left_out(folder_lake: Lake) -> None:
    data = as_csv(["", "x", "y"], [[at, at % 9, at % 2] for at in range(60)])
    draft = draft_project(Wish("p", "me", "f.csv", "y"), data)
    assert declared(draft) == {"x": "int64", "y": "int64?"}
    assert trained_on(folder_lake, draft, "f.csv", data, 60).num_rows == 60


# -- other files -------------------------------------------------------------------------------------------------------


def test_other_delimiters_and_gzip_are_found(folder_lake: Lake) -> None:
    rows = [[f"{at % 5},5", at, at % 2] for at in range(60)]
    data = gzip.compress(as_csv(["price", "x", "y"], rows, ";"))
    draft = draft_project(Wish("p", "me", "f.csv.gz", "y"), data)
    assert parse_project(draft.files).sources["f"].read.delimiter == ";"
    trained_on(folder_lake, draft, "f.csv.gz", data, 60)


def test_json_lines(folder_lake: Lake) -> None:
    rows = [{"x": at, "ok": at % 3 == 0, "kind": "ab"[at % 2], "more": {"a": 1}, "y": at % 2} for at in range(60)]
    rows[5].pop("kind")
    rows[6]["x"] = None
    data = "\n".join(map(json.dumps, rows)).encode()
    draft = draft_project(Wish("p", "me", "f.jsonl", "y"), data)
    assert declared(draft) == {"x": "int64?", "ok": "bool", "kind": "string?", "more": "json", "y": "int64?"}
    trained_on(folder_lake, draft, "f.jsonl", data, 60)


def test_parquet_keeps_its_types(folder_lake: Lake) -> None:
    count = 60
    table = pa.table(
        {
            "small": pa.array([None, *range(1, count)], pa.int16()),
            "real": pa.array([float("nan"), *(at / 2 for at in range(1, count))], pa.float32()),
            "price": pa.array([f"{at}.25" for at in range(count)]).cast(pa.decimal128(8, 2)),
            "ok": [at % 3 == 0 for at in range(count)],
            "kind": pa.array(["ab"[at % 2] for at in range(count)]).dictionary_encode(),
            "day": [dt.date(2024, 1, 1) + dt.timedelta(days=at) for at in range(count)],
            "text_day": [f"2024-01-{1 + at % 28:02}" for at in range(count)],
            "when": pa.array([dt.datetime(2024, 1, 1, at % 24) for at in range(count)], pa.timestamp("ns")),
            "list": [[at, 1] for at in range(count)],
            "struct": [{"a": at} for at in range(count)],
            "raw": [b"x"] * count,
            "y": [at % 2 for at in range(count)],
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    draft = draft_project(Wish("p", "me", "f.parquet", "y", "day"), sink.getvalue())
    assert declared(draft) == {
        "small": "int16?",
        "real": "float32?",
        "price": "decimal(8,2)",
        "ok": "bool",
        "kind": "string",
        "day": "date",
        "text_day": "date",
        "when": "timestamp",
        "list": "list<int64>",
        "y": "int64?",
    }
    assert [note.split(" ")[0] for note in draft.notes[:2]] == ["struct", "raw"]
    trained = trained_on(folder_lake, draft, "f.parquet", sink.getvalue(), count)
    assert trained.schema.field("ok").type == pa.bool_()
    assert trained.column("real").null_count == 1


@pytest.mark.parametrize(
    ("wish", "data", "words"),
    [
        (Wish("p", "me", "f.csv", "z"), b"x,y\n1,2\n", "--label: the file has no column 'z'"),
        (Wish("p", "me", "f.csv", "churnd"), b"x,churned\n1,2\n", 'did you mean "churned"?'),
        (Wish("p", "me", "f.csv", "y", "y"), b"x,y\n1,2\n", "'y' cannot be the label and tell rows apart"),
        (Wish("p", "me", "f.csv", "y"), b"", "the file is empty"),
        (Wish("p", "me", "f.csv", "y"), b"x,y\n", "the file has no rows"),
        (Wish("p", "me", "f.csv", "y"), b"y\n0\n1\n", "no column is left"),
        (Wish("p", "me", "f.csv", "y"), b"x,y\n\xff,1\n", "this cannot be read as CSV"),
        (Wish("p", "me", "f.csv.gz", "y"), b"x,y\n1,1\n", "not a whole gzip file"),
        (Wish("p", "me", "f.xlsx", "y"), b"PK", "a file that ends in '.xlsx' cannot be read"),
        (Wish("p", "me", "f.parquet", "y"), b"PAR1", "this cannot be read as Parquet"),
        (Wish("My Project", "me"), None, "use small letters, digits and _, a letter first: my_project"),
        (Wish("p", "me", label="y"), None, "give the file, too"),
    ],
)
def test_what_cannot_be_is_refused_in_plain_words(wish: Wish, data: bytes | None, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        draft_project(wish, data)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_columns_of_every_type_are_found_without_a_row_of_text() -> None:
    assert infer_columns(pa.table({"x": pa.nulls(3), "": [1, 2, 3], "_line": [1, 2, 3]}))[0].filled == 0


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`lakeloop`'s two commands, run in an empty folder."""
    import typer

    from lakeloop.infra.cli.starting import init, schema

    app = typer.Typer()
    app.command()(init)
    app.command()(schema)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def read(folder: Path) -> Project:
    project = read_project(folder)
    bound(project)
    return project


def test_init_writes_the_files_and_says_what_to_do_next(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "my customers.csv").write_bytes(
        as_csv(["customer_id", "x", "y"], [[at, at, at % 2] for at in range(40)])
    )
    options = ["--from", "my customers.csv", "--label", "y", "--key", "customer_id", "--owner", "crm"]
    ran = command("init", "churn", *options)
    assert ran.exit_code == 0, ran.output
    project = read(tmp_path / "churn")
    assert (project.owner, list(project.sources), list(project.models)) == ("crm", ["my_customers"], ["churn"])
    assert (tmp_path / "churn" / ".gitignore").read_text() == ".lake/\n.lakeloop/\n"
    first = (tmp_path / "churn" / "sources" / "my_customers.toml").read_text().splitlines()[0]
    assert first == "# Written by `lakeloop init churn --from 'my customers.csv' --label y --key customer_id`."
    for line in (
        "cd churn",
        "lakeloop apply",
        "lakeloop ingest my_customers '../my customers.csv'",
        "lakeloop train churn",
    ):
        assert line in ran.output


def test_init_without_a_file_writes_a_project_that_passes_the_check(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    ran = command("init", "empty")
    assert ran.exit_code == 0
    assert read(tmp_path / "empty").name == "empty"
    assert "there is no source yet" in ran.output


def test_init_overwrites_nothing(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert command("init", "there").exit_code == 0, "an empty folder is free"
    before = (tmp_path / "there" / "lakeloop.toml").read_bytes()
    ran = command("init", "there", "--owner", "somebody else")
    assert isinstance(ran.exception, Invalid)
    assert "nothing is overwritten" in str(ran.exception)
    assert (tmp_path / "there" / "lakeloop.toml").read_bytes() == before


def test_a_file_that_is_refused_leaves_nothing_behind(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("x y,z\n1,2\n")
    assert isinstance(command("init", "p", "--from", "f.csv", "--label", "z").exception, Invalid)
    assert not (tmp_path / "p").exists()


def test_schema_writes_one_for_every_kind_of_file(command: Callable[..., Any], tmp_path: Path) -> None:
    command("init", "p")
    ran = command("schema", "p")
    assert ran.exit_code == 0, ran.output
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "p" / ".lakeloop" / "schema").iterdir()}
    assert set(written) == {"project.json", "source.json", "feature-view.json", "model.json", "report.json"}
    assert "problem" in written["model.json"]["required"]
    read(tmp_path / "p")
