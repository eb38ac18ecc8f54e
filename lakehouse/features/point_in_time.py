"""The point-in-time join, as SQL text.

Pure functions: the same text serves training, the online snapshot and the leakage check.

A row of a view is known at max(event time, `known_at` or event time + `lag`), and visible from the next multiple of
the view's `refresh` on. What is asked at `as_of` is answered with rows that were visible then. A plain view answers
with the newest by event time (`ttl` after which it is forgotten); a windowed view aggregates the events in (t −
window, t], t being `as_of` rounded down to `refresh`.

All times inside are microseconds since 1970 (BIGINT). `rows` and `spine` are names of relations; the spine has the
columns `_row`, `_t` (as_of in microseconds) and the view's entity columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.project.definitions import FeatureView, WindowFeature, Windows
from lakeloop.lakehouse.query.quoting import quoted

MICROSECOND = timedelta(microseconds=1)


def microseconds(duration: timedelta) -> int:
    return duration // MICROSECOND


def plain_columns(view: FeatureView, columns: Sequence[str]) -> list[str]:
    """The feature columns of a plain view: all that its query yields but entity and times."""
    return [name for name in columns if name not in (*view.entity, view.event_time, view.known_at)]


def known(view: FeatureView) -> str:
    """SQL: when a row of the view is known, in microseconds."""
    event = f"epoch_us({quoted(view.event_time)}::timestamptz)"
    if view.known_at:
        return f"greatest({event}, epoch_us({quoted(view.known_at)}::timestamptz))"
    return f"({event} + {microseconds(view.lag)})"


def visible(view: FeatureView) -> str:
    """SQL: from when on a row is seen: `known`, rounded up to the refresh."""
    return _ceil(known(view), view)


def timeline(view: FeatureView, rows: str, features: Sequence[str]) -> str:
    """SQL: entity columns, `_from`, `_event`, features: what a plain view says from each moment on, one row per
    entity and moment.

    A running maximum by event time, so that a row which arrives late does not hide a newer one. Equal event times:
    the greater values win, which is arbitrary but the same everywhere.
    """
    entity = "".join(f"{quoted(name)}, " for name in view.entity)
    partition = f"partition by {_list(view.entity)} " if view.entity else ""
    best = ", ".join(
        [
            f"_event := epoch_us({quoted(view.event_time)}::timestamptz)",
            *(f"{quoted(f)} := {quoted(f)}" for f in features),
        ]
    )
    seen = f"""
      select {entity}{visible(view)} as _from, struct_pack({best}) as best
      from {rows} where {quoted(view.event_time)} is not null"""
    newest = f"select {entity}_from, max(best) as best from ({seen}) group by all"
    if view.known_at:  # rows may come late: else the order of moments is the order of events
        running = f"max(best) over ({partition}order by _from)"
        newest = f"select {entity}_from, {running} as best from ({newest})"
    return f"""
select {entity}_from, best._event as _event{_columns(f"best.{quoted(f)} as {quoted(f)}" for f in features)}
from ({newest})"""


def plain_join(view: FeatureView, rows: str, spine: str, features: Sequence[str]) -> str:
    """SQL: `_row`, `_event`, features: the newest values visible at each row of the spine.

    Null where none or older than the ttl.
    """
    fresh = f"s._t - l._event <= {microseconds(view.ttl)}" if view.ttl is not None else "true"
    keys = "".join(f"s.{quoted(name)} = l.{quoted(name)} and " for name in view.entity)
    chosen = _columns(f"case when {fresh} then l.{quoted(f)} end as {quoted(f)}" for f in features)
    return f"""
select s._row, case when {fresh} then l._event end as _event{chosen}
from {spine} s asof left join ({timeline(view, rows, features)}) l on {keys}s._t >= l._from"""


def window_join(view: FeatureView, rows: str, spine: str) -> str:
    """SQL: `_row`, `_event`, and every feature over every window, at each row of the spine."""
    windows = _windows(view)
    points = f"select distinct {_comma(view.entity)}{_floor('_t', view)} as _t from {spine}"
    compute = _by_frames(view, windows, rows) if not view.known_at else _by_range(view, windows, rows)
    on = " and ".join(
        [f"{_floor('s._t', view)} = c._t", *(f"s.{quoted(n)} is not distinct from c.{quoted(n)}" for n in view.entity)]
    )
    names = _columns(f"c.{quoted(name)}" for name in window_columns(view))
    return f"""
with points as ({points}), computed as ({compute})
select s._row, c._event{names} from {spine} s join computed c on {on}"""


def window_columns(view: FeatureView) -> list[str]:
    """Names of a windowed view's features: `landed_3h`, …"""
    windows = _windows(view)
    return [feature.column(over) for feature in windows.features for over in windows.over]


def change_points(view: FeatureView, rows: str, start_us: int) -> str:
    """SQL: entity columns and `_t`: the moments at which a windowed view's values may change.

    From `start_us` on, `start_us` among them.
    """
    windows = _windows(view)
    event = f"epoch_us({quoted(view.event_time)}::timestamptz)"
    moments = [known(view), *(f"{event} + {microseconds(length)}" for length in windows.over.values())]
    union = " union ".join(f"select {_comma(view.entity)}{_ceil(moment, view)} as _t from {rows}" for moment in moments)
    start = start_us - start_us % microseconds(view.refresh)
    return f"select distinct {_comma(view.entity)}greatest(_t, {start}) as _t from ({union})"


def empty_window_row(view: FeatureView) -> dict[str, int | None]:
    """What a windowed view says of an entity without events: counts are 0, the others absent."""
    windows = _windows(view)
    counts = ("count", "count_distinct")
    return {f.column(over): 0 if f.aggregate in counts else None for f in windows.features for over in windows.over}


def _by_frames(view: FeatureView, windows: Windows, rows: str) -> str:
    """Window frames over events and points in one line, ordered by when an event is known: O(n log n) whatever the
    windows' length.

    With a constant lag, event time in (t − w, t] and known at t is: known time in (t − w + lag, t], or nothing when
    the lag is longer than w.
    """
    lag, entity = microseconds(view.lag), _comma(view.entity)
    partition = f"partition by {_list(view.entity)} " if view.entity else ""
    event = f"epoch_us({quoted(view.event_time)}::timestamptz)"
    values = _columns(f"{_argument(f, event)} as {quoted(f'_v_{f.name}')}" for f in windows.features)
    frames, columns = [], []
    for over, length in windows.over.items():
        reach = microseconds(length) - lag - 1
        if reach < 0:
            raise Invalid(
                f"the window {over} is not longer than the lag",
                where=view.sql_path,
                todo="use a longer window, or a shorter lag",
            )
        frames.append(
            f"{quoted(f'_w_{over}')} as ({partition}order by _t range between {reach} preceding and current row)"
        )
        frame = f" over {quoted(f'_w_{over}')}"
        columns += [f"{_aggregate(f, frame)} as {quoted(f.column(over))}" for f in windows.features]
    return f"""
select * from (
  select {entity}_t, _point, max(_e) over ({partition}order by _t) as _event{_columns(columns)}
  from (
    select {entity}{event} + {lag} as _t, false as _point, {event} as _e{values}
    from {rows} where {quoted(view.event_time)} is not null
    union all by name
    select {entity}_t, true as _point from points
  )
  window {", ".join(frames)}
) where _point"""


def _by_range(view: FeatureView, windows: Windows, rows: str) -> str:
    """A range join, for views whose rows say themselves when they were known."""
    entity, longest = _comma(view.entity), max(microseconds(length) for length in windows.over.values())
    event = f"epoch_us({quoted(view.event_time)}::timestamptz)"
    values = _columns(f"{_argument(f, event)} as {quoted(f'_v_{f.name}')}" for f in windows.features)
    columns = []
    for over, length in windows.over.items():
        within = f" filter (where _e > p._t - {microseconds(length)})"
        columns += [f"{_aggregate(f, within)} as {quoted(f.column(over))}" for f in windows.features]
    on = " and ".join(
        [
            f"_e > p._t - {longest}",
            "_e <= p._t",
            "_known <= p._t",
            *(f"p.{quoted(n)} is not distinct from e.{quoted(n)}" for n in view.entity),
        ]
    )
    groups = "".join(f"p.{quoted(name)}, " for name in view.entity)
    return f"""
select {groups}p._t, max(_e) as _event{_columns(columns)}
from points p left join (
  select {entity}{event} as _e, {known(view)} as _known{values} from {rows} where {quoted(view.event_time)} is not null
) e on {on}
group by {groups}p._t"""


def _argument(feature: WindowFeature, event: str) -> str:
    """What is aggregated, null where the feature's filter does not hold, since every aggregate passes over nulls."""
    value = f"({feature.expression})" if feature.expression else "1"
    if feature.aggregate in ("first", "last"):
        value = f"case when {value} is not null then struct_pack(t := {event}, v := {value}) end"
    return f"case when ({feature.where}) then {value} end" if feature.where else value


def _aggregate(feature: WindowFeature, suffix: str) -> str:
    value = quoted(f"_v_{feature.name}")
    match feature.aggregate:
        case "count_distinct":
            return f"count(distinct {value}){suffix}"
        case "first":
            return f"(min({value}){suffix}).v"
        case "last":
            return f"(max({value}){suffix}).v"
        case "count" | "sum" | "avg" | "min" | "max" | "stddev":
            return f"{feature.aggregate}({value}){suffix}"


def _windows(view: FeatureView) -> Windows:
    if view.windows is None:
        raise Invalid(f"{view.name} has no windows", where=view.sql_path)
    return view.windows


def _ceil(sql: str, view: FeatureView) -> str:
    step = microseconds(view.refresh)
    return f"((({sql}) + {step - 1}) // {step} * {step})" if step > 1 else sql


def _floor(sql: str, view: FeatureView) -> str:
    step = microseconds(view.refresh)
    return f"(({sql}) // {step} * {step})" if step > 1 else sql


def _list(names: Sequence[str]) -> str:
    return ", ".join(quoted(name) for name in names)


def _comma(names: Sequence[str]) -> str:
    return "".join(f"{quoted(name)}, " for name in names)


def _columns(parts: Iterable[str]) -> str:
    return "".join(f", {part}" for part in parts)
