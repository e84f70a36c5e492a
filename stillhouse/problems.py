"""The table of problems: what differs between kinds of NLP task, for training, distilling and scoring.

A new kind is one entry here plus, if its rows look different, a case in `train/_tokens.py`. No torch in this module.
"""

from dataclasses import dataclass
from typing import Literal

from stillhouse.errors import UserError, nearest


@dataclass(frozen=True)
class Problem:
    """One kind of task. Every head is a softmax over `labels`; `unit` says what one softmax decides."""

    auto_model: str
    """Class of transformers that puts the head on a pre-trained encoder."""
    unit: Literal["text", "word"]
    """One decision per text, or one per word (read from the word's first sub-token)."""
    inputs: str
    """Column with the model's input."""
    targets: str
    """Column with indices into `labels.json`: an integer per text, or a list of them."""
    metric: str
    """Metric for best model, early stopping and acceptance when a step names none; larger is better."""


PROBLEMS = {
    "text-classification": Problem("AutoModelForSequenceClassification", "text", "text", "label", "f1_macro"),
    "token-classification": Problem("AutoModelForTokenClassification", "word", "words", "tags", "entity_f1"),
}


def find_problem(name: str) -> Problem:
    """The entry of `name`, or one line that lists what there is."""
    if name not in PROBLEMS:
        raise UserError(f'unknown problem "{name}"', nearest(name, set(PROBLEMS)))
    return PROBLEMS[name]
