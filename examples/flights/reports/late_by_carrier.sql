-- /// report
-- title = "Warnings sent, and the share of them that were right, by carrier"
-- for   = "business"
-- plot  = "bar"
-- ///
select carrier, count(*) as warned, avg(label::int) as right_share
from predictions_labelled
where model = 'late_arrival' and decision
group by carrier
order by warned desc
