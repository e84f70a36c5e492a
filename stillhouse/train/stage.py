"""One stage of fine-tuning; stages are chained, each unfreezing more (Howard and Ruder, arXiv:1801.06146)."""

from typing import ClassVar

from stillhouse.errors import UserError
from stillhouse.method import Job, Metrics
from stillhouse.train.settings import TrainingSettings


class Stage(TrainingSettings):
    """Train the head, the last layers or all of an encoder; the weights that do best on validation are published.

    The stage starts either from a pre-trained encoder with a new head (`base`) or from an earlier stage's model (the
    `model` input).
    """

    slots: ClassVar[dict[str, str]] = {"data": "data", "model": "model.torch?"}
    output: ClassVar[str] = "model.torch"
    external: ClassVar[dict[str, str]] = {"base": "model"}

    base: str | None = None
    """Pre-trained encoder to start from: `hub:owner/name`, `pkg://package/path` or a directory."""

    def check(self, filled: set[str]) -> None:
        super().check(filled)
        if (self.base is None) == ("model" not in filled):
            which = "neither the setting base nor" if self.base is None else "both the setting base and"
            raise UserError(
                f"train.stage has {which} the input model",
                "give exactly one: base for the first stage, model for the following ones",
            )

    def run(self, job: Job) -> Metrics:
        from stillhouse.train._stage import run_stage

        return run_stage(self, job)
