"""One stage of fine-tuning; stages are chained, each unfreezing more (Howard and Ruder, arXiv:1801.06146)."""

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

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
    train: str = "all"
    """What is trained: `head` (classifier and pooler), `last-K` (the head and the K topmost layers) or `all`."""
    frozen_states: Literal["auto", "always", "never"] = "auto"
    """Compute what the frozen bottom layers make of each text once, and train on that: epochs, evaluations, later
    stages, seeds and search trials with the same frozen weights and texts share it. `auto`: when each text is read
    more than once and `frozen_states_gb` is enough; the step says which it was (`states_of_layers`)."""
    frozen_states_dtype: Literal["float32", "float16"] = "float32"
    """Half precision takes half the disk; the losses then differ in the third or fourth digit."""
    frozen_states_gb: float = Field(default=4.0, gt=0)
    """Most disk space that the states of one stage may take, in GB; `stillhouse store gc` frees it."""

    @field_validator("train")
    @classmethod
    def _check_train(cls, value: str) -> str:
        if not re.fullmatch(r"head|all|last-[1-9][0-9]*", value):
            raise ValueError(f'"{value}" is not one of head, all, last-K (for example last-2)')
        return value

    def check(self, filled: set[str]) -> None:
        super().check(filled)
        if (self.base is None) == ("model" not in filled):
            which = "neither the setting base nor" if self.base is None else "both the setting base and"
            raise UserError(
                f"train.stage has {which} the input model",
                "give exactly one: base for the first stage, model for the following ones",
            )
        if self.train_embeddings and self.train != "all":
            raise UserError(
                f"train_embeddings: true cannot go with train: {self.train}",
                "set train: all, or leave it out",
            )

    def run(self, job: Job) -> Metrics:
        from stillhouse.train._stage import run_stage

        return run_stage(self, job)
