"""Smoothing of streams: the mean of the probabilities over the rows so far, recent ones counting more."""

from collections import OrderedDict
from typing import Any

import numpy as np

MOST_STREAMS = 10_000
"""Streams that are remembered; the one that was silent longest is forgotten, and begins anew when it speaks again."""


class Smoother:
    """Exponentially weighted means, one for each stream: a row counts half after `half_life` more rows of its stream.

    The mean is over the rows there are (West 1979's weighted update), so that a stream's first row is its own mean.
    """

    def __init__(self, half_life: float, state: list[list[Any]] | None = None) -> None:
        self.fade = 0.5 ** (1 / half_life)
        self._streams: OrderedDict[str, tuple[float, np.ndarray]] = OrderedDict(
            (name, (weight, np.array(mean))) for name, weight, mean in state or []
        )

    def smooth(self, probabilities: np.ndarray, streams: list[str]) -> np.ndarray:
        """The means [n, classes] after each of the rows, in their order; `streams` names each row's stream."""
        means = np.empty_like(probabilities, dtype=np.float64)
        for index, (row, name) in enumerate(zip(probabilities, streams, strict=True)):
            weight, mean = self._streams.pop(name, (0.0, row))
            weight = weight * self.fade + 1
            means[index] = mean + (row - mean) / weight
            self._streams[name] = (weight, means[index].copy())
        while len(self._streams) > MOST_STREAMS:
            self._streams.popitem(last=False)
        return means

    def state(self) -> list[list[Any]]:
        """For `__init__`, as JSON: `[stream, weight, mean]`, exact to the last bit."""
        return [[name, weight, mean.tolist()] for name, (weight, mean) in self._streams.items()]
