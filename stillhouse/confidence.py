"""What a probability is worth: temperature, calibration error, and the cut below which an answer is "unsure".

Logits float [n, classes], truth int [n]. `confidence` [n] is the probability of the predicted label, `right` [n]
whether that label is true.
"""

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Of equal width, as in Guo et al. 2017 (arXiv:1706.04599)."""
LEAST, MOST = 0.05, 20.0
"""Temperatures that are tried."""


def log_loss(logits: NDArray, truth: NDArray, temperature: float) -> float:
    """Mean negative log-likelihood of `truth`."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(truth)), truth]).mean())


def fit_temperature(logits: NDArray, truth: NDArray) -> float:
    """The temperature with the smallest log loss (Guo et al. 2017): convex in 1/T, found by golden sections."""
    ratio = (np.sqrt(5) - 1) / 2
    low, high = np.log(LEAST), np.log(MOST)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    losses = [log_loss(logits, truth, float(np.exp(place))) for place in (left, right)]
    for _ in range(40):  # to about 1e-8 of log T
        if losses[0] <= losses[1]:
            high, right, losses[1] = right, left, losses[0]
            left = high - ratio * (high - low)
            losses[0] = log_loss(logits, truth, float(np.exp(left)))
        else:
            low, left, losses[0] = left, right, losses[1]
            right = low + ratio * (high - low)
            losses[1] = log_loss(logits, truth, float(np.exp(right)))
    return float(np.exp((low + high) / 2))


def calibration_error(confidence: NDArray, right: NDArray) -> float:
    """Expected calibration error: |confidence - accuracy| of each bin of confidence, weighted by its rows."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in np.unique(bins)]
    return float(sum(gaps) / len(confidence))


def sure_cut(confidence: NDArray, right: NDArray, accuracy: float, coverage: float) -> float:
    """The smallest confidence at which the rows that have at least as much are right in a share of `accuracy`.

    At least a share of `coverage` of the rows stays sure, whether that accuracy is then reached or not. 0 where all
    rows may stay.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    # Rows of equal confidence are sure together: a cut lies after the last of them.
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True)) + 1
    ends = ends[ends >= max(1, int(np.ceil(coverage * len(ranked))))]
    shares = np.cumsum(right[order])[ends - 1] / ends
    reached = np.flatnonzero(shares >= accuracy)
    rows = int(ends[reached[-1]]) if len(reached) else int(ends[shares.argmax()])
    # Half way to the next row: the last bits of a score, which depend on its neighbours, should not decide.
    return 0.0 if rows == len(ranked) else float((ranked[rows - 1] + ranked[rows]) / 2)


def sure_figures(confidence: NDArray, right: NDArray, sure: NDArray) -> dict[str, float]:
    """`calibration_error` of all rows, share of sure ones (`coverage`), and their `sure_accuracy` (1 for none)."""
    return {
        "calibration_error": calibration_error(confidence, right),
        "coverage": float(sure.mean()),
        "sure_accuracy": float(right[sure].mean()) if sure.any() else 1.0,
    }
