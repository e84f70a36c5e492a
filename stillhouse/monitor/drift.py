"""Has the input changed (embeddings), have the answers changed (labels)?

Both tests are exact under exchangeability, by permutation, whatever the distribution; both want an effect beside a
small p-value, because with enough rows any two weeks differ significantly.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from stillhouse.monitor.significance import Test, permutation_p

FOLDS = 5
RIDGE = 0.1


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` row numbers, evenly spread."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def input_drift(
    reference: NDArray[np.floating], window: NDArray[np.floating], level: float, min_auc: float = 0.6, seed: int = 0
) -> Test:
    """Classifier two-sample test (Lopez-Paz & Oquab 2017, arXiv:1610.06545) of embeddings [n, hidden] and [m, hidden].

    A linear classifier learns to tell the window's rows from the reference's; its cross-validated AUC is 0.5 if nobody
    can. The classifier is ridge regression on the two labels: its held-out scores are a fixed matrix times the labels,
    so that a permutation of the labels costs one product, and the p-value is a permutation's instead of a formula's.
    """
    rows = np.concatenate([reference, window]).astype(np.float64)
    labels = np.repeat([0.0, 1.0], [len(reference), len(window)])
    generator = np.random.default_rng(seed)
    scorer = _held_out_scorer(rows, generator)
    auc = float(_areas(scorer @ labels[:, None], labels[:, None])[0])

    def draw(count: int) -> NDArray[np.float64]:
        shuffled = generator.permuted(np.repeat(labels[:, None], count, axis=1), axis=0)
        return _areas(scorer @ shuffled, shuffled)

    p_value = permutation_p(auc, draw, level)
    alarm = p_value <= level and auc >= min_auc
    return Test("input drift", len(window), len(reference), auc, min_auc, p_value, level, alarm, {"statistic": "auc"})


def _held_out_scorer(rows: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """[n, n]: times the labels it gives every row's score by a classifier that has not seen the row's fold."""
    scale = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    kernel = rows @ rows.T / rows.shape[1]
    fold = generator.permutation(np.arange(len(rows)) % FOLDS)
    scorer = np.zeros_like(kernel)
    for number in range(FOLDS):
        held, kept = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        inner = kernel[np.ix_(kept, kept)] + RIDGE * len(kept) / rows.shape[1] * np.eye(len(kept))
        weights = np.linalg.solve(inner, kernel[np.ix_(kept, held)]).T
        scorer[np.ix_(held, kept)] = weights - weights.mean(axis=1, keepdims=True)  # labels without their mean
    return scorer


def _areas(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUC of each column of `scores` [n, draws] for 0/1 `labels` [n, draws]."""
    ranks = rankdata(scores, axis=0)
    ones = labels.sum(axis=0)
    return ((ranks * labels).sum(axis=0) - ones * (ones + 1) / 2) / (ones * (len(labels) - ones))


def prediction_drift(
    labels: Sequence[str],
    reference: Sequence[int],
    window: Sequence[int],
    level: float,
    min_change: float = 0.1,
    seed: int = 0,
) -> Test:
    """G-test of the predicted labels' counts, with the permutation distribution that small counts need.

    The effect is the total variation distance: the share of answers that would have to be other ones.
    """
    table = np.asarray([reference, window], dtype=np.int64)
    pooled, sizes = table.sum(axis=0), table.sum(axis=1)
    shares = table / np.maximum(sizes, 1)[:, None]
    change = float(np.abs(shares[0] - shares[1]).sum() / 2)
    generator = np.random.default_rng(seed)
    observed = float(_g_statistic(table[1][None, :], pooled, int(sizes[1]))[0])

    def draw(count: int) -> NDArray[np.float64]:
        drawn = generator.multivariate_hypergeometric(pooled, int(sizes[1]), size=count, method="marginals")
        return _g_statistic(drawn, pooled, int(sizes[1]))

    p_value = permutation_p(observed, draw, level)
    detail = {
        "statistic": "total variation",
        "shares": {
            name: {"reference": float(shares[0][i]), "window": float(shares[1][i])} for i, name in enumerate(labels)
        },
    }
    alarm = p_value <= level and change >= min_change
    return Test("prediction drift", int(sizes[1]), int(sizes[0]), change, min_change, p_value, level, alarm, detail)


def _g_statistic(window: NDArray[np.int64], pooled: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """2 Σ observed log(observed / expected) of both rows of the table, for each drawn second row [draws, labels]."""
    total = pooled.sum()
    found = np.zeros(len(window))
    for counts, rows in ((window, size), (pooled[None, :] - window, total - size)):
        expected = pooled * rows / max(total, 1)
        ratio = np.divide(counts, expected[None, :], out=np.ones(counts.shape), where=counts > 0)
        found += 2 * (counts * np.log(ratio)).sum(axis=1)
    return found
