"""Scoring the validation rows with a torch model during training."""

from typing import Any

import numpy as np
import torch
from torch import nn

from stillhouse.errors import UserError, nearest
from stillhouse.method import Metrics
from stillhouse.problems import find_problem
from stillhouse.train._batches import by_length, collate
from stillhouse.train._tokens import TokenizedData, Tokens

SCORING_TOKENS = 2048
"""Padded tokens per forward pass: a few MB of activations, which stay in a CPU's cache."""


def predict_logits(model: nn.Module, tokens: Tokens, on_batch: Any = None) -> np.ndarray:
    """Logits of every piece, float32 [pieces, labels], or for words of every token, [tokens, labels]."""
    device = next(model.parameters()).device
    pad = getattr(model.config, "pad_token_id", None) or 0
    logits: np.ndarray | None = None
    done = 0
    with torch.inference_mode():
        for pieces in by_length(tokens.lengths, SCORING_TOKENS):
            batch = collate(tokens, pieces, pad, device)
            scores = model(**batch.inputs).logits.float().cpu().numpy()
            if logits is None:
                rows = len(tokens) if tokens.words is None else len(tokens.ids)
                logits = np.zeros((rows, scores.shape[-1]), np.float32)
            _place(logits, scores, pieces, tokens)
            done += len(pieces)
            if on_batch is not None:
                on_batch(done, len(tokens))
    return np.zeros((0, 0), np.float32) if logits is None else logits


def _place(logits: np.ndarray, scores: np.ndarray, pieces: np.ndarray, tokens: Tokens) -> None:
    if tokens.words is None:
        logits[pieces] = scores
        return
    for row, piece in enumerate(pieces):
        first, last = tokens.offsets[piece], tokens.offsets[piece + 1]
        logits[first:last] = scores[row, : last - first]


def word_logits(logits: np.ndarray, tokens: Tokens, truth: list[np.ndarray]) -> list[np.ndarray]:
    """Logits per sentence, [words, labels], from those of the tokens; a word without tokens is label 0 (`O`)."""
    assert tokens.words is not None
    ends = np.cumsum([len(row) for row in truth])
    words = np.zeros((int(ends[-1]) if len(ends) else 0, logits.shape[-1]), np.float32)
    words[:, 0] = 1.0
    begins = np.asarray(tokens.words) >= 0
    words[tokens.words[begins]] = logits[begins]
    return np.split(words, ends[:-1])


def validation_metrics(model: nn.Module, data: TokenizedData, problem: str, labels: list[str]) -> Metrics:
    """The metrics of `model` (in eval mode) on the validation rows."""
    from stillhouse.metrics import evaluate_predictions

    logits = predict_logits(model, data.validation)
    if not np.isfinite(logits).all():
        raise UserError("training diverged: the model's scores are not numbers", "lower learning_rate")
    scores = logits if find_problem(problem).unit == "text" else word_logits(logits, data.validation, data.truth)
    return evaluate_predictions(problem, labels, data.truth, scores)


def best_metric(chosen: str | None, problem: str) -> str:
    """The metric that picks the best weights: `chosen`, or the problem's own."""
    from stillhouse.metrics import metric_names

    if chosen is None:
        return find_problem(problem).metric
    known = metric_names(problem)
    if chosen not in known:
        raise UserError(f'metric_for_best_model: "{chosen}" is not a metric of {problem}', nearest(chosen, set(known)))
    return chosen
