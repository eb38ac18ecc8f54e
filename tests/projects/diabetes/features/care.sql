-- /// feature-view
-- description = "How often a patient was seen lately, and with what weight"
-- owner       = "clinic"
-- entity      = ["patient"]
-- event_time  = "seen_at"
-- lag         = "10m"
-- refresh     = "1h"
-- online      = true
-- [windows]
-- over        = ["25d", "50d"]
-- visits      = "count(*)"
-- mean_bmi    = "avg(bmi)"
-- ///
select patient, seen_at, bmi
from visits
