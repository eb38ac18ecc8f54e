-- /// feature-view
-- description = "A patient's newest reported values"
-- owner       = "clinic"
-- entity      = ["patient"]
-- event_time  = "taken_at"
-- known_at    = "reported_at"
-- ttl         = "30d"
-- refresh     = "1h"
-- online      = true
-- ///
select patient, taken_at, reported_at, bp, s1, s2, s3, s4, s5, s6
from blood
