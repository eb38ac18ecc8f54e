"""The worlds in which the loop is tried: what lands when, what callers ask, and from when on the world is another.

Everything is made from data that packages bring along. A story says nothing of how the loop does its work.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

PROJECTS = Path(__file__).parents[2] / "projects"
EXAMPLES = Path(__file__).parents[3] / "examples"
START = datetime(2021, 1, 1, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
Row = dict[str, Any]


@dataclass(frozen=True)
class Phase:
    """A span of the story: `facts` land first, then callers ask, then the `truths` land, all known at `known`."""

    start: datetime
    known: datetime
    facts: Mapping[str, bytes]
    truths: Mapping[str, bytes]
    requests: Sequence[Row]


@dataclass(frozen=True)
class Story:
    """A project and its world. Callers ask in `calm`, which is as it was learnt, and in `shifted`, which is not."""

    project: str
    model: str
    files: Mapping[str, str]
    """The project's files by their path in its folder."""
    learn: Mapping[str, bytes]
    learned: datetime
    wrong: Mapping[str, str]
    """Source → a word of the reason for which one of its rows is in quarantine."""
    calm: Phase
    shifted: Phase
    own: Mapping[str, float]
    """Feature values that some callers send in the row, in place of what the store knows."""
    seen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What was known of a row in the calm phase when it was asked about, said without the product's help."""
    labelled: float = 1.0
    """The share of what is asked that gets a label at least."""


def files_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if is_text(path)}


def is_text(path: Path) -> bool:
    return path.suffix in (".toml", ".sql", ".py") and "tests" not in path.parts[-2:]


def text(rows: Iterable[Row]) -> bytes:
    """Rows as CSV."""
    listed = list(rows)
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(listed[0]))
    writer.writeheader()
    for row in listed:
        writer.writerow({name: spelled(value) for name, value in row.items()})
    return sink.getvalue().encode()


def spelled(value: Any) -> Any:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def asked(rows: Iterable[Row]) -> list[Row]:
    return [{name: spelled(value) for name, value in row.items()} for row in rows]


# -- diabetes: a regression with the project's own learner, a view with late reports and one with windows --------------


def diabetes() -> Story:
    """442 patients' visits, four a day. From the 289th on the progression is written on a scale twice as large."""
    learned, turned, end = START + 60 * DAY, START + 72 * DAY, START + 111 * DAY
    visits = diabetes_visits(turned)
    before, calm, shifted = (
        between(visits, "seen_at", *span) for span in ((START, learned), (learned, turned), (turned, end))
    )
    wrong = [before[0] | {"visit": "wrong-1", "sex": "x"}, before[1] | {"visit": "wrong-2", "bmi": 900.0}]
    return Story(
        project="diabetes",
        model="diabetes",
        files=files_of(PROJECTS / "diabetes"),
        learn={"visits": text(read_by(before + wrong, learned)), "blood": text(blood_of(before))},
        learned=learned,
        wrong={"visits": "sex"},
        calm=visits_phase(calm, learned, turned),
        shifted=visits_phase(shifted, turned, end),
        own={"bp": 90.0, "s1": 180.0, "s2": 110.0, "s3": 50.0, "s4": 4.0, "s5": 4.6, "s6": 90.0},
        seen={one["visit"]: serum(one) | {"visits_25d": 1, "visits_50d": 2} for one in calm},
    )


def diabetes_visits(turned: datetime) -> list[Row]:
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    visits = []
    for number, at in enumerate(np.random.default_rng(1).permutation(len(bunch.target))):
        age, sex, bmi, *blood = bunch.data[at]
        seen = START + number * 6 * HOUR
        visits.append(
            {
                "visit": f"V{number:03}",
                "patient": f"P{number % 88:03}",
                "seen_at": seen,
                "age": int(age),
                "sex": "f" if sex == 1 else "m",
                "bmi": float(bmi),
                "progression": float(bunch.target[at]) * (2 if seen >= turned else 1),
                "read_at": seen + 3 * DAY,
                "blood": [float(one) for one in blood],
            }
        )
    return visits


def between(rows: Sequence[Row], column: str, start: datetime, end: datetime) -> list[Row]:
    return [row for row in rows if start <= row[column] < end]


def read_by(visits: Sequence[Row], moment: datetime) -> list[Row]:
    """Visits as the register shows them at a moment."""
    unread = {"progression": None, "read_at": None}
    rows = [visit if visit["read_at"] <= moment else visit | unread for visit in visits]
    return [{name: value for name, value in row.items() if name != "blood"} for row in rows]


def blood_of(visits: Sequence[Row]) -> list[Row]:
    """What was taken the day before a visit; and, for every third, other values an hour before, reported only after."""
    rows = []
    for number, visit in enumerate(visits):
        taken = visit["seen_at"] - DAY
        values = serum(visit)
        rows.append({"patient": visit["patient"], "taken_at": taken, "reported_at": taken + 5 * HOUR} | values)
        if number % 3 == 0:
            taken = visit["seen_at"] - HOUR
            late = {name: value * 1.4 for name, value in values.items()}
            rows.append({"patient": visit["patient"], "taken_at": taken, "reported_at": taken + 3 * HOUR} | late)
    return rows


def serum(visit: Row) -> dict[str, float]:
    return dict(zip(("bp", "s1", "s2", "s3", "s4", "s5", "s6"), visit["blood"], strict=True))


def visits_phase(visits: Sequence[Row], start: datetime, end: datetime) -> Phase:
    facts = {"visits": text(read_by(visits, start)), "blood": text(blood_of(visits))}
    sent = asked(
        {"id": visit["visit"], "as_of": visit["seen_at"]}
        | {name: visit[name] for name in ("patient", "age", "sex", "bmi")}
        for visit in visits
    )
    known = end + 3 * DAY
    return Phase(start, known, facts, {"visits": text(read_by(visits, known))}, sent)


# -- digits: ten classes, all that the model sees looked up by key ----------------------------------------------------


def digits() -> Story:
    """1,797 sheets, one each half hour. From the 1,249th on they lie turned by a quarter in the scanner."""
    learned, turned, end = START + 22 * DAY, START + 26 * DAY, START + 38 * DAY
    sheets = digits_sheets(turned)
    before, calm, shifted = (
        between(sheets, "scanned_at", *span) for span in ((START, learned), (learned, turned), (turned, end))
    )
    wrong = [scan(before[0]) | {"sheet": "wrong-1", "b12": 99.0}, scan(before[1]) | {"sheet": "wrong-2", "scan": 3}]
    return Story(
        project="digits",
        model="digits",
        files=files_of(PROJECTS / "digits"),
        learn={
            "sheets": text(scans(before) + wrong),
            "truths": text([*map(truth, before), truth(before[0]) | {"digit": 12}]),
        },
        learned=learned,
        wrong={"sheets": "b12", "truths": "digit"},
        calm=sheets_phase(calm, learned, turned),
        shifted=sheets_phase(shifted, turned, end),
        own=dict.fromkeys([*BLOCKS, "upper_half"], 8.0),
        seen={one["sheet"]: dict(zip(BLOCKS, one["blocks"], strict=True)) for one in calm},
    )


BLOCKS = [f"b{row}{column}" for row in range(4) for column in range(4)]


def digits_sheets(turned: datetime) -> list[Row]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    sheets = []
    for number, (image, digit) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        at = START + number * 30 * MINUTE
        seen = np.rot90(image) if at >= turned else image
        blocks = seen.reshape(4, 2, 4, 2).mean(axis=(1, 3)).ravel()
        sheets.append(
            {
                "sheet": f"S{number:04}",
                "scanned_at": at,
                "desk": ("north", "south")[number % 3 == 0],
                "digit": int(digit),
                "blocks": [float(one) for one in blocks],
            }
        )
    return sheets


def scan(sheet: Row, again: bool = False) -> Row:
    """A scan; one that was made again, two days later, is of an empty page."""
    at = sheet["scanned_at"] + (2 * DAY if again else timedelta())
    values = [0.0] * 16 if again else sheet["blocks"]
    shown = {"sheet": sheet["sheet"], "scan": 2 if again else 1, "scanned_at": at, "desk": sheet["desk"]}
    return shown | dict(zip(BLOCKS, values, strict=True))


def scans(sheets: Sequence[Row]) -> list[Row]:
    return [*map(scan, sheets), *(scan(sheet, again=True) for sheet in sheets[::4])]


def truth(sheet: Row) -> Row:
    return {"sheet": sheet["sheet"], "digit": sheet["digit"], "read_at": sheet["scanned_at"] + DAY}


def sheets_phase(sheets: Sequence[Row], start: datetime, end: datetime) -> Phase:
    sent = asked(
        {"id": one["sheet"], "as_of": one["scanned_at"] + 5 * MINUTE, "sheet": one["sheet"], "desk": one["desk"]}
        for one in sheets
    )
    return Phase(start, end + DAY, {"sheets": text(scans(sheets))}, {"truths": text(map(truth, sheets))}, sent)


# -- flights: the example itself, with a week of its data --------------------------------------------------------------

WEEK = """
[split]
test  = "20h"
valid = "12h"
gap   = "0s"
seed  = 7
[search]
metric = "log_loss"
trials = 2
[search.space]
rounds        = 40
learning_rate = { log = [0.1, 0.3] }
max_depth     = 4
[[gate.rule]]
metric  = "log_loss"
against = "champion"
gain    = 0.0
[[monitor]]
name     = "realized"
watch    = "performance"
metric   = "log_loss"
drop     = 0.3
window   = "1d"
every    = "1d"
min_rows = 300
[retrain]
on        = ["realized"]
cool_down = "1d"
unless    = []
"""


def flights() -> Story:
    """The first week of January. From the fifth day on, those that came late come in time, and the others late."""
    from lakeloop.infra.demo.flights import World, day

    files = files_of(EXAMPLES / "flights")
    kept, found, _ = files["models/late_arrival.toml"].partition("\n[split]")
    assert found
    assert 'label_wait = "2d"' in kept
    files["models/late_arrival.toml"] = kept.replace('label_wait = "2d"', 'label_wait = "8h"') + WEEK
    with World() as world:
        learn = {"airports": world.airports} | dumps(world, day(1), day(1, 4))
        learn["flights"] += re.sub('"(EWR|JFK|LGA)"', '"XXX"', learn["flights"].decode().splitlines()[1]).encode()
        return Story(
            project="flights",
            model="late_arrival",
            files=files,
            learn=learn,
            learned=day(1, 4),
            wrong={"flights": "origin"},
            calm=flights_phase(world, day(1, 4), day(1, 5)),
            shifted=flights_phase(world, day(1, 5), day(1, 8), turned=True),
            own={
                "visib": 0.5,
                "late_share_3h": 0.9,
                "late_share_24h": 0.9,
                "mean_delay_3h": 90.0,
                "mean_delay_24h": 90.0,
            },
            labelled=0.7,
        )


def dumps(world: Any, start: datetime, end: datetime) -> dict[str, bytes]:
    return {"flights": world.flights(start, end), "weather": world.weather(start, end)}


def flights_phase(world: Any, start: datetime, end: datetime, *, turned: bool = False) -> Phase:
    from lakeloop.infra.demo.traffic import request_rows

    facts = dumps(world, start, end)
    if turned:
        facts["flights"] = late_is_early(facts["flights"])
    truths = dumps(world, end, end + 8 * HOUR) if not turned else {}
    return Phase(start, end + 8 * HOUR, facts, truths, request_rows(world.requests(start, end))[::2])


def late_is_early(dump: bytes) -> bytes:
    rows = list(csv.DictReader(io.StringIO(dump.decode())))
    for row in rows:
        if row["arr_delay"]:
            row["arr_delay"] = "0" if int(row["arr_delay"]) > 15 else "60"
    return text(rows)
