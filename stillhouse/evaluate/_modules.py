"""The figures as `evaluate.Metric` modules, defined here instead of loaded, so that they work without a network.

`load_metric(problem, directory).compute(predictions=logits, references=truth, labels=names)` returns what
`stillhouse.metrics.evaluate_predictions` does.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value

from stillhouse.evaluate.figures import CLASSIFICATION, TOKENS
from stillhouse.metrics import Logits, Truth, evaluate_predictions, metric_names


class ClassificationFigures(evaluate.Metric):
    """Accuracy, precision, recall, F1 and ROC-AUC of logits [n, classes] against class indexes [n]."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": Sequence(Value("float64")), "references": Value("int64")}
        return _info(CLASSIFICATION, "scikit-learn's definitions", features)

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        labels = kwargs["labels"]
        return evaluate_predictions(CLASSIFICATION, labels, np.asarray(references), np.asarray(predictions))


class EntityFigures(evaluate.Metric):
    """Entity F1, precision and recall (seqeval) and word accuracy of one list of tag logits for every word."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": Sequence(Sequence(Value("float64"))),
            "references": Sequence(Value("int64")),
        }
        return _info(TOKENS, "seqeval's default counting (conlleval)", features)

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        labels = kwargs["labels"]
        # A sentence without words comes back as an empty list, which has lost its number of tags.
        scores = [np.asarray(row, dtype=np.float64).reshape(-1, len(labels)) for row in predictions]
        truth = [np.asarray(row, dtype=np.int64) for row in references]
        return evaluate_predictions(TOKENS, labels, truth, scores)


def _info(problem: str, source: str, features: dict[str, Any]) -> evaluate.MetricInfo:
    names = ", ".join(metric_names(problem))
    return evaluate.MetricInfo(
        description=f"{names} for {problem}; {source}.",
        citation="",
        inputs_description="predictions: logits; references: indexes into labels; labels: their names",
        features=Features(features),
    )


def load_metric(problem: str, directory: Path) -> evaluate.Metric:
    """The module of `problem`; what it buffers goes to `directory`, never to the user's cache."""
    metric_names(problem)
    module = {CLASSIFICATION: ClassificationFigures, TOKENS: EntityFigures}[problem]
    return module(cache_dir=str(directory), keep_in_memory=True)


def quality(problem: str, labels: list[str], truth: Truth, logits: Logits) -> dict[str, float]:
    """All figures of one model on one set of rows, computed by the module."""
    with TemporaryDirectory() as directory:
        metric = load_metric(problem, Path(directory))
        predictions = [np.asarray(row, dtype=np.float64) for row in logits]
        found = metric.compute(predictions=predictions, references=list(truth), labels=labels)
    return found or {}
