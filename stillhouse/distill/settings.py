"""The settings that every kind of distillation shares."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from stillhouse.errors import UserError
from stillhouse.train.settings import TrainingSettings

Size = Literal["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]


class DistillSettings(TrainingSettings):
    """The student, its teachers, and how much their probabilities count."""

    slots: ClassVar[dict[str, str]] = {
        "data": "data", "teachers": "model.torch+", "model": "model.torch?", "extra": "data?",
        "replay": "data?",
    }  # fmt: skip
    output: ClassVar[str] = "model.torch"
    external: ClassVar[dict[str, str]] = {"base": "model"}

    learning_rate: float = Field(default=1e-4, gt=0, lt=1)
    """Largest learning rate (of the head, and of all layers if `layer_decay` is 1)."""
    layers: int | list[int] | None = None
    """How many of the first teacher's layers the student keeps, evenly spread (3 of 6: layers 0, 2, 5), or
    which ones."""
    base: str | None = None
    """Another pre-trained encoder as the student: `hub:owner/name`, `pkg://package/path` or a directory."""
    student_config: dict[Size, Annotated[int, Field(ge=1)]] | None = None
    """A student of the first teacher's kind with other sizes, for example `{hidden_size: 192, intermediate_size: 768}`;
    what is not named is as in the teacher."""
    student_weights: Literal["teacher", "random"] = "teacher"
    """How a student by `student_config` begins: with the beginnings of the teacher's weights (first dimensions, heads
    and units, layers evenly spread), or at random, which takes far more text and `train_embeddings`. With a smaller
    `hidden_size`, train the embeddings in either case."""
    temperature: float = Field(default=2.0, gt=0)
    """Softens the probabilities of teachers and student: higher shows more of what the teacher finds similar."""
    alpha: float = Field(default=0.9, ge=0, le=1)
    """Weight of the loss against the teachers; the rest is the loss against the data's own labels."""
    teacher_weights: Literal["uniform", "validation", "confidence"] | list[float] = "uniform"
    """How much each of several teachers counts: all the same; in proportion to their metric on validation rows; row by
    row, in proportion to the probability of each teacher's own answer; or the weights themselves."""

    weight_bits: Literal[7, 8] | None = None
    """Train with the encoder's weights rounded to so many bits: 7 for `quantize.int8` as it is, 8 for one without
    `reduce_range`. A model that int8 hurts recovers with itself as teacher and as input `model`. The figures are those
    of the rounded model; the published weights are not rounded, for `quantize.int8` does that. Empty: no rounding."""

    @field_validator("teacher_weights")
    @classmethod
    def _check_weights(cls, value: str | list[float]) -> str | list[float]:
        if isinstance(value, list) and (min(value, default=0) < 0 or sum(value) <= 0):
            raise ValueError("weights are numbers from 0 on, not all 0")
        return value

    def check_whole_batches(self) -> None:
        """For losses on the inside of models: a mean over the tokens of a batch, in which parts of it would weigh
        otherwise, on layers that states which are kept would leave out."""
        if self.frozen_states == "always":
            raise UserError("frozen_states: always does not go with what is matched inside the models", "leave it out")
        if self.max_tokens_per_batch is not None:
            raise UserError(
                "max_tokens_per_batch does not go with what is matched inside the models",
                "set a smaller per_device_train_batch_size, or use distill.logits",
            )

    def check(self, filled: set[str]) -> None:
        super().check(filled)
        if self.weight_bits is not None and self.frozen_states == "always":
            raise UserError("frozen_states: always does not go with weight_bits", "leave one of them out")
        given = [name for name in ("layers", "base", "student_config") if getattr(self, name) is not None]
        given += ["the input model"] if "model" in filled else []
        if len(given) != 1:
            method = f"distill.{type(self).__name__.lower()}"
            raise UserError(
                f"{method} has {' and '.join(given) if given else 'no student'}",
                "give exactly one: layers: 3 for a part of the teacher, student_config: for other sizes, base: for "
                "another encoder, or the input model",
            )
        if self.student_weights == "random" and not (self.student_config and self.train_embeddings):
            raise UserError(
                "student_weights: random needs student_config and train_embeddings",
                "set train_embeddings: true, or leave student_weights out",
            )
