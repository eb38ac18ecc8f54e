"""Labels of two models of one project, a class number and a truth value, each as its own model knows it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from lakeloop.functions.check_monitors import truth_and_scores
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.lakehouse import applied
from lakeloop.lakehouse.lake import open_lake
from lakeloop.lakehouse.monitoring import Window, labelled_scores
from lakeloop.lakehouse.project import read_project
from lakeloop.lakehouse.query.catalog import LakeCatalog
from lakeloop.lakehouse.query.session import Session
from lakeloop.lakehouse.scoring.signature import Signature
from lakeloop.tests.functional.loop.stories import DAY, PROJECTS, START, digits, digits_sheets

SIGNATURES = {
    "high": Signature("binary", (), classes=("false", "true"), positive="true"),
    "digits": Signature("multiclass", (), classes=tuple("0123456789")),
}


@pytest.mark.parametrize("model", SIGNATURES)
def test_a_model_is_judged_by_its_own_labels_whatever_those_of_others_are(tmp_path: Path, model: str) -> None:
    lake, project, sheets = open_lake(str(tmp_path)), read_project(PROJECTS / "digits"), digits_sheets(START)[:100]
    applied.publish(lake, project, code_version="tests")
    for source, data in digits().learn.items():
        land(lake, project, source, f"{source}.csv", data)
    ingest_data(lake, project)
    for one in SIGNATURES:
        rows = [
            {
                "prediction_id": sheet["sheet"],
                "id": sheet["sheet"],
                "as_of": sheet["scanned_at"],
                "logged_at": sheet["scanned_at"],
                "project": "digits",
                "model": one,
                "version": 1,
                "prediction": 0.5,
                "scores": [0.1] * 10,
            }
            for sheet in sheets
        ]
        lake.journal(f"predictions.digits.{one}").append(pa.Table.from_pylist(rows), "20210101T000000Z-tests-0")
    with Session(lake.store.location(), LakeCatalog(lake, project)) as session:
        found = labelled_scores(session, Window(model, 1, START, START + 5 * DAY), START + 30 * DAY)
    y, _ = truth_and_scores(SIGNATURES[model], found)
    truth = {sheet["sheet"]: sheet["digit"] if model == "digits" else sheet["digit"] >= 5 for sheet in sheets}
    assert y.tolist() == [truth[number] for number in found["id"].to_pylist()]
    assert len(y) == len(sheets)
