"""The report page: all of its parts, what it says without data, and that nothing from a user becomes markup."""

import dataclasses
import math
import random
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from lakeloop.functions.report import (
    AUDIENCES,
    Alert,
    ColumnDrift,
    Distribution,
    EndpointChange,
    Gate,
    GateRule,
    LineageFact,
    Mark,
    PerformancePoint,
    Quarantine,
    Query,
    ReportData,
    Slice,
    Stage,
    Traffic,
    Trial,
    render,
    tables,
    words,
)
from lakeloop.functions.report.canvas import INK, colour_of, colours_of
from lakeloop.functions.report.rollouts import spans
from lakeloop.lakehouse.errors import Invalid
from lakeloop.lakehouse.statistics import CalibrationBin, Interval

START = datetime(2013, 6, 1, tzinfo=UTC)
VOID = {"meta", "br", "link", "input", "img", "hr"}
EVIL = "\"><script>alert(1)</script><img src=x onerror=y>'&amp; $\\frac{x}$ \x00\x1b[31m ☃飛 </svg></style>"


def at(days, hours=0):
    return START + timedelta(days=days, hours=hours)


def around(value, half=0.02, rows=800):
    return Interval(value, value - half, value + half, rows)


def full():
    """A model in its seventh week: an alarm, a new version by way of a canary, drift, a search, a gate."""
    noise = random.Random(1)
    old, new = "late_arrival/v1", "late_arrival/v2"
    counts = [noise.randint(50, 150) for _ in range(10)]
    rules = [
        GateRule("roc_auc against champion", True, 0.70, 0.66, Interval(0.04, 0.03, 0.05, 18000), "≥ 0"),
        GateRule("roc_auc against champion", None, 0.6, 0.7, around(-0.1), "≥ −0.02", "carrier=HA", "41 rows"),
        GateRule("latency_p99_ms", False, 6.2, needed="≤ 5"),
    ]
    return ReportData(
        "flights",
        "late_arrival",
        at(44, 7),
        goal="Tell passengers early.",
        owner="ops-analytics",
        environment="prod",
        timezone="America/New_York",
        window="1 June to 14 July 2013",
        champion=new,
        champion_since=at(29),
        bound=0.65,
        realized=around(0.687, 0.01, 6104),
        threshold=0.31,
        endpoint=[
            EndpointChange(at(0), "deployed", {old: 1.0}, who="ana", why="first model"),
            EndpointChange(at(25), "shadow", {old: 1.0}, (new,)),
            EndpointChange(at(27), "canary", {old: 0.9, new: 0.1}),
            EndpointChange(at(29), "full", {new: 1.0}),
        ],
        performance=[
            *(PerformancePoint(at(d), old, around(0.70 - d / 500)) for d in range(30)),
            *(PerformancePoint(at(d), new, around(0.69)) for d in range(28, 42)),
            PerformancePoint(at(43), new, Interval(0.68, math.nan, math.nan, 900), "estimated"),
        ],
        marks=[Mark(at(24), "alarm", "below 0.65"), Mark(at(26), "promotion", new), Mark(at(27), "moved house")],
        drift=[
            ColumnDrift("temp", 1.2, 1e-9, True, list(range(9)), (), counts, counts[::-1]),
            ColumnDrift("pressure", 0.15, 0.2, False, list(range(9)), (), [*counts, 3], [*counts, 90]),
            ColumnDrift("carrier", 0.01, 0.8, False, (), [*"ABCDEFGHIJ"], counts, counts),
            ColumnDrift("unseen", math.nan),
        ],
        drift_against="July against training.",
        traffic=[Traffic(at(d), old if d < 28 else new, 800 + d, d % 3) for d in range(44)],
        calibration={new: [CalibrationBin(x / 10, x / 11, x / 12, x / 9, 100) for x in range(1, 8)]},
        scores=[Distribution("training", [0, 0.5, 1], [10, 5]), Distribution("last week", [0, 0.5, 1], [8, 7])],
        gate=Gate(new, "promoted", at(26), old, "approved by maria", rules),
        slices=[Slice("origin=EWR", around(0.66), around(0.70)), Slice("carrier=HA", None, around(0.6, 0.1, 41))],
        trials=[
            Trial(i, None if i == 3 else 0.7 - (i - 5) ** 2 / 1000, {"rate": 10 ** (-i / 4), "depth": i}, 2.5)
            for i in range(12)
        ],
        lineage=[
            LineageFact("Table", "flights/flights", "version 214", "pinned"),
            LineageFact("Code", "commit", "4be1"),
        ],
        quality=[Quarantine("weather", "wind_speed: 1048.36 is outside [0, 150]", 1, 26115, at(11), "EWR")],
        stages=[Stage("pull features", 11.4), Stage("split", 0.3, True), Stage("tune", 98.2, state="failed")],
        alerts=[
            Alert(at(43), "warn", "inputs", "drift"),
            Alert(at(24), "page", "performance", "low", "resolved", "v2"),
        ],
        queries=[
            Query("Late by carrier", ["carrier", "late", "all"], [["UA", 3, 9], ["B6", 4, 9]], "bar"),
            Query("Warned in time", ["n"], [[48211]], "number"),
            Query("Warnings a week", ["week", "n"], [["w1", 3.5], ["w2", 4.5]], "line"),
            Query("Worst", ["dest", "auc"], [["SFO", 0.61]]),
        ],
    )


class Page(HTMLParser):
    """Tags, attributes and text of a page; says what is not closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.words, self.open, self.wrong = Counter(), [], [], [], []
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, *attr) for attr in attrs]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.words.append(data)

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def page():
    return render(full())


@pytest.fixture(scope="module")
def parsed(page):
    return Page(page)


@pytest.mark.parametrize(
    "words_on_page",
    [
        "late_arrival",
        "Tell passengers early.",
        "Owner ops-analytics",
        "0.687",
        "95%: 0.677 to 0.697",
        "bound 0.65",
        "since 29 Jun 2013",
        "1 of 4",
        "alarm below 0.65",
        "estimated, before labels",
        "moved house",
        "Which version answered when",
        "July against training.",
        "wind_speed: 1048.36 is outside [0, 150]",
        "+0.0400",
        "+0.0300 to +0.0500",
        "not judged: 41 rows",
        "promoted on 26 Jun 2013 20:00",
        "best so far",
        "version 214",
        "300 ms · reused",
        "48,211",
        "resolved, v2",
        "challenger late_arrival/v2",
        "threshold 0.31",
    ],
)
def test_the_page_says(parsed, words_on_page):
    assert words_on_page in parsed.text


def test_the_page_is_well_formed_and_small(page, parsed):
    assert (parsed.wrong, parsed.open) == ([], [])
    assert len(page.encode()) < 1_000_000


def test_the_page_loads_nothing_and_runs_nothing(page, parsed):
    assert "http:" not in page
    assert "https:" not in page
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(parsed.tags)
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) == {"#"}
    assert all(value.startswith("#") for value in parsed.values("href"))


def test_ids_are_unique_and_every_reference_has_its_target(page, parsed):
    ids = Counter(parsed.values("id"))
    assert [name for name, n in ids.items() if n > 1] == []
    wanted = {value.lstrip("#") for value in parsed.values("href")} | set(parsed.values("aria-labelledby"))
    assert wanted | set(re.findall(r"url\(#([^)]*)\)", page)) <= set(ids)


def test_every_plot_is_told_in_words(parsed):
    roles = [(key, value) for tag, key, value in parsed.attributes if tag == "svg" and key in ("role", "aria-label")]
    plots, said = roles.count(("role", "img")), [value for key, value in roles if key == "aria-label"]
    assert plots == len(said) > 20
    assert all(len(text) > 20 for text in said)
    assert any("0.690 (0.670 to 0.710) with version late_arrival/v2" in text for text in said)


def test_plots_take_their_colours_from_the_page(page):
    drawn = re.sub(r"var\(--\w+,#\w+\)", "", page[page.index("</style>") :])
    assert re.findall(r"(?:fill|stroke): ?#\w+", drawn) == []
    defined = set(re.findall(r"--(\w+):#", page))
    assert set(INK) <= defined


def test_the_same_data_give_the_same_page(page):
    assert render(full()) == page


def poisoned(value):
    """The same data with every text replaced by markup that would run."""
    if dataclasses.is_dataclass(value):
        return type(value)(**{f.name: poisoned(getattr(value, f.name)) for f in dataclasses.fields(value)})
    if isinstance(value, str):
        return EVIL + value
    if isinstance(value, dict):
        return {poisoned(k): poisoned(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [poisoned(v) for v in value]
    return value


def spared(data):
    """Poisoned but for the words that choose a drawing, so that every plot is drawn with poisoned names."""
    bad = poisoned(data)
    points = [dataclasses.replace(p, kind=q.kind) for p, q in zip(bad.performance, data.performance, strict=True)]
    queries = [dataclasses.replace(p, plot=q.plot) for p, q in zip(bad.queries, data.queries, strict=True)]
    return dataclasses.replace(bad, performance=points, queries=queries)


@pytest.mark.parametrize("change", [poisoned, spared])
def test_no_text_from_a_user_becomes_markup(page, parsed, change):
    found = render(change(full()))
    seen = Page(found)
    assert "<script" not in found
    assert "onerror" not in [key for _, key, _ in seen.attributes]
    assert "<script>alert(1)</script>" in seen.text
    assert (seen.wrong, seen.open) == ([], [])
    assert set(seen.tags) <= set(parsed.tags)


def test_without_data_every_section_says_what_is_missing():
    found = Page(render(ReportData("flights", "late_arrival", START)))
    assert found.tags["figure"] == found.tags["table"] == 0
    assert found.tags["section"] == len(AUDIENCES[""]) - 1  # there are no queries
    assert found.values("class").count("empty") == found.tags["section"]
    assert "No labels have come yet" in found.text
    assert not re.search(r"\b(None|nan|NaN)\b", found.text)


def test_values_that_are_not_known_leave_no_trace():
    data = ReportData(
        "p",
        "m",
        START,
        realized=Interval(math.nan, math.nan, math.nan, 0),
        bound=math.nan,
        performance=[PerformancePoint(START, "v1", Interval(math.nan, math.nan, math.nan, 0))],
        drift=[ColumnDrift("a", math.nan), ColumnDrift("b", 0.3, math.nan, True, (), ("x",), (0,), (0,))],
        gate=Gate(
            "v1", "refused", rules=[GateRule("r", None, math.nan, None, Interval(math.nan, math.nan, math.nan, 0))]
        ),
        slices=[Slice("s"), Slice("t", Interval(math.nan, math.nan, math.nan, 0))],
        trials=[Trial(1, None), Trial(2, math.nan, {"a": math.nan})],
        stages=[Stage("s", math.nan)],
        scores=[Distribution("empty", [0, 1], [0])],
        calibration={"v1": []},
        queries=[Query("nothing", ["a"], []), Query("none", ["a", "b"], [[None, None]], "line")],
    )
    found = Page(render(data))
    assert "no labels have come yet" in found.text
    assert not re.search(r"\b(nan|NaN)\b", found.text)


def test_one_of_each_is_enough():
    one = around(0.7)
    data = ReportData(
        "p",
        "m",
        START,
        endpoint=[EndpointChange(START, "first", {"v1": 1.0})],
        performance=[PerformancePoint(START, "v1", one)],
        drift=[ColumnDrift("a", 0.3, edges=[1.0], reference=[1, 2], current=[2, 1])],
        traffic=[Traffic(START, "v1", 1)],
        calibration={"v1": [CalibrationBin(0.0, 0.0, 0.0, 0.0, 1)]},
        scores=[Distribution("now", [0, 1], [3])],
        slices=[Slice("s", None, one)],
        trials=[Trial(1, 0.7, {"a": 1})],
        stages=[Stage("s", 0.0)],
        queries=[Query("q", ["a", "b"], [["x", 0]], "line")],
    )
    found = Page(render(data))
    assert found.tags["figure"] == 11
    assert (found.wrong, found.open) == ([], [])


def test_before_the_labels_come_the_estimate_is_shown_and_said_to_be_one():
    points = [PerformancePoint(at(d), "v1", around(0.7), "estimated") for d in range(3)]
    found = Page(render(ReportData("p", "m", START, performance=points)))
    assert "No labels have come yet: this is what the probabilities themselves lead one to expect" in found.text
    assert any("(estimated), 3 windows" in text for text in found.values("aria-label"))


def test_a_year_of_many_versions_and_columns_stays_small():
    versions = [f"model/v{i}" for i in range(60)]
    data = dataclasses.replace(
        full(),
        performance=[PerformancePoint(at(d), versions[d // 7], around(0.7)) for d in range(400)],
        traffic=[Traffic(at(d), versions[d // 7], 100) for d in range(400)],
        drift=[ColumnDrift(f"column_{i}", i / 1000, 0.5, False, (), "ab", (1, 2), (2, 1)) for i in range(300)],
        alerts=[Alert(at(0), "warn", f"m{i}", "x" * 50, "resolved") for i in range(2000)],
        slices=[Slice(f"s{i}", around(0.7), around(0.7)) for i in range(300)],
    )
    found = render(data)
    assert len(found.encode()) < 1_000_000
    assert "The first 200 of 2,000." in found


@pytest.mark.parametrize(
    ("realized", "greater", "tone"),
    [
        (Interval(0.70, 0.68, 0.72, 9), True, "good"),
        (Interval(0.66, 0.64, 0.68, 9), True, "warn"),
        (Interval(0.64, 0.60, 0.68, 9), True, "bad"),
        (Interval(0.60, 0.58, 0.62, 9), False, "good"),
        (Interval(0.64, 0.60, 0.68, 9), False, "warn"),
        (Interval(0.70, 0.68, 0.72, 9), False, "bad"),
        (Interval(0.70, math.nan, math.nan, 9), True, "good"),
    ],
)
def test_realized_performance_is_judged_with_its_interval(realized, greater, tone):
    data = ReportData("p", "m", START, realized=realized, bound=0.65, greater_is_better=greater)
    assert tables.cards(data)[1].tone == tone


def test_an_open_page_is_worse_than_an_open_warning_and_a_dealt_with_one_is_none():
    def tone(*alerts):
        return tables.cards(ReportData("p", "m", START, alerts=alerts))[3].tone

    warning, urgent = Alert(START, "warn", "m", "w"), Alert(START, "page", "m", "w")
    assert (tone(warning), tone(warning, urgent), tone()) == ("warn", "bad", "good")
    assert tone(dataclasses.replace(urgent, state="acknowledged")) == "good"


def test_an_audience_sees_its_sections_in_its_order():
    found = Page(render(full(), "security"))
    ids = [value for tag, key, value in found.attributes if tag == "section" and key == "id"]
    assert ids == list(AUDIENCES["security"])
    with pytest.raises(Invalid, match="audience"):
        render(full(), "nobody")


def test_neighbours_with_the_same_share_are_one_span():
    changes = [
        EndpointChange(at(0), "a", {"v1": 1.0}),
        EndpointChange(at(1), "b", {"v1": 1.0}, ("v2",)),
        EndpointChange(at(2), "c", {"v1": 0.9, "v2": 0.1}),
    ]
    found = [(s.version, s.start, s.end, s.share) for s in spans(changes, at(3))]
    assert found == [
        ("v1", at(0), at(2), 1.0),
        ("v1", at(2), at(3), 0.9),
        ("v2", at(1), at(2), 0.0),
        ("v2", at(2), at(3), 0.1),
    ]


def test_two_endpoints_have_their_own_history():
    changes = [
        EndpointChange(at(0), "a", {"v1": 1.0}, endpoint="x"),
        EndpointChange(at(1), "b", {"v2": 1.0}, endpoint="y"),
    ]
    assert [(s.endpoint, s.start, s.end) for s in spans(changes, at(2))] == [("x", at(0), at(2)), ("y", at(1), at(2))]


def test_the_newest_six_versions_have_colours_and_names_that_begin_with_one_share_it():
    colours = colours_of([f"v{i}" for i in range(1, 12)])
    assert [name for name, colour in colours.items() if colour == INK["reference"]] == ["v1", "v2", "v3", "v4", "v5"]
    assert len({colours[f"v{i}"] for i in range(6, 12)}) == 6
    assert colour_of("v11, last week", colours, "c1") == colours["v11"]
    assert colour_of("training", colours, "reference") == INK["reference"]


def test_an_unknown_time_zone_is_utc():
    assert "(UTC)" in render(ReportData("p", "m", START, timezone="../Mars"))


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (words.number(0.65432), "0.654"),
        (words.number(0.00001234), "1.2e-05"),
        (words.number(12.3456), "12.35"),
        (words.number(48211), "48,211"),
        (words.number(None), "–"),
        (words.number(math.inf), "–"),
        (words.signed(-0.01234), "−0.0123"),
        (words.percent(0.0), "0%"),
        (words.percent(0.00001), "<0.1%"),
        (words.percent(0.046), "4.6%"),
        (words.percent(0.46), "46%"),
        (words.duration(0.34), "340 ms"),
        (words.duration(98.2), "1.6 min"),
        (words.duration(7200), "2.0 h"),
        (words.duration(None), "–"),
        (words.short("a" * 50, 11), "aaaaa…aaaaa"),
        (words.short("a\x00\nb"), "a  b"),
        (words.metric_name("roc_auc"), "ROC AUC"),
        (words.metric_name("lift_at_10"), "Lift at 10"),
        (words.settings({"a": 0.123456, "b": "x"}), "a=0.1235, b=x"),
    ],
)
def test_values_are_said_shortly(said, wanted):
    assert said == wanted
