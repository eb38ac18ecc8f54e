-- /// feature-view
-- description = "Where the ink of a sheet's newest scan is"
-- owner       = "post"
-- entity      = ["sheet"]
-- event_time  = "scanned_at"
-- lag         = "1m"
-- refresh     = "1m"
-- online      = true
-- ///
select sheet, scanned_at, b00, b01, b02, b03, b10, b11, b12, b13, b20, b21, b22, b23, b30, b31, b32, b33,
       b00 + b01 + b02 + b03 + b10 + b11 + b12 + b13 as upper_half
from sheets
