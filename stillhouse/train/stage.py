"""One stage of fine-tuning; stages are chained, each unfreezing more (Howard and Ruder, arXiv:1801.06146)."""

from typing import ClassVar

from pydantic import Field

from stillhouse.errors import UserError
from stillhouse.method import Job, Metrics
from stillhouse.train.settings import TrainingSettings


class Stage(TrainingSettings):
    """Train the head, the last layers or all of an encoder; the weights that do best on validation are published.

    The stage starts either from a pre-trained encoder with a new head (`base`) or from an earlier stage's model (the
    `model` input). To go on with added rows without forgetting: `replay`, the data before, and `teachers`, the model
    before (learning without forgetting, Li and Hoiem, arXiv:1606.09282).
    """

    slots: ClassVar[dict[str, str]] = {
        "data": "data", "model": "model.torch?", "teachers": "model.torch+?", "replay": "data?",
    }  # fmt: skip
    output: ClassVar[str] = "model.torch"
    external: ClassVar[dict[str, str]] = {"base": "model"}

    base: str | None = None
    """Pre-trained encoder to start from: `hub:owner/name`, `pkg://package/path` or a directory."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """With input `teachers`: weight of the loss against them; the rest is the loss against the data's own labels."""
    temperature: float = Field(default=2.0, gt=0)
    """With input `teachers`: softens the probabilities of teachers and model."""

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
