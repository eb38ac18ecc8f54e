-- Six hours before departure: will it be cancelled? A flight that has not left twelve hours after its time was.
select
  concat_ws('-', carrier, flight, origin, strftime(time_hour, '%Y%m%dT%H')) as id,
  time_hour + to_minutes(minute) - interval 6 hours                        as as_of,
  carrier, origin, dest,
  dep_time is null                                                         as label,
  time_hour + to_minutes(minute) + interval 12 hours                       as label_known_at
from flights
