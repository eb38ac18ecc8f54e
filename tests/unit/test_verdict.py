"""The gate's verdict: what must be proved, what may not be certain, and what is simply compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lakeloop.lakehouse.project.definitions import Gate, Model, Rule, Search, Split
from lakeloop.lakehouse.verdict import Scores, in_words, judge, rules_of

ROWS = 4000


def model(*rules: Rule) -> Model:
    split, search = Split("random", 0.2, 0.2), Search("roc_auc", "max")
    return Model("m", "binary", "me", "sklearn", "select 1", "m.sql", split, search, gate=Gate(rules=rules))


def scores(skill_ours: float, skill_theirs: float, seed: int = 3) -> Scores:
    """Labels, and two scores that are as good as their skill says."""
    random = np.random.default_rng(seed)
    y = (random.random(ROWS) < 0.3).astype(float)
    noise = random.normal(size=(2, ROWS))
    ours, theirs = (
        1 / (1 + np.exp(-(skill * (2 * y - 1) + noise[at]))) for at, skill in enumerate((skill_ours, skill_theirs))
    )
    flat = np.full(ROWS, 0.3)
    halves = np.arange(ROWS) < ROWS // 2
    return Scores(
        y, ours, {"champion": theirs, "baseline": flat}, {"first": halves, "second": ~halves}, latency_p99_ms=2.0
    )


AGAINST_CHAMPION = Rule("roc_auc", "champion", gain=0.0)


def test_a_clearly_better_challenger_passes() -> None:
    (finding,) = judge(model(AGAINST_CHAMPION), scores(0.8, 0.4))
    assert finding.passed
    assert finding.ours > finding.theirs
    assert finding.low is not None
    assert finding.low > 0


def test_an_equal_challenger_does_not_pass_because_better_is_not_proved() -> None:
    same = scores(0.5, 0.5)
    (finding,) = judge(model(AGAINST_CHAMPION), replace(same, theirs={"champion": same.ours}))
    assert finding.gain == pytest.approx(0)
    shifted = scores(0.5, 0.5, seed=11)
    (other,) = judge(model(AGAINST_CHAMPION), shifted)
    assert other.passed == (other.low is not None and other.low >= 0)
    assert not judge(model(AGAINST_CHAMPION), scores(0.4, 0.5))[0].passed


def test_a_margin_allows_a_small_loss_and_not_a_large_one() -> None:
    rule = Rule("roc_auc", "champion", gain=-0.05)
    assert judge(model(rule), scores(0.50, 0.51))[0].passed
    assert not judge(model(rule), scores(0.30, 0.60))[0].passed


def test_a_slice_fails_only_where_the_loss_is_certain() -> None:
    rule = Rule("roc_auc", "champion", gain=-0.02, each="slice", min_rows=500)
    good = scores(0.6, 0.5)
    assert all(finding.passed for finding in judge(model(rule), good))
    spoilt = good.ours.copy()
    spoilt[: ROWS // 2] = 1 - spoilt[: ROWS // 2]
    found = {finding.slice: finding.passed for finding in judge(model(rule), replace(good, ours=spoilt))}
    assert found == {"first": False, "second": True}


def test_slices_with_too_few_rows_are_not_judged() -> None:
    rule = Rule("roc_auc", "champion", gain=-0.02, each="slice", min_rows=ROWS)
    assert judge(model(rule), scores(0.6, 0.5)) == []


def test_a_bound_says_nothing_of_a_slice_without_a_value() -> None:
    one_sided = scores(0.6, 0.5)
    rule = Rule("roc_auc", at_least=0.5, each="slice")
    only_late = replace(one_sided, slices={"late": one_sided.y == 1, "all": np.ones(ROWS, dtype=bool)})
    assert [finding.passed for finding in judge(model(rule), only_late)] == [True, True]


def test_the_champion_decides_at_its_own_threshold() -> None:
    same = scores(0.6, 0.5)
    shifted = replace(same, theirs={"champion": same.ours / 2}, threshold=0.5, their_threshold=0.25)
    (finding,) = judge(model(Rule("f1", "champion", gain=0.0)), shifted)
    assert (finding.gain, finding.passed) == (pytest.approx(0), True)
    assert finding.ours == pytest.approx(finding.theirs)


def test_bounds_are_compared_with_the_value() -> None:
    rules = (
        Rule("roc_auc", at_least=0.99),
        Rule("brier", at_most=0.9),
        Rule("latency_p99_ms", at_most=5),
        Rule("latency_p99_ms", at_most=1),
    )
    assert [finding.passed for finding in judge(model(*rules), scores(0.6, 0.5))] == [False, True, True, False]


def test_without_a_champion_only_the_other_rules_are_judged() -> None:
    first = scores(0.6, 0.5)
    findings = judge(
        model(AGAINST_CHAMPION, Rule("roc_auc", "baseline", gain=0.0)),
        replace(first, theirs={"baseline": first.theirs["baseline"]}),
    )
    assert [finding.against for finding in findings] == ["baseline"]


def test_without_rules_the_least_is_asked() -> None:
    assert [(rule.against, rule.gain) for rule in rules_of(model())] == [("baseline", 0.0), ("champion", 0.0)]


def test_labels_of_one_class_prove_nothing() -> None:
    one_class = replace(scores(0.6, 0.5), y=np.zeros(ROWS))
    assert not judge(model(AGAINST_CHAMPION), one_class)[0].passed
    assert not judge(model(Rule("roc_auc", at_least=0.1)), one_class)[0].passed


def test_the_words_name_what_failed_with_its_numbers() -> None:
    words = in_words(judge(model(AGAINST_CHAMPION, Rule("roc_auc", at_least=0.999)), scores(0.8, 0.4)))
    assert words.startswith("roc_auc: 0.")
    assert "needs at least 0.999" in words
    assert in_words(judge(model(AGAINST_CHAMPION), scores(0.8, 0.4))).startswith("roc_auc against champion: 0.")
