-- /// feature-view
-- description = "Latest hourly observation at the airport of departure"
-- owner       = "data-eng"
-- tags        = ["weather"]
-- entity      = ["origin"]
-- event_time  = "time_hour"
-- lag         = "15m"          # an observation is not known before it is published
-- ttl         = "3h"           # an older one is missing rather than stale
-- refresh     = "1h"
-- online      = true
-- ///
select origin, time_hour, temp, humid, wind_speed, precip, pressure, visib
from weather
