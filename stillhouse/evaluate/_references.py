"""What a model has to beat to be worth its trouble: always the commonest class, and a linear model on TF-IDF."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillhouse.evaluate.figures import CLASSIFICATION

UNKNOWN = -30.0
"""Logit of a class that a model does not know: no chance, but a finite number."""
_INVERSE_REGULARISATION = 4.0
_TOLERANCE = 1e-3
"""On 8,000 tweets as good as 1e-4 (macro-F1 0.713 and 0.711) in a third of the time; 1e-2 loses two points."""


def majority_logits(problem: str, train: list[Any], truth: Any, classes: int) -> Any:
    """Logits, in the shape of `truth`, of a model that always says the shares of the classes in training."""
    targets = np.asarray(train) if problem == CLASSIFICATION else np.concatenate([np.asarray(row) for row in train])
    counts = np.bincount(targets.astype(np.int64), minlength=classes)
    shares = np.log(np.maximum(counts, 1e-9) / counts.sum())
    if problem == CLASSIFICATION:
        return np.tile(shares, (len(truth), 1))
    return [np.tile(shares, (len(row), 1)) for row in truth]


def linear_builder(texts: list[str], labels: ArrayLike, test_texts: list[str], classes: int) -> Callable[[Path], None]:
    """A builder of derived data: `logits.npy` [test rows, classes] of the linear reference."""

    def build(directory: Path) -> None:
        logits = linear_logits(texts, np.asarray(labels), test_texts, classes)
        np.save(directory / "logits.npy", logits.astype(np.float32), allow_pickle=False)

    return build


def linear_logits(texts: list[str], labels: NDArray, test_texts: list[str], classes: int) -> NDArray[np.float64]:
    """Log-probabilities [test rows, classes] of logistic regression on TF-IDF of words 1-2 and characters 2-5."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    # Words that are met once teach nothing, but in a tiny sample nearly every word is met once.
    rarest = 2 if len(texts) >= 1000 else 1
    features = make_union(_tfidf("word", (1, 2), rarest), _tfidf("char_wb", (2, 5), rarest))
    model = LogisticRegression(C=_INVERSE_REGULARISATION, tol=_TOLERANCE, max_iter=1000)
    model.fit(features.fit_transform(texts), labels)
    logits = np.full((len(test_texts), classes), UNKNOWN)
    logits[:, model.classes_] = np.maximum(model.predict_log_proba(features.transform(test_texts)), UNKNOWN)
    return logits


def _tfidf(analyzer: str, ngrams: tuple[int, int], rarest: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Words of one letter and signs count: the default pattern would leave a text like "5 ?" empty.
    words: dict[str, Any] = {"token_pattern": r"(?u)\w+|[^\w\s]"} if analyzer == "word" else {}
    rules: dict[str, Any] = {"min_df": rarest, "sublinear_tf": True, "dtype": np.float32, **words}
    return TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams, **rules)
