"""The rules against the champion and over parts of the test rows."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from stillhouse.errors import UserError
from stillhouse.evaluate._mcnemar import mcnemar
from stillhouse.release._release import make_verdict
from stillhouse.release._rules import apply_rules
from stillhouse.release.gate import Gate
from tests.stillhouse.release.test_gate import figures, make_gate_job, make_scores


def judge(scores: dict[str, Any], **rules: Any) -> dict[str, Any]:
    return make_verdict(apply_rules(Gate(max_loss=1, **rules), scores), scores, None)


def part(f1: float, rows: int = 400) -> dict[str, float]:
    return {"f1_macro": f1, "accuracy": f1, "rows": rows}


def scored(
    f1: float = 0.78,
    champion: float | None = 0.78,
    topics: tuple[float, float] = (0.8, 0.7),
    theirs: tuple[float, float] = (0.8, 0.7),
    rows: int = 400,
) -> dict[str, Any]:
    """Scores with the slices `topic`: airline and sport."""
    scores = make_scores(f1, baseline=None)
    names = ("airline", "sport")
    scores["slices_by_role"] = {"candidate": {"topic": {n: part(v, rows) for n, v in zip(names, topics, strict=True)}}}
    if champion is not None:
        scores["champion"] = figures(champion)
        scores["slices_by_role"]["champion"] = {"topic": {n: part(v, rows) for n, v in zip(names, theirs, strict=True)}}
        difference = f1 - champion
        scores["differences"]["champion"] = {
            "f1_macro": {"value": difference, "low": difference - 0.01, "high": difference + 0.01},
            "mcnemar": {"only_candidate": 100, "only_other": 100, "p_value": 1.0},
        }
    return scores


def test_bootstrap_wants_the_whole_interval_within_the_limit():
    scores = scored(0.775, 0.78)  # interval -0.015 to +0.005
    assert judge(scores)["passed"] and judge(scores, champion_test="bootstrap", max_loss_champion=0.015)["passed"]
    assert judge(scores, champion_test="bootstrap")["reasons"] == [
        "f1_macro may be up to 0.015 below the champion's (95 % interval of the difference -0.015 to +0.005); "
        "at most 0.010 allowed"
    ]


def test_a_test_never_excuses_a_loss():
    """Too few rows to be sure is no reason to pass."""
    scores = scored(0.74, 0.78)
    scores["differences"]["champion"]["f1_macro"].update(low=-0.2, high=0.12)
    for test in ("none", "mcnemar"):
        assert judge(scores, champion_test=test)["reasons"] == [
            "f1_macro 0.740 is 0.040 below the champion's 0.780; at most 0.010 allowed"
        ]
    assert len(judge(scores, champion_test="bootstrap")["reasons"]) == 2


def test_mcnemar_refuses_a_small_loss_that_is_sure():
    scores = scored(0.775, 0.78)
    scores["differences"]["champion"]["mcnemar"] = {"only_candidate": 60, "only_other": 100, "p_value": 0.002}
    assert judge(scores)["passed"]
    assert judge(scores, champion_test="mcnemar")["reasons"] == [
        "significantly less accurate than the champion: 100 rows only the champion has right, 60 only the candidate "
        "(McNemar's exact test, p = 0.002)"
    ]
    scores["differences"]["champion"]["mcnemar"] = {"only_candidate": 100, "only_other": 60, "p_value": 0.002}
    verdict = judge(scores, champion_test="mcnemar")
    assert verdict["passed"], "significantly better is no objection"
    assert verdict["rules"]["champion_test.mcnemar"] == {"limit": 0.05, "passed": True, "value": 1.0}


@settings(deadline=None, max_examples=60)
@given(ours=st.integers(0, 80), theirs=st.integers(0, 80))
def test_mcnemar_agrees_with_scipy_at_every_count(ours, theirs):
    scores = scored()
    right = np.repeat([True, False], [ours, theirs])
    found = mcnemar(right, ~right)
    scores["differences"]["champion"]["mcnemar"] = {
        "only_candidate": found["only_a"], "only_other": found["only_b"], "p_value": found["p_value"],
    }  # fmt: skip
    significant = ours + theirs > 0 and binomtest(ours, ours + theirs).pvalue < 0.05
    assert judge(scores, champion_test="mcnemar")["passed"] is not (significant and ours < theirs)


@pytest.mark.parametrize("test", ["bootstrap", "mcnemar"])
def test_a_test_without_its_figures_fails_and_without_champion_does_not_apply(test):
    scores = scored()
    scores["differences"]["champion"] = {}
    assert "do not compare" in judge(scores, champion_test=test)["reasons"][0]
    rule = judge(scored(champion=None), champion_test=test)["rules"][f"champion_test.{test}"]
    assert (rule["passed"], rule["not_applied"]) == (None, "the scores have no champion")


def test_worse_on_one_slice_is_refused_by_name():
    """Better on the whole, worse on one topic."""
    scores = scored(0.79, 0.78, topics=(0.74, 0.76))
    verdict = judge(scores, max_slice_loss={"topic": 0.03})
    assert verdict["reasons"] == [
        'topic "airline": f1_macro 0.740 (400 rows) is 0.060 below the champion\'s 0.800; at most 0.030 allowed'
    ]
    assert verdict["rules"]["max_slice_loss.champion.topic.sport"]["passed"] is True
    assert verdict["rules"]["max_slice_loss.baseline.topic"]["not_applied"] == "the scores have no baseline"
    assert judge(scores, max_slice_loss={"topic": 0.06})["passed"]


def test_slices_are_held_against_the_baseline_too():
    scores = scored(champion=None)
    scores["baseline"] = figures(0.78)
    scores["slices_by_role"]["baseline"] = {"topic": {"airline": part(0.8), "sport": part(0.9)}}
    (reason,) = judge(scores, max_slice_loss={"topic": 0.03})["reasons"]
    assert reason.startswith('topic "sport": f1_macro 0.700 (400 rows) is 0.200 below the baseline\'s 0.900')


def test_floors_of_slices():
    scores = scored()
    assert judge(scores, slice_floors={"topic": 0.7})["passed"]
    assert judge(scores, slice_floors={"topic": 0.75})["reasons"] == [
        'topic "sport": f1_macro 0.700 (400 rows) is below its floor 0.750'
    ]
    assert judge(scores, slice_floors={"topic": {"airline": 0.75}})["passed"]


def test_small_slices_are_left_out_by_a_rule_for_all_and_refused_by_a_rule_that_names_them():
    scores = scored(topics=(0.8, 0.1))
    scores["slices_by_role"]["candidate"]["topic"]["sport"]["rows"] = 12
    for rules in ({"slice_floors": {"topic": 0.7}}, {"max_slice_loss": {"topic": 0.03}}):
        verdict = judge(scores, **rules)
        assert verdict["passed"]
        small = [rule for name, rule in verdict["rules"].items() if name.endswith("sport")]
        assert [rule["not_applied"] for rule in small] == ["12 rows; judged from 30"]
    for name, rows in (("sport", 12), ("mars", 0)):
        assert judge(scores, slice_floors={"topic": {name: 0.05}})["reasons"] == [
            f'topic "{name}" has {rows} test rows; it takes 30 to judge it (min_slice_rows)'
        ]
    assert judge(scores, slice_floors={"topic": {"sport": 0.05}}, min_slice_rows=12)["passed"]


@pytest.mark.parametrize(
    "rules", [{"slice_floors": {"topic": 0.1}}, {"max_slice_loss": {"topic": 1}}, {"max_class_loss": 1}]
)
def test_a_rule_that_finds_nothing_to_judge_is_no_pass(rules):
    (reason,) = judge(scored(), min_slice_rows=1000, **rules)["reasons"]
    assert "has 1000 test rows (min_slice_rows)" in reason


def test_a_figure_that_a_slice_does_not_have_is_no_pass():
    scores = scored()
    del scores["slices_by_role"]["candidate"]["topic"]["sport"]["f1_macro"]
    for rules in ({"slice_floors": {"topic": 0.1}}, {"max_slice_loss": {"topic": 1}}):
        assert judge(scores, **rules)["reasons"] == ['topic "sport": f1_macro is not defined for its rows']


def test_a_class_that_got_worse_is_refused_by_name():
    scores = scored()
    for label, f1 in (("good", 0.84), ("meh", 0.9)):
        scores["champion"]["per_class"][label] = {"precision": f1, "recall": f1, "f1": f1, "support": 20}
    scores["candidate"]["per_class"]["meh"]["support"] = 8  # too few to say
    verdict = judge(scores, max_class_loss=0.03, min_slice_rows=20)
    assert verdict["reasons"] == [
        'class "good": f1 0.800 (20 rows) is 0.040 below the champion\'s 0.840; at most 0.030 allowed'
    ]
    assert verdict["rules"]["max_class_loss.champion.meh"]["not_applied"] == "8 rows; judged from 20"


def forgetful(old: float, rows: int = 500, newest: int = 2) -> dict[str, Any]:
    scores = scored()
    by_role = {"candidate": part(old, rows), "champion": part(0.8, rows)}
    scores["old_rows"] = {"newest_epoch": newest, "rows": rows, "by_role": by_role}
    for role, values in (("candidate", (0.7, 0.9, 0.9)), ("champion", (0.8, 0.7, 0.2))):
        epochs = {str(number): part(value, 100) for number, value in enumerate(values)}
        scores["slices_by_role"][role]["epoch"] = epochs
    return scores


def test_forgetting_is_a_loss_on_the_rows_of_older_data():
    assert judge(forgetful(0.79), max_forgetting=0.1)["passed"]
    verdict = judge(forgetful(0.77), max_forgetting=0.02)
    assert verdict["reasons"] == [
        "older data: f1_macro 0.770 (500 rows) is 0.030 below the champion's 0.800; at most 0.020 allowed",
        "epoch 0: f1_macro 0.700 (100 rows) is 0.100 below the champion's 0.800; at most 0.020 allowed",
    ]
    assert "max_forgetting.2" not in verdict["rules"], "the newest data is nothing to forget"


def test_forgetting_that_cannot_be_judged():
    assert judge(forgetful(0.8, rows=12), max_forgetting=0.2)["reasons"] == [
        "older data has 12 test rows; it takes 30 to judge it (min_slice_rows)"
    ]
    first = judge(forgetful(0.8, newest=0), max_forgetting=0.2)
    assert first["passed"] and first["rules"]["max_forgetting"]["not_applied"] == "there is no older data"
    alone = judge(scored(champion=None), max_forgetting=0.2)
    assert alone["rules"]["max_forgetting"]["not_applied"] == "the scores have no champion"


def robust(**losses: float) -> dict[str, Any]:
    kinds = {kind: {"f1_macro": 0.78 - loss, "loss": loss, "agreement": 0.9} for kind, loss in losses.items()}
    found = {"candidate": {"clean": {"f1_macro": 0.78}, "kinds": kinds}}
    return {**scored(), "robustness": {"rows": 200, "kinds": sorted(kinds), "by_role": found}}


def test_losses_on_changed_rows_are_limited_for_each_kind():
    scores = robust(typos=0.05, upper=0.2)
    assert judge(scores, max_robustness_loss=0.2)["passed"]
    assert judge(scores, max_robustness_loss={"typos": 0.05})["passed"]
    assert judge(scores, max_robustness_loss=0.1)["reasons"] == [
        "rows with upper: f1_macro 0.580 (200 rows) is 0.200 below the unchanged rows' 0.780; at most 0.100 allowed"
    ]


def test_the_business_score_may_be_held_against_the_champion_s():
    scores = {**scored(), "business": {"weights": {}, "measured": {"candidate": 0.5, "champion": 0.53}}}
    assert judge(scores, max_business_loss=0.03)["passed"]
    verdict = judge(scores, max_business_loss=0)
    assert verdict["reasons"] == ["the business score 0.500 is 0.030 below the champion's 0.530; at most 0.000 allowed"]
    assert verdict["rules"]["max_business_loss"] == {"limit": 0, "passed": False, "measured": pytest.approx(0.03)}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"slice_floors": {"source": 0.5}}, 'slice_floors: the scores have no slices by "source"'),
        ({"max_slice_loss": {"source": 0.5}}, r"no slices by .*slices: \[source\]"),
        ({"max_forgetting": 0.1}, "no column `epoch`"),
        ({"max_robustness_loss": 0.1}, "robustness_rows"),
        ({"max_business_loss": 0.1}, "no business score"),
    ],
)
def test_rules_that_the_scores_cannot_answer_say_what_is_missing(rules, message):
    with pytest.raises(UserError, match=message) as error:
        judge(scored(), **rules)
    assert error.value.code == 2
    with pytest.raises(UserError, match=r'no kind "typo".*did you mean "typos"'):
        Gate(max_robustness_loss={"typo": 0.5}).check(set())
    with pytest.raises(UserError, match='no kind "emoji"'):  # tags have fewer kinds than texts
        judge(robust(typos=0.1), max_robustness_loss={"emoji": 0.5})


@pytest.mark.parametrize("broken", [math.nan, math.inf, None])
def test_a_figure_that_is_no_number_opens_no_gate(tmp_path, broken):
    """Neither the main figure nor one that a rule asks for; and the verdict is still written."""
    scores = scored()
    scores["slices_by_role"]["candidate"]["topic"]["sport"]["f1_macro"] = math.nan
    scores["champion"]["metrics"]["f1_macro"] = math.nan
    reasons = judge(scores, slice_floors={"topic": 0.1})["reasons"]
    assert reasons == [
        "max_loss_champion: the figure is not a finite number",
        "slice_floors.topic.sport: the figure is not a finite number",
    ]
    scores = make_scores(0.76)
    scores["candidate"]["metrics"]["f1_macro"] = broken
    if broken is None:
        del scores["candidate"]["metrics"]["f1_macro"]
    verdict = make_verdict(apply_rules(Gate(), scores), scores, None)
    assert (verdict["passed"], verdict["reasons"]) == (False, ["the candidate has no f1_macro that is a number"])
    assert "f1_macro" not in verdict["metrics"]
    if broken is None:
        job = make_gate_job(tmp_path, scores)
        assert Gate().run(job)["passed"] == 0
