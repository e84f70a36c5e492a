import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stillhouse.errors import UserError
from stillhouse.evaluate.compare import Compare
from stillhouse.files import read_json, write_json
from stillhouse.keys import without_measured
from tests.stillhouse.evaluate.tiny_models import LABELS, TAGS, TOKENS, as_input, make_data, make_job, make_model

QUICK: dict[str, Any] = {"resamples": 100, "speed_seconds": 0.05, "robustness_rows": 0}


def relabel(model: Path, labels: list[str]) -> Path:
    about = read_json(model / "stillhouse.json")
    write_json(model / "stillhouse.json", {**about, "labels": labels})
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


@pytest.fixture
def compared(tmp_path: Path, data: Path) -> dict[str, Any]:
    """Scores of a good candidate against a bad baseline, with everything switched on."""
    good, bad = make_model(tmp_path / "good"), make_model(tmp_path / "bad", noise=4.0)
    job = make_job(tmp_path, data=as_input(data, "data"), model=as_input(good), baseline=as_input(bad))
    business = {"f1_macro": 10, "size_mb": -1, "latency_p95_ms": -0.001}
    metrics = Compare(slices=("source",), business=business, **QUICK).run(job)
    table = pd.read_parquet(job.out / "predictions.parquet")
    return {"scores": read_json(job.out / "scores.json"), "metrics": metrics, "table": table, "good": good, "job": job}


def test_every_model_gets_the_same_report_on_the_same_rows(compared):
    scores = compared["scores"]
    assert (scores["problem"], scores["split"], scores["rows"]) == ("text-classification", "test", 60)
    assert scores["candidate"].keys() == scores["baseline"].keys() == {
        "metrics", "intervals", "per_class", "confusion", "confidence", "bytes", "measured",
    }  # fmt: skip
    assert scores["candidate"]["metrics"] == dict.fromkeys(
        ["accuracy", "f1_macro", "f1_micro", "precision_macro", "recall_macro", "roc_auc"], 1.0
    )
    assert scores["candidate"]["confusion"] == [[20, 0, 0], [0, 20, 0], [0, 0, 20]]
    assert scores["candidate"]["per_class"]["good"] == {"precision": 1, "recall": 1, "f1": 1, "support": 20}
    assert np.sum(scores["baseline"]["confusion"]) == 60
    low, value, high = (
        scores["baseline"]["intervals"]["f1_macro"]["low"],
        scores["baseline"]["metrics"]["f1_macro"],
        scores["baseline"]["intervals"]["f1_macro"]["high"],
    )
    assert low < value < high < 1


def test_the_difference_is_candidate_minus_baseline(compared):
    scores = compared["scores"]
    difference = scores["differences"]["baseline"]["f1_macro"]
    lost = 1 - scores["baseline"]["metrics"]["f1_macro"]
    assert difference["value"] == pytest.approx(lost)
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    speedup = scores["differences"]["baseline"]["measured"]["speedup"]
    assert speedup["low"] <= speedup["median"] <= speedup["high"]


def test_size_counts_what_scoring_needs(compared):
    files = ("model.onnx", "tokenizer.json", "stillhouse.json")
    assert compared["scores"]["candidate"]["bytes"] == sum((compared["good"] / name).stat().st_size for name in files)


def test_the_references_learn_from_the_training_rows(compared):
    references = compared["scores"]["references"]
    assert references["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert references["majority"]["roc_auc"] == 0.5
    assert references["linear"]["accuracy"] > 0.95


def test_slices_cover_every_row_once(compared):
    values = compared["scores"]["slices"]["source"]
    assert {value: found["rows"] for value, found in values.items()} == {"(missing)": 20, "web": 40}
    assert values["web"]["accuracy"] == 1


def test_every_model_is_reported_slice_by_slice(compared):
    scores = compared["scores"]
    by_role = scores["slices_by_role"]
    assert by_role["candidate"] == scores["slices"]
    baseline = by_role["baseline"]["source"]
    assert {value: found["rows"] for value, found in baseline.items()} == {"(missing)": 20, "web": 40}
    right = sum(found["accuracy"] * found["rows"] for found in baseline.values())
    assert right == pytest.approx(60 * scores["baseline"]["metrics"]["accuracy"])


def test_the_business_score_is_the_weighted_sum(compared):
    candidate = compared["scores"]["candidate"]
    wanted = 10 * 1 - candidate["bytes"] / 1e6 - 0.001 * candidate["measured"]["latency_p95_ms"]
    assert compared["scores"]["business"]["measured"]["candidate"] == pytest.approx(wanted)


def test_predictions_are_readable_rows(compared):
    table = compared["table"]
    assert list(table.columns) == ["id", "text", "label", "predicted", "outcome", "p_bad", "p_good", "p_meh"]
    assert table["label"].tolist() == table["predicted"].tolist() == [LABELS[i % 3] for i in range(60)]
    assert table[["p_bad", "p_good", "p_meh"]].sum(axis=1).to_numpy() == pytest.approx(np.ones(60), abs=1e-6)


def test_the_line_of_figures_names_what_was_beaten(compared):
    assert {"f1_macro", "baseline_f1_macro", "majority_f1_macro", "linear_f1_macro", "speedup", "size_mb"} <= set(
        compared["metrics"]
    )


def test_only_measured_values_differ_in_a_second_run(tmp_path, compared, monkeypatch):
    old = compared["job"]
    fits = []
    monkeypatch.setattr("stillhouse.evaluate._references.linear_logits", lambda *_: fits.append(1))
    job = make_job(tmp_path, "again", **{slot: items[0] for slot, items in old.inputs.items()})
    Compare(slices=("source",), business=compared["scores"]["business"]["weights"], **QUICK).run(job)
    again = read_json(job.out / "scores.json")
    assert without_measured(again) == without_measured(compared["scores"])
    assert (job.out / "predictions.parquet").read_bytes() == (old.out / "predictions.parquet").read_bytes()
    assert not fits  # the linear reference is derived data: fitted once


def test_scores_of_the_test_rows_are_derived_data(tmp_path, compared):
    """On another machine, or against another baseline, a model is not scored again: only speed is measured."""
    kept = sorted((tmp_path / "derived").glob("test-logits-*/logits.npy"))
    assert len(kept) == 2
    for path in kept:
        np.save(path, np.zeros_like(np.load(path)))
    job = make_job(tmp_path, "again", **{slot: items[0] for slot, items in compared["job"].inputs.items()})
    Compare(**QUICK).run(job)
    assert read_json(job.out / "scores.json")["candidate"]["metrics"]["roc_auc"] == 0.5


def test_without_optional_inputs_there_is_just_the_candidate(tmp_path, data):
    job = make_job(tmp_path, data=as_input(data, "data"), model=as_input(make_model(tmp_path / "good")))
    Compare(linear_reference=False, **QUICK).run(job)
    scores = read_json(job.out / "scores.json")
    assert scores["differences"] == {}
    assert list(scores["references"]) == ["majority"]
    assert not {"business", "robustness", "old_rows"} & scores.keys()


def test_entities(tmp_path):
    data, model = make_data(tmp_path / "data", TOKENS), make_model(tmp_path / "model", TOKENS)
    job = make_job(tmp_path, data=as_input(data, "data"), model=as_input(model), baseline=as_input(model))
    metrics = Compare(slices=("source",), **QUICK).run(job)
    scores = read_json(job.out / "scores.json")
    assert scores["candidate"]["metrics"]["entity_f1"] == metrics["entity_f1"] == 1
    assert scores["candidate"]["per_class"] == {"place": {"precision": 1, "recall": 1, "f1": 1, "support": 40}}
    assert scores["references"] == {
        "majority": {"entity_f1": 0, "entity_precision": 0, "entity_recall": 0,
                     "accuracy": scores["references"]["majority"]["accuracy"]}
    }  # fmt: skip
    assert scores["differences"]["baseline"]["entity_f1"] == {"value": 0, "low": 0, "high": 0}
    assert "confusion" not in scores["candidate"]
    table = pd.read_parquet(job.out / "predictions.parquet")
    assert [list(row) for row in table["predicted"]] == [list(row) for row in table["label"]]
    assert set(np.concatenate(table["label"].tolist())) == set(TAGS)


class Herd:
    """Says another label for a text that is scored alone."""

    problem, labels, max_length, about = "text-classification", LABELS, 32, {"temperature": 2.0}

    def score(self, rows: list[str]) -> np.ndarray:
        logits = np.tile(np.array([1.0, 0.0, 0.0]), (len(rows), 1))
        if len(rows) == 1 and "film" in rows[0]:
            logits[0] = [0, 1, 0]
        return logits


def test_a_label_that_depends_on_the_neighbours_is_found(tmp_path, data, monkeypatch):
    monkeypatch.setattr("stillhouse.evaluate._score.load_scorer", lambda _: Herd())
    job = make_job(tmp_path, data=as_input(data, "data"), model=as_input(make_model(tmp_path / "model")))
    Compare(linear_reference=False, **QUICK).run(job)
    scores = read_json(job.out / "scores.json")
    texts = pd.read_parquet(data / "test.parquet")["text"]
    assert scores["agreement"] == pytest.approx(1 - texts.str.contains("film").mean())
    assert 0 < scores["agreement"] < 1
    assert scores["largest_change"] == pytest.approx((np.e**0.5 - 1) / (np.e**0.5 + 2)), (
        "of the probabilities as served"
    )


def test_a_real_model_agrees_with_itself(compared):
    assert compared["scores"]["agreement"] == 1
    assert compared["scores"]["largest_change"] < 1e-5


def test_labels_in_another_order_are_matched_by_name(tmp_path, data):
    turned = make_model(tmp_path / "turned", labels=LABELS[::-1])
    job = make_job(tmp_path, data=as_input(data, "data"), model=as_input(turned))
    assert Compare(linear_reference=False, **QUICK).run(job)["accuracy"] == 1


def test_an_older_champion_may_lack_a_label_a_candidate_may_not(tmp_path, data):
    good, old = make_model(tmp_path / "good"), make_model(tmp_path / "old", labels=["good", "bad", "gone"])
    inputs = {"data": as_input(data, "data"), "model": as_input(good)}
    job = make_job(tmp_path, champion=as_input(old), **inputs)
    Compare(linear_reference=False, **QUICK).run(job)
    champion = read_json(job.out / "scores.json")["champion"]
    assert champion["per_class"]["meh"] == {"precision": 0, "recall": 0, "f1": 0, "support": 20}
    assert champion["per_class"]["good"]["recall"] == 1
    for slot in ("model", "baseline"):
        job = make_job(tmp_path, slot, **{**inputs, slot: as_input(old)})
        with pytest.raises(UserError, match='has the label "gone"'):
            Compare(linear_reference=False, **QUICK).run(job)


def test_mistakes_are_one_clear_line(tmp_path, data):
    good = make_model(tmp_path / "good")
    inputs = {"data": as_input(data, "data"), "model": as_input(good)}
    with pytest.raises(UserError, match=r'no column "sorce".*did you mean "source"'):
        Compare(slices=("sorce",), **QUICK).run(make_job(tmp_path, "a", **inputs))
    with pytest.raises(UserError, match=r'business: unknown figure "f1".*f1_m'):
        Compare(business={"f1": 1.0}).check({"data", "model"})
    with pytest.raises(UserError, match='business: the candidate has no figure "entity_f1"'):
        Compare(business={"entity_f1": 1.0}, linear_reference=False, **QUICK).run(make_job(tmp_path, "b", **inputs))
    inputs["model"] = as_input(make_model(tmp_path / "tagger", TOKENS))
    with pytest.raises(UserError, match="token-classification model, but the data is for text-classification"):
        Compare(**QUICK).run(make_job(tmp_path, "c", **inputs))
    pd.read_parquet(data / "test.parquet").head(0).to_parquet(data / "test.parquet")
    with pytest.raises(UserError, match="no test rows"):
        Compare(**QUICK).run(make_job(tmp_path, "d", **inputs))


def test_settings_import_nothing_heavy():
    code = """import sys, stillhouse.evaluate.compare, stillhouse.release.gate
heavy = {"torch", "transformers", "datasets", "evaluate", "onnx", "mlflow", "prefect", "numpy", "pandas", "sklearn"}
print(sorted(heavy & set(sys.modules)))"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
