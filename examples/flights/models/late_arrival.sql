-- One row for every prediction we would have made: two hours before each scheduled departure.
-- id, as_of, label and label_known_at are Lakeloop's names; every other column is what the caller sends (late_arrival.toml).
select
  concat_ws('-', f.carrier, f.flight, f.origin, strftime(f.time_hour, '%Y%m%dT%H')) as id,
  f.time_hour + to_minutes(f.minute) - interval 2 hours                            as as_of,
  f.carrier, f.origin, f.dest, f.distance,
  f.time_hour + to_minutes(f.minute)                                               as sched_dep,
  l.late                                                                           as label,
  l.landed_at + interval 10 minutes                                                as label_known_at
from flights f
left join landings l using (time_hour, carrier, flight, origin)
