"""Training with rounded weights makes a model that int8 leaves as it is."""

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from stillhouse.blocks import layer_blocks
from stillhouse.distill._rounded import round_weights, rounded
from stillhouse.distill.logits import Logits
from stillhouse.models import keep_layers, load_model, read_info, save_model
from stillhouse.quantize._graph import quantize_graph
from stillhouse.quantize.int8 import Int8
from stillhouse.scorer import load_scorer
from tests.stillhouse.tiny_scoring import export
from tests.stillhouse.train.tiny_training import as_input, make_data, make_job, weights


def test_rounding_by_hand():
    """Largest weights 127 and 1.27: steps 1 and 0.01; in 7 bits of 64: step 1. The gradient sees nothing of it."""
    weight = torch.tensor([[127.0, 0.4, -2.6], [1.27, 0.004, -0.026]], requires_grad=True)
    torch.testing.assert_close(rounded(weight, 8), torch.tensor([[127.0, 0.0, -3.0], [1.27, 0.0, -0.03]]))
    torch.testing.assert_close(rounded(torch.tensor([[64.0, 0.6]]), 7), torch.tensor([[64.0, 1.0]]))
    assert torch.equal(rounded(torch.zeros(1, 2), 8), torch.zeros(1, 2))
    (rounded(weight, 8) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1.0, 2.0, 3.0]] * 2


@pytest.mark.parametrize("bits", [7, 8])
def test_the_grid_is_the_one_of_the_quantizer(tmp_path, bits):
    weight = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="map")
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 8), ("y", 16))]
    held = [onnx.numpy_helper.from_array(weight.T.copy(), "w")]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    options = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": bits == 7}
    quantize_dynamic(model, tmp_path / "q.onnx", **options)
    values = {v.name: onnx.numpy_helper.to_array(v) for v in onnx.load(tmp_path / "q.onnx").graph.initializer}
    grid = values["w_quantized"].astype(np.float32) * values["w_scale"]
    np.testing.assert_allclose(rounded(torch.from_numpy(weight), bits).numpy(), grid.T, atol=1e-5)


def test_the_classifier_is_not_rounded(taught):
    model = load_model(taught[1])
    given = {"input_ids": torch.tensor([[2, 4, 5, 6, 3]])}
    before = model(**given).logits
    inside = model.classifier.weight.clone()
    round_weights(model, 7)
    after = model(**given).logits
    assert not torch.equal(before, after) and torch.equal(model.classifier.weight, inside)
    assert "forward" not in vars(model.classifier) and "forward" in vars(layer_blocks(model)[0].down)
    rounded_maps = [name for name, module in model.named_modules() if "forward" in vars(module)]
    assert len(rounded_maps) == 4 * 6 + 1, "six maps in each of four layers, and the pooler"


def int8_error(model, wanted, texts):
    """Mean square gap of the logits between the int8 form of `model` and `wanted`."""
    exported = export(model)
    quantize_graph(exported / "model.onnx", exported / "int8.onnx", Int8())
    (exported / "int8.onnx").replace(exported / "model.onnx")
    return float(np.square(load_scorer(exported).score(texts) - wanted).mean())


def test_a_model_that_int8_ruins_recovers_and_only_by_rounding(tmp_path, taught):
    """In each layer two columns of weights are so large that most others round to 0; nothing comes through them."""
    model = load_model(taught[1])
    keep_layers(model, [0, 3])
    with torch.no_grad():
        for blocks in layer_blocks(model):
            blocks.up.weight[7], blocks.up.bias[7], blocks.down.weight[:, 7] = 0, -50, 30
            blocks.inputs[2].weight[3], blocks.inputs[2].bias[3], blocks.joined.weight[:, 3] = 0, 0, 30
    ruined = tmp_path / "ruined" / "model"
    ruined.mkdir(parents=True)
    save_model(model, taught[1], read_info(taught[1]), ruined)
    data = make_data(tmp_path / "data", train=256)
    texts = list(pd.read_parquet(data / "validation.parquet")["text"])
    wanted = load_scorer(ruined, threads=1).score(texts)
    inputs = {slot: [as_input(ruined, "model.torch")] for slot in ("teachers", "model")}
    given = {"alpha": 1.0, "learning_rate": 2e-3, "num_train_epochs": 1, "per_device_train_batch_size": 8}
    models = {"before": ruined}
    for name, bits in (("rounded", 7), ("plain", None)):
        job = make_job(tmp_path, name, data, inputs=inputs)
        Logits.model_validate({**given, "dropout": 0.0, "weight_bits": bits}).run(job)
        assert weights(job.out).keys() == weights(ruined).keys()
        models[name] = job.out
    errors = {name: int8_error(model, wanted, texts) for name, model in models.items()}
    assert errors["rounded"] < 0.4 * errors["before"] and errors["rounded"] < 0.4 * errors["plain"]
