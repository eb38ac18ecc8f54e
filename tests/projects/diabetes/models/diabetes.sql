select visit as id, seen_at as as_of, patient, age, sex, bmi,
       progression as label, read_at as label_known_at
from visits
