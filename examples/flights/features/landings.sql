-- /// feature-view
-- description = "One row per landing, with the moment it happened; other views and the examples build on it"
-- owner       = "ops-analytics"
-- entity      = ["carrier"]
-- event_time  = "landed_at"
-- lag         = "10m"          # the landing message reaches us within ten minutes
-- ///
with scheduled as (
  select f.*,
         f.time_hour + to_minutes(f.minute) as departs_at,
         -- the arrival is in the destination's own time; airports lacks SJU, BQN, PSE and STT, all on Puerto Rico's clock
         make_timestamptz(f.year, f.month, f.day, (f.sched_arr_time // 100) % 24, f.sched_arr_time % 100, 0.0,
                          coalesce(a.tzone, 'America/Puerto_Rico')) as due_at
  from flights f
  left join airports a on a.faa = f.dest
  where f.arr_delay is not null
)
select time_hour, carrier, flight, origin, dest, arr_delay,
       arr_delay > 15 as late,
       case when due_at < departs_at then due_at + interval 1 day else due_at end     -- lands after local midnight
         + to_minutes(arr_delay) as landed_at
from scheduled
