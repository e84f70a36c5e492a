"""The calibrated model answers with the same labels, truer probabilities and an honest "unsure"."""

import json

import numpy as np
import pytest

from stillhouse.calibrate._confidence import _cuts
from stillhouse.calibrate.confidence import Confidence
from stillhouse.data.read import load_split
from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json
from stillhouse.method import Input, Job
from stillhouse.scorer import load_scorer
from stillhouse.scoring import OnnxScorer
from tests.stillhouse.train.tiny_training import make_data
from tests.tasks.tiny_release import LABELS, make_bundle


@pytest.fixture
def job(tmp_path):
    """Validation rows whose labels the model gets right in about nine of ten; its logits are four times too large."""
    model, data = make_bundle(tmp_path / "model"), make_data(tmp_path / "data", validation=400)
    (model / "rung.json").write_text("{}")
    (model / "ladder.json").write_text("{}")
    frame = load_split(data, "validation")
    logits = OnnxScorer(model).score(frame["text"].tolist())
    drawn = (logits / 4 + np.random.default_rng(3).gumbel(size=logits.shape)).argmax(axis=1)
    frame.assign(label=drawn.astype(np.int32)).to_parquet(data / "validation.parquet")
    write_json(data / "labels.json", LABELS)
    (tmp_path / "out").mkdir()
    inputs = {"data": [Input(data, "d", "data", "d")], "model": [Input(model, "m", "model.onnx", "m")]}
    return Job(tmp_path / "out", tmp_path / "scratch", inputs=inputs)


def test_probabilities_become_true_and_labels_stay(job):
    found = Confidence(target_accuracy=0.6).run(job)
    assert found["temperature"] == pytest.approx(4, rel=0.4)
    assert found["calibration_error"] < found["calibration_error_before"] / 2
    about = read_json(job.out / "stillhouse.json")
    assert about["temperature"] == found["temperature"] and set(about["unsure_below"]) == set(LABELS)
    assert {path.name for path in job.out.iterdir()} >= {"model.onnx", "tokenizer.json", "ladder.json", "scoring.py"}
    assert not (job.out / "rung.json").exists(), "that is the record of another step"
    frame = load_split(job.path("data"), "validation")
    before, after = (load_scorer(path).predict(frame["text"].tolist()) for path in (job.path("model"), job.out))
    assert [row["label"] for row in before] == [row["label"] for row in after]
    sure = [row["outcome"] == row["label"] for row in after]
    right = [row["label"] == LABELS[label] for row, label in zip(after, frame["label"], strict=True)]
    assert {row["outcome"] for row, kept in zip(after, sure, strict=True) if not kept} <= {"unsure"}
    assert found["coverage"] == pytest.approx(np.mean(sure)) and 0.2 <= found["coverage"] < 1
    assert found["sure_accuracy"] == pytest.approx(np.mean(np.array(right)[sure])) and found["sure_accuracy"] >= 0.6


def test_without_a_target_every_row_is_sure(job):
    found = Confidence(smooth_half_life=5, smooth_by="topic").run(job)
    about = json.loads((job.out / "stillhouse.json").read_text())
    assert found["coverage"] == 1.0 and about["unsure_below"] is None
    assert about["smoothing"] == {"half_life": 5.0, "by": "topic"}


def test_each_label_may_have_its_own_cut():
    confidence, chosen = np.tile(np.linspace(0.5, 0.99, 50), 2), np.repeat([0, 1], 50)
    right = np.concatenate([np.ones(50, bool), np.arange(50) >= 25])  # of the second label only the upper half
    chosen[:5], right[:5] = 2, False  # the third has too few rows for a cut of its own
    wanted = {"target_accuracy": 1.0, "min_coverage": 0.1}
    cuts = _cuts(Confidence(**wanted, per_label=True), LABELS, confidence, chosen, right)
    common = set(_cuts(Confidence(**wanted), LABELS, confidence, chosen, right).values())
    assert cuts["negative"] == 0 and common == {cuts["positive"]}
    assert confidence[74] < cuts["neutral"] < confidence[75]


def test_a_label_called_unsure_is_refused(job):
    for path in (job.path("data") / "labels.json", job.path("model") / "stillhouse.json"):
        path.write_text(path.read_text().replace('"neutral"', '"unsure"'))
    with pytest.raises(UserError, match='"unsure" is a label'):
        Confidence(target_accuracy=0.9).run(job)
    assert Confidence().run(job)["coverage"] == 1


@pytest.mark.parametrize("settings", [{"smooth_by": "topic"}, {"per_label": True}])
def test_settings_that_say_nothing_are_refused(settings):
    with pytest.raises(UserError, match="says nothing"):
        Confidence(**settings).check(set())
