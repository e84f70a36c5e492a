"""Quality figures of a model's logits, with bootstrap intervals.

A row of the test set enters a figure only through a few counts (its true and predicted class; its right, predicted and
true entities). Rows with equal counts are one *cell*, and a bootstrap resample is a multinomial draw over the cells: a
thousand resamples are one matrix product. ROC-AUC needs ranks, so it resamples rows.

Classification: truth int [n], logits float [n, classes]. Tokens: one truth array [n_i] and one logits array [n_i, tags]
per sentence, a row per word. Entities are counted as seqeval does by default (the conlleval rules).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from seqeval.metrics.sequence_labeling import get_entities

from stillhouse.errors import UserError, nearest
from stillhouse.evaluate.figures import CLASSIFICATION, QUALITY, TOKENS

Truth = Any
"""int array [n], or a list of int arrays [n_i]."""
Logits = Any
"""float array [n, classes], or a list of float arrays [n_i, tags]."""

_WEIGHTS_AT_ONCE = 4_000_000
"""Resampled row weights held in memory at a time (float32)."""


def metric_names(problem: str) -> list[str]:
    """Names of the figures of `problem`; `roc_auc` is left out of a result where only one class is present."""
    if problem not in QUALITY:
        raise UserError(f'no metrics for problem "{problem}"', nearest(problem, set(QUALITY)))
    return list(QUALITY[problem])


def evaluate_predictions(problem: str, labels: list[str], truth: Truth, logits: Logits) -> dict[str, float]:
    """Every figure of the problem. Macro figures average over the classes that are in the truth or were predicted."""
    rows = _rows(problem, labels, truth, logits)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    figures = _figures(problem, len(labels), cells, counts[None, :].astype(float))
    found = {name: float(values[0]) for name, values in figures.items()}
    if problem == CLASSIFICATION:
        area = _auc(np.asarray(truth), probabilities(logits), np.ones((len(rows), 1)))[0]
        if np.isfinite(area):
            found["roc_auc"] = float(area)
    return found


def bootstrap_interval(
    problem: str, labels: list[str], truth: Truth, logits: Logits, metric: str, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `metric` over resampled rows (sentences for tokens)."""
    draws = _draws(problem, labels, truth, [logits], (metric, resamples, seed))[0]
    return _percentiles(draws)


def paired_difference(  # noqa: PLR0913 - two models, one question; the last two have defaults
    problem: str,
    labels: list[str],
    truth: Truth,
    logits_a: Logits,
    logits_b: Logits,
    metric: str,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """`metric` of a minus that of b on the same rows, and the 95 % interval from resampling both together."""
    value = (
        evaluate_predictions(problem, labels, truth, logits_a)[metric]
        - evaluate_predictions(problem, labels, truth, logits_b)[metric]
    )
    a, b = _draws(problem, labels, truth, [logits_a, logits_b], (metric, resamples, seed))
    return (value, *_percentiles(a - b))


def probabilities(logits: ArrayLike) -> NDArray[np.float64]:
    """Softmax over the last axis."""
    values = np.asarray(logits, dtype=np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def confusion(truth: ArrayLike, logits: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts [true class, predicted class]."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (np.asarray(truth), np.asarray(logits).argmax(axis=1)), 1)
    return table


def per_class(problem: str, labels: list[str], truth: Truth, logits: Logits) -> dict[str, dict[str, float]]:
    """`{"precision", "recall", "f1", "support"}` of every label, or of every entity type."""
    if problem == CLASSIFICATION:
        table = confusion(truth, logits, len(labels))
        right, wanted, given = np.diag(table), table.sum(axis=1), table.sum(axis=0)
        return {name: _scores(right[i], given[i], wanted[i]) for i, name in enumerate(labels)}
    counts: dict[str, list[int]] = {name: [0, 0, 0] for name in sorted({tag[2:] for tag in labels if "-" in tag})}
    for wanted_set, given_set in _entities(labels, truth, logits):
        for slot, entities in enumerate((wanted_set & given_set, given_set, wanted_set)):
            for entity in entities:
                counts.setdefault(entity[0], [0, 0, 0])[slot] += 1
    return {name: _scores(*found) for name, found in counts.items()}


def _scores(right: int, given: int, wanted: int) -> dict[str, float]:
    return {
        "precision": float(right / given) if given else 0.0,
        "recall": float(right / wanted) if wanted else 0.0,
        "f1": float(2 * right / (given + wanted)) if given + wanted else 0.0,
        "support": int(wanted),
    }


def _rows(problem: str, labels: list[str], truth: Truth, logits: Logits) -> NDArray[np.int64]:
    """Counts of each row: true and predicted class; or right, given and true entities, right words, words."""
    metric_names(problem)
    if len(truth) != len(logits):
        raise ValueError(f"{len(truth)} true rows but {len(logits)} rows of logits")
    if len(truth) == 0:
        raise UserError("there are no rows to evaluate", "give this split at least one row")
    _must_be_finite([logits] if problem == CLASSIFICATION else logits)
    if problem == CLASSIFICATION:
        return np.stack([np.asarray(truth, dtype=np.int64), np.asarray(logits).argmax(axis=1)], axis=1)
    words = [
        (int((np.asarray(row) == np.asarray(scores).argmax(axis=-1)).sum()), len(row))
        for row, scores in zip(truth, logits, strict=True)
    ]
    entities = _entities(labels, truth, logits)
    counts = [
        (len(wanted & given), len(given), len(wanted), *right)
        for (wanted, given), right in zip(entities, words, strict=True)
    ]
    return np.asarray(counts, dtype=np.int64)


def _must_be_finite(arrays: Sequence[ArrayLike]) -> None:
    # argmax of NaN is a class: a broken model would be scored as if it had an opinion.
    if not all(np.isfinite(np.asarray(array)).all() for array in arrays):
        raise UserError("the model's outputs are not finite numbers", "train again with a lower learning_rate")


def _entities(labels: list[str], truth: Truth, logits: Logits) -> list[tuple[set[tuple], set[tuple]]]:
    """True and predicted entities (type, first word, last word) of every sentence."""
    return [
        (_spans(labels, np.asarray(row)), _spans(labels, np.asarray(scores).argmax(axis=-1)))
        for row, scores in zip(truth, logits, strict=True)
    ]


def _spans(labels: list[str], tags: NDArray[np.int64]) -> set[tuple]:
    return set(get_entities([labels[tag] for tag in tags.tolist()]))


def _figures(problem: str, classes: int, cells: NDArray, counts: NDArray) -> dict[str, NDArray]:
    """Figures [draws] of `counts` [draws, cells] rows in each cell [cells, statistics]."""
    if problem == TOKENS:
        right, given, wanted, right_words, words = (counts @ cells.astype(float)).T
        return {
            "entity_f1": _ratio(2 * right, given + wanted),
            "entity_precision": _ratio(right, given),
            "entity_recall": _ratio(right, wanted),
            "accuracy": _ratio(right_words, words),
        }
    true, predicted = (np.eye(classes)[cells[:, column]] for column in (0, 1))
    wanted, given, right = counts @ true, counts @ predicted, counts @ (true * predicted)
    present = (wanted + given > 0).sum(axis=1)
    accuracy = right.sum(axis=1) / counts.sum(axis=1)
    return {
        "accuracy": accuracy,
        "f1_macro": _ratio(2 * right, wanted + given).sum(axis=1) / present,
        "f1_micro": accuracy,
        "precision_macro": _ratio(right, given).sum(axis=1) / present,
        "recall_macro": _ratio(right, wanted).sum(axis=1) / present,
    }


def _ratio(above: NDArray, below: NDArray) -> NDArray[np.float64]:
    """`above / below`, 0 where there is nothing to count."""
    return np.divide(above, below, out=np.zeros(np.shape(above), dtype=np.float64), where=below > 0)


def _draws(
    problem: str, labels: list[str], truth: Truth, models: list[Logits], draw: tuple[str, int, int]
) -> list[NDArray[np.float64]]:
    """`metric` [resamples] of each model, all on the same resampled rows; `draw` is metric, resamples, seed."""
    metric, resamples, seed = draw
    if metric not in metric_names(problem):
        raise UserError(f'unknown metric "{metric}" for {problem}', nearest(metric, set(metric_names(problem))))
    rows = [_rows(problem, labels, truth, logits) for logits in models]
    generator = np.random.default_rng(seed)
    if metric == "roc_auc":
        return _auc_draws(np.asarray(truth), models, resamples, generator)
    cells, counts = np.unique(np.concatenate(rows, axis=1), axis=0, return_counts=True)
    total = int(counts.sum())
    drawn = generator.multinomial(total, counts / total, size=resamples).astype(float)
    width = rows[0].shape[1]
    parts = [cells[:, start : start + width] for start in range(0, cells.shape[1], width)]
    return [_figures(problem, len(labels), part, drawn)[metric] for part in parts]


def _auc_draws(
    truth: NDArray, models: list[Logits], resamples: int, generator: np.random.Generator
) -> list[NDArray[np.float64]]:
    scores = [probabilities(logits) for logits in models]
    found: list[list[NDArray[np.float64]]] = [[] for _ in models]
    step = max(1, _WEIGHTS_AT_ONCE // len(truth))
    for start in range(0, resamples, step):
        picked = generator.integers(len(truth), size=(min(step, resamples - start), len(truth)))
        weights = np.stack([np.bincount(row, minlength=len(truth)) for row in picked], axis=1).astype(np.float32)
        for areas, score in zip(found, scores, strict=True):
            areas.append(_auc(truth, score, weights))
    return [np.concatenate(areas) for areas in found]


def _auc(truth: NDArray, scores: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """One-against-rest ROC-AUC averaged over classes [draws], for row weights [n, draws]; NaN where undefined.

    The share of (positive, negative) pairs in the right order, ties half: the Mann-Whitney form.
    """
    # Softmax breaks ties in its last bits, another way for each class.
    scores = scores.round(12)
    areas = np.full((scores.shape[1], weights.shape[1]), np.nan)
    for number in np.unique(truth):
        order = np.argsort(scores[:, number], kind="stable")
        ranked, mine = scores[order, number], truth[order] == number
        below = np.zeros((len(truth) + 1, weights.shape[1]), dtype=weights.dtype)
        np.cumsum(weights[order] * ~mine[:, None], axis=0, out=below[1:])
        positive = weights[order[mine]]
        first, last = (np.searchsorted(ranked, ranked[mine], side=side) for side in ("left", "right"))
        pairs = positive.sum(axis=0, dtype=np.float64) * below[-1]
        area = (positive * (below[first] + below[last])).sum(axis=0, dtype=np.float64) / 2
        np.divide(area, pairs, out=areas[number], where=pairs > 0)
    defined = np.isfinite(areas).sum(axis=0)
    undefined = np.full(len(defined), np.nan)
    return np.divide(np.nansum(areas, axis=0), defined, out=undefined, where=defined > 0)


def _percentiles(draws: NDArray) -> tuple[float, float]:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return float(low), float(high)
