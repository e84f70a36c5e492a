import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from stillhouse.errors import UserError
from stillhouse.models import load_model
from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import as_input, make_base, make_data, make_job, same, text_rows, weights


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("encoder") / "base")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("rows") / "data")


def stage(**settings) -> Stage:
    return Stage.model_validate({"base": "tiny", "learning_rate": 3e-3, "num_train_epochs": 2, **settings})


def test_training_learns_and_publishes_a_whole_model(tmp_path, base, data):
    job = make_job(tmp_path, "a", data, base)
    figures = stage(num_train_epochs=8, train_embeddings=True).run(job)
    assert figures["f1_macro"] > 0.9
    assert {path.name for path in job.out.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "stillhouse.json",
        "tokenizer.json",
    }
    info = json.loads((job.out / "stillhouse.json").read_text())
    assert (info["problem"], info["labels"]) == ("text-classification", ["negative", "neutral", "positive"])
    assert (info["base"], info["licence"], info["max_length"], info["thresholds"]) == ("tiny", "mit", 32, None)
    tokenizer = json.loads((job.out / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None and tokenizer["padding"] is None
    lines = [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [float(epoch) for epoch in range(1, 9)]
    assert figures["f1_macro"] == max(line["f1_macro"] for line in lines)


def test_the_published_model_scores_what_the_best_evaluation_said(tmp_path, base, data):
    from stillhouse.models import tokenizer_json
    from stillhouse.train._predict import validation_metrics
    from stillhouse.train._tokens import tokenize_data

    job = make_job(tmp_path, "a", data, base)
    figures = stage(num_train_epochs=6, learning_rate=2e-2, lr_scheduler_type="constant").run(job)
    assert figures["best_step"] < figures["steps"], "the test is about a best model that is not the last"
    tokens = tokenize_data(job, "text-classification", tokenizer_json(job.out), 32)
    metrics = validation_metrics(load_model(job.out), tokens, "text-classification", ["a", "b", "c"])
    assert metrics["f1_macro"] == figures["f1_macro"]


def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(tmp_path, base, data):
    def run(name: str, seed: int):
        job = make_job(tmp_path, name, data, base, seed=seed)
        stage().run(job)
        return weights(job.out)

    first = run("a", 1)
    assert same(first, run("b", 1))
    assert not same(first, run("c", 2))


@pytest.mark.parametrize(
    ("train", "embeddings", "changed"),
    [
        ("head", False, {"pooler", "classifier"}),
        ("last-1", False, {"pooler", "classifier", "layer.1"}),
        ("all", False, {"pooler", "classifier", "layer.1", "layer.0"}),
        ("all", True, {"pooler", "classifier", "layer.1", "layer.0", "embeddings"}),
    ],
)
def test_only_the_named_part_changes(tmp_path, base, data, train, embeddings, changed):
    first = make_job(tmp_path, "first", data, base)
    stage(num_train_epochs=0.1, train="head").run(first)
    second = make_job(tmp_path, "second", data, inputs={"model": [as_input(first.out, "model.torch")]})
    Stage(train=train, train_embeddings=embeddings, learning_rate=1e-3, num_train_epochs=1).run(second)
    before, after = weights(first.out), weights(second.out)
    parts = ["pooler", "classifier", "layer.1", "layer.0", "embeddings"]
    moved = {part for part in parts for name in before if part in name and not torch.equal(before[name], after[name])}
    assert moved == changed


def test_words_are_tagged_and_long_sentences_are_read_whole(tmp_path, base):
    data = make_data(tmp_path / "words", "token-classification")
    job = make_job(tmp_path, "a", data, base)
    figures = stage(num_train_epochs=6, train_embeddings=True, max_length=12).run(job)
    assert figures["entity_f1"] > 0.95
    config = json.loads((job.out / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]


def test_early_stopping_counts_evaluations_without_a_better_metric(tmp_path, base, data):
    job = make_job(tmp_path, "a", data, base)
    figures = stage(num_train_epochs=50, learning_rate=1e-9, early_stopping_patience=3).run(job)
    lines = (job.out / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4, "one evaluation that is the best, three that are not"
    assert (figures["best_step"], figures["steps"]) == (3, 12)


def test_dropout_zero_is_for_training_only(tmp_path, base, data):
    job = make_job(tmp_path, "a", data, base)
    stage(dropout=0.0, num_train_epochs=0.1).run(job)
    assert json.loads((job.out / "config.json").read_text())["hidden_dropout_prob"] == 0.1
    assert load_model(job.out, dropout=0.0).get_submodule("dropout").p == 0.0  # type: ignore[union-attr]


def test_a_sample_of_the_validation_rows_can_be_scored(tmp_path, base, data, monkeypatch):
    import stillhouse.metrics as metrics

    scored: list[list[int]] = []
    original = metrics.evaluate_predictions

    def spy(problem, labels, truth, logits):
        scored.append([int(label) for label in truth])
        return original(problem, labels, truth, logits)

    monkeypatch.setattr(metrics, "evaluate_predictions", spy)
    stage(max_eval_samples=15).run(make_job(tmp_path, "a", data, base))
    rows = text_rows(40, seed=2).sort_values("id")
    assert scored == [rows["label"].tolist()[:15]] * 2


def test_a_full_disk_while_publishing_is_one_line(tmp_path, base, data, monkeypatch):
    from safetensors import SafetensorError

    from stillhouse.train import _stage

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(_stage, "save_model", full)
    with pytest.raises(UserError, match="no space left on the disk for the model"):
        stage(num_train_epochs=0.1).run(make_job(tmp_path, "a", data, base))


def test_tokens_are_made_once_for_equal_tokenizer_and_length(tmp_path, base, data):
    job = make_job(tmp_path, "a", data, base)
    stage(num_train_epochs=0.1).run(job)
    second = make_job(tmp_path, "b", data, inputs={"model": [as_input(job.out, "model.torch")]}, derived=job.derived)
    Stage(num_train_epochs=0.1).run(second)
    assert job.derived.built == ["tokens"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("settings", [{}, {"base": "x"}])
def test_exactly_one_of_base_and_model(settings):
    filled = {"data", "model"} if settings else {"data"}
    with pytest.raises(UserError, match="exactly one"):
        Stage.model_validate(settings).check(filled)
    Stage.model_validate(settings).check({"data"} if settings else {"data", "model"})


@pytest.mark.parametrize("train", ["last-0", "last", "heads", "last--1"])
def test_unknown_part_is_named(train):
    with pytest.raises(ValidationError, match="head, all, last-K"):
        Stage(train=train)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train": "last-3"}, "last-3 but the encoder has 2 layers"),
        ({"max_length": 64}, "max_length: 64"),
        ({"class_weights": {"positiv": 2.0}}, 'did you mean "positive"'),
        ({"metric_for_best_model": "f1_makro"}, 'did you mean "f1_macro"'),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, base, data, settings, words):
    with pytest.raises(UserError, match=words) as caught:
        stage(**settings).run(make_job(tmp_path, "a", data, base))
    assert "\n" not in str(caught.value)


def test_divergence_says_to_lower_the_learning_rate(tmp_path, base, data):
    with pytest.raises(UserError, match=r"diverged.*lower learning_rate"):
        stage(learning_rate=0.99, weight_decay=1e38, warmup_ratio=0).run(make_job(tmp_path, "a", data, base))


def test_other_labels_than_the_models_are_refused(tmp_path, base, data):
    job = make_job(tmp_path, "a", data, base)
    stage(num_train_epochs=0.1).run(job)
    other = make_data(tmp_path / "other")
    (other / "labels.json").write_text('["negative", "neutral", "mixed"]')
    second = make_job(tmp_path, "b", other, inputs={"model": [as_input(job.out, "model.torch")]})
    with pytest.raises(UserError, match="mixed, positive"):
        Stage().run(second)
