"""Distillation of logits (Hinton, Vinyals and Dean, arXiv:1503.02531)."""

from stillhouse.distill.settings import DistillSettings
from stillhouse.method import Job, Metrics


class Logits(DistillSettings):
    """Train a smaller student to give its teachers' probabilities; the weights best on validation are published.

    The student takes some encoder layers of the first teacher, with its embeddings and head (`layers`), is another
    pre-trained encoder with the same tokenizer (`base`), or a model made before, such as a pruned one (input `model`).
    """

    def run(self, job: Job) -> Metrics:
        from stillhouse.distill._run import run_distillation

        return run_distillation(self, job)
