select s.sheet as id, s.scanned_at + interval 5 minutes as as_of, s.sheet, s.desk,
       t.digit as label, t.read_at as label_known_at
from sheets s
left join truths t using (sheet)
where s.scan = 1
