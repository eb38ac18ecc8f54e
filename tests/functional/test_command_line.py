"""The command line as a person meets it: exit codes, one clear message for what can go wrong, and never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lakeloop.infra.cli import main

FILES = {
    "lakeloop.toml": 'name = "shop"\ngoal = "Keep customers who would leave"\nowner = "crm"\n',
    "sources/customers.toml": """owner = "crm"
read = { kind = "landing", format = "csv" }
key = ["customer_id", "month_end"]
event_time = "month_end"
[columns]
customer_id = "int64"
month_end = "date"
plan = "string"
logins = { type = "int32", range = [0, 1000] }
churned = "bool?"
""",
    "models/churn.toml": """problem = "binary"
learner = "sklearn"
[inputs.request]
plan = "category"
logins = "float32"
[split]
by = "time"
test = "60d"
[search]
metric = "roc_auc"
trials = 2
""",
    "models/churn.sql": """select concat_ws('-', customer_id, month_end) as id, month_end as as_of, plan, logins,
       churned as label, month_end + interval 30 days as label_known_at
from customers
""",
}
HEADER = "customer_id,month_end,plan,logins,churned\n"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


def project_in(place: Path) -> Path:
    for name, text in FILES.items():
        path = place / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place / "shop"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small project, not applied."""
    return project_in(tmp_path)


@pytest.fixture
def run(folder: Path) -> Run:
    """The installed command, in the project's folder."""
    return command_in(folder)


@pytest.fixture(scope="module")
def run_applied(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The installed command in the folder of a project that is applied and has no data; for what changes nothing."""
    run = command_in(project_in(tmp_path_factory.mktemp("applied")))
    assert run("apply").code == 0
    return run


def command_in(folder: Path) -> Run:
    """The command's entry in this process: of its some hundred calls here most would go into starting Python."""

    def call(*arguments: str, cwd: Path | None = None, **variables: str) -> Said:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.chdir(cwd or folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            for name in list(os.environ):
                if name.startswith(("AWS_", "LAKELOOP_")):
                    patch.delenv(name)
            for name, value in ({"LAKELOOP_STATE_DIR": str(folder.parent / "state")} | variables).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["lakeloop", *arguments])
            code = exit_code(main)
        return Said(code, *(one.buffer.getvalue().decode() for one in (out, err)))

    return call


def exit_code(program: Callable[[], None]) -> int:
    try:
        program()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def rows(count: int = 40) -> str:
    months = ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31", "2024-06-30"]
    return HEADER + "".join(
        f"{n},{month},{'pro' if n % 3 else 'free'},{n % 50},{str(n % 4 == 0).lower()}\n"
        for month in months
        for n in range(count)
    )


def test_from_files_to_an_answer_in_sql(run: Run, folder: Path) -> None:
    (folder / "customers.csv").write_text(rows())
    assert "0 sources" not in run("check").err
    applied = run("apply")
    assert (applied.code, "made a lake" in applied.err, "revision 1" in applied.err) == (0, True, True)
    assert "in force already" in run("apply").err
    ingested = json.loads(run("ingest", "customers", "customers.csv", "--json").out)
    assert (ingested["rows"], ingested["quarantined"]) == (240, 0)
    again = json.loads(run("ingest", "customers", "customers.csv", "--json").out)
    assert (again["rows"], again["note"]) == (0, "ingested before")
    counted = run("query", "select plan, count(*) as n from customers group by plan order by plan", "--json")
    assert [json.loads(line) for line in counted.out.splitlines()] == [
        {"plan": "free", "n": 84},
        {"plan": "pro", "n": 156},
    ]
    assert run("query", "select count(*) as n from customers", "--csv").out == '"n"\n240\n'
    assert "champion" in run("status").out


def test_broken_lines_and_wrong_values_go_to_quarantine_and_the_rest_is_kept(run: Run, folder: Path) -> None:
    (folder / "c.csv").write_text(
        HEADER
        + "1,2024-01-31,pro,5,true\n2,2024-01-31,pro\n3,2024-01-31,pro,many,\n"
        + "4,2024-01-31,pro,5000,\n5,someday,pro,1,\n"
    )
    run("apply")
    done = run("ingest", "customers", "c.csv", "--json")
    assert json.loads(done.out)["rows"] == 1
    assert json.loads(done.out)["quarantined"] == 4
    reasons = [json.loads(line)["reason"] for line in run("quarantine", "show", "customers", "--json").out.splitlines()]
    assert sorted(reasons) == [
        "broken line: 3 values where the header has 5",
        "logins: 5000 is outside 0 to 1000",
        "logins: many is not an int32",
        "month_end: someday is not a date",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("customer_id,month_end,plan,logins\n1,2024-01-31,pro,5\n", None),
        ("customer_id,month_end,logins,churned\n1,2024-01-31,5,\n", "the file has no column plan"),
        ("\xff\xfe\x00bad", "cannot be read as CSV"),
    ],
)
def test_a_file_that_cannot_be_read_is_set_aside_with_the_reason(
    run: Run, folder: Path, text: str, message: str | None
) -> None:
    (folder / "c.csv").write_bytes(text.encode("latin-1"))
    run("apply")
    done = run("ingest", "customers", "c.csv")
    if message is None:  # a column that may be null may be missing
        assert (done.code, done.err.count("problem")) == (0, 0)
        return
    assert done.code == 2
    assert message in done.err
    assert message in run("quarantine", "list").out
    assert "nothing lies in landing" in run("ingest").out


@pytest.mark.parametrize(
    ("arguments", "code", "message", "way_out"),
    [
        (["query", "select nothing from customers"], 2, "nothing", "Candidate"),
        (["query", "select * from custmers"], 2, "custmers", "did you mean"),
        (["query", "drop table customers"], 2, "only a SELECT can stand here", "write one SELECT"),
        (["query", "select * from read_csv('/etc/passwd')"], 2, "read_csv", ""),
        (["ingest", "orders", "x.csv"], 1, "there is no file x.csv", "check the path"),
        (["train", "chrun"], 1, "no model 'chrun'", "churn"),
        (["models", "show", "churn"], 1, "no champion yet", "lakeloop train churn"),
        (["models", "rollback", "churn"], 1, "no champion", "lakeloop train churn"),
        (["predict", "churn", "--row", "{oops"], 2, "this is not JSON", "write a row as"),
        (["predict", "churn", "--row", '{"plan": "pro", "logins": 1}'], 1, "no champion yet", "lakeloop train churn"),
        (["predictions", "show", "x#0"], 1, "no prediction 'x#0'", "predictions list"),
        (["serve"], 1, "no model of shop has a champion", "train one"),
        (["features", "get", "x"], 1, "no online view 'x'", "none is online"),
        (["monitors", "run", "x"], 1, "no monitor 'x'", "none is declared"),
        (["freeze", "x", "--why", "y"], 1, "no model 'x'", "churn"),
        (["status", "--env", "prod"], 2, "no environment 'prod'", "dev"),
        (["monitors", "run", "--as-of", "soon"], 2, "'soon' is not a time", "2013-04-01"),
        (["status", "--lake", "gs://x"], 2, "'gs://x' is not a lake", "s3://bucket/prefix"),
        (["runs", "list", "--param", "depth"], 2, "names no value", "max_depth=6"),
        (["runs", "list", "--order", "best"], 2, "no order 'best'", "highest"),
        (["runs", "show", "r1"], 1, "no run 'r1'", "runs list"),
    ],
)
def test_what_a_person_gets_wrong_is_said_in_one_message_with_the_way_out(
    run_applied: Run, arguments: list[str], code: int, message: str, way_out: str
) -> None:
    said = run_applied(*arguments)
    assert said.code == code, said.err
    assert message in said.err
    assert way_out in said.err
    assert len(said.err.strip().splitlines()) <= 3


def test_outside_of_a_project_the_command_says_where_it_looked(run: Run, tmp_path: Path) -> None:
    said = run("check", cwd=tmp_path)
    assert said.code == 1
    assert "lakeloop.toml" in said.err
    assert "lakeloop init" in said.err


def test_a_file_is_landed_under_its_name_alone_whatever_is_in_it(run: Run, folder: Path) -> None:
    assert run("apply").code == 0
    name = "ü a+b%2F#1 日本.csv"
    (folder / "below").mkdir()
    (folder / "below" / name).write_text(rows(3))
    said = run("ingest", "customers", f"below/../below/{name}", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["file"] == name
    found = json.loads(run("query", "select distinct _file from customers_history", "--json").out)
    assert found["_file"].startswith(f"{name}#")


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        ("lakeloop.toml", 'owner = "crm"', "", "lakeloop.toml"),
        ("models/churn.toml", "learner", "lerner", 'did you mean "learner"'),
        ("models/churn.toml", 'test = "60d"', "test = 60", "models/churn.toml:8: [split] test"),
        ("models/churn.sql", "churned as label", "churnd as label", "churnd"),
        ("models/churn.sql", "churned as label,", "", "label"),
        ("models/churn.sql", "plan, logins", "plan, login", "login"),
        ("sources/customers.toml", '"date"', '"dat"', "date"),
    ],
)
def test_a_wrong_project_is_refused_with_file_and_key_and_changes_nothing(
    run: Run, folder: Path, file: str, before: str, after: str, message: str
) -> None:
    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after, 1))
    for command in ("check", "apply"):
        said = run(command)
        assert said.code == 2, said.err
        assert message in said.err
    assert not (folder / ".lake" / "docs").exists()


def test_an_endpoint_that_does_not_answer_is_unavailable(run: Run) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    store = run(
        "lake",
        "init",
        "--lake",
        "s3://bucket/lake",
        AWS_ENDPOINT_URL=url,
        AWS_ACCESS_KEY_ID="x",
        AWS_SECRET_ACCESS_KEY="secret-x",
    )
    assert store.code == 4
    assert f"no connection to {url}" in store.err
    assert "secret-x" not in store.err
    server = run("predict", "churn", "--url", url, "--row", "{}")
    assert server.code == 4
    assert "lakeloop serve" in server.err


def test_a_bucket_that_does_not_exist_and_missing_credentials_are_told_apart(run: Run, moto_url: str) -> None:
    keys = {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    for command in (["lake", "init"], ["apply"], ["status"]):
        missing = run(
            *command, "--lake", "s3://no-such-bucket/lake", AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="y", **keys
        )
        assert (missing.code, "there is no bucket 'no-such-bucket'" in missing.err) == (1, True), missing.err
    nobody = run("lake", "init", "--lake", "s3://no-such-bucket/lake", **keys)
    assert (nobody.code, "no AWS credentials were found" in nobody.err) == (1, True)


def test_a_folder_that_cannot_be_written_is_denied_or_named(run: Run, folder: Path) -> None:
    (folder / "taken").write_text("a file")
    said = run("apply", "--lake", str(folder / "taken"))
    assert said.code == 2
    assert "this is a file, not a folder" in said.err


def test_ray_that_cannot_start_is_said_in_one_message(run: Run, folder: Path) -> None:
    (folder / "customers.csv").write_text(rows())
    (folder / "blocked").write_text("a file where a folder is needed")
    run("apply")
    run("ingest", "customers", "customers.csv")
    said = run("train", "churn", "--as-of", "2024-09-01", "--quiet", LAKELOOP_STATE_DIR=str(folder / "blocked"))
    assert said.code in (1, 4)
    assert "blocked" in said.err
    assert len(said.err.strip().splitlines()) <= 3


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    heavy = "ray,duckdb,pyarrow,deltalake,boto3,pandas,sklearn,xgboost,numpy,matplotlib,pydantic"
    script = f"import sys; import lakeloop.infra.cli.app; print([m for m in '{heavy}'.split(',') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )


def test_the_version_is_that_of_the_package(run: Run) -> None:
    from importlib.metadata import version

    said = run("--version")
    assert (said.code, said.out.strip()) == (0, version("lakeloop"))


def test_every_command_explains_itself() -> None:
    from typer.main import get_command

    from lakeloop.infra.cli.app import app

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{path} {name}")

    found = dict(walk(get_command(app), "lakeloop"))
    assert len(found) > 40
    assert [path for path, command in found.items() if not command.help] == []
