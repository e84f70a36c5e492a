"""Vocabulary pruning: rows of the embedding table that the domain never uses."""

from typing import ClassVar

from pydantic import Field

from stillhouse.evaluate.figures import check_names
from stillhouse.method import Job, Method, Metrics


class Vocabulary(Method):
    """Keep the tokens that the training texts use; most of a small encoder's bytes are tokens that no text of the
    domain has.

    Texts of training are cut into the same tokens as before. A word that was never seen is cut into smaller pieces
    that are kept: all single characters of the old vocabulary stay. Do it after distillation, where teacher and
    student share a tokenizer.
    """

    slots: ClassVar[dict[str, str]] = {"model": "model.torch", "data": "data", "baseline": "model?"}
    output: ClassVar[str] = "model.torch"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy", "seqeval")

    min_count: int = Field(default=1, ge=1)
    """Keep a token that the training texts use at least so often. Above 1, rare words are cut into smaller pieces."""
    accept_loss: float = Field(default=0.01, ge=0)
    """Largest loss of `metric` on validation, absolute, against `baseline`, or the input model."""
    metric: str | None = None
    """Metric that judges the loss; by default `f1_macro` for classification, `entity_f1` for tokens."""
    max_rows: int = Field(default=4000, ge=1)
    """Largest number of validation rows to measure on, evenly spread over the split."""
    speed_seconds: float = Field(default=1.0, gt=0, le=600)
    """Seconds of speed measurement for each model; the comparison of both takes about seven times as long."""

    def check(self, filled: set[str]) -> None:
        check_names([self.metric] if self.metric else [], "metric")

    def run(self, job: Job) -> Metrics:
        """Fill `job.out` with the accepted model and `rung.json`."""
        from stillhouse.prune._vocabulary import prune_vocabulary

        return prune_vocabulary(self, job)
