select s.sheet as id, s.scanned_at as as_of, s.sheet, s.desk,
       t.digit >= 5 as label, t.read_at as label_known_at
from sheets s
left join truths t using (sheet)
where s.scan = 1
