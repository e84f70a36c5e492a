from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from stillhouse.release._card import model_card
from stillhouse.release._tables import table
from tests.stillhouse.release.test_gate import make_scores

ABOUT = {
    "problem": "text-classification", "labels": ["bad", "good", "a|b"], "max_length": 64, "base": "hub:someorg/tiny",
    "licence": "mit", "language": "en", "data_licence": None,
}  # fmt: skip
RECIPE = {"name": 'it\'s "mine": yes', "seed": 42, "steps": {"data": {"uses": "prepare.text", "with": {"text": "```"}}}}
LINEAGE = [
    {
        "step": "data", "method": "prepare.text", "content": "c" * 64, "metrics": {"rows": 9000, "dropped": 12},
        "sources": {"source": {"name": "tweets.csv", "digest": "d" * 64}}, "inputs": {},
    },
    {
        "step": "int8", "method": "quantize.int8", "content": "e" * 64, "sources": {}, "inputs": {},
        "metrics": {"f1_macro": 0.7654321, "texts_per_second": 987.6, "seconds": 5.4, "speedup": 4.4},
    },
]  # fmt: skip
VERDICT = {"passed": True, "reasons": [], "against": {"version": "7", "digest": "x"}}


def card(**changes: Any) -> str:
    return model_card({**ABOUT, **changes}, make_scores(), VERDICT, LINEAGE, RECIPE)


def front(text: str) -> dict[str, Any]:
    return YAML(typ="safe").load(text.split("---\n")[1])


def test_the_front_matter_is_yaml_whatever_the_names_are():
    assert front(card()) == {
        "language": "en", "license": "mit", "library_name": "onnxruntime", "pipeline_tag": "text-classification",
        "base_model": "someorg/tiny", "tags": ["onnx", "stillhouse"], "metrics": ["f1", "accuracy"],
        "model_name": 'it\'s "mine": yes',
    }  # fmt: skip
    assert "license" not in front(card(licence=None))
    assert "base_model" not in front(card(base="pkg://package/model"))


def test_figures_stand_beside_what_they_have_to_beat():
    text = card()
    assert "| figure | this model | baseline | majority | linear |" in text
    assert "| f1_macro | 0.741 (0.731 to 0.751) | 0.768 (0.758 to 0.778) | 0.200 | 0.700 |" in text
    assert "3,000 test rows" in text
    assert "weakest class is `meh` (F1 0.400)" in text


def test_origin_is_complete():
    text = card()
    for part in (
        "tweets.csv",
        "d" * 20,
        "`prepare.text`",
        "`quantize.int8`",
        "f1_macro 0.7654",
        "version 7",
        "rows 9,000",
    ):
        assert part in text
    assert "Data licence: not stated" in text


def test_the_rungs_are_listed_without_what_was_timed():
    rungs = [
        {"name": "onnx", "quality": {"value": 0.76}, "bytes": 69_600_000, "measured": {"texts_per_second": 4321.0}},
        {"name": "int8", "quality": {"value": 0.75}, "bytes": 8_200_000, "measured": {"texts_per_second": 9876.0}},
    ]
    ladder = {"metric": "f1_macro", "baseline": 0.77, "chosen": "int8", "rungs": rungs}
    text = model_card(ABOUT, make_scores(), VERDICT, LINEAGE, RECIPE, ladder)
    assert "| int8 (this model) | 0.750 | 8.2 MB |" in text and "| onnx | 0.760 | 69.6 MB |" in text
    assert "4321" not in text and "9876" not in text and "## The ladder" not in card()


def test_nothing_timed_is_in_the_card():
    assert not [number for number in ("987", "5.4", "4.4", "912", "3.2") if number in card()]


def test_the_recipe_can_be_taken_out_and_run_again():
    block = card().split("``````yaml\n")[1].split("\n``````")[0]
    assert YAML(typ="safe").load(StringIO(block)) == RECIPE


def test_a_table_survives_odd_names():
    assert table(["a"], [["x|y\nz"], [0.12345], [None]]).splitlines() == [
        "| a |",
        "| --- |",
        "| x\\|y z |",
        "| 0.123 |",
        "|  |",
    ]


def test_the_rules_of_the_gate_and_what_was_compared_are_told():
    verdict = {
        **VERDICT,
        "rules": {
            "max_loss": {"limit": 0.02, "passed": True, "value": 0.011},
            "max_slice_loss.champion.topic.a|b": {"limit": 0.02, "passed": False, "value": 0.5},
            "max_loss_champion": {"limit": 0.01, "passed": None, "not_applied": "the scores have no champion"},
            "max_p95_ms": {"limit": 9.0, "passed": True, "measured": 5.432},
        },
        "compared": {
            "champion": {
                "metric": "f1_macro", "value": 0.012, "low": -0.001, "high": 0.025,
                "mcnemar": {"only_candidate": 120, "only_other": 90, "p_value": 0.0456},
            }
        },
    }  # fmt: skip
    text = model_card(ABOUT, make_scores(), verdict, LINEAGE, RECIPE)
    assert "| max_loss | 0.020 | 0.011 | passed |" in text
    assert "| max_slice_loss.champion.topic.a\\|b | 0.020 | 0.500 | **failed** |" in text
    assert "| max_loss_champion | 0.010 |  | not applied: the scores have no champion |" in text
    assert "| max_p95_ms | 9.000 | on the machine | passed |" in text and "5.43" not in text
    assert "f1_macro minus the champion's on the same rows: +0.012 (95 % interval -0.001 to +0.025); 120 rows" in text
    assert "p = 0.046" in text


def test_rows_that_were_changed_on_purpose_are_listed():
    figures = {"f1_macro": 0.6, "loss": 0.1, "agreement": 0.85}
    by_role = {role: {"clean": {"f1_macro": 0.7}, "kinds": {"typos": figures}} for role in ("candidate", "champion")}
    scores = {**make_scores(), "robustness": {"rows": 200, "kinds": ["typos"], "by_role": by_role}}
    text = model_card(ABOUT, scores, VERDICT, LINEAGE, RECIPE)
    assert "| rows | f1_macro, this model | f1_macro, champion | labels that stay |" in text
    assert "| typos | 0.600 | 0.600 | 0.850 |" in text and "On 200 test rows" in text
