from pathlib import Path

import pytest
import torch

from stillhouse.models import from_base
from stillhouse.train._loop import evaluation_steps
from stillhouse.train._parts import make_optimizer, make_schedule, optimizer_groups, set_trainable, training_mode
from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import LABELS, make_base


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("encoder") / "base")


@pytest.fixture
def model(base):
    return from_base(base, "text-classification", LABELS, seed=0)


def test_rates_fall_by_layer_and_every_trained_weight_is_in_one_group(model):
    depths = set_trainable(model, "all", embeddings=True)
    settings = Stage(learning_rate=1e-3, layer_decay=0.5, weight_decay=0.1)
    rates: dict[str, float] = {}
    for group in optimizer_groups(model, depths, settings):
        for name, _ in group["params"]:
            assert name not in rates
            rates[name] = group["lr"]
            expected = 0.0 if name.endswith("bias") or "LayerNorm" in name else 0.1
            assert group["weight_decay"] == expected, name
    assert rates.keys() == dict(model.named_parameters()).keys()
    assert rates["classifier.weight"] == rates["bert.pooler.dense.bias"] == 1e-3
    assert rates["bert.encoder.layer.1.output.dense.weight"] == 0.5e-3
    assert rates["bert.encoder.layer.0.output.LayerNorm.weight"] == 0.25e-3
    assert rates["bert.embeddings.word_embeddings.weight"] == 0.125e-3


@pytest.mark.parametrize(
    ("train", "frozen"),
    [
        ("head", ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"]),
        ("last-1", ["bert.embeddings", "bert.encoder.layer.0"]),
        ("all", ["bert.embeddings"]),
    ],
)
def test_frozen_modules_are_in_eval_mode_and_the_others_train(model, train, frozen):
    set_trainable(model, train, embeddings=False)
    training_mode(model)
    for name, module in model.named_modules():
        inside = any(name == part or name.startswith(f"{part}.") for part in frozen)
        if isinstance(module, torch.nn.Dropout):
            assert module.training != inside, name
    assert all(p.requires_grad != n.startswith(tuple(frozen)) for n, p in model.named_parameters())


def test_warm_up_rises_and_the_schedule_ends_at_zero(model):
    settings = Stage(learning_rate=1e-3, warmup_ratio=0.2)
    optimizer = make_optimizer(model, set_trainable(model, "head", embeddings=False), settings)
    schedule = make_schedule(optimizer, settings, steps=10)
    rates = []
    for _ in range(10):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0.0, 0.5e-3, 1e-3])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert schedule.get_last_lr()[0] == 0.0
    assert optimizer.defaults["fused"] is True


def test_a_training_of_one_step_has_no_warm_up(model):
    optimizer = make_optimizer(model, set_trainable(model, "head", embeddings=False), Stage(learning_rate=1e-3))
    assert make_schedule(optimizer, Stage(learning_rate=1e-3), steps=1).get_last_lr() == [1e-3] * len(
        optimizer.param_groups
    )


@pytest.mark.parametrize(
    ("total", "steps_per_epoch", "per_epoch", "expected"),
    [(20, 10, 1, {10, 20}), (25, 10, 2, {5, 10, 15, 20, 25}), (4, 10, 1, {4}), (3, 1, 5, {1, 2, 3})],
)
def test_evaluations_are_evenly_spread_and_the_last_step_has_one(total, steps_per_epoch, per_epoch, expected):
    assert evaluation_steps(total, steps_per_epoch, per_epoch) == expected
