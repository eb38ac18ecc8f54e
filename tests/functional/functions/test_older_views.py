"""A champion keeps fresh features of the views it was trained with, after their rules were changed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lakeloop.functions.build_features import build_features, online_id
from lakeloop.functions.ingest_data import ingest_data, land
from lakeloop.functions.roll_out import roll_out
from lakeloop.lakehouse import applied, endpoints, registry
from lakeloop.lakehouse.features.online import open_snapshot
from lakeloop.lakehouse.lake import open_lake
from lakeloop.lakehouse.project import Project, parse_project

FILES = {
    "lakeloop.toml": 'name = "p"\nowner = "me"\n',
    "sources/seen.toml": 'owner = "me"\nread = { kind = "landing", format = "csv" }\nevent_time = "t"\n'
    '[columns]\nk = "string"\nt = "timestamp"\nv = "float64"\nlabel = "bool"\n',
    "features/last.sql": '-- /// feature-view\n-- owner = "me"\n-- entity = ["k"]\n-- event_time = "t"\n'
    "-- online = true\n-- ///\nselect k, t, v from seen\n",
    "models/m.sql": "select concat(k, t) as id, t as as_of, k, label, t as label_known_at from seen\n",
    "models/m.toml": 'problem = "binary"\nlearner = "sklearn"\n[inputs]\nfeatures = ["last.v"]\n[inputs.request]\n'
    'k = "category"\n[split]\nby = "random"\ntest = 0.3\n[search]\nmetric = "roc_auc"\n',
}
AS_OF = datetime(2024, 1, 2, tzinfo=UTC)


def doubled() -> Project:
    return parse_project(
        FILES | {"features/last.sql": FILES["features/last.sql"].replace("t, v from", "t, v * 2 as v from")}
    )


def test_the_snapshot_of_an_older_view_is_renewed_while_a_champion_needs_it(tmp_path: Path) -> None:
    lake, before, after = open_lake(str(tmp_path)), parse_project(FILES), doubled()
    applied.publish(lake, before, code_version="1")
    old, new = (applied.bound(project).views["last"].version for project in (before, after))
    assert old != new

    def arrive(project: Project, name: str, value: float) -> None:
        land(lake, project, "seen", name, f"k,t,v,label\na,2024-01-01T{len(name):02}:00:00Z,{value},true\n".encode())
        ingest_data(lake, project)
        build_features(lake, project, as_of=AS_OF)
        roll_out(lake, project)

    def served() -> float:
        there = endpoints.endpoint(lake, "p", "m")
        assert there is not None
        snapshot = there.body["snapshots"]["last"]
        assert snapshot["version"] == old
        values, _ = open_snapshot(lake, snapshot["key"], snapshot["sha256"]).at(("a",), AS_OF)
        assert values is not None
        return float(values["v"])

    lineage = {"views": {"last": old}, "definition": before.hash}
    registry.register(lake, "p", "m", "run-1", {"artifacts": [], "lineage": lineage})
    endpoints.promote(lake, "p", "m", 1, expected=None, why="test")
    arrive(before, "1.csv", 1.0)
    assert served() == 1.0
    applied.publish(lake, after, code_version="2")
    arrive(after, "22.csv", 5.0)
    assert served() == 5.0
    newest = lake.documents.get("online", online_id("p", "last", new)).body
    values, _ = open_snapshot(lake, newest["key"], newest["sha256"]).at(("a",), AS_OF)
    assert values == {"v": 10.0}
    assert build_features(lake, after, as_of=AS_OF) == []
