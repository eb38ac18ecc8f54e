"""Which runs: filtered by what they are and how they scored, in an order, the first so many.

Made for lakes with hundreds of thousands of runs: only the columns that decide are read of all of them, and the others
of those that are wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from lakeloop.lakehouse.errors import Invalid

if TYPE_CHECKING:
    import pyarrow as pa

    from lakeloop.lakehouse.lake import Lake

Order: TypeAlias = Literal["newest", "highest", "lowest"]
ORDERS: dict[str, str] = {
    "newest": "r.first_logged_at desc, r.run",
    "highest": "m.value desc nulls last, r.run",
    "lowest": "m.value nulls last, r.run",
}
LISTED = 10_000
"""Runs up to which a query names each."""
OF_MODEL = "subject = 'model' and slice = ''"
Condition: TypeAlias = tuple[str, Sequence[object]]
"""SQL, and the values it binds."""


def find_runs(
    lake: Lake,
    *,
    model: str = "",
    status: str = "",
    params: Mapping[str, object] | None = None,
    metric: str | Mapping[str, str] = "",
    above: float | None = None,
    below: float | None = None,
    order: Order = "newest",
    limit: int = 1000,
    all_metrics: bool = False,
) -> pa.Table:
    """The columns of `lakeloop.runs`, the gate's `verdict`, and `metric`, `value`, `low`, `high` on the test part; with
    `all_metrics` also `metrics`, a map from the name of each to its value.

    `metric` is one for all, or that of each model. `params` are those a run found, compared as text. With `above` or
    `below` only runs that have the metric; `limit` 0: all. Invalid for an order by a metric that is not named.
    """
    import pyarrow as pa

    from lakeloop.lakehouse.query.catalog import LakeCatalog
    from lakeloop.lakehouse.query.session import Session

    by_metric = above is not None or below is not None or order != "newest"
    if order not in ORDERS:
        raise Invalid(f"there is no order {order!r}", todo=f"name one of: {', '.join(ORDERS)}")
    if by_metric and not metric:
        raise Invalid("no metric is named to judge the runs by", todo="name the metric")
    scores = _scores(metric)
    with Session(lake.store.location(), LakeCatalog(lake)) as session:
        conditions = _conditions(model, status, params or {}, above, below)
        chosen = session.run(*_choice(conditions, scores if by_metric else None, ORDERS[order], limit))
        session.register("_chosen", chosen.append_column("place", pa.array(range(chosen.num_rows), pa.int64())))
        runs = chosen.column("run").to_pylist()
        return session.run(*_description(runs, None if by_metric else scores, all_metrics=all_metrics))


def _choice(conditions: Sequence[Condition], scores: Condition | None, order: str, limit: int) -> Condition:
    """The runs, in their order, with what they scored where that decides."""
    columns = ", m.metric, m.value, m.low, m.high" if scores else ""
    join = f"left join ({scores[0]}) m using (run)" if scores else ""
    where = " and ".join(sql for sql, _ in conditions) or "true"
    first = f"limit {int(limit)}" if limit else ""
    sql = f"select r.run{columns} from lakeloop.runs r {join} where {where} order by {order} {first}"
    return sql, [value for _, each in [scores or ("", ()), *conditions] for value in each]


def _description(runs: Sequence[str], scores: Condition | None, *, all_metrics: bool) -> Condition:
    """All that is said of the chosen runs. They are listed, since DuckDB carries a list down to the scan, under the
    GROUP BY of `runs`, where it would make a join after it."""
    among, listed = "true", list[object]()
    if len(runs) <= LISTED:
        among, listed = f"run in ({', '.join('?' for _ in runs) or 'null'})", [*runs]
    measured, bound = "_chosen", list[object]()
    if scores:
        measured, bound = f"({scores[0]} and {among})", [*scores[1], *listed]
    every, join, more = "", "", list[object]()
    if all_metrics:
        every, more = ", a.metrics", listed
        join = f"""left join (
            select run, map_from_entries(list((metric, value) order by metric)) as metrics from lakeloop.metrics
            where {OF_MODEL} and {among} group by run
        ) a using (run)"""
    return (
        f"""select r.*, v.verdict, m.metric, m.value, m.low, m.high{every}
        from _chosen c join (select * from lakeloop.runs where {among}) r using (run) left join {measured} m using (run)
        left join (
            select run, arg_max(verdict, logged_at) as verdict from lakeloop.verdicts where {among} group by run
        ) v using (run) {join} order by c.place""",
        [*listed, *bound, *listed, *more],
    )


def _scores(metric: str | Mapping[str, str]) -> Condition:
    """A metric of whole models, not of slices or baselines."""
    asked = f"select run, metric, value, low, high from lakeloop.metrics where {OF_MODEL} and "
    if isinstance(metric, str):
        return f"{asked} metric = ?", [metric]
    each = " or ".join("(model = ? and metric = ?)" for _ in metric)
    return f"{asked} ({each or 'false'})", [text for pair in metric.items() for text in pair]


def _conditions(
    model: str, status: str, params: Mapping[str, object], above: float | None, below: float | None
) -> list[Condition]:
    """Over the runs `r` and their metric `m`."""
    found: list[Condition] = []
    if model:
        found.append(("r.model = ?", [model]))
    if status:
        found.append(("r.status = ?", [status]))
    for name, value in params.items():
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")  # a path would need quotes, which may be in a name
        found.append(("json_extract_string(r.params, ?) = ?", [pointer, str(value)]))
    if above is not None:
        found.append(("m.value > ?", [above]))
    if below is not None:
        found.append(("m.value < ?", [below]))
    return found
