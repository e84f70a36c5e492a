"""Is a label more frequent in one window than earlier windows of the same topic let expect?

The count is compared with its predictive distribution, a beta-binomial: mean and spread come from the earlier windows.
A plain binomial would raise an alarm every other day, for two reasons that are estimated here:

- windows of one topic differ by more than chance (one event, one thread, retweets): overdispersion `within`, the
  intra-class correlation of the rows of a window, by moments, pooled over topics, as an upper bound of 90 %;
- a topic's usual share is not known exactly, and of a new topic hardly at all: its own windows are weighed against the
  shares of the other topics (empirical Bayes), and what stays unknown widens the distribution.

Overall, the counts are compared with the sum of what the topics let expect, so that another mix of topics is no surge.

`rows`, `hits`: int [windows, topics], rows of a window and those of them with the label.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaln, chdtri, gammaln

CONFIDENCE = 0.9
"""Of the upper bounds of overdispersion: with few windows it is known badly."""
TOPICS_FOR_BETWEEN = 4
BETWEEN = (0.05, 0.2, 0.5)
"""Intra-class correlation of the topics' shares: smallest, unknown, largest."""
LARGEST_WITHIN = 0.5
CERTAIN = 1e-6


@dataclass(frozen=True)
class Baseline:
    """What earlier windows say of one label."""

    share: float
    """Over all rows."""
    within: float
    between: float
    expected: NDArray[np.float64]
    """Share that each topic lets expect [topics]."""
    unknown: NDArray[np.float64]
    """Variance of `expected` over share * (1 - share) [topics]."""
    mood: float
    """How much more than the topics' own spread the overall count varies; at least 1."""
    windows: int


def learn_baseline(rows: NDArray[np.int64], hits: NDArray[np.int64]) -> Baseline:
    """The baseline of earlier windows; there must be a row."""
    total, found = rows.sum(axis=0), hits.sum(axis=0)
    share = _share(found.sum(), total.sum())
    own = (found + share) / (total + 1)
    within = _within(rows, hits, own)
    between = _between(total, own, share, within)
    # Variance of a topic's own share, in units of share * (1 - share).
    noise = (rows * (1 + np.maximum(rows - 1, 0) * within)).sum(axis=0) / np.maximum(total, 1) ** 2
    noise = np.where(total > 0, noise, np.inf)
    weight = between / (between + noise)
    expected = weight * np.divide(found, total, out=np.full(len(total), share), where=total > 0) + (1 - weight) * share
    unknown = between * (1 - weight)
    expected = np.clip(expected, 0.5 / (total.sum() + 1), 1 - 0.5 / (total.sum() + 1))
    baseline = Baseline(share, within, between, expected, unknown, 1.0, int((rows.sum(axis=1) > 0).sum()))
    return Baseline(**{**baseline.__dict__, "mood": _mood(rows, hits, own, within)})


def _share(hits: float, rows: float) -> float:
    return float((hits + 0.5) / (rows + 1))


def _upper(value: float, freedom: float) -> float:
    """Upper bound of a variance estimated with `freedom` degrees of freedom."""
    # chdtri: what a chi-square exceeds with this probability (scipy.stats does the same a hundred times slower).
    return value * freedom / float(chdtri(freedom, CONFIDENCE)) if freedom >= 1 else value


def _within(rows: NDArray[np.int64], hits: NDArray[np.int64], own: NDArray[np.float64]) -> float:
    """Moments: E (k - n p)² / (n p (1 - p)) = 1 + (n - 1) within, summed over windows and topics."""
    there = rows > 0
    own = np.clip(own, 0.01, 0.99)
    residuals = np.divide((hits - rows * own) ** 2, rows * own * (1 - own), out=np.zeros(rows.shape), where=there)
    left = np.where(there, 1 - rows / np.maximum(rows.sum(axis=0), 1), 0.0)  # a window pulls its topic's mean
    freedom = float(left.sum())
    if freedom < 1:
        return LARGEST_WITHIN
    excess = _upper(float(residuals.sum()), freedom) - freedom
    weight = float((left * np.maximum(rows - 1, 0)).sum())
    return float(np.clip(excess / weight, 0.0, LARGEST_WITHIN)) if weight > 0 else LARGEST_WITHIN


def _between(total: NDArray[np.int64], own: NDArray[np.float64], share: float, within: float) -> float:
    """Variance of the topics' shares around the overall one over share * (1 - share)."""
    seen = total > 1 / max(within, 0.02)
    if seen.sum() < TOPICS_FOR_BETWEEN:
        return BETWEEN[1]
    variance = float(((own[seen] - own[seen].mean()) ** 2).sum() / (seen.sum() - 1))
    return float(np.clip(_upper(variance, seen.sum() - 1) / (share * (1 - share)), BETWEEN[0], BETWEEN[2]))


def _mood(rows: NDArray[np.int64], hits: NDArray[np.int64], own: NDArray[np.float64], within: float) -> float:
    some = rows.sum(axis=1) > 0
    if some.sum() < 2:
        return 1.0
    residual = (hits - rows * own).sum(axis=1)[some]
    variance = (rows * own * (1 - own) * (1 + np.maximum(rows - 1, 0) * within)).sum(axis=1)[some]
    ratio = float((residual**2 / np.maximum(variance, 1e-9)).mean())
    return max(1.0, _upper(ratio, float(some.sum() - 1)))


def topic_p(baseline: Baseline, topic: int, rows: int, hits: int) -> float:
    """Chance of at least `hits` among `rows` of a topic."""
    return _tail(rows, hits, float(baseline.expected[topic]), baseline.within + float(baseline.unknown[topic]))


def overall_p(baseline: Baseline, rows: NDArray[np.int64], hits: int) -> tuple[float, float]:
    """Chance of at least `hits` among `rows` [topics], and the share that they let expect."""
    total = int(rows.sum())
    mean = float((rows * baseline.expected).sum() / total)
    spread = 1 + np.maximum(rows - 1, 0) * (baseline.within + baseline.unknown)
    variance = baseline.mood * float((rows * baseline.expected * (1 - baseline.expected) * spread).sum())
    correlation = (variance / (total * mean * (1 - mean)) - 1) / max(total - 1, 1)
    return _tail(total, hits, mean, correlation), mean


def _tail(rows: int, hits: int, share: float, correlation: float) -> float:
    if hits <= 0:
        return 1.0
    if correlation < CERTAIN:  # binomial
        return float(betainc(hits, rows - hits + 1, share))
    strength = 1 / min(correlation, 0.95) - 1
    a, b = share * strength, (1 - share) * strength
    above = np.arange(hits, rows + 1)
    ways = gammaln(rows + 1) - gammaln(above + 1) - gammaln(rows - above + 1)
    return float(min(1.0, np.exp(ways + betaln(above + a, rows - above + b) - betaln(a, b)).sum()))
