"""The rung is smaller, keeps its labels, says what it measured, and hands its input on when it does not pay."""

import json
import shutil

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import f1_score

from stillhouse.blocks import layer_blocks
from stillhouse.errors import UserError
from stillhouse.export._optional import make_flat
from stillhouse.models import load_model, read_info, save_model
from stillhouse.quantize import _fallback, _graph, _int8
from stillhouse.quantize._int8 import batch_agreement
from stillhouse.quantize.int8 import Int8
from stillhouse.rungs import judge
from stillhouse.scorer import load_scorer
from tests.stillhouse.tiny_scoring import TEXTS, WORDS, export, furthest, make_job, make_model, make_rows
from tests.stillhouse.train.tiny_training import text_rows, word_rows

WIDE = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "initializer_range": 0.05}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    directory = tmp_path_factory.mktemp("texts")
    torch_model = make_model(directory, **WIDE)
    return torch_model, export(torch_model), make_rows(directory)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    directory = tmp_path_factory.mktemp("words")
    torch_model = make_model(directory, WORDS, **WIDE)
    return torch_model, export(torch_model), make_rows(directory, WORDS)


@pytest.fixture(autouse=True)
def few_rows_alone(monkeypatch):
    monkeypatch.setattr(_int8, "ALONE_ROWS", 20)


def run(directory, model, data, baseline=None, **settings):
    inputs = {"model": model, "data": data} | ({"baseline": baseline} if baseline else {})
    job = make_job(directory, "int8", **inputs)
    before = sorted(model.iterdir())
    figures = Int8.model_validate({"accept_loss": 1, "min_speedup": 0, "speed_seconds": 0.05, **settings}).run(job)
    assert sorted(model.iterdir()) == before, "an input artifact is never written to"
    return job.out, json.loads((job.out / "rung.json").read_text()), figures


def test_int8_is_smaller_and_close_to_its_input(tmp_path, texts, capfd):
    out, rung, figures = run(tmp_path, texts[1], texts[2], texts[0])
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in out.iterdir()) == [
        "model.onnx",
        "rung.json",
        "stillhouse.json",
        "tokenizer.json",
    ]
    assert rung["accepted"] and figures["accepted"] == 1 and "times smaller" in rung["reason"]
    assert rung["bytes"] == (out / "model.onnx").stat().st_size < rung["bytes_before"] / 3
    rows = list(text_rows(100, 9)["text"])
    before, after = load_scorer(texts[1]).score(rows), load_scorer(out).score(rows)
    assert 0 < np.abs(before - after).max() < 0.2 * np.ptp(before)
    assert rung["quality"]["low"] <= rung["quality"]["value"] <= rung["quality"]["high"]
    assert rung["loss"] == pytest.approx(rung["baseline"]["value"] - rung["quality"]["value"])
    speed = rung["measured"]["speedup"]
    assert 0 < speed["low"] <= speed["median"] <= speed["high"]
    assert rung["measured"]["texts_per_second"] > 0 and rung["measured"]["peak_memory_mb"] > 10


def test_embeddings_are_quantized_and_the_classifier_is_not(tmp_path, words):
    out, _, _ = run(tmp_path, words[1], words[2])
    matrices = [v for v in onnx.load(out / "model.onnx").graph.initializer if len(v.dims) == 2]
    eight_bits = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    others = [list(v.dims) for v in matrices if v.data_type not in eight_bits]
    assert len(matrices) >= 12 and others == [[128, 3]]
    rows = [list(row) for row in word_rows(30, 4)["words"]]
    assert furthest(load_scorer(words[1]).score(rows), load_scorer(out).score(rows)) < 0.5


def test_products_with_fixed_scales_are_scaled_and_biased_in_one_operation(tmp_path, texts, monkeypatch):
    out, _, _ = run(tmp_path, texts[1], texts[2])
    kinds = [node.op_type for node in flat(out).graph.node]
    assert "MatMulInteger" not in kinds and "BiasGelu" not in kinds and kinds.count("Gelu") == 3
    products = [node for node in flat(out).graph.node if node.op_type == "MatMulIntegerToFloat"]
    # Two layers of three products each, those of the last one twice, and the pooler. The biases that are all zero are
    # one constant here, which is quantized, so that only the bias of a Gelu surely stands in its product.
    assert len(products) == 10
    activated = {node.input[0] for node in flat(out).graph.node if node.op_type == "Gelu"}
    assert len(activated) == 3 and activated <= {node.output[0] for node in products if node.input[6:] > [""]}
    monkeypatch.setattr(_graph, "fuse_products", lambda model: 0)
    (tmp_path / "apart").mkdir()
    apart, _, _ = run(tmp_path / "apart", texts[1], texts[2])
    assert "MatMulIntegerToFloat" not in [node.op_type for node in flat(apart).graph.node]
    rows = list(text_rows(60, 5)["text"])
    assert load_scorer(out).score(rows) == pytest.approx(load_scorer(apart).score(rows), abs=1e-4)
    assert load_scorer(out).embed(rows) == pytest.approx(load_scorer(apart).embed(rows), abs=1e-4)


def flat(directory):
    model = onnx.load(directory / "model.onnx")
    make_flat(model)
    return model


def test_without_vnni_no_product_overflows(tmp_path, texts):
    out, _, _ = run(tmp_path, texts[1], texts[2])
    weights = [v for v in onnx.load(out / "model.onnx").graph.initializer if v.data_type == onnx.TensorProto.INT8]
    largest = max(
        int(np.abs(onnx.numpy_helper.to_array(v).astype(int)).max()) for v in weights if np.prod(v.dims) > 500
    )
    assert 32 < largest <= 64


def test_a_rung_that_does_not_pay_publishes_its_input(tmp_path, texts):
    out, rung, figures = run(tmp_path, texts[1], texts[2], min_speedup=1000)
    assert not rung["accepted"] and figures["accepted"] == 0
    assert rung["reason"].startswith("too slow:")
    for name in ("model.onnx", "tokenizer.json", "stillhouse.json"):
        assert (out / name).read_bytes() == (texts[1] / name).read_bytes()


def test_the_verdict_follows_the_figures():
    def verdict(loss=0.0, low=1.5, high=2.0, size=10, agreement=1.0, **settings):
        rung = {
            "metric": "f1_macro",
            "quality": {"value": 0.8 - loss},
            "baseline": {"value": 0.8},
            "loss": loss,
            "bytes": size,
            "bytes_before": 40,
            "agreement": agreement,
            "measured": {"speedup": {"low": low, "high": high}},
        }
        return judge(rung, **{"accept_loss": 0.01, "min_speedup": 1.0, **settings})

    assert verdict() == (True, "4.0 times smaller, f1_macro 0.8000, baseline 0.8000")
    assert verdict(loss=0.011)[0] is False and verdict(loss=0.011, accept_loss=0.02)[0] is True
    assert verdict(low=0.8, high=1.05)[0] is True, "not certainly slower"
    assert verdict(low=0.8, high=0.95)[0] is False and verdict(low=0.8, high=0.95, min_speedup=0)[0] is True
    assert verdict(size=40)[0] is False
    accepted, reason = verdict(agreement=0.99)
    assert accepted and "1.0% of the labels change" in reason


def test_agreement_counts_the_labels_that_change_with_company():
    class Fickle:
        def score(self, rows):
            return np.array([[0.0, 1.0 if len(rows) > 1 or row == "a" else -1.0] for row in rows])

    rows = ["a", "b", "a", "b"]
    found = batch_agreement(Fickle(), rows, Fickle().score(rows))
    assert found == {"agreement": 6 / 8, "largest_change": 2.0}


def test_a_baseline_with_other_labels_is_refused(tmp_path, texts):
    other = tmp_path / "other"
    shutil.copytree(texts[0], other)
    about = json.loads((other / "stillhouse.json").read_text())
    (other / "stillhouse.json").write_text(json.dumps({**about, "labels": about["labels"][::-1]}))
    with pytest.raises(UserError, match="the baseline is text-classification with labels"):
        run(tmp_path, texts[1], texts[2], other)


def test_excluded_nodes_stay_and_unknown_patterns_are_named(tmp_path, texts):
    (tmp_path / "a").mkdir()
    all_of_it, _, _ = run(tmp_path / "a", texts[1], texts[2])
    (tmp_path / "b").mkdir()
    part, _, _ = run(tmp_path / "b", texts[1], texts[2], exclude=["*layer.0/intermediate*"])
    assert (part / "model.onnx").stat().st_size - (all_of_it / "model.onnx").stat().st_size > 2.5 * 128 * 512
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match=r'no node of the graph matches "nothing"'):
        run(tmp_path / "c", texts[1], texts[2], exclude=["nothing"])


def test_the_same_input_gives_the_same_bytes(tmp_path, texts):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = (run(tmp_path / name, texts[1], texts[2])[0] for name in "ab")
    assert (one / "model.onnx").read_bytes() == (other / "model.onnx").read_bytes()


def test_wrong_metric_and_wrong_data_are_user_errors(tmp_path, texts, words):
    with pytest.raises(UserError, match='"entity_f1" is not a metric of text-classification'):
        run(tmp_path, texts[1], texts[2], metric="entity_f1")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="token-classification"):
        run(tmp_path / "b", texts[1], words[2])
    with pytest.raises(ValidationError):
        Int8(accept_loss=-1)
    assert TEXTS != WORDS


def hostile(directory, layer):
    """A model, and rows labelled as it says, with a unit in the feed-forward block of `layer` that is always at 10,000
    and that nothing listens to: what the other units say is less than one step of an 8-bit scale."""
    source = make_model(directory, **WIDE)
    model = load_model(source)
    blocks = layer_blocks(model)[layer]
    rows = make_rows(directory)
    with torch.no_grad():
        blocks.down.weight *= 8
        blocks.up.weight[7], blocks.down.weight[:, 7] = 0, 0
        blocks.up.bias[7] = 1e4
    save_model(model, source, read_info(source), source)
    frame = pd.read_parquet(rows / "validation.parquet")
    with torch.no_grad():  # no label is rare
        model.classifier.bias -= torch.from_numpy(np.median(load_scorer(source).score(list(frame["text"])), axis=0))
    save_model(model, source, read_info(source), source)
    for split in ("train", "validation"):
        said = load_scorer(source).score(list(frame["text"])).argmax(-1)
        frame.assign(label=said.astype(np.int32)).to_parquet(rows / f"{split}.parquet")
    return export(source), rows


@pytest.mark.parametrize(("layer", "activations"), [(0, "static"), (1, "dynamic")])
def test_a_layer_that_int8_ruins_stays_in_32_bits_and_no_other(tmp_path, layer, activations):
    model, rows = hostile(tmp_path, layer)
    given = {"accept_loss": 0.3, "activations": activations}
    rung = run(tmp_path, model, rows, fallback_layers=0, **given)[1]
    assert not rung["accepted"] and rung["reason"].startswith("loses too much") and rung["loss"] > 0.5
    (tmp_path / "again").mkdir()
    out, rung, figures = run(tmp_path / "again", model, rows, fallback_layers=3, **given)
    assert rung["accepted"] and figures["fallback_layers"] == 1
    assert rung["fallback_layers"] == [f"/model/bert/encoder/layer.{layer}/output/dense/MatMul"]
    matrices = [v for v in onnx.load(out / "model.onnx").graph.initializer if len(v.dims) == 2]
    whole = [list(v.dims) for v in matrices if v.data_type == onnx.TensorProto.FLOAT]
    assert sorted(whole) == [[128, 3], [512, 128]], "the classifier and the one matrix, once"
    frame = pd.read_parquet(rows / "validation.parquet")
    said = load_scorer(out).score(list(frame["text"])).argmax(-1)
    assert rung["quality"]["value"] == pytest.approx(f1_score(frame["label"], said, average="macro"))


def test_no_layer_stays_where_all_may_go_or_where_none_would_help(tmp_path, texts, monkeypatch):
    rung = run(tmp_path, texts[1], texts[2], texts[0])[1]
    assert rung["accepted"] and rung["fallback_layers"] == []
    ranked = []
    monkeypatch.setattr(_fallback, "rank_layers", lambda *given: ranked.append(given))
    (tmp_path / "worse").mkdir()
    better = hostile(tmp_path / "worse", 0)
    # The input model itself loses too much against this baseline: nothing is tried.
    (tmp_path / "again").mkdir()
    rung = run(tmp_path / "again", texts[1], better[1], better[0].parent / "torch", accept_loss=0.1)[1]
    assert not rung["accepted"] and rung["fallback_layers"] == [] and not ranked
