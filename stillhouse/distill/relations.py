"""Distillation of self-attention relations (MiniLMv2, arXiv:2012.15828)."""

from typing import Literal

from pydantic import Field

from stillhouse.distill.settings import DistillSettings
from stillhouse.method import Job, Metrics


class Relations(DistillSettings):
    """Besides the probabilities of its teachers, the student's last layer learns how the tokens of a text relate.

    Queries, keys or values of one layer are compared with each other, token by token; the student learns the first
    teacher's table of these comparisons. Widths, heads and numbers of layers may all differ.
    """

    relations: tuple[Literal["queries", "keys", "values"], ...] = Field(
        default=("queries", "keys", "values"), min_length=1
    )
    """Which vectors are compared with each other."""
    relation_heads: int = Field(default=12, ge=1)
    """Into how many parts these vectors are cut; the widths of both attentions must be divisible by it."""
    teacher_layer: int = -1
    """The teacher's layer, from 0; -1 is the last one. Large teachers teach better from one below the top."""
    relation_weight: float = Field(default=1.0, gt=0)
    """Weight of the loss on the relations."""

    def check(self, filled: set[str]) -> None:
        super().check(filled)
        self.check_whole_batches()

    def run(self, job: Job) -> Metrics:
        from stillhouse.distill._relations import relation_matching
        from stillhouse.distill._run import run_distillation

        return run_distillation(self, job, lambda student, teacher: relation_matching(self, student, teacher))
