"""`lakeloop predict`, scored here: each version by what it was trained with."""

from __future__ import annotations

import json
from datetime import timedelta

from typer.testing import CliRunner

from lakeloop.functions.build_features import build_features
from lakeloop.infra.cli.app import app
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.project import parse_project
from tests.orders import FILES, HOUR, NOON, Orders

VIEW = "features/spending.sql"
ROW = {"customer": "c3", "amount": 1.0, "as_of": (NOON + timedelta(hours=4)).isoformat()}


def predicted(lake: Lake, model: str) -> float:
    arguments = ["predict", model, "--row", json.dumps(ROW), "--json", "--lake", lake.url]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return float(json.loads(done.stdout)["prediction"])


def test_a_version_reads_its_own_version_of_a_view_also_when_the_champion_has_another(folder_lake: Lake) -> None:
    orders = Orders(folder_lake)
    orders.register("first")
    doubled = FILES[VIEW].replace("select customer, paid, total from", "select customer, paid, 2 * total as total from")
    orders.project = parse_project({**FILES, VIEW: doubled})
    applied.publish(folder_lake, orders.project, code_version="test")
    build_features(folder_lake, orders.project, as_of=NOON + 4 * HOUR)
    orders.register("second")
    assert predicted(folder_lake, "risk") == 1 + 10 * 12 + 100
    assert predicted(folder_lake, "risk@1") == 1 + 10 * 6 + 100
