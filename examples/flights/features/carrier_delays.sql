-- /// feature-view
-- description = "How late the carrier's flights were that have already landed"
-- owner       = "ops-analytics"
-- tags        = ["delay"]
-- entity      = ["carrier"]
-- event_time  = "landed_at"
-- lag         = "10m"
-- refresh     = "1h"
-- online      = true
-- [windows]                    # the query yields events; these are the features, over windows that end at as_of
-- over       = ["3h", "24h", "7d"]
-- landed     = "count(*)"                  # -> landed_3h, landed_24h, landed_7d
-- late_share = "avg(late::int)"
-- mean_delay = "avg(arr_delay)"
-- ///
select carrier, landed_at, arr_delay, late
from landings
