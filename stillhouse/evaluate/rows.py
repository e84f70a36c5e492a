"""Inputs and targets of prepared rows, in the form that scorers and metrics take."""

from typing import Any

import numpy as np
import pandas as pd

from stillhouse.problems import find_problem


def rows_of(problem: str, frame: pd.DataFrame) -> tuple[list[Any], Any]:
    """Inputs (texts or lists of words) and targets (int [n], or a list of int [n_i]) of a split."""
    kind = find_problem(problem)
    if kind.unit == "text":
        return frame[kind.inputs].tolist(), frame[kind.targets].to_numpy(dtype=np.int64)
    truth = [np.asarray(row, dtype=np.int64) for row in frame[kind.targets]]
    return [[str(word) for word in words] for words in frame[kind.inputs]], truth
