"""Distillation of logits (Hinton, Vinyals and Dean, arXiv:1503.02531)."""

from typing import ClassVar

from pydantic import Field

from stillhouse.errors import UserError
from stillhouse.method import Job, Metrics
from stillhouse.train.settings import TrainingSettings


class Logits(TrainingSettings):
    """Train a smaller student to give its teachers' probabilities; the weights best on validation are published.

    The student takes some encoder layers of the first teacher, with its embeddings and head (`layers`), or is another
    pre-trained encoder with the same tokenizer (`base`).
    """

    slots: ClassVar[dict[str, str]] = {"data": "data", "teachers": "model.torch+"}
    output: ClassVar[str] = "model.torch"
    external: ClassVar[dict[str, str]] = {"base": "model"}

    learning_rate: float = Field(default=1e-4, gt=0, lt=1)
    """Largest learning rate (of the head, and of all layers if `layer_decay` is 1)."""
    layers: int | list[int] | None = None
    """How many of the first teacher's layers the student keeps, evenly spread (3 of 6: layers 0, 2, 5), or
    which ones."""
    base: str | None = None
    """Another pre-trained encoder as the student: `hub:owner/name`, `pkg://package/path` or a directory."""
    temperature: float = Field(default=2.0, gt=0)
    """Softens the probabilities of teachers and student: higher shows more of what the teacher finds similar."""
    alpha: float = Field(default=0.9, ge=0, le=1)
    """Weight of the loss against the teachers; the rest is the loss against the data's own labels."""

    def check(self, filled: set[str]) -> None:
        super().check(filled)
        if (self.base is None) == (self.layers is None):
            raise UserError(
                f"distill.logits has {'neither' if self.base is None else 'both'} of the settings layers and base",
                "give exactly one: layers: 3 for a part of the teacher, base: for another encoder",
            )

    def run(self, job: Job) -> Metrics:
        from stillhouse.distill._logits import run_distillation

        return run_distillation(self, job)
