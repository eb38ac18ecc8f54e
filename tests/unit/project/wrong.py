"""Wrong projects: what was changed in examples/flights. wrong_projects.txt holds what each user is told."""

from __future__ import annotations

from lakeloop.tests.unit.project.projects import Change

TOML, SQL, PY = "models/late_arrival.toml", "models/late_arrival.sql", "models/late_arrival.py"
SOURCE, VIEW, WINDOWS = "sources/flights.toml", "features/landings.sql", "features/carrier_delays.sql"
PROJECT = "lakeloop.toml"


def new_view(sql: str, header: str = 'owner = "x"\nentity = []\nevent_time = "time_hour"') -> str:
    """The text of a small feature view."""
    return "-- /// feature-view\n" + "".join(f"-- {line}\n" for line in header.split("\n")) + f"-- ///\n{sql}\n"


def elsewhere(read: str, top: str = 'lag = "1h"\n', columns: str = "") -> str:
    """The text of a source that is read in place; timed unless `top` says that it is timeless."""
    read = f'{{ kind = "delta"{", " * bool(read)}{read} }}'
    timed = "" if "timeless" in top else 'event_time = "day"\n'
    return f'owner = "x"\nread = {read}\n{timed}{top}[columns]\nid = "int64"\nday = "date"\n{columns}'


WRONG: dict[str, Change] = {
    # keys and values
    "an unknown key near a known one": {TOML: ('test  = "21d"', 'tset  = "21d"')},
    "an unknown section": {TOML: ("[search.space]", "[serach.space]")},
    "an unknown key of a column": {SOURCE: ('{ type = "int16?", range = [-120', '{ type = "int16?", ragne = [-120')},
    "an unknown key in a header": {WINDOWS: ("-- lag  ", "-- lags ")},
    "a required key is missing": {SOURCE: ('owner      = "data-eng"\n', "")},
    "a required section is missing": {"models/cancellation.toml": ('[split]\ntest = "21d"\ngap  = "1d"\n', "")},
    "TOML that does not parse": {TOML: ("trials    = 12", "trials    = = 12")},
    "a text that is not closed": {PROJECT: ('owner    = "ops-analytics"', 'owner    = "ops-analytics')},
    "a duration that is none": {TOML: ('valid = "14d"', 'valid = "14 days"')},
    "a size that is none": {TOML: ('memory  = "1GiB"', 'memory  = "1G"')},
    "text where a number belongs": {TOML: ("trials    = 12", 'trials    = "12"')},
    "a number that is too small": {TOML: ("trials    = 12", "trials    = 0")},
    "text where a list belongs": {
        SOURCE: ('key        = ["time_hour", "carrier", "flight", "origin"]', 'key = "flight"')
    },
    "an element twice": {SOURCE: ('"flight", "origin"]', '"flight", "flight"]')},
    "a word that is none of the values": {TOML: ('refit = "train+valid"', 'refit = "trian"')},
    "a type that is none": {SOURCE: ('flight         = "int32"', 'flight         = "integer"')},
    "a time zone that is none": {PROJECT: ("America/New_York", "America/New_Yorck")},
    "a project's name with a capital": {PROJECT: ('"flights"', '"Flights"')},
    "a project's name that is taken": {PROJECT: ('"flights"', '"lakeloop"')},
    "another release is wanted": {PROJECT: ("lakeloop >=0.3,<0.4", "lakeloop >=9")},
    "a range of releases that is none": {PROJECT: ("lakeloop >=0.3,<0.4", "lakeloop ^0.3")},
    "several problems are told at once": {
        PROJECT: ("goal ", "gaol "),
        SOURCE: ('rows       = "latest"', 'rows       = "newest"'),
        TOML: ('by    = "time"', 'by    = "date"'),
        WINDOWS: ('-- entity      = ["carrier"]\n', ""),
    },
    # tables elsewhere
    "a table elsewhere that does not say where": {"sources/prices.toml": elsewhere("")},
    "a table elsewhere by a path that is not whole": {"sources/prices.toml": elsewhere('uri = "../prices"')},
    "a table elsewhere by a relative path": {"sources/prices.toml": elsewhere('uri = "data/prices"')},
    "a table elsewhere that is a whole bucket": {"sources/prices.toml": elsewhere('uri = "s3://prices"')},
    "a table elsewhere by a pattern": {"sources/prices.toml": elsewhere('uri = "/data/*.parquet"')},
    "a table elsewhere with rules nobody enforces": {
        "sources/prices.toml": elsewhere(
            'uri = "/data/prices", format = "csv"',
            'rows = "replace"\non_error = "stop"\nunlisted = "stop"\nlag = "1h"\n',
            'price = { type = "float64", range = [0, 10] }\n[[check]]\nname = "x"\nsql = "select * from prices"\n',
        )
    },
    "a table elsewhere that does not say when rows were known": {
        "sources/prices.toml": elsewhere('uri = "/data/prices"', "")
    },
    "a table elsewhere without an order of versions": {
        "sources/prices.toml": elsewhere('uri = "/data/prices"', 'timeless = true\nkey = ["id"]\nrows = "latest"\n')
    },
    "a place for files that land": {SOURCE: ('format = "csv", null', 'format = "csv", uri = "/data", null')},
    "a rule of a column that is none of the values": {
        SOURCE: ('{ type = "int16?", range = [-120', '{ type = "int16?", on_error = "ignore", range = [-120')
    },
    # rollouts
    "steps without a time between them": {TOML: ('timeout  = "1s"', "rollout = { canary = [10, 100] }")},
    "steps that do not rise": {TOML: ('timeout  = "1s"', 'rollout = { canary = [50, 10], hold = "1h" }')},
    "rules of a rollout that cannot be read": {
        TOML: (
            'timeout  = "1s"',
            'rollout = { canary = [10, 100], hold = "1h", back_if = ["errors > 1", "latency_p98 > 2x", "drift < 0.2", '
            '"quality < 0.9", "latency_p99 > fast", "error > 1%", "soon", 5] }',
        )
    },
    "rules of a rollout at once": {TOML: ('timeout  = "1s"', 'rollout = { back_if = ["errors > 1%"] }')},
    "a shadow of what is not logged": {
        TOML: ('timeout  = "1s"', 'rollout = { shadow = "1h" }\nlog = { drop = ["carrier"] }')
    },
    "a sticky key that nobody sends": {TOML: ('timeout  = "1s"', 'sticky = "carier"')},
    # not built yet
    "a stage that is not built: a key": {SOURCE: ('owner      = "data-eng"', 'owner = "data-eng"\nkeep = "1d"')},
    "a column that is private in no way we know": {
        SOURCE: ('tailnum        = "string?"', 'tailnum = { type = "string?", private = "yes" }')
    },
    "a stage that is not built: a value": {TOML: ('scheduler = "asha"', 'scheduler = "pbt"')},
    "a stage that is not built: a table": {SOURCE: ("[columns]", '[expect]\nevery = "1d"\n[columns]')},
    "a stage that is not built: a monitor": {TOML: ('watch    = "inputs"', 'watch    = "online_offline"')},
    "a stage that is not built: an environment": {PROJECT: ("schedules = false", 'reads = "prod"')},
    "a log without what nobody sends": {TOML: ('timeout  = "1s"', 'log = { drop = ["carier"] }')},
    "a log that is watched for what it drops": {
        TOML: (
            'timeout  = "1s"',
            'log = { drop = ["distance"] }\n[[monitor]]\nname = "far"\nwatch = "inputs"\nwindow = "7d"\n'
            'columns = ["distance"]\nabove = 0.2',
        )
    },
    "a log with a bound of nothing": {TOML: ('timeout  = "1s"', 'log = { disk = "0GiB" }')},
    "a log that is kept for no time": {TOML: ('timeout  = "1s"', 'log = { keep = "0d" }')},
    "a log of another mode": {TOML: ('timeout  = "1s"', 'log = "synchronous"')},
    "a feature of a view that is not online": {
        "features/origin_weather.sql": ("online      = true", "online      = false")
    },
    "a rule's rows without slices": {TOML: ("at_most = 50", "at_most = 50\nmin_rows = 10")},
    "a rule's confidence in a bound": {TOML: ("at_most = 50", "at_most = 50\nconfidence = 0.9")},
    "a stage that is not built: a learner": {TOML: ('learner = "xgboost"', 'learner = "lightgbm"')},
    "a stage that is not built: a space for one algorithm": {
        TOML: ("rounds           = 300 ", "forest = { depth = 3 } ")
    },
    "a stage that is not built: a view in Python": {"features/text.py": "def transform(batch): ...\n"},
    # files and names
    "a file's name with a dash": {
        "sources/fli-ghts.toml": 'owner = "x"\nread = { kind = "landing" }\ntimeless = true\n[columns]\na = "string"\n'
    },
    "a model without its query": {"models/cancellation.sql": None},
    "a query without its model": {"models/cancellation.toml": None},
    "a view with a source's name": {"features/weather.sql": new_view("select time_hour, temp from flights")},
    "a view without a header": {VIEW: "select 1\n"},
    "a header that is not closed": {WINDOWS: ("-- ///\nselect", "select")},
    "a header of another kind": {VIEW: ("-- /// feature-view", "-- /// report")},
    # sources
    "a source without a time": {SOURCE: ('event_time = "time_hour"\n', "")},
    "a source with both times": {"sources/weather.toml": ('lag        = "15m"', 'known_at = "time_hour"\nlag = "15m"')},
    "a key that is not a column": {SOURCE: ('"flight", "origin"]', '"flight", "orgin"]')},
    "a key that may be null": {SOURCE: ('flight         = "int32"', 'flight         = "int32?"')},
    "an event time that is no time": {SOURCE: ('event_time = "time_hour"', 'event_time = "carrier"')},
    "a range of text": {SOURCE: ('values = ["EWR", "JFK", "LGA"]', "range = [0, 1]")},
    "a value of another type": {SOURCE: ('values = ["EWR", "JFK", "LGA"]', 'values = ["EWR", 7]')},
    "a pattern that is none": {SOURCE: ("[A-Z]{3}", "[A-Z{3}")},
    "a column twice but for capitals": {SOURCE: ('tailnum        = "string?"', 'Flight = "int32"')},
    "a check that does not bind": {SOURCE: ('dep_time is null"', 'dep_tim is null"')},
    # models
    "a learner that is not there": {TOML: ('learner = "xgboost"', 'learner = "xgbost"')},
    "a learner in Python without its file": {"models/cancellation.toml": ('learner = "xgboost"', "")},
    "a learner in Python without train": {TOML: ('learner = "xgboost"', "")},
    "derive without its function": {PY: ("def derive", "def derived")},
    "derive without its file": {PY: None},
    "derive that returns nothing that is named": {
        TOML: ('[inputs.derived]\ndep_hour    = "int8"\ndep_weekday = "int8"\n', "")
    },
    "Python that does not parse": {PY: ("def derive(row: dict) -> dict:", "def derive(row: dict) -> dict")},
    "a metric that does not fit the problem": {TOML: ('metric    = "roc_auc"', 'metric    = "rmse"')},
    "a metric that is none": {TOML: ('metric    = "roc_auc"', 'metric    = "roc_acu"')},
    "a threshold for a regression": {
        "models/cancellation.toml": ('problem = "binary"', 'problem = "regression"\noutput = { threshold = 0.4 }')
    },
    "a share where a duration belongs": {TOML: ('test  = "21d"', "test  = 0.2")},
    "a monitor that does not exist": {TOML: ('on        = ["realized"]', 'on        = ["realised"]')},
    "a monitor twice": {TOML: ('name     = "realized"', 'name     = "inputs"')},
    "a monitor without a bound": {TOML: ("above    = 0.2\n", "")},
    "a monitor with another's key": {TOML: ("above    = 0.2\n", "above    = 0.2\ndrop = 0.1\n")},
    "a rule with nothing to be compared with": {
        TOML: ('against = "champion"                             # on the same rows\n', "")
    },
    "a rule against a baseline that is not there": {
        TOML: ('baseline = "coalesce(late_share_7d, 0.2)"', 'baseline = ""')
    },
    "a dimension that is upside down": {TOML: ("{ int = [3, 9] }", "{ int = [9, 3] }")},
    "a logarithm of nothing": {TOML: ("{ log = [0.02, 0.3] }", "{ log = [0, 0.3] }")},
    "an input with a reserved name": {TOML: ('dep_hour    = "int8"', 'prediction    = "int8"')},
    # names in SQL
    "a feature of a view that does not exist": {TOML: ('"origin_weather.*"', '"origin_wether.*"')},
    "a feature that does not exist": {"models/cancellation.toml": ("late_share_24h", "late_share_48h")},
    "a feature whose key is not sent": {
        "models/cancellation.toml": ('carrier = "category"\n', ""),
        "models/cancellation.sql": ("  carrier, origin", "  origin"),
    },
    "a feature whose key has another type": {
        "models/cancellation.toml": (
            'features = ["origin_weather.*", "carrier_delays.late_share_24h"]\n\n[inputs.request]\n',
            'features = [{ view = "origin_weather", key = { origin = "flight" } }]\n'
            '[inputs.request]\nflight = "int32"\n',
        ),
        "models/cancellation.sql": ("carrier, origin, dest,", "carrier, origin, dest, flight,"),
    },
    "two features with one name": {TOML: ('"carrier_delays.*"]', '"carrier_delays.*", "origin_weather.temp"]')},
    "a feature that is banned": {TOML: ('["tailnum"]', '["humid"]')},
    "a column that the request does not name": {SQL: ("f.dest, f.distance,", "f.dest, f.distance, f.tailnum,")},
    "a request that the examples do not give": {TOML: ("distance  = { type", "distanc   = { type")},
    "an input of another type than the examples'": {
        TOML: ('dest      = { type = "category", max = 200, unseen = "null" }', 'dest = "float32"')
    },
    "examples without a moment": {
        SQL: ("interval 2 hours                            as as_of", "interval 2 hours as asof")
    },
    "a label of another type": {SQL: ("l.late    ", "l.dest    ")},
    "a table that does not exist": {SQL: ("from flights f", "from flight f")},
    "a column that does not exist": {
        WINDOWS: ("select carrier, landed_at, arr_delay, late", "select carrier,\n  landed_at, arr_delai, late")
    },
    "SQL that does not parse": {WINDOWS: ("from landings", "form landings")},
    "an event time that the query does not give": {
        WINDOWS: ("select carrier, landed_at,", "select carrier, landed_at as t,")
    },
    "the clock in a view": {VIEW: ("where f.arr_delay is not null", "where f.time_hour < now()")},
    "today's date in examples": {
        SQL: ("from flights f", "from (select * from flights where time_hour < current_date) f")
    },
    "chance in a view": {VIEW: ("where f.arr_delay is not null", "where random() < 0.1")},
    "a file where a table belongs": {"models/cancellation.sql": ("from flights", "from 'flights.csv'")},
    "a function that reads files": {"models/cancellation.sql": ("from flights", "from read_csv('flights.csv')")},
    "a statement that changes something": {"models/cancellation.sql": "delete from flights\n"},
    "two statements": {"models/cancellation.sql": "select 1;\nselect 2\n"},
    "views that read each other": {
        "features/one.sql": new_view("select * from two"),
        "features/two.sql": new_view("select * from three"),
        "features/three.sql": new_view("select * from one"),
    },
    "a view that reads itself": {"features/one.sql": new_view("select * from one")},
    "a window feature that is no aggregate": {WINDOWS: ('"avg(arr_delay)"', '"median(arr_delay)"')},
    "a window feature that does not bind": {WINDOWS: ('"avg(arr_delay)"', '"avg(arr_delays)"')},
    "a window feature that is not closed": {WINDOWS: ('"avg(arr_delay)"', '"avg(arr_delay"')},
    "windows without a length": {WINDOWS: ('["3h", "24h", "7d"]', "[]")},
    "a baseline that does not bind": {TOML: ("late_share_7d, 0.2", "late_share_8d, 0.2")},
    "a baseline that is no number": {TOML: ("coalesce(late_share_7d, 0.2)", "carrier || origin")},
    "a slice that does not bind": {TOML: ("visib < 3 or", "visibility < 3 or")},
    "a slice by a column that is no input": {TOML: ('["origin", "carrier", {', '["tailnum", "carrier", {')},
    "a struct in a view": {VIEW: ("arr_delay > 15 as late", "{'late': arr_delay > 15} as late")},
    "a report that does not parse": {"reports/late_by_carrier.sql": ("group by carrier", "grup by carrier")},
}
