"""Which chance of a false alarm each test of a run may take, and p-values by permutation as far as they are needed."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXCEEDED = 20
"""As many permutations above the observed value settle that it is nothing special."""
FIRST, MOST = 100, 1000
"""Permutations at a time: few at first, because on steady data few are needed."""


@dataclass(frozen=True)
class Test:
    """One test of a run. `alarm`: `p_value` is at most `level` and `effect` at least `threshold`."""

    name: str
    rows: int
    reference_rows: int
    effect: float
    """What the threshold is about, for example an AUC: how large the change is."""
    threshold: float
    p_value: float
    level: float
    alarm: bool
    detail: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def share_of(rate: float, tests: int) -> float:
    """The level of each of `tests` tests so that any of them raises a false alarm at most with `rate`.

    Šidák (1967): exact for independent tests, and still an upper bound for the dependent ones that occur here.
    """
    return 1 - (1 - rate) ** (1 / max(1, tests))


def permutation_p(observed: float, draw: Callable[[int], NDArray[np.float64]], level: float) -> float:
    """p-value of `observed` against statistics that `draw(count)` makes under the null hypothesis; large is extreme.

    Sequential (Besag & Clifford 1991): it stops as soon as `EXCEEDED` draws reached `observed`, and else after enough
    to tell a p-value of `level`. The chance of `p <= level` is at most `level` without any assumption on the statistic.
    """
    most = math.ceil(4 / level)
    done = exceeded = 0
    while done < most:
        count = min(max(FIRST, done), MOST, most - done)
        reached = np.flatnonzero(draw(count) >= observed - 1e-12)
        if exceeded + len(reached) >= EXCEEDED:
            return EXCEEDED / (done + int(reached[EXCEEDED - exceeded - 1]) + 1)
        exceeded += len(reached)
        done += count
    return (exceeded + 1) / (done + 1)
