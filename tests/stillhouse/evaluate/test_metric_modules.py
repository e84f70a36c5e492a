import os
import socket

import numpy as np
import pytest

from stillhouse.errors import UserError
from stillhouse.evaluate._modules import load_metric, quality
from stillhouse.metrics import evaluate_predictions
from tests.stillhouse.evaluate.tiny_models import CLASSIFICATION, LABELS, TAGS, TOKENS


def rows(problem: str) -> tuple:
    generator = np.random.default_rng(0)
    if problem == CLASSIFICATION:
        return LABELS, generator.integers(3, size=50), generator.normal(size=(50, 3)).astype(np.float32)
    truth = [generator.integers(3, size=size) for size in (4, 0, 7, 1)]
    return TAGS, truth, [generator.normal(size=(len(row), 3)).astype(np.float32) for row in truth]


@pytest.mark.parametrize("problem", [CLASSIFICATION, TOKENS])
def test_the_modules_give_the_figures_without_network_or_cache(problem, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a metric used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    labels, truth, logits = rows(problem)
    assert quality(problem, labels, truth, logits) == evaluate_predictions(problem, labels, truth, logits)
    assert os.listdir(tmp_path) == []


def test_a_module_takes_batches_as_any_evaluate_metric(tmp_path):
    labels, truth, logits = rows(CLASSIFICATION)
    metric = load_metric(CLASSIFICATION, tmp_path)
    for start in range(0, 50, 20):
        metric.add_batch(predictions=logits[start : start + 20], references=truth[start : start + 20])
    assert metric.compute(labels=labels) == evaluate_predictions(CLASSIFICATION, labels, truth, logits)


def test_an_unknown_problem_is_named(tmp_path):
    with pytest.raises(UserError, match="did you mean"):
        load_metric("text-classifcation", tmp_path)
