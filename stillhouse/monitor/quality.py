"""How good are the answers: measured where labels arrived, estimated from the probabilities where none did."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, hypergeom

from stillhouse.monitor.significance import Test

BINS = 10
RESAMPLES = 1000


def measured_quality(
    right: int, rows: int, reference_right: int, reference_rows: int, level: float, min_drop: float = 0.03
) -> Test:
    """Accuracy on rows whose labels arrived against the release's: Fisher's exact test, one-sided.

    The release's own accuracy is an estimate from `reference_rows` rows, and counts as one here.
    """
    accuracy, before = right / max(rows, 1), reference_right / max(reference_rows, 1)
    total = rows + reference_rows
    p_value = float(hypergeom.cdf(right, total, right + reference_right, rows)) if rows else 1.0
    drop = before - accuracy if rows else 0.0
    low, high = exact_interval(right, rows)
    detail = {"statistic": "loss of accuracy", "accuracy": accuracy, "low": low, "high": high, "reference": before}
    alarm = p_value <= level and drop >= min_drop
    return Test("quality", rows, reference_rows, drop, min_drop, p_value, level, alarm, detail)


def exact_interval(right: int, rows: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a share."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, right, rows - right + 1)) if right else 0.0
    high = float(beta.ppf(1 - tail, right + 1, rows - right)) if right < rows else 1.0
    return low, high


def figures(given: NDArray[np.int64], true: NDArray[np.int64], classes: int, seed: int = 0) -> dict[str, Any]:
    """`{"accuracy", "f1_macro"}`, each with `value`, `low`, `high` (95 %: exact, and by bootstrap over rows).

    Macro-F1 averages over the classes that are in the truth or were given, as `stillhouse.metrics` does (which needs
    the extra `train`).
    """
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (true, given), 1)
    rows, right = len(true), int(np.trace(table))
    drawn = np.random.default_rng(seed).multinomial(rows, table.ravel() / rows, size=RESAMPLES)
    low, high = np.quantile(_f1_macro(drawn.reshape(-1, classes, classes)), [0.025, 0.975])
    exact = exact_interval(right, rows)
    return {
        "accuracy": {"value": right / rows, "low": exact[0], "high": exact[1]},
        "f1_macro": {"value": float(_f1_macro(table[None])[0]), "low": float(low), "high": float(high)},
    }


def _f1_macro(tables: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of confusion tables [draws, true, given]."""
    sizes = tables.sum(axis=1) + tables.sum(axis=2)
    right = 2 * np.diagonal(tables, axis1=1, axis2=2)
    f1 = np.divide(right, sizes, out=np.zeros(sizes.shape), where=sizes > 0)
    return f1.sum(axis=1) / (sizes > 0).sum(axis=1)


@dataclass(frozen=True)
class Estimator:
    """Accuracy of unlabelled rows from the largest probability of each, learnt on labelled rows of the same model.

    `threshold`: average thresholded confidence (Garg et al. 2022, arXiv:2201.04234): on the labelled rows as many lie
    above it as are right. `edges` and `rates`: the share of right answers by bins of confidence; its mean over new
    rows is the expected accuracy if confidence means the same there (confidence-based performance estimation).
    """

    threshold: float
    edges: tuple[float, ...]
    rates: tuple[float, ...]
    rows: int
    accuracy: float


def learn_estimator(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> Estimator:
    """From labelled rows: the largest probability [n] and whether the answer was right [n]."""
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    ordered = np.sort(confidence)
    wrong = int((~right).sum())
    threshold = float(ordered[wrong]) if wrong < len(ordered) else float(np.nextafter(ordered[-1], 2.0))
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, confidence, side="right")
    mean = float(right.mean())
    # One row of the mean in each bin: an empty or tiny one says little.
    rates = [(float(right[place == i].sum()) + mean) / (int((place == i).sum()) + 1) for i in range(len(edges) + 1)]
    return Estimator(threshold, tuple(edges.tolist()), tuple(rates), len(confidence), mean)


def estimate_quality(estimator: Estimator, confidence: NDArray[np.floating]) -> dict[str, Any]:
    """`{"accuracy", "atc", "rows", "reference"}`: the binned estimate, the thresholded one, and what was learnt on."""
    confidence = np.asarray(confidence, dtype=np.float64)
    place = np.searchsorted(np.asarray(estimator.edges), confidence, side="right")
    return {
        "accuracy": float(np.asarray(estimator.rates)[place].mean()),
        "atc": float((confidence >= estimator.threshold).mean()),
        "reference": estimator.accuracy,
        "rows": len(confidence),
        "reference_rows": estimator.rows,
    }
