"""McNemar's exact test: are two models right on the same rows equally often? (McNemar 1947, Psychometrika 12:153.)"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.evaluate.figures import CLASSIFICATION
from stillhouse.metrics import Logits, Truth


def mcnemar(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> dict[str, Any]:
    """`{"only_a", "only_b", "p_value"}` of two models' right rows [n].

    Only rows that one of the two has right say anything; if both were equally good, each of them would be a fair coin.
    `p_value` is that of the exact two-sided binomial test, 1 where no row tells them apart.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    return {"only_a": only_a, "only_b": only_b, "p_value": _fair_coin(only_a, only_b)}


def _fair_coin(heads: int, tails: int) -> float:
    """Two-sided p-value of so uneven a count; in whole numbers, hence exact until the last division."""
    tosses = heads + tails
    ways = total = 1
    for k in range(min(heads, tails)):
        ways = ways * (tosses - k) // (k + 1)
        total += ways
    return min(1.0, 2 * total / 2**tosses)


def right_rows(problem: str, truth: Truth, logits: Logits) -> NDArray[np.bool_]:
    """Whether each row is right: the label of a text, or every tag of a sentence (its words are not independent)."""
    if problem == CLASSIFICATION:
        return np.asarray(logits).argmax(axis=1) == np.asarray(truth)
    return np.array(
        [bool((np.asarray(s).argmax(axis=-1) == np.asarray(t)).all()) for t, s in zip(truth, logits, strict=True)]
    )
