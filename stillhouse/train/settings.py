"""The settings that every kind of training shares."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from stillhouse.errors import UserError
from stillhouse.evaluate.figures import check_names
from stillhouse.method import Method


class TrainingSettings(Method):
    """How long, how fast and on what the weights are trained; names as in Hugging Face's `TrainingArguments`."""

    not_in_key: ClassVar[frozenset[str]] = frozenset({"save_steps", "save_minutes"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "seqeval")

    learning_rate: float = Field(default=5e-5, gt=0, lt=1)
    """Largest learning rate (of the head, and of all layers if `layer_decay` is 1)."""
    num_train_epochs: float = Field(default=3.0, gt=0)
    """Passes over the training rows; may be a fraction, for example 0.5."""
    per_device_train_batch_size: int = Field(default=32, ge=1)
    """Rows per optimizer step; rows of similar length go together."""
    max_tokens_per_batch: int | None = Field(default=None, ge=1)
    """Most tokens (padding included) in memory at a time: a larger batch is split into micro-batches of the same
    optimizer step, which gives the same step with less memory. Empty: no limit."""
    max_length: int | None = Field(default=None, ge=4)
    """Longest input in tokens; longer texts are cut, longer sentences of words are read in pieces. Empty: as the
    input model says, else 128."""
    train: str = "all"
    """What is trained: `head` (classifier and pooler), `last-K` (the head and the K topmost layers) or `all`."""
    train_embeddings: bool = False
    """Train the embeddings too. Most of a small encoder's weights are there; without them a step is much faster."""
    frozen_states: Literal["auto", "always", "never"] = "auto"
    """Compute what the frozen bottom layers make of each text once, and train on that: epochs, evaluations, later
    stages, seeds, search trials and the passes of teachers with the same frozen weights and texts share it. `auto`:
    when all texts are read and `frozen_states_gb` is enough; the step says which it was (`states_of_layers`)."""
    frozen_states_dtype: Literal["float32", "float16"] = "float32"
    """Half precision takes half the disk; the losses then differ in the third or fourth digit."""
    frozen_states_gb: float = Field(default=4.0, gt=0)
    """Most disk space that the states of one stage may take, in GB; `stillhouse store gc` frees it."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each encoder layer learns at this multiple of the rate of the layer above it (embeddings: below layer 0)."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises from zero."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after the warm-up: down to zero in a line or a half cosine, or level."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decay of all trained weights except biases and layer norms."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 turns it off."""
    label_smoothing_factor: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread evenly over all labels."""
    replay_ratio: float = Field(default=1.0, ge=0)
    """With input `replay` (the data before): an epoch is all new rows and this many old ones for each of them, drawn
    once by the seed, so that what was learnt is not forgotten. 0: new rows alone."""
    grow_head: bool = False
    """Let the data have labels that the input model or the teachers lack: the head gets a row for each of them, which
    begins as the mean of the others, and teachers are followed among the labels that they know."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Weight of each label in the loss: `balanced` (inverse to its frequency among the rows trained on) or a table;
    labels left out weigh 1."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout while training; empty: the model's own. On a CPU, 0 trains about 1.5 times as fast."""
    metric_for_best_model: str | None = None
    """Metric on the validation rows that picks the published weights; empty: `f1_macro` for texts, `entity_f1` for
    words."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations in a row without a better metric. Empty: train to the end."""
    evaluations_per_epoch: int = Field(default=1, ge=1)
    """How often per epoch the validation rows are scored; the last step is always followed by one."""
    max_eval_samples: int | None = Field(default=None, ge=1)
    """Score at most this many validation rows during training (those whose `id` comes first). Empty: all."""
    save_steps: int | None = Field(default=None, ge=1)
    """Write a checkpoint every so many steps, for resuming after an interruption."""
    save_minutes: float | None = Field(default=1.0, gt=0)
    """Write a checkpoint when the last one is older than this. The result does not depend on checkpoints."""

    @field_validator("train")
    @classmethod
    def _check_train(cls, value: str) -> str:
        if not re.fullmatch(r"head|all|last-[1-9][0-9]*", value):
            raise ValueError(f'"{value}" is not one of head, all, last-K (for example last-2)')
        return value

    def check(self, filled: set[str]) -> None:
        check_names([self.metric_for_best_model] if self.metric_for_best_model else [], "metric_for_best_model")
        if self.train_embeddings and self.train != "all":
            raise UserError(
                f"train_embeddings: true cannot go with train: {self.train}",
                "set train: all, or leave it out",
            )
