"""The loop against the Hugging Face Trainer: same model, batches, optimizer and schedule give the same losses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.hf_trainer import make_trainer
from stillhouse.models import from_base, tokenizer_json
from stillhouse.train import _loop
from stillhouse.train._batches import collate, epoch_order
from stillhouse.train._loss import hard_loss
from stillhouse.train._parts import set_trainable
from stillhouse.train._tokens import tokenize_data
from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import LABELS, make_base, make_data, make_job

EPOCHS, BATCH = 3, 8


def trainer_losses(model, batches: list[dict[str, torch.Tensor]], out: Path, settings: Stage) -> list[float]:
    trainer = make_trainer(model, batches, out, settings)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_losses_are_those_of_the_trainer(tmp_path, monkeypatch, schedule):
    base, data = make_base(tmp_path / "base"), make_data(tmp_path / "data", train=90)
    settings = Stage.model_validate(
        {
            "base": "tiny",
            "learning_rate": 3e-3,
            "lr_scheduler_type": schedule,
            "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": BATCH,
            "train_embeddings": True,
        }
    )
    job = make_job(tmp_path, "a", data, base)
    tokens = tokenize_data(job, "text-classification", tokenizer_json(base), 32).train
    ours = from_base(base, "text-classification", LABELS, seed=5, dropout=0.0)
    theirs = from_base(base, "text-classification", LABELS, seed=5, dropout=0.0)
    batches = []
    for epoch in range(EPOCHS):
        for rows in epoch_order(tokens.lengths, BATCH, job.seed, epoch):
            batch = collate(tokens, rows, 0, torch.device("cpu"))
            batches.append({**batch.inputs, "labels": batch.targets})
    losses: list[float] = []
    monkeypatch.setattr(_loop.Progress, "add_step", _recorded(losses, _loop.Progress.add_step))
    depths = set_trainable(ours, settings.train, settings.train_embeddings)
    training = _loop.Training(
        ours, depths, tokens, hard_loss(None, 0.0), lambda model: {"f1_macro": 0.0}, "f1_macro", settings
    )
    _loop.train(training, job)
    expected = trainer_losses(theirs, batches, tmp_path / "trainer", settings)
    assert len(losses) == len(expected) == EPOCHS * 12
    assert expected[0] > 2 * expected[-1], "the comparison is about a run that learns"
    np.testing.assert_allclose(losses, expected, atol=1e-4)


def _recorded(losses: list[float], original):
    def add_step(self, loss: float, rate: float) -> None:
        losses.append(loss)
        original(self, loss, rate)

    return add_step
