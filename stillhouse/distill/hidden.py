"""Distillation of hidden states and attention, layer by layer (TinyBERT, arXiv:1909.10351)."""

from pydantic import Field

from stillhouse.distill.settings import DistillSettings
from stillhouse.errors import UserError
from stillhouse.method import Job, Metrics


class Hidden(DistillSettings):
    """Besides the probabilities of its teachers, the student learns what layers of the first one do with each token.

    A student of another width gets a learned projection for the hidden states, which is thrown away afterwards.
    Attention scores can be matched only with as many heads; `distill.relations` has neither limit.
    """

    layer_map: dict[int, int] | None = None
    """Which layer of the teacher each of the student's layers follows, both counted from 0, for example `{0: 1, 2: 5}`.
    Empty: all of the student's layers, evenly spread (3 against 6: 1, 3 and 5)."""
    hidden_weight: float = Field(default=1.0, ge=0)
    """Weight of the mean squared difference of the hidden states, for each layer."""
    attention_weight: float = Field(default=0.1, ge=0)
    """Weight of the mean squared difference of the attention scores (before the softmax), for each layer."""

    def check(self, filled: set[str]) -> None:
        super().check(filled)
        if not self.hidden_weight and not self.attention_weight:
            raise UserError("hidden_weight and attention_weight are both 0", "use distill.logits, or raise one")
        self.check_whole_batches()

    def run(self, job: Job) -> Metrics:
        from stillhouse.distill._hidden import hidden_matching
        from stillhouse.distill._run import run_distillation

        return run_distillation(self, job, lambda student, teacher: hidden_matching(self, student, teacher))
