"""The exported file alone is the model: any shape, the same numbers, the same bytes, nothing printed."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from stillhouse.blocks import describe_layers, layer_blocks, narrow
from stillhouse.data.read import load_split
from stillhouse.errors import BugError
from stillhouse.evaluate.rows import rows_of
from stillhouse.export import _onnx
from stillhouse.export._norms import split_norms
from stillhouse.export._optional import make_flat, make_optional
from stillhouse.export.onnx import Onnx
from stillhouse.models import from_base, load_model, read_info, save_model
from stillhouse.quantize.int8 import Int8
from stillhouse.scorer import load_scorer
from tests.stillhouse.tiny_scoring import TEXTS, WORDS, export, furthest, make_job, make_model, make_rows
from tests.stillhouse.train.tiny_training import make_base


@pytest.mark.parametrize("problem", [TEXTS, WORDS])
def test_the_graph_is_fused_and_equals_torch(tmp_path, problem, capfd):
    model = make_model(tmp_path, problem)
    job = make_job(tmp_path, "onnx", model=model, data=make_rows(tmp_path, problem))
    capfd.readouterr()
    figures = Onnx().run(job)
    assert figures["fused_attention"] == 2 and figures["fused_embeddings"] == 1 and figures["fused_gelu"] == 2
    assert figures["fused_first_token"] == (10 if problem == TEXTS else 0)
    assert figures["largest_difference"] < 1e-5
    assert sorted(path.name for path in job.out.iterdir()) == ["model.onnx", "stillhouse.json", "tokenizer.json"]
    assert figures["bytes"] == (job.out / "model.onnx").stat().st_size
    assert not list(job.scratch.iterdir())
    assert capfd.readouterr() == ("", "")


def norm_graph(*extra_outputs):
    """A SkipLayerNormalization of [2, 3, 4] values, with a bias."""
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3, 4]) for name in ("x", "skip")]
    given = {"scale": [1, 2, 3, 4], "shift": [0.5, 0, 0, -1], "bias": [0, 1, 0, 2]}
    weights = [onnx.numpy_helper.from_array(np.array(value, np.float32), name) for name, value in given.items()]
    outputs = ["y", *extra_outputs]
    node = onnx.helper.make_node(
        "SkipLayerNormalization", ["x", "skip", *given], outputs, name="n", domain="com.microsoft", epsilon=0.25
    )
    shown = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs if name]
    domains = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    graph = onnx.helper.make_graph([node], "norm", values, shown, weights)
    return onnx.helper.make_model(graph, opset_imports=domains, ir_version=8)


def test_a_split_norm_is_the_norm_of_the_sum():
    model = norm_graph()
    assert split_norms(model) == 1
    assert [node.op_type for node in model.graph.node] == ["Add", "Add", "LayerNormalization"]
    x, skip = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    total = x + np.float32([0, 1, 0, 2]) + skip
    expected = (total - total.mean(-1, keepdims=True)) / np.sqrt(total.var(-1, keepdims=True) + 0.25)
    found = session.run(None, {"x": x, "skip": skip})[0]
    assert found == pytest.approx(expected * [1, 2, 3, 4] + [0.5, 0, 0, -1], abs=1e-5)


def test_a_norm_whose_sum_is_read_stays_whole():
    model = norm_graph("", "", "sum")
    assert split_norms(model) == 0
    assert [node.op_type for node in model.graph.node] == ["SkipLayerNormalization"]


PRUNED = [([2], 40), ([0, 1, 3], 24), ([0, 1, 2, 3], 64)]
"""Heads and number of units that stay in each of three layers of four heads."""


@pytest.fixture(params=[TEXTS, WORDS])
def pruned(tmp_path, request):
    """A model whose layers differ in their numbers of heads and units, and its data."""
    source = make_model(tmp_path, request.param, layers=3, num_attention_heads=4)
    model = load_model(source)
    for blocks, (heads, units) in zip(layer_blocks(model), PRUNED, strict=True):
        narrow(blocks, torch.tensor(heads), torch.arange(units))
    model.config.pruned_layers = describe_layers(model)
    out = tmp_path / "pruned"
    out.mkdir()
    save_model(model, source, read_info(source), out)
    return out, make_rows(tmp_path, request.param)


def test_every_layer_of_a_pruned_model_is_fused_with_its_own_heads(tmp_path, pruned):
    job = make_job(tmp_path, "onnx", model=pruned[0], data=pruned[1])
    figures = Onnx().run(job)
    assert figures["fused_attention"] == 3 and figures["fused_embeddings"] == 1 and figures["fused_gelu"] == 3
    assert figures["fused_first_token"] == (10 if read_info(pruned[0])["problem"] == TEXTS else 0)
    assert figures["largest_difference"] < 1e-5
    nodes = [node for node in onnx.load(job.out / "model.onnx").graph.node if node.op_type == "Attention"]
    heads = [value.i for node in nodes for value in node.attribute if value.name == "num_heads"]
    assert heads == [len(kept) for kept, _ in PRUNED]


def test_a_pruned_model_is_quantized_like_any_other(tmp_path, pruned):
    exported = export(pruned[0])
    job = make_job(tmp_path, "int8", model=exported, data=pruned[1])
    Int8(accept_loss=1, min_speedup=0, speed_seconds=0.05, max_rows=20).run(job)
    kinds = [node.op_type for node in onnx.load(job.out / "model.onnx").graph.node]
    assert kinds.count("QAttention") == 3 and "Attention" not in kinds
    rows = rows_of(read_info(exported)["problem"], load_split(pruned[1], "validation"))[0]
    before, after = load_scorer(exported).score(rows), load_scorer(job.out).score(rows)
    spread = max(float(np.ptp(one)) for one in before)
    assert furthest(before, after) < 0.2 * spread


def test_logits_alone_skip_the_last_block_and_both_outputs_are_the_default(tmp_path):
    exported = export(make_model(tmp_path)) / "model.onnx"
    session = onnxruntime.InferenceSession(exported)
    ids = np.array([[2, 5, 6, 3], [2, 7, 3, 0]])
    feed = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": ids * 0}
    logits, pooled = session.run(None, feed)
    only, nothing = session.run(None, {**feed, "with_pooled": np.array(False)})
    assert pooled.shape == (2, 32) and nothing.shape == (0, 32)
    assert np.array_equal(logits, only)
    # The last layer's block after attention, twice: whole in the branch, for the first token outside.
    graph = onnx.load(exported).graph
    outside = [node.op_type for node in graph.node]
    branch = next(value.g for node in graph.node for value in node.attribute if value.name == "then_branch")
    assert outside.count("MatMul") == 3 + 3 and [node.op_type for node in branch.node].count("MatMul") == 3


def test_flattening_undoes_the_branch(tmp_path):
    model = onnx.load(export(make_model(tmp_path)) / "model.onnx")
    before = [node.name for node in model.graph.node]
    assert make_flat(model) and not make_flat(model)
    assert [node.op_type for node in model.graph.node].count("If") == 0
    onnx.save(model, tmp_path / "flat.onnx")
    assert len(onnxruntime.InferenceSession(tmp_path / "flat.onnx").get_overridable_initializers()) == 0
    make_optional(model)
    assert [node.name for node in model.graph.node] == before


def test_without_optimization_nothing_is_fused_and_the_numbers_stay(tmp_path):
    job = make_job(tmp_path, "onnx", model=make_model(tmp_path))
    figures = Onnx(optimize=False).run(job)
    assert figures["fused_attention"] == figures["fused_embeddings"] == figures["fused_gelu"] == 0
    assert figures["largest_difference"] < 1e-5


def test_a_fusion_that_fails_or_is_wrong_is_left_out(tmp_path, monkeypatch):
    model = make_model(tmp_path)
    monkeypatch.setattr(_onnx, "save_fused", lambda plain, final, source: False)
    assert Onnx().run(make_job(tmp_path, "gives-up", model=model))["fused_attention"] == 0
    monkeypatch.undo()
    right = _onnx.save_fused

    def wrong(plain, final, source):
        right(plain, final, source)
        graph = onnx.load(final)
        weight = next(value for value in graph.graph.initializer if "classifier.bias" in value.name)
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 1, weight.name))
        onnx.save(graph, final)
        return True

    monkeypatch.setattr(_onnx, "save_fused", wrong)
    figures = Onnx().run(make_job(tmp_path, "wrong", model=model))
    assert figures["fused_attention"] == 0 and figures["largest_difference"] < 1e-5


def test_an_export_that_differs_from_torch_is_a_bug(tmp_path, monkeypatch):
    monkeypatch.setattr(_onnx, "largest_difference", lambda source, exported, rows: 0.5)
    with pytest.raises(BugError, match=r"differ from torch by 0\.5"):
        Onnx().run(make_job(tmp_path, "onnx", model=make_model(tmp_path)))


def test_other_encoders_export_too(tmp_path):
    from transformers import DistilBertConfig, DistilBertModel

    base = make_base(tmp_path / "bert")
    other = tmp_path / "base"
    config = DistilBertConfig(vocab_size=19, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=32)
    DistilBertModel(config).save_pretrained(other)
    (other / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    out = tmp_path / "torch"
    out.mkdir()
    info = {"problem": TEXTS, "labels": ["a", "b"], "max_length": 16, "thresholds": None, "base": "x", "licence": None}
    save_model(from_base(other, TEXTS, ["a", "b"], 0), other, info, out)
    job = make_job(tmp_path, "onnx", model=out)
    figures = Onnx().run(job)
    assert figures["largest_difference"] < 1e-5 and figures["fused_attention"] == 2
    session = onnxruntime.InferenceSession(job.out / "model.onnx")
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]


def test_the_same_model_gives_the_same_bytes_in_another_process(tmp_path):
    model = make_model(tmp_path)
    first = (export(model, "first") / "model.onnx").read_bytes()
    program = "import sys, pathlib\nfrom tests.stillhouse.tiny_scoring import export\n"
    program += "export(pathlib.Path(sys.argv[1]), 'second')"
    subprocess.run([sys.executable, "-c", program, str(model)], check=True)
    assert (tmp_path / "second" / "model.onnx").read_bytes() == first
    assert not any(len(node.doc_string) for node in onnx.load_from_string(first).graph.node)
    assert np.frombuffer(first, np.uint8).size > 10_000
