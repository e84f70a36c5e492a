"""Pruning removes what matters least, really removes it, and leaves an ordinary model."""

import copy
import json

import numpy as np
import pytest
import torch

from stillhouse.blocks import describe_layers, layer_blocks, narrow
from stillhouse.errors import UserError
from stillhouse.models import load_model
from stillhouse.prune._choose import Costs, choose, costs
from stillhouse.prune._importance import fisher_importance
from stillhouse.prune._refit import refit
from stillhouse.prune._structured import total_loss
from stillhouse.prune.structured import Structured
from stillhouse.scorer import load_scorer
from stillhouse.train._batches import Batch
from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import as_input, make_base, make_data, make_job, text_rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data and a trained model of three layers."""
    root = tmp_path_factory.mktemp("trained")
    base, data = make_base(root / "base", layers=3), make_data(root / "data")
    job = make_job(root, "model", data, base)
    settings = {"learning_rate": 3e-3, "num_train_epochs": 6, "per_device_train_batch_size": 8}
    figures = Stage.model_validate({"base": "tiny", "train_embeddings": True, **settings}).run(job)
    assert figures["f1_macro"] > 0.9
    return data, job.out


def batch(texts: int = 6, length: int = 5) -> Batch:
    chance = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 19, (texts, length), generator=chance)
    mask = torch.ones_like(ids)
    mask[0, 3:] = 0
    targets = torch.randint(0, 3, (texts,), generator=chance)
    return Batch({"input_ids": ids, "attention_mask": mask}, targets, np.arange(texts))


def silent(done, total):
    pass


def prune(root, name, trained, **settings):
    data, model = trained
    job = make_job(root, name, data, inputs={"model": [as_input(model, "model.torch")]})
    given = {"keep": 0.6, "unit_multiple": 8, "speed_seconds": 0.05, "min_speedup": 0, **settings}
    figures = Structured.model_validate(given).run(job)
    return job.out, json.loads((job.out / "rung.json").read_text()), figures


def test_importance_is_the_mean_square_of_each_texts_own_derivative(trained):
    model, given = load_model(trained[1]), batch()
    found = fisher_importance(model, [given], silent)
    squares = []
    for text in range(len(given.targets)):
        one = Batch(
            {name: value[text : text + 1] for name, value in given.inputs.items()},
            given.targets[text : text + 1],
            np.arange(1),
        )
        losses = []
        for step in (1e-3, -1e-3):
            moved = copy.deepcopy(model)
            down = layer_blocks(moved)[1].down
            with torch.no_grad():
                down.weight[:, 5] *= 1 + step  # what a gate of 1 + step on unit 5 does
            losses.append(total_loss(moved.double(), [one]))
        squares.append(((losses[0] - losses[1]) / 2e-3) ** 2)
    assert found[1][1][5].item() == pytest.approx(np.mean(squares), rel=0.02)


def test_what_is_not_listened_to_does_not_matter(trained):
    model = load_model(trained[1])
    blocks = layer_blocks(model)[0]
    with torch.no_grad():
        blocks.down.weight[:, 3] = 0
        blocks.joined.weight[:, :16] = 0
    heads, units = fisher_importance(model, [batch()], silent)[0]
    assert units[3] == 0 and heads[0] == 0 and heads[1] > 0


def test_the_cheapest_loss_for_each_multiplication_goes_first():
    """Two layers of two heads (cost 10) and four units (cost 1) in groups of two; 28 of 48 may stay."""
    importance = [
        (torch.tensor([9.0, 1.0]), torch.tensor([0.1, 5.0, 0.1, 5.0])),
        (torch.tensor([2.0, 30.0]), torch.tensor([7.0, 7.0, 7.0, 7.0])),
    ]
    # For each multiplication: head 1 of layer 0 0.1, units 0 and 2 of layer 0 0.1, head 0 of layer 1 0.2.
    kept = choose(importance, Costs(head=10, unit=1), 28 / 48, 2)
    assert [(heads.tolist(), units.tolist()) for heads, units in kept] == [([0], [1, 3]), ([1], [0, 1, 2, 3])]
    whole = choose(importance, Costs(head=10, unit=1), 0.01, 2)
    assert [(len(heads), len(units)) for heads, units in whole] == [(1, 2), (1, 2)], "something always stays"
    only_units = choose(importance, Costs(head=10, unit=1), 0.01, 2, prune_heads=False)
    assert [len(heads) for heads, _ in only_units] == [2, 2]


def test_multiplications_of_a_bert_layer():
    """All heads and units of a layer: 12 h^2 and the two products of attention."""
    each = costs(width=384, head_size=32, length=26)
    assert 12 * each.head + 1536 * each.unit == 12 * 384**2 + 2 * 26 * 384


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_removed_is_the_same_as_silenced(tmp_path, trained, family):
    if family == "bert":
        model = load_model(trained[1])
    else:
        from transformers import DistilBertConfig, DistilBertForSequenceClassification

        config = DistilBertConfig(
            vocab_size=19, dim=32, n_layers=3, n_heads=2, hidden_dim=64, max_position_embeddings=40
        )
        model = DistilBertForSequenceClassification(config).eval()
    silenced = copy.deepcopy(model)
    heads, units = torch.tensor([1]), torch.tensor([0, 5, 9, 60])
    for layer in (0, 2):
        narrow(layer_blocks(model)[layer], heads, units)
        blocks = layer_blocks(silenced)[layer]
        with torch.no_grad():
            gone = [unit for unit in range(blocks.units) if unit not in units.tolist()]
            blocks.down.weight[:, gone] = 0
            blocks.joined.weight[:, : blocks.head_size] = 0
    assert describe_layers(model)[0] == {"heads": 1, "units": 4}
    given = batch().inputs
    with torch.no_grad():
        torch.testing.assert_close(model(**given).logits, silenced(**given).logits, rtol=1e-4, atol=1e-5)


def test_fitting_recovers_what_other_units_know(trained):
    """Unit 1 is a copy of unit 0: without it, but fitted, the model says the same."""
    whole = load_model(trained[1])
    blocks = layer_blocks(whole)[1]
    with torch.no_grad():
        blocks.up.weight[1] = blocks.up.weight[0]
        blocks.up.bias[1] = blocks.up.bias[0]
    rest = torch.tensor([unit for unit in range(blocks.units) if unit != 1])
    model = copy.deepcopy(whole)
    narrow(layer_blocks(model)[1], torch.arange(blocks.heads), rest)
    batches = [batch(texts=40, length=12)]
    with torch.no_grad():
        wanted, before = (each(**batches[0].inputs).logits for each in (whole, model))
        refit(model, whole, batches, silent)
        after = model(**batches[0].inputs).logits
    assert (after - wanted).abs().max() < 0.1 * (before - wanted).abs().max()


def test_a_pruned_model_is_smaller_and_scores_as_saved(tmp_path, trained):
    out, rung, figures = prune(tmp_path, "a", trained)
    assert rung["accepted"] and figures["accepted"] == 1
    assert rung["multiplications_kept"] <= 0.6 < rung["multiplications_kept"] + 0.15
    assert rung["bytes"] == (out / "model.safetensors").stat().st_size < rung["bytes_before"]
    model = load_model(out)
    assert describe_layers(model) == rung["layers"] and all(layer["units"] % 8 == 0 for layer in rung["layers"])
    assert not model.training


def test_fitting_and_importance_are_worth_it(tmp_path, trained):
    """Without either, the same number of units and heads costs more."""
    losses = {refit: prune(tmp_path, f"{refit}", trained, keep=0.4, refit=refit)[1]["loss"] for refit in (True, False)}
    assert losses[True] <= losses[False]


def test_a_pruned_model_is_trained_taught_exported_and_pruned_again(tmp_path, trained):
    from stillhouse.distill.logits import Logits
    from stillhouse.export.onnx import Onnx

    data, teacher = trained
    out, rung, _ = prune(tmp_path, "a", trained, keep=0.5)
    inputs = {"model": [as_input(out, "model.torch")], "teachers": [as_input(teacher, "model.torch")]}
    taught = make_job(tmp_path, "taught", data, inputs=inputs)
    figures = Logits(learning_rate=3e-3, num_train_epochs=4).run(taught)
    assert figures["f1_macro"] > 0.9
    assert describe_layers(load_model(taught.out)) == rung["layers"]
    again = make_job(tmp_path, "again", data, inputs={"model": [as_input(taught.out, "model.torch")]})
    Structured(keep=0.7, unit_multiple=8, speed_seconds=0.05, min_speedup=0).run(again)
    assert describe_layers(load_model(again.out)) != rung["layers"]
    exported = make_job(tmp_path, "onnx", data, inputs={"model": [as_input(taught.out, "model.torch")]})
    Onnx().run(exported)
    rows = list(text_rows(20, 5)["text"])
    one, other = load_scorer(taught.out).score(rows), load_scorer(exported.out).score(rows)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_whole_layers_go_first(tmp_path, trained):
    out, rung, _ = prune(tmp_path, "a", trained, keep=1.0, drop_layers=1)
    assert len(rung["layers"]) == 2 and rung["layers"][0] == {"heads": 2, "units": 64}
    assert load_model(out).config.num_hidden_layers == 2
    with pytest.raises(UserError, match="drop_layers: 3 is not possible"):
        prune(tmp_path, "b", trained, drop_layers=3)


def test_a_rung_that_does_not_pay_publishes_its_input(tmp_path, trained):
    out, rung, figures = prune(tmp_path, "a", trained, min_speedup=1000)
    assert not rung["accepted"] and figures["accepted"] == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json", "stillhouse.json"):
        assert (out / name).read_bytes() == (trained[1] / name).read_bytes()


def test_words_are_pruned_too(tmp_path):
    base, data = make_base(tmp_path / "base"), make_data(tmp_path / "data", "token-classification")
    job = make_job(tmp_path, "model", data, base)
    settings = {"learning_rate": 3e-3, "num_train_epochs": 4, "train_embeddings": True, "max_length": 16}
    Stage.model_validate({"base": "tiny", **settings}).run(job)
    _, rung, _ = prune(tmp_path, "a", (data, job.out), keep=0.7)
    assert rung["metric"] == "entity_f1" and rung["multiplications_kept"] <= 0.7


def test_settings_that_prune_nothing_are_refused():
    with pytest.raises(UserError, match="nothing would be pruned"):
        Structured(keep=1.0).check({"model", "data"})
    with pytest.raises(UserError, match="nothing would be pruned"):
        Structured(heads=False, units=False).check({"model", "data"})
    Structured(heads=False, units=False, drop_layers=1).check({"model", "data"})


def test_a_share_that_cannot_be_reached_is_refused_with_the_one_that_can(tmp_path, trained):
    with pytest.raises(UserError, match=r"keep: 0.05 cannot be reached: at least 0\.\d\d of the multiplications stay"):
        prune(tmp_path, "a", trained, keep=0.05, units=False)
