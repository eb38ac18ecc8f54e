"""`predictions list | show`: what was answered, and the whole why of one answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakeloop.infra.cli.options import EnvOption, JsonOption, LakeOption
from lakeloop.infra.cli.output import facts, out, show
from lakeloop.infra.place import Place, find_place
from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.prediction_columns import HASHED

if TYPE_CHECKING:
    from lakeloop.lakehouse.documents import Revision
    from lakeloop.lakehouse.lake import Lake
    from lakeloop.lakehouse.scoring.signature import Input, Signature

PANEL = "Serving"
SAID = ("prediction_id", "id", "as_of", "logged_at", "prediction", "decision", "label", "label_known_at")
ABOUT = ("latency_ms", "read_ms", "lookup_ms", "predict_ms", "log_ms", "trace_id", "sample_rate")
LIST = """
select prediction_id, as_of, version, arm, prediction, decision, label, label_known_at, latency_ms
from predictions_labelled where project = ? and model = ? order by as_of desc, prediction_id limit ?"""
FIND = """
select * from predictions_labelled where prediction_id = ? or id = ? or request_id = ?
order by prediction_id = ? desc, as_of desc, logged_at desc, prediction_id limit 1"""


def register(app: typer.Typer) -> None:
    predictions = typer.Typer(help="The log of answers", no_args_is_help=True)
    predictions.command("show")(predictions_show)
    predictions.command("list")(predictions_list)
    app.add_typer(predictions, name="predictions", rich_help_panel=PANEL)


def predictions_list(
    model: Annotated[str, typer.Argument(help="A model")],
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
    limit: int = 20,
) -> None:
    """The newest answers, with labels where they have come."""
    place = find_place(lake, env)
    project = place.applied()
    rows = place.lake.sql(LIST, [project.name, model, limit], project=project.name).to_pylist()
    show(rows, as_json=as_json, empty="no prediction is logged yet")


def predictions_show(
    prediction: Annotated[str, typer.Argument(help="prediction_id, or the id of the row or the request")],
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """The whole why of one answer: inputs, ages, version, who promoted it and approved it, data, code, the label."""
    why = explain(find_place(lake, env), prediction)
    if as_json:
        facts(why.record(), as_json=True)
    else:
        why.print()


@dataclass(frozen=True, slots=True)
class Why:
    """All that is known of one answer, in the order in which a person asks."""

    answer: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Any]]
    ages_s: Mapping[str, float | None]
    feature_versions: Mapping[str, Any]
    model: Mapping[str, Any]
    lineage: Mapping[str, Any]
    parameters: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def print(self) -> None:
        out.print("the answer")
        facts(_shown(self.answer), as_json=False)
        out.print("\nwhat the model saw")
        rows = [{"input": f"  {name}", "value": one["value"], "from": one["from"]} for name, one in self.inputs.items()]
        show(rows, as_json=False, empty="  nothing")
        facts({f"  {view}": self._view(view) for view in self.ages_s}, as_json=False)
        out.print("\nwho answered, and why it may")
        facts(_shown(self.model), as_json=False)
        out.print("\nwhat it was made from")
        facts(_shown({**self.lineage, "parameters": self.parameters}), as_json=False)

    def _view(self, view: str) -> str:
        age = self.ages_s[view]
        known = "nothing was known" if age is None else f"{age / 60:.0f} min old"
        version = self.feature_versions.get(view)
        return known if version is None else f"{known}, snapshot of version {version}"


def explain(place: Place, prediction: str) -> Why:
    """All that the lake knows of an answer: one query, and the documents it leads to. NotFound if it is not logged."""
    from lakeloop.lakehouse import registry

    row = _row(place, prediction)
    of = (row["project"], row["model"], row["version"])
    body, signature = registry.version(place.lake, *of).body, registry.signature(place.lake, *of)
    answer = {name: row.get(name) for name in (*SAID, *ABOUT)}
    answer["threshold"] = signature.threshold if signature.problem == "binary" else None
    return Why(
        answer,
        {one.name: _input(one, row) for one in signature.inputs},
        json.loads(row["ages"] or "{}"),
        _versions(row, signature),
        {**_model(row, body), **_in_charge(place.lake, row), **_approval(place.lake, row)},
        body["lineage"],
        body.get("params", {}),
    )


def _row(place: Place, prediction: str) -> dict[str, Any]:
    found = place.lake.sql(FIND, [prediction] * 4, project=place.applied().name).to_pylist()
    if not found:
        raise NotFound(
            f"no prediction {prediction!r} is logged",
            todo="see `lakeloop predictions list MODEL`; what was answered a second ago may still be on its way, and "
            "[serving] log may hold a sample only",
        )
    return dict(found[0])


def _input(one: Input, row: Mapping[str, Any]) -> dict[str, Any]:
    """An input's value, and where it came from; a hash where it is private."""
    hashed = row.get(one.name + HASHED)
    if hashed is not None:
        return {"value": hashed, "from": f"{_origin(one, row)}, as a hash"}
    if one.name not in row:
        return {"value": None, "from": f"{_origin(one, row)}, not logged"}
    return {"value": row[one.name], "from": _origin(one, row)}


def _origin(one: Input, row: Mapping[str, Any]) -> str:
    match one.role:
        case "request":
            return "the caller"
        case "derived":
            return "the caller" if one.name in (row.get("given") or []) else "derive()"
        case "feature":
            if one.name in (row.get("given") or []):
                return "the caller"
            return "absent" if one.name in (row.get("absent") or []) else "the online store"


def _versions(row: Mapping[str, Any], signature: Signature) -> Mapping[str, Any]:
    """By a view's name in answers: the version of the snapshot that was read."""
    by_view = json.loads(row.get("feature_versions") or "{}")
    return {use.label: by_view[use.view] for use in signature.views if use.view in by_view}


def _model(row: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": row["model"],
        "version": row["version"],
        "arm": row["arm"],
        "run": body.get("run"),
        "model_hash": body.get("model_hash"),
    }


def _in_charge(lake: Lake, row: Mapping[str, Any]) -> dict[str, Any]:
    """Who made this version answer, when and why: the first of the endpoint's revisions, without a break up to the one
    that answered, in which it is wanted or an arm."""
    from lakeloop.lakehouse.endpoints import KIND, endpoint_id

    history = lake.documents.history(KIND, endpoint_id(row["project"], row["model"]))
    first: Revision | None = None
    for revision in (one for one in history if one.number <= (row["revision"] or one.number)):
        if row["version"] not in _named(revision.body):
            break
        first = revision
    if first is None:
        return {}
    return {"promoted_by": first.who, "promoted_at": first.at, "because": first.why}


def _named(body: Mapping[str, Any]) -> set[int]:
    return {int(body["wanted"]), *(int(arm["version"]) for arm in body["arms"])}


def _approval(lake: Lake, row: Mapping[str, Any]) -> dict[str, Any]:
    """Who approved the version, where its gate had it wait for that."""
    from lakeloop.lakehouse import registry

    history: Sequence[Revision] = lake.documents.history(
        registry.KIND, registry.version_id(row["project"], row["model"], row["version"])
    )
    for newer, older in pairwise(history):
        if (older.body.get("status"), newer.body.get("status")) == ("waiting", "champion"):
            return {"approved_by": newer.who, "approved_at": newer.at}
    return {}


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    return {f"  {name}": value for name, value in record.items() if value is not None}
