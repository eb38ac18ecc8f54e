"""What happened in production: champions, what the endpoint served, alarms and trainings, on one time axis.

Documents carry the wall clock, data their `as_of`; in a replay these are years apart. So a change is placed where the
first prediction is that followed from it, and one that brought none yet where its training was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from lakeloop.functions.report.answers import ANSWERS
from lakeloop.functions.report.data import Alert, EndpointChange, Mark
from lakeloop.functions.report.scope import Scope, named, utc
from lakeloop.lakehouse import endpoints
from lakeloop.lakehouse.documents import Revision
from lakeloop.lakehouse.query.quoting import timestamp


@dataclass(frozen=True, slots=True)
class Served:
    """From `at` on another version was wanted (`decided`), or the endpoint's arms were others."""

    at: datetime
    version: int
    shares: dict[str, float]
    decided: bool
    rolled_back: bool
    who: str
    why: str


def served(scope: Scope) -> list[Served]:
    """Every change up to now, the oldest first."""
    key = endpoints.endpoint_id(scope.project.name, scope.model.name)
    found = list(_changes(reversed(scope.lake.documents.history(endpoints.KIND, key))))
    placed = [(at, one) for at, one in zip(_placed(scope, [one for one, _ in found]), found, strict=True) if at]
    return [
        Served(
            at,
            _version(one),
            _shares(one),
            one is by,
            _version(by) < max(map(int, by.body["barred"]), default=0),
            by.who,
            by.why,
        )
        for at, (one, by) in placed
        if at <= scope.as_of
    ]


def champion(changes: Sequence[Served]) -> Served | None:
    """The newest decision."""
    return next((one for one in reversed(changes) if one.decided), None)


def endpoint_changes(changes: Sequence[Served]) -> list[EndpointChange]:
    """What answered, from when on."""
    found: list[EndpointChange] = []
    for one in changes:
        if one.shares and (not found or found[-1].shares != one.shares):
            what = "rollback" if one.rolled_back else "promotion" if max(one.shares.values()) == 1 else "canary"
            found.append(EndpointChange(one.at, what, one.shares, who=one.who, why=one.why))
    return found


def alerts(scope: Scope) -> list[Alert]:
    """Every alert at the end of the window that opened it, with what became of it."""
    opened = (
        "and status = 'open' and window_end <= ? qualify row_number() over (partition by alert order by logged_at) = 1"
    )
    now = {row["alert"]: row for row in scope.journal("alerts")}
    found = []
    for row in scope.journal("alerts_log", f"{opened} order by window_end, alert", scope.as_of):
        last = now[row["alert"]]
        why = last["message"] if last["status"] != "open" and last["message"] != row["message"] else ""
        at, severity = utc(row["window_end"]), row["severity"]
        found.append(Alert(at, severity, row["monitor"], row["message"], last["status"], why=why))
    return found


def marks(scope: Scope, changes: Sequence[Served], found: Sequence[Alert]) -> list[Mark]:
    """Alarms, trainings, promotions and rollbacks."""
    decisions = [one for one in changes if one.decided]
    return [
        *(Mark(one.at, "alarm", f"{one.monitor}: {one.what}") for one in found),
        *(Mark(utc(run["as_of"]), "training", f"{run['trigger']} ({run['status']})") for run in scope.runs),
        *(
            Mark(one.at, "rollback" if one.rolled_back else "promotion", f"{named(one.version)}: {one.why}")
            for one in decisions
        ),
    ]


def _changes(revisions: Iterable[Revision]) -> Iterable[tuple[Revision, Revision]]:
    """Revisions with another wanted version or other arms, each with the decision that it follows from."""
    before: Revision | None = None
    decision: Revision | None = None
    for one in revisions:
        if decision is None or _version(one) != _version(decision):
            decision = one
        if one is decision or before is None or _shares(one) != _shares(before):
            yield one, decision
        before = one


def _version(revision: Revision) -> int:
    return int(revision.body["wanted"])


def _shares(revision: Revision) -> dict[str, float]:
    arms = revision.body["arms"]
    return {named(int(arm["version"])): arm["weight"] / endpoints.WHOLE for arm in arms if arm["weight"]}


def _placed(scope: Scope, revisions: Sequence[Revision]) -> list[datetime]:
    """When each took effect: at the first prediction of the wanted version afterwards, else when it was decided."""
    if not revisions:
        return []
    listed = ", ".join(f"({i}, {_version(one)}, {timestamp(one.at)})" for i, one in enumerate(revisions))
    first = scope.rows(
        f"select i, min(as_of) as at from (values {listed}) w(i, version, since) "
        f"left join {ANSWERS} a on a.version = w.version and a.logged_at >= w.since group by i order by i"
    )
    return [
        utc(row["at"]) if row["at"] else scope.dated(one.at, scope.run_of(_version(one)))
        for row, one in zip(first, revisions, strict=True)
    ]
